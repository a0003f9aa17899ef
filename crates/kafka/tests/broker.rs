//! The poll thread against a broker: the one in this process, or a real one (see `world`).

mod world;

use std::time::Duration;

use bytes::Bytes;
use drakkar_core::{Header as OurHeader, Offset, Timestamp, TopicPartition, source::SourceCommand};
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use world::{BROKER, Heard, Member, SOON, position, send};

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| number.to_string())
}

#[tokio::test]
async fn bytes_are_bytes_nulls_and_headers_included() {
    let config = BROKER.topic("bytes", 1);
    let producer = BROKER.producer();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some(&b"\xff\x00"[..]) })
        .insert(Header::<&[u8]> { key: "none", value: None })
        .insert(Header { key: "trace", value: Some(&b""[..]) });
    let big = vec![7_u8; 1_000_000];
    let topic = config.source_topic.as_str();
    let to = || BaseRecord::<[u8], [u8]>::to(topic).partition(0).timestamp(1_700_000_000_123);
    send(&producer, to().key(b"k\xfe").payload(b"v\x00").headers(headers));
    send(&producer, to().key(b"deleted"));
    send(&producer, to().payload(b""));
    send(&producer, to().payload(&big));
    producer.flush(SOON).unwrap();

    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let assignment = &mut assigned[0];
    assert_eq!((assignment.epoch, &assignment.committed), (1, &None));

    let full = member.take(assignment).await;
    assert_eq!(full.coordinates(), format!("{topic}:0:0"));
    assert_eq!(full.timestamp, Some(Timestamp::Created(1_700_000_000_123)));
    assert_eq!(full.key.as_deref(), Some(&b"k\xfe"[..]));
    assert_eq!(full.value.as_deref(), Some(&b"v\x00"[..]));
    let expected = [
        OurHeader::new("trace", Bytes::from_static(b"\xff\x00")),
        OurHeader { name: "none".into(), value: None },
        OurHeader::new("trace", Bytes::new()),
    ];
    assert_eq!(full.headers, expected);

    let tombstone = member.take(assignment).await;
    assert_eq!((tombstone.key.as_deref(), tombstone.value), (Some(&b"deleted"[..]), None));
    let empty = member.take(assignment).await;
    assert_eq!((empty.key, empty.value), (None, Some(Bytes::new())));
    assert_eq!(member.take(assignment).await.value.as_deref(), Some(&big[..]));
    member.close().await;
}

#[tokio::test]
async fn a_header_whose_name_is_no_text_keeps_its_value_and_its_place() {
    let config = BROKER.topic("names", 1);
    let producer = BROKER.producer();
    // SAFETY: the client copies the name and never reads it as text.
    #[allow(unsafe_code)]
    let name = unsafe { std::str::from_utf8_unchecked(bytes_of_no_text()) };
    let headers = OwnedHeaders::new()
        .insert(Header { key: "before", value: Some(&b"1"[..]) })
        .insert(Header { key: name, value: Some(&b"\xff2"[..]) })
        .insert(Header { key: "after", value: Some(&b"3"[..]) });
    let topic = config.source_topic.as_str();
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(b"v").headers(headers);
    send(&producer, record);
    producer.flush(SOON).unwrap();
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let expected = [
        OurHeader::new("before", Bytes::from_static(b"1")),
        OurHeader::new("na\u{fffd}me", Bytes::from_static(b"\xff2")),
        OurHeader::new("after", Bytes::from_static(b"3")),
    ];
    assert_eq!(member.take(&mut assigned[0]).await.headers, expected);
    member.close().await;
}

fn bytes_of_no_text() -> &'static [u8] {
    b"na\xffme"
}

#[tokio::test]
async fn many_commits_become_few_and_the_next_assignment_reads_the_last() {
    let config = BROKER.shared("commits", 1);
    BROKER.produce("commits", 0, numbers(2_000));
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    for next in 1..=2_000 {
        member.commit(&assigned[0], next, &format!("map of {next}"));
        member.commit(&assigned[0], next - 1, "an older one");
    }
    let mut confirmed = Vec::new();
    while confirmed.last() != Some(&2_000) {
        confirmed.push(
            member
                .hears(|heard| match heard {
                    Heard::Committed(_, next) => Some(*next),
                    _ => None,
                })
                .await,
        );
    }
    assert!(confirmed.is_sorted(), "commits never go back: {confirmed:?}");
    assert!(confirmed.len() < 1_000, "one commit at a time: {}", confirmed.len());
    member.close().await;

    let mut next = Member::start(&config).await;
    let again = next.assigned().await;
    assert_eq!(again[0].committed, Some(position(2_000, "map of 2000")));
    next.close().await;
}

#[tokio::test]
async fn what_was_handed_over_is_committed_when_the_worker_closes() {
    let config = BROKER.shared("closing", 1);
    BROKER.produce("closing", 0, numbers(10));
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    member.take(&mut assigned[0]).await;
    member.source.control.send(SourceCommand::Quiesce);
    member.hand_over(&assigned[0], Some(position(3, "done: 5")));
    member.close().await;

    let mut next = Member::start(&config).await;
    let mut again = next.assigned().await;
    assert_eq!(again[0].committed, Some(position(3, "done: 5")));
    assert_eq!(next.take(&mut again[0]).await.offset, Offset(3));
    next.close().await;
}

#[tokio::test]
async fn a_revoked_partition_is_handed_over_exactly_where_its_owner_stopped() {
    let config = BROKER.shared("handover", 2);
    for partition in 0..2 {
        BROKER.produce("handover", partition, numbers(100));
    }
    let mut first = Member::start(&config).await;
    let mut assigned = first.assigned().await;
    for assignment in &mut assigned {
        first.take(assignment).await;
    }
    let mut second = Member::start(&config).await;
    let taken = first.revoked().await;
    assert_eq!(taken.len(), 1, "the other one stays");
    let (mut gone, mut kept): (Vec<_>, Vec<_>) =
        assigned.into_iter().partition(|assignment| assignment.partition == taken[0]);

    // While it is not handed over, it stays ours and the group waits.
    let early = timeout(Duration::from_secs(1), second.assigned()).await;
    assert!(early.is_err(), "given away while we worked on it");
    assert!(first.source.events.try_recv().is_err(), "its end is not told before it comes");
    while gone[0].inbox.try_recv().is_ok() {}
    first.hand_over(&gone[0], Some(position(42, "done: 50")));
    assert_eq!(first.released().await, taken);
    let mut heard = Vec::new();
    while let Ok(before) = first.heard.try_recv() {
        heard.push(before); // The answer to its last commit among it.
    }

    let mut theirs = second.assigned().await;
    assert_eq!(theirs[0].partition, taken[0]);
    let read = second.take(&mut theirs[0]).await.offset;
    assert!(gone[0].inbox.recv().await.is_none(), "nothing arrived after the revoke");

    // The partition that stayed goes on where it was.
    for expected in 1..100 {
        assert_eq!(first.take(&mut kept[0]).await.offset, Offset(expected));
    }
    second.close().await;
    first.close().await;
    if heard.contains(&Heard::Committed(taken[0].clone(), 42)) {
        assert_eq!(theirs[0].committed, Some(position(42, "done: 50")));
        assert_eq!(read, Offset(42));
    } else {
        // The mock sometimes refuses every commit of a rebalance: then nothing may be skipped.
        assert!(heard.iter().any(|heard| matches!(heard, Heard::Refused(_))), "{heard:?}");
        assert_eq!((&theirs[0].committed, read), (&None, Offset(0)));
    }
}

#[tokio::test]
async fn a_pipeline_that_does_not_answer_does_not_hold_the_group() {
    let mut config = BROKER.shared("deadline", 2);
    config.revoke_timeout = Duration::from_millis(300);
    let mut first = Member::start(&config).await;
    let assigned = first.assigned().await;
    for assignment in &assigned {
        first.commit(assignment, 7, "as far as it came");
        first.hears(|heard| matches!(heard, Heard::Committed(_, 7)).then_some(())).await;
    }
    let mut second = Member::start(&config).await;
    let taken = first.revoked().await;
    let revoked = Instant::now();
    let theirs = second.assigned().await;
    assert!(Duration::from_millis(300) < revoked.elapsed(), "given away before the deadline");
    assert_eq!(theirs[0].partition, taken[0]);
    assert_eq!(theirs[0].committed, Some(position(7, "as far as it came")));

    // An answer that comes now is too late.
    let late = assigned.iter().find(|assignment| assignment.partition == taken[0]).unwrap();
    first.hand_over(late, Some(position(99, "too late")));
    first.close().await;
    second.close().await;
    let mut next = Member::start(&config).await;
    for assignment in next.assigned().await {
        assert_eq!(assignment.committed, Some(position(7, "as far as it came")));
    }
    next.close().await;
}

#[tokio::test]
async fn closing_while_the_group_waits_for_a_hand_over_commits_it_and_ends() {
    let config = BROKER.shared("owed", 2);
    let mut first = Member::start(&config).await;
    let assigned = first.assigned().await;
    let mut second = Member::start(&config).await;
    let taken = first.revoked().await;
    // Both at once: the one that was revoked, and the one that the stop takes along.
    for assignment in &assigned {
        first.hand_over(assignment, Some(position(5, "at the end")));
    }
    let begun = Instant::now();
    let heard = first.close().await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let mut theirs = second.assigned().await;
    while theirs.len() < 2 {
        theirs.extend(second.assigned().await);
    }
    assert!(theirs.iter().any(|assignment| assignment.partition == taken[0]));
    for assignment in theirs {
        let confirmed = heard.contains(&Heard::Committed(assignment.partition.clone(), 5));
        let refused = heard.iter().any(|heard| matches!(heard, Heard::Refused(_)));
        assert!(confirmed || refused, "{heard:?}");
        assert_eq!(assignment.committed, confirmed.then(|| position(5, "at the end")));
    }
    second.close().await;
}

#[tokio::test]
async fn a_partition_that_was_handed_over_before_it_is_revoked_does_not_hold_the_group() {
    let mut config = BROKER.shared("answered", 2);
    config.revoke_timeout = 2 * SOON; // Longer than the next assignment is waited for.
    config.max_poll_interval_ms = 300_000;
    let mut first = Member::start(&config).await;
    for assignment in &first.assigned().await {
        first.hand_over(assignment, None);
    }
    let mut second = Member::start(&config).await;
    let revoked = |heard: &Heard| matches!(heard, Heard::Rebalanced("revoke", _)).then_some(());
    first.hears(revoked).await;
    second.assigned().await;
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn commands_of_an_older_assignment_are_ignored() {
    let config = BROKER.topic("epochs", 1);
    BROKER.produce("epochs", 0, numbers(10));
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    let partition = TopicPartition::new(config.source_topic.as_str(), 0);
    member.source.control.send(SourceCommand::Commit {
        partition: partition.clone(),
        epoch: assigned[0].epoch - 1,
        position: position(9, "stale"),
    });
    member.source.control.send(SourceCommand::HandOver {
        partition: partition.clone(),
        epoch: assigned[0].epoch + 1,
        position: Some(position(10, "from the future")),
    });
    member.commit(&assigned[0], 2, "");
    let committed = member
        .hears(|heard| match heard {
            Heard::Committed(partition, next) => Some((partition.clone(), *next)),
            _ => None,
        })
        .await;
    assert_eq!(committed, (partition, 2));
    member.close().await;
}

#[tokio::test]
async fn a_command_wakes_an_idle_poll_thread_at_once() {
    let config = BROKER.topic("wake", 1);
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    let (mut took, mut usual) = (Vec::new(), Vec::new());
    let (ask, asked) = std::sync::mpsc::channel::<oneshot::Sender<()>>();
    std::thread::spawn(move || asked.into_iter().for_each(|answer| answer.send(()).unwrap()));
    for _ in 0..31 {
        // Long enough to fall asleep in between, never the same long.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = Instant::now();
        member.source.control.send(SourceCommand::Resume {
            partition: assigned[0].partition.clone(),
            epoch: assigned[0].epoch,
        });
        member.hears(|heard| matches!(heard, Heard::Paused(_, false)).then_some(())).await;
        took.push(asked.elapsed());
        // What it takes this machine now to wake any thread.
        let (answer, answered) = oneshot::channel();
        let asked = Instant::now();
        ask.send(answer).unwrap();
        answered.await.unwrap();
        usual.push(asked.elapsed());
    }
    took.sort_unstable();
    usual.sort_unstable();
    println!("median {:?}, worst {:?}", took[15], took[30]);
    assert!(took[15] < Duration::from_millis(20) + 4 * usual[15], "{took:?} {usual:?}");
    member.close().await;
}

#[tokio::test]
async fn after_quiesce_nothing_more_is_read() {
    let config = BROKER.topic("quiet", 1);
    BROKER.produce("quiet", 0, numbers(5));
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    for _ in 0..5 {
        member.take(&mut assigned[0]).await;
    }
    member.source.control.send(SourceCommand::Quiesce);
    // The answer to a later command says that the first one was done.
    member.commit(&assigned[0], 5, "");
    member.hears(|heard| matches!(heard, Heard::Committed(..)).then_some(())).await;
    BROKER.produce("quiet", 0, numbers(5));
    let more = timeout(Duration::from_millis(500), assigned[0].inbox.recv()).await;
    assert!(more.is_err(), "{more:?}");
    member.close().await;
}

#[tokio::test]
async fn the_thread_ends_when_nobody_can_ask_it_any_more() {
    let config = BROKER.topic("orphan", 1);
    let member = Member::start(&config).await;
    let world::Member { source, .. } = member;
    drop(source.control);
    let begun = Instant::now();
    source.thread.join(SOON).await;
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn lag_counts_from_what_was_committed() {
    let mut config = BROKER.topic("lag", 1);
    config.client_config.insert("statistics.interval.ms".to_owned(), "100".to_owned());
    BROKER.produce("lag", 0, numbers(10));
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    for _ in 0..10 {
        member.take(&mut assigned[0]).await;
    }
    let is = |lag: i64| {
        move |heard: &Heard| matches!(heard, Heard::Lag(_, l) if *l == lag).then_some(())
    };
    member.hears(is(10)).await;
    member.commit(&assigned[0], 4, "");
    member.hears(is(6)).await;
    member.commit(&assigned[0], 10, "");
    member.hears(is(0)).await;
    member.close().await;
}

#[tokio::test]
async fn several_topics_are_read_under_their_prefix() {
    BROKER.topic("eu.orders", 1);
    let mut config = BROKER.topic("eu.returns", 1);
    config.topic_prefix = "eu.".to_owned();
    config.source_topic = drakkar_kafka::KafkaConfig::default().source_topic;
    config.source_topics = vec![BROKER.name("orders"), BROKER.name("returns")];
    BROKER.produce("eu.orders", 0, numbers(1));
    BROKER.produce("eu.returns", 0, numbers(1));
    let mut member = Member::start(&config).await;
    let mut read = Vec::new();
    while read.len() < 2 {
        for mut assignment in member.assigned().await {
            read.push(member.take(&mut assignment).await.coordinates());
        }
    }
    read.sort_unstable();
    let expected = ["eu.orders", "eu.returns"].map(|topic| format!("{}:0:0", BROKER.name(topic)));
    assert_eq!(read, expected);
    member.close().await;
}

#[tokio::test]
async fn waiting_for_the_common_moment_to_join_does_not_delay_a_stop() {
    let mut config = BROKER.topic("aligned", 1);
    config.startup_align_enabled = true;
    config.startup_min_wait_seconds = 3_600.0;
    let mut member = Member::start(&config).await;
    let early = timeout(Duration::from_millis(200), member.source.events.recv()).await;
    assert!(early.is_err(), "joined too early: {early:?}");
    let begun = Instant::now();
    member.close().await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
