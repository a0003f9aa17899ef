//! A job of a program while it waits or a process has it, and what its ticket knows of it.
//!
//! Refuses to know where it is: that is the program's affair.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use drakkar_core::{Output, Task};
use tokio::time::Instant;
use tracing::error;

use crate::{CancelReason, Ended, Job, Run, job::Watcher, queue::Place};

/// What a ticket and a program share.
#[derive(Default)]
pub(crate) struct Control {
    started: AtomicBool,
    killed: OnceLock<CancelReason>,
    watcher: Watcher,
}

impl Control {
    pub(super) fn new(watcher: Watcher) -> Self {
        Self { watcher, ..Self::default() }
    }

    /// From now on nobody wants to know how it ends. The first reason stays.
    pub(super) fn kill(&self, reason: CancelReason) {
        self.killed.set(reason).ok();
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.get().is_some()
    }

    /// A process has taken it.
    pub(super) fn starts(&self) {
        self.started.store(true, Relaxed);
    }

    pub(super) fn has_started(&self) -> bool {
        self.started.load(Relaxed)
    }

    /// A process is about to be given `task`.
    pub(super) fn begins(&self, task: &Arc<Task>) {
        self.watcher.begins(task);
    }
}

/// A job in a program.
pub(super) struct Queued {
    pub(super) place: Place,
    pub(super) job: Job,
    pub(super) since: Instant,
    pub(super) control: Arc<Control>,
    /// Whether it was in a process that failed, and nobody knows by whose doing.
    pub(super) is_suspect: bool,
}

impl Queued {
    /// Its process is gone without an answer: whoever killed it knows why, or else it is for `reason`.
    pub(super) fn cut_off(&self, reason: CancelReason, output: &Output) {
        let reason = self.control.killed.get().copied().unwrap_or(reason);
        self.control.watcher.ended(&self.job.task, Ended::Cancelled { reason, output });
    }

    /// Tells whoever asked. A receiver that panics harms nobody else.
    pub(super) fn report(self, run: Run) {
        let Self { job: Job { task, done, .. }, control, .. } = self;
        control.watcher.ended(&task, Ended::Ran(&run));
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| done(run)));
        if told.is_err() {
            error!(category = "executor", task = %task.id(), "the receiver of a result panicked");
        }
    }
}
