//! What the outer crates report while they work.
//!
//! Observation is free to fail: an observer returns at once and never reports back. Whoever does not
//! care passes `()`.

use std::time::Duration;

use crate::{SinkError, SinkName, TopicPartition};

/// Whether a sink is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// It is.
    Closed,
    /// One write finds out whether it can be again.
    HalfOpen,
    /// It is left alone for a while.
    Open,
}

/// Hears what the sinks do.
pub trait SinkObserver: Send + Sync + 'static {
    /// One write was answered, for `confirmed` payloads positively.
    fn batch(&self, sink: &SinkName, confirmed: usize, took: Duration) {
        let (_, _, _) = (sink, confirmed, took);
    }

    /// A payload was not accepted. `held`: it will be tried again.
    fn refused(&self, sink: &SinkName, error: &SinkError, held: bool) {
        let (_, _, _) = (sink, error, held);
    }

    /// The circuit of a sink opened, closed, or is tried.
    fn circuit(&self, sink: &SinkName, now: Circuit) {
        let (_, _) = (sink, now);
    }
}

impl SinkObserver for () {}

/// Hears what the poll thread does.
pub trait SourceObserver: Send + Sync + 'static {
    /// Partitions came or went; `kind` is `assign`, `revoke` or `lost`.
    fn rebalanced(&self, kind: &'static str, partitions: &[TopicPartition]) {
        let (_, _) = (kind, partitions);
    }

    /// A commit was confirmed for this partition.
    fn committed(&self, partition: &TopicPartition, next: i64) {
        let (_, _) = (partition, next);
    }

    /// A commit was refused; it will be made again if the partition is still ours.
    fn commit_refused(&self, error: &str) {
        let _ = error;
    }

    /// The client reported an error that it recovers from by itself.
    fn client_error(&self, error: &str) {
        let _ = error;
    }

    /// A partition was paused (`true`) or resumed for want of room.
    fn paused(&self, partition: &TopicPartition, paused: bool) {
        let (_, _) = (partition, paused);
    }

    /// `next` was to be read, but the log went on below: it was cut or made anew. It is read again
    /// from `from`.
    fn rewound(&self, partition: &TopicPartition, next: i64, from: i64) {
        let (_, _, _) = (partition, next, from);
    }

    /// How far the committed position of a partition lies behind the end of the log, in messages.
    fn lag(&self, partition: &TopicPartition, messages: i64) {
        let (_, _) = (partition, messages);
    }
}

impl SourceObserver for () {}
