//! What goes into the pool and what comes out: a [`Job`], then a [`Run`], or nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use drakkar_core::{Failure, Output, Task};
use tracing::error;

use crate::queue::Rank;

/// One run to be done.
pub struct Job {
    /// What to run. That it is not precomputed is the caller's affair: the pool always starts a
    /// process.
    pub task: Arc<Task>,
    /// Its place in line.
    pub rank: Rank,
    /// Told how it ended, on the thread of the slot or a worker of the runtime: it must not block.
    pub done: Box<dyn FnOnce(Run) + Send>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// With exit code 0.
    Finished(Output),
    /// In any other way.
    Failed {
        /// Which.
        failure: Failure,
        /// What it printed until then.
        output: Output,
    },
}

/// What became of one run, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended<'a> {
    /// It has a result.
    Ran(&'a Run),
    /// It was cut off, its process is gone, and it has none.
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// What is known of it until then.
        output: &'a Output,
    },
}

/// Why a run is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Its partition is handed over, or lost.
    Revoke,
    /// The worker stops.
    Shutdown,
    /// Memory was short: it runs again later, uncharged.
    Memory,
    /// Its persistent process had to go for the sake of another task: it runs again, uncharged.
    Program,
}

impl CancelReason {
    /// As the job log names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Shutdown => "shutdown",
            Self::Memory => "memory",
            Self::Program => "program",
        }
    }
}

/// Who wants to know of every run of a job that was begun.
#[derive(Default)]
pub(crate) struct Watcher(pub(crate) Option<Box<Told>>);

type Told = dyn Fn(Ended<'_>) + Send + Sync;

impl Watcher {
    /// A receiver that panics harms nobody else.
    pub(crate) fn tell(&self, task: &Task, ended: Ended<'_>) {
        let Some(told) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| told(ended))).is_err() {
            error!(category = "executor", task = %task.id(), "the watcher of a run panicked");
        }
    }
}
