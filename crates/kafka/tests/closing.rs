//! The last commits, when the group wants something meanwhile. Alone in its process: it measures its threads.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod world;

use std::{fs, time::Duration};

use drakkar_core::{TopicPartition, source::SourceCommand};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::mpsc::error::TryRecvError;
use world::{Broker, Heard, Member, SOON, position};

/// Far more than the poll threads of this test need, far less than one that does not sleep.
const LITTLE: Duration = Duration::from_millis(500);

/// Processor time of all poll threads of this process.
fn polled_for() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let stats =
        threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    let ticks = stats.filter(|stat| stat.contains("(drakkar-poll)")).map(|stat| {
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    });
    Duration::from_millis(ticks.sum::<u64>() * 10) // A hundred in a second, on all systems.
}

#[tokio::test]
async fn what_the_group_takes_back_during_the_last_commits_does_not_wait_for_their_end() {
    let broker = Broker::start();
    let config = broker.shared("last", 2);
    let mut leaving = Member::start(&config).await;
    let assigned = leaving.assigned().await;
    broker.with(|cluster| {
        let refusals = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 100_000];
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    });
    for assignment in &assigned {
        leaving.hand_over(assignment, Some(position(1, "")));
    }
    leaving.source.control.send(SourceCommand::Close { within: Duration::from_mins(10) });
    leaving.hears(|heard| matches!(heard, Heard::Refused(_)).then_some(())).await;

    let mut next = Member::start(&config).await;
    let taken = next.assigned().await[0].partition.clone();
    assert!(polled_for() < LITTLE, "{:?}", polled_for());
    while let Ok(event) = leaving.source.events.try_recv() {
        drop(event);
    }
    let alive = leaving.source.events.try_recv();
    assert!(matches!(alive, Err(TryRecvError::Empty)), "it goes on with what it has: {alive:?}");

    broker.with(|cluster| cluster.clear_request_errors(RDKafkaApiKey::OffsetCommit));
    let left = TopicPartition::new("last", 1 - taken.partition);
    let heard =
        |heard: &Heard| matches!(heard, Heard::Committed(of, 1) if *of == left).then_some(());
    leaving.hears(heard).await;
    leaving.source.join(SOON).await;
    next.close().await;
}
