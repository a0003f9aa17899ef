//! What passes between the poll thread and the pipeline.
//!
//! The poll thread owns the Kafka consumer; each partition task owns its partition. They share
//! nothing but these messages and the [`Load`] of a partition. What a partition asks for carries the
//! *epoch* of its assignment, so that the word of an older assignment is told apart and discarded.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{Offset, SourceMessage, TopicPartition, backpressure::Load};

/// What the poll thread tells the pipeline.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceEvent {
    /// These partitions are ours from now on. Without any: the group knows us, and has none for us.
    Assigned(Vec<Assignment>),
    /// These partitions are being taken away: finish what was started within `grace`, answer each
    /// with [`SourceCommand::HandOver`].
    Revoked {
        /// What is taken.
        partitions: Vec<TopicPartition>,
        /// How long the hand-over may take.
        grace: Duration,
    },
    /// These partitions are no longer ours: drop everything, answer nothing.
    Lost {
        /// What was lost.
        partitions: Vec<TopicPartition>,
    },
    /// The end of these assignments: the last commit is made, or no longer possible. Follows
    /// [`Self::Revoked`] and [`Self::Lost`]; the next event may assign the partition again. The end of
    /// the poll thread is the end of all other assignments.
    Released {
        /// What is no longer ours.
        partitions: Vec<TopicPartition>,
    },
    /// The poll thread cannot go on.
    Failed(SourceFailure),
}

/// Why the poll thread cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SourceFailure {
    /// The reason and what to do about it.
    pub message: String,
}

/// One partition that was assigned to us.
#[derive(Debug)]
pub struct Assignment {
    /// Which partition.
    pub partition: TopicPartition,
    /// Which assignment of it; grows with every assignment in this process.
    pub epoch: u64,
    /// The messages, each above the one before. Bounded by [`Load`]: the poll thread pauses the partition above it.
    pub inbox: mpsc::UnboundedReceiver<Arc<SourceMessage>>,
    /// How much of this partition we hold.
    pub load: Arc<Load>,
    /// Metadata of the last commit of this partition, whoever made it.
    pub committed: Option<Position>,
}

/// What may be committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Every message below it is settled. Usually the first one that is not; it may lie in a gap
    /// below that.
    pub next: Offset,
    /// The done map: which offsets from `next` on are settled; empty for none.
    pub metadata: String,
}

/// What the pipeline asks of the poll thread.
#[derive(Debug)]
#[non_exhaustive]
pub enum SourceCommand {
    /// Everything behind us is ready: join the group.
    Join,
    /// Commit this some time soon; a later one for the same partition replaces it.
    Commit {
        /// Which partition.
        partition: TopicPartition,
        /// Of which assignment.
        epoch: u64,
        /// What to commit.
        position: Position,
    },
    /// There is room again: fetch. May be overtaken by a newer pause: it does not count while
    /// [`Load::is_paused`].
    Resume {
        /// Which partition.
        partition: TopicPartition,
        /// Of which assignment.
        epoch: u64,
    },
    /// This partition is fenced: nothing that settles later will ever be reported.
    HandOver {
        /// Which partition.
        partition: TopicPartition,
        /// Of which assignment.
        epoch: u64,
        /// The last word, to be committed before the partition is given up.
        position: Option<Position>,
    },
    /// Fetch nothing more from any partition; go on serving the group until [`Self::Close`].
    Quiesce,
    /// Commit what was handed over, leave the group and end the poll thread.
    Close {
        /// How long the last commits may take: while the group lets members in or out, it may hear
        /// nothing else from us.
        within: Duration,
    },
}

/// The sending end of the poll thread's command queue.
///
/// Bounded by what is sent: per partition at most one commit per interval, one resume per pause and
/// one hand-over.
#[derive(Clone)]
pub struct SourceControl {
    commands: std::sync::mpsc::Sender<SourceCommand>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for SourceControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceControl").finish_non_exhaustive()
    }
}

impl SourceControl {
    /// Sends into `commands` and calls `wake` after each, so that a waiting poll returns at once.
    pub fn new(
        commands: std::sync::mpsc::Sender<SourceCommand>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { commands, wake }
    }

    /// Asks the poll thread. Once it has ended, commands go nowhere: there is no more to be done.
    pub fn send(&self, command: SourceCommand) {
        if self.commands.send(command).is_ok() {
            (self.wake)();
        }
    }
}
