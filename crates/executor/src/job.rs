//! What goes into the pool and what comes out: a [`Job`], then a [`Run`], or nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use drakkar_core::{Failure, Output, Task};
use tracing::error;

use crate::{queue::Rank, stand_in::StandIn};

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

/// What whoever watches a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched<'a> {
    /// It waits no longer: a slot or a persistent process has taken it. Said once, also of a job that is
    /// put back and taken again.
    Begun,
    /// A run that was begun has ended.
    Ended(Ended<'a>),
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
pub(crate) struct Watcher {
    told: Option<Box<Told>>,
    /// Of a job of a persistent program: a slot tells it by itself.
    stand_in: Option<Arc<dyn StandIn>>,
    has_begun: AtomicBool,
}

type Told = dyn Fn(Watched<'_>) + Send + Sync;

impl Watcher {
    pub(crate) fn new(told: impl Fn(Watched<'_>) + Send + Sync + 'static) -> Self {
        Self { told: Some(Box::new(told)), ..Self::default() }
    }

    /// The same, and a test sees what real processes do.
    pub(crate) fn beside(self, stand_in: Option<Arc<dyn StandIn>>) -> Self {
        Self { stand_in, ..self }
    }

    /// A run begins.
    pub(crate) fn begins(&self, task: &Arc<Task>) {
        if let Some(stand_in) = &self.stand_in {
            drop(stand_in.begins(task)); // Nothing: it plays no processes.
        }
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.tell(task, Watched::Begun);
        }
    }

    /// A run has ended.
    pub(crate) fn ended(&self, task: &Arc<Task>, ended: Ended<'_>) {
        if let Some(stand_in) = &self.stand_in {
            let run = match ended {
                Ended::Ran(run) => Some(run),
                Ended::Cancelled { .. } => None,
            };
            stand_in.ended(task, run);
        }
        self.tell(task, Watched::Ended(ended));
    }

    /// A receiver that panics harms nobody else.
    fn tell(&self, task: &Task, watched: Watched<'_>) {
        let Some(told) = &self.told else { return };
        if catch_unwind(AssertUnwindSafe(|| told(watched))).is_err() {
            error!(category = "executor", task = %task.id(), "the watcher of a run panicked");
        }
    }
}
