//! What a careful user would write without us: a loop that polls, and commits what is done.
//!
//! Two of them: one that only counts, one that starts a process per message on some tasks and commits
//! below the lowest offset that is not done. Neither retries, bounds its output, or survives an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use tokio::{runtime::Runtime, time::Instant};

use crate::{broker::Topic, pipeline::Lap};

/// As often as a worker does by default.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// How long the consumer waits for a message before it looks at the clock.
const POLL: Duration = Duration::from_millis(5);

/// How long the last commit may take.
const LAST_COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// Messages that were polled and wait for a process.
const AHEAD: usize = 1_000;

/// Polls, counts and commits.
pub(crate) fn count(topic: &Topic, group: &str) -> anyhow::Result<Lap> {
    let consumer: BaseConsumer = topic.consumer(group).create()?;
    consumer.subscribe(&[topic.name])?;
    let (mut lap, mut seen, mut committed) = (None, 0, Instant::now());
    while seen < topic.messages {
        if let Some(message) = consumer.poll(POLL) {
            let message = message?;
            lap.get_or_insert_with(Lap::start);
            seen += usize::from(message.payload().is_some());
        }
        if lap.is_some() && committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            // One that comes too early is made with the next.
            made(consumer.commit_consumer_state(CommitMode::Async))?;
        }
    }
    finally(|| consumer.commit_consumer_state(CommitMode::Sync))?;
    lap.context("there was no message")?.end(topic.wait_committed(group)?)
}

/// Polls, starts a process for each message, at most `slots` at once, and commits.
pub(crate) fn spawn(
    topic: &Topic,
    group: &str,
    runtime: &Runtime,
    program: &'static str,
    slots: usize,
) -> anyhow::Result<Lap> {
    let consumer: BaseConsumer = topic.consumer(group).create()?;
    consumer.subscribe(&[topic.name])?;
    let (send, receive) = tokio::sync::mpsc::channel::<(i32, i64)>(AHEAD);
    let receive = Arc::new(tokio::sync::Mutex::new(receive));
    let (report, done) = mpsc::channel();
    for _ in 0..slots {
        let (receive, report) = (Arc::clone(&receive), report.clone());
        runtime.spawn(async move {
            loop {
                let next = receive.lock().await.recv().await;
                let Some(at) = next else { break };
                let command = tokio::process::Command::new(program)
                    .stdin(Stdio::null())
                    .process_group(0)
                    .output();
                let ended = command.await.is_ok_and(|output| output.status.success());
                if report.send(ended.then_some(at)).is_err() {
                    break; // Nobody listens once an error was met.
                }
            }
        });
    }
    drop(report);

    let (mut lap, mut polled, mut ended) = (None, 0, 0);
    let (mut open, mut committed) = (Open::default(), Instant::now());
    while ended < topic.messages {
        let mut settle = |end: Option<(i32, i64)>| {
            let (partition, offset) = end.context("a process failed")?;
            open.end(partition, offset);
            ended += 1;
            anyhow::Ok(())
        };
        done.try_iter().try_for_each(&mut settle)?;
        if polled == topic.messages {
            // Nothing is left to poll: wait for processes instead.
            if let Ok(end) = done.recv_timeout(POLL) {
                settle(end)?;
            }
        } else if let Some(message) = consumer.poll(POLL) {
            let message = message?;
            lap.get_or_insert_with(Lap::start);
            let at = (message.partition(), message.offset());
            open.begin(at.0, at.1);
            polled += 1;
            send.blocking_send(at).map_err(|_| anyhow!("nobody takes a message"))?;
        }
        if lap.is_some() && committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            made(consumer.commit(&open.positions(topic.name)?, CommitMode::Async))?;
        }
    }
    let positions = open.positions(topic.name)?;
    finally(|| consumer.commit(&positions, CommitMode::Sync))?;
    ensure!(open.is_empty(), "messages are still open");
    lap.context("there was no message")?.end(topic.wait_committed(group)?)
}

/// Whether a commit was made. It is not while the client has yet to find out who keeps commits.
fn made(commit: KafkaResult<()>) -> KafkaResult<bool> {
    match commit {
        Ok(()) => Ok(true),
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::WaitingForCoordinator)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The last commit is made again until it is made.
fn finally(commit: impl Fn() -> KafkaResult<()>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LAST_COMMIT_WITHIN;
    while !made(commit())? {
        ensure!(Instant::now() < deadline, "nobody was found who keeps commits");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Which offsets are not done yet, by partition.
#[derive(Debug, Default)]
struct Open(BTreeMap<i32, Partition>);

#[derive(Debug, Default)]
struct Partition {
    open: BTreeSet<i64>,
    next: i64,
}

impl Open {
    fn begin(&mut self, partition: i32, offset: i64) {
        let partition = self.0.entry(partition).or_default();
        partition.open.insert(offset);
        partition.next = offset + 1;
    }

    fn end(&mut self, partition: i32, offset: i64) {
        self.0.entry(partition).or_default().open.remove(&offset);
    }

    fn is_empty(&self) -> bool {
        self.0.values().all(|partition| partition.open.is_empty())
    }

    /// What may be committed: everything below the lowest that is open.
    fn positions(&self, topic: &str) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (&number, partition) in &self.0 {
            let next = partition.open.first().copied().unwrap_or(partition.next);
            list.add_partition_offset(topic, number, Offset::Offset(next))?;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_before_the_coordinator_is_known_is_made_again_and_any_other_error_is_told() {
        let refused = |code| Err(KafkaError::ConsumerCommit(code));
        assert_eq!(made(Ok(())), Ok(true));
        assert_eq!(made(refused(RDKafkaErrorCode::WaitingForCoordinator)), Ok(false));
        made(refused(RDKafkaErrorCode::IllegalGeneration)).unwrap_err();
        let tries = std::cell::Cell::new(0);
        finally(|| {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { refused(RDKafkaErrorCode::WaitingForCoordinator) } else { Ok(()) }
        })
        .unwrap();
        assert_eq!(tries.get(), 3);
        assert!(finally(|| refused(RDKafkaErrorCode::IllegalGeneration)).is_err());
    }

    #[test]
    fn nothing_at_or_above_an_open_offset_is_committed() {
        let mut open = Open::default();
        for offset in 3..6 {
            open.begin(1, offset);
        }
        open.end(1, 3);
        open.end(1, 5);
        let at = |open: &Open| {
            let list = open.positions("t").unwrap();
            list.find_partition("t", 1).map(|of| of.offset())
        };
        assert_eq!(at(&open), Some(Offset::Offset(4)));
        assert!(!open.is_empty());
        open.end(1, 4);
        assert_eq!(at(&open), Some(Offset::Offset(6)));
        assert!(open.is_empty());
    }
}
