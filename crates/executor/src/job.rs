//! What goes into the pool and what comes out: a [`Job`], then a [`Run`], or a [`Cancelled`] one.

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

/// A run that was begun and cut off: it has no result. Told when its process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// Why.
    pub reason: CancelReason,
    /// What is known of it until then.
    pub output: Output,
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

/// Who wants to know of runs of a job that are cut off.
#[derive(Default)]
pub(crate) struct Listener(pub(crate) Option<Box<dyn Fn(Cancelled) + Send + Sync>>);

impl Listener {
    /// A receiver that panics harms nobody else.
    pub(crate) fn tell(&self, task: &Task, reason: CancelReason, output: Output) {
        let Some(told) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| told(Cancelled { reason, output }))).is_err() {
            error!(category = "executor", task = %task.id(), "the receiver of a result panicked");
        }
    }
}
