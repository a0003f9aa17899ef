//! How much the poll thread reads ahead, and that reading goes on as soon as there is room.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Helpers of tests are test code as well.

mod world;

use std::{sync::Arc, time::Duration};

use drakkar_core::{
    Offset, SourceMessage,
    backpressure::Intake,
    source::{Assignment, SourceCommand},
};
use drakkar_kafka::KafkaConfig;
use tokio::time::{Instant, timeout};
use world::{BROKER, Heard, Member, SOON};

/// Long enough for many fetches.
const A_WHILE: Duration = Duration::from_millis(100);

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

/// A topic of which a partition holds at most `messages`.
fn tight(name: &str, partitions: i32, messages: usize) -> KafkaConfig {
    let mut config = BROKER.topic(name, partitions);
    config.max_held_messages = messages.try_into().unwrap();
    config
}

fn resume(member: &Member, assignment: &Assignment) {
    member.source.control.send(SourceCommand::Resume {
        partition: assignment.partition.clone(),
        epoch: assignment.epoch,
    });
}

/// The next message, which is not settled yet.
async fn next(assignment: &mut Assignment) -> SourceMessage {
    let next = timeout(SOON, assignment.inbox.recv()).await.expect("no message");
    Arc::unwrap_or_clone(next.expect("no inbox"))
}

/// Waits until the partition holds what it may.
async fn full(assignment: &Assignment) {
    let filling = async {
        while !assignment.load.is_paused() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, filling).await.expect("never full");
}

#[tokio::test]
async fn a_partition_that_pauses_loses_nothing_and_keeps_its_order() {
    const COUNT: usize = 2_000;
    let mut config = BROKER.topic("tight", 2);
    config.max_held_messages = 20.try_into().unwrap();
    for partition in 0..2 {
        BROKER.produce("tight", partition, numbers(COUNT));
    }
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let mut most_held = 0;
    for expected in 0..COUNT {
        for assignment in &mut assigned {
            let message = member.take(assignment).await;
            assert_eq!(message.offset, Offset(i64::try_from(expected).unwrap()));
            assert_eq!(message.value.as_deref(), Some(expected.to_string().as_bytes()));
            most_held = most_held.max(assignment.load.messages());
        }
    }
    assert!(most_held <= 21, "what is fetched ahead is not delivered: {most_held}");
    let mut pauses = 0;
    while let Ok(heard) = member.heard.try_recv() {
        pauses += usize::from(matches!(heard, Heard::Paused(_, true)));
    }
    assert!(pauses > COUNT / 20, "it paused and went on {pauses} times");
    member.close().await;
}

#[tokio::test]
async fn a_slow_partition_does_not_pause_its_neighbour() {
    let mut config = BROKER.topic("neighbours", 2);
    config.max_held_messages = 10.try_into().unwrap();
    for partition in 0..2 {
        BROKER.produce("neighbours", partition, numbers(1_000));
    }
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    for _ in 0..1_000 {
        member.take(&mut assigned[1]).await;
    }
    assert!(assigned[0].load.is_paused());
    assert!(assigned[0].load.messages() <= 11);
    member.close().await;
}

/// The client's thread sleeps for a second when all partitions of a broker are paused, and a resume
/// alone does not wake it.
#[tokio::test]
async fn as_soon_as_there_is_room_the_next_message_comes() {
    const PAUSES: usize = 20;
    let config = tight("roomy", 1, 10);
    BROKER.produce("roomy", 0, numbers(10 * (PAUSES + 1)));
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let assignment = &mut assigned[0];
    let mut waited = Vec::new();
    let mut held = Vec::new();
    for _ in 0..PAUSES {
        while held.len() < 10 {
            held.push(next(assignment).await);
        }
        // So long that nothing is under way any more.
        let more = timeout(A_WHILE, assignment.inbox.recv()).await;
        assert!(more.is_err(), "read although it is full: {more:?}");
        for message in held.drain(..) {
            if assignment.load.remove(message.size()) {
                resume(&member, assignment);
            }
        }
        let emptied = Instant::now();
        held.push(next(assignment).await);
        waited.push(emptied.elapsed());
    }
    // Half a second each, on average: of most, for the machine may stall now and then.
    waited.sort_unstable();
    assert!(waited[PAUSES / 2] < Duration::from_millis(200), "{waited:?}");
    member.close().await;
}

#[tokio::test]
async fn a_resume_that_a_newer_pause_has_overtaken_is_not_obeyed() {
    let config = tight("overtaken", 1, 1);
    BROKER.produce("overtaken", 0, numbers(100));
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let assignment = &mut assigned[0];
    full(assignment).await;
    let message = next(assignment).await;
    assert!(assignment.load.remove(message.size()), "this resume is on its way");
    // One that was in the air fills it again before the resume arrives.
    assert_eq!(assignment.load.add(1), Intake::Pause);
    resume(&member, assignment);
    assert!(timeout(A_WHILE, assignment.inbox.recv()).await.is_err(), "read although it is full");

    assert!(assignment.load.remove(1), "another resume follows");
    resume(&member, assignment);
    for expected in 1..100 {
        assert_eq!(member.take(assignment).await.offset, Offset(expected));
        assert!(assignment.load.messages() <= 1, "one at a time");
    }
    member.close().await;
}

#[tokio::test]
async fn a_partition_with_a_long_backlog_does_not_starve_those_with_a_short_one() {
    const LONG: usize = 20_000;
    const NEIGHBOURS: i32 = 20;
    let config = tight("backlog", NEIGHBOURS + 1, 100);
    BROKER.produce("backlog", 0, numbers(LONG));
    for neighbour in 1..=NEIGHBOURS {
        BROKER.produce("backlog", neighbour, numbers(10));
    }
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let (long, short) = assigned.split_at_mut(1);
    let neighbours = async {
        for assignment in short {
            for _ in 0..10 {
                member.take(assignment).await;
            }
        }
    };
    let backlog = async {
        for _ in 0..LONG {
            member.take(&mut long[0]).await;
        }
    };
    tokio::select! {
        biased;
        () = neighbours => {}
        () = backlog => panic!("the whole backlog came before the last message of the others"),
    }
    member.close().await;
}

#[tokio::test]
async fn many_partitions_hold_no_more_together_than_few() {
    const PARTITIONS: usize = 200;
    const TOTAL: usize = 1_000;
    let mut config = BROKER.topic("many", i32::try_from(PARTITIONS).unwrap());
    config.max_held_messages_total = TOTAL.try_into().unwrap();
    for partition in 0..PARTITIONS {
        BROKER.produce("many", i32::try_from(partition).unwrap(), numbers(15));
    }
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    assert_eq!(assigned.len(), PARTITIONS);
    for assignment in &assigned {
        full(assignment).await;
    }
    let held = |assigned: &[Assignment]| -> usize {
        assigned.iter().map(|assignment| assignment.load.messages()).sum()
    };
    assert_eq!(held(&assigned), TOTAL, "5 of each");
    // And every message of each of them comes through.
    for expected in 0..15 {
        for assignment in &mut assigned {
            assert_eq!(member.take(assignment).await.offset, Offset(expected));
        }
        assert!(held(&assigned) <= TOTAL);
    }
    member.close().await;
}

#[tokio::test]
async fn a_partition_that_stays_may_hold_more_when_another_one_goes() {
    let mut config = BROKER.shared("shares", 2);
    config.max_held_messages = 1_000.try_into().unwrap();
    config.max_held_messages_total = 100.try_into().unwrap();
    for partition in 0..2 {
        BROKER.produce("shares", partition, numbers(1_000));
    }
    let mut first = Member::start(&config).await;
    let assigned = first.assigned().await;
    for assignment in &assigned {
        full(assignment).await;
        assert_eq!(assignment.load.messages(), 50);
    }
    let mut second = Member::start(&config).await;
    let taken = first.revoked().await;
    let (gone, mut kept): (Vec<_>, Vec<_>) =
        assigned.into_iter().partition(|assignment| assignment.partition == taken[0]);
    first.hand_over(&gone[0], None);
    second.assigned().await;
    // The half that it holds is as much as it may go on with: nobody has to settle anything.
    let filling = async {
        while kept[0].load.messages() < 100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, filling).await.expect("its share did not grow");
    assert_eq!(kept[0].load.messages(), 100);
    for expected in 0..200 {
        assert_eq!(first.take(&mut kept[0]).await.offset, Offset(expected), "and nothing is lost");
    }
    first.close().await;
    second.close().await;
}
