//! What a test sees of a world that does not do what it should.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
};

use drakkar_core::{DeadLetter, DoneMap, Offset, SourceMessage, TopicPartition, source::Position};
use drakkar_executor::Pool;
use drakkar_sinks::Sinks;
use tokio::sync::watch;

use crate::{Recorded, Runs, TaskRun, kinds::Accepted, lock, origin::Commits};

/// Most lines that are shown of anything.
const SHOWN: usize = 8;

/// What was produced, and which partitions the worker has.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: BTreeMap<i32, Vec<SourceMessage>>,
    pub(crate) next: BTreeMap<i32, i64>,
    pub(crate) assigned: BTreeSet<i32>,
}

impl Log {
    /// The offset after the last record of a partition.
    pub(crate) fn end(&self, partition: i32) -> i64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    pub(crate) fn append(&mut self, message: SourceMessage) {
        let partition = message.partition.partition;
        self.next.insert(partition, message.offset.0 + 1);
        self.records.entry(partition).or_default().push(message);
    }

    /// What is read again by whoever begins at `next`.
    pub(crate) fn from(&self, partition: i32, next: i64) -> Vec<SourceMessage> {
        let records = self.records.get(&partition).into_iter().flatten();
        records.filter(|message| next <= message.offset.0).cloned().collect()
    }
}

/// What the parts of a world share.
pub(crate) struct State {
    pub(crate) topic: Arc<str>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) commits: Commits,
    pub(crate) runs: Runs,
    pub(crate) pool: Pool,
    pub(crate) sinks: Sinks,
    /// Each sink, and how many payloads it accepted.
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) dead_letters: Recorded<DeadLetter>,
    pub(crate) fault: watch::Sender<Option<String>>,
}

impl State {
    pub(crate) fn id(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(Arc::clone(&self.topic), partition)
    }

    pub(crate) fn position(&self, partition: i32) -> Option<Position> {
        self.commits.position(&self.id(partition))
    }

    /// Whether everything below `next` is committed.
    pub(crate) fn is_committed(&self, partition: i32, next: i64) -> bool {
        next <= 0 || self.position(partition).is_some_and(|position| next <= position.next.0)
    }

    /// Whether all that was produced is committed, of the partitions that the worker has.
    pub(crate) fn is_settled(&self) -> bool {
        let ends: Vec<(i32, i64)> = {
            let log = lock(&self.log);
            log.assigned.iter().map(|&partition| (partition, log.end(partition))).collect()
        };
        ends.into_iter().all(|(partition, end)| self.is_committed(partition, end))
    }

    /// Waits until there is a reason why nothing more can happen.
    pub(crate) async fn fault(&self) -> String {
        let mut fault = self.fault.subscribe();
        let found = fault.wait_for(Option::is_some).await.map(|fault| fault.clone());
        match found {
            Ok(fault) => fault.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    fn write_partition(&self, f: &mut fmt::Formatter<'_>, partition: i32) -> fmt::Result {
        let (offsets, is_assigned): (Vec<i64>, bool) = {
            let log = lock(&self.log);
            let offsets = log.records.get(&partition).into_iter().flatten().map(|m| m.offset.0);
            (offsets.collect(), log.assigned.contains(&partition))
        };
        let position = self.position(partition);
        let next = position.as_ref().map_or(0, |position| position.next.0);
        let done = position.and_then(|at| DoneMap::decode(at.next, &at.metadata).ok());
        let is_done = |offset: i64| done.as_ref().is_some_and(|done| done.contains(Offset(offset)));
        let above: Vec<i64> = offsets.iter().copied().filter(|&offset| next <= offset).collect();
        let (settled, open): (Vec<i64>, Vec<i64>) = above.into_iter().partition(|&at| is_done(at));
        write!(f, "  {}: {} records, ", self.id(partition), offsets.len())?;
        write!(f, "committed up to {next}, settled above: {}", list(&settled))?;
        write!(f, ", not committed as settled: {}", list(&open))?;
        f.write_str(if is_assigned { "\n" } else { " (not assigned)\n" })
    }

    fn write_runs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.pool.stats();
        writeln!(
            f,
            "  pool: {} of {} slots taken, {} tasks wait; {} runs so far",
            stats.active,
            stats.slots,
            stats.queued,
            self.runs.len()
        )?;
        let telling = |run: &TaskRun| run.ended.is_none() || run.failure().is_some();
        let telling: Vec<TaskRun> = self.runs.all().into_iter().filter(telling).collect();
        for run in &telling[telling.len().saturating_sub(SHOWN)..] {
            writeln!(f, "    {run}")?;
        }
        Ok(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The world:")?;
        let partitions: BTreeSet<i32> = {
            let log = lock(&self.log);
            log.records.keys().chain(&log.assigned).copied().collect()
        };
        for partition in partitions {
            self.write_partition(f, partition)?;
        }
        self.write_runs(f)?;
        for Accepted { name, is_named, count } in &self.accepted {
            let count = count();
            // Which of the others the handler has, nobody knows.
            if *is_named || 0 < count {
                writeln!(f, "  sink {name}: {count} accepted")?;
            }
        }
        for (sink, since) in self.sinks.held() {
            writeln!(f, "  held: {sink} has accepted nothing for {since:?}")?;
        }
        let letters = self.dead_letters.all();
        writeln!(f, "  dead letters: {}", letters.len())?;
        for letter in &letters[letters.len().saturating_sub(SHOWN)..] {
            let cause = &letter.cause;
            let (stage, class, text) = (cause.stage.as_str(), &cause.class, &cause.message);
            let at = letter.message.coordinates();
            writeln!(f, "    {at}: {stage}, {class}, attempt {}: {text}", cause.attempt)?;
        }
        Ok(())
    }
}

fn list(offsets: &[i64]) -> String {
    let shown: Vec<String> = offsets.iter().take(SHOWN).map(i64::to_string).collect();
    match offsets.len() {
        0 => "none".to_owned(),
        more if SHOWN < more => format!("{}, … ({more})", shown.join(", ")),
        _ => shown.join(", "),
    }
}
