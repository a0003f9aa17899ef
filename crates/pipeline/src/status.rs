//! What probes may see of the pipeline: a few numbers, written by the pipeline, read by anyone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::watch::{HookWatch, StuckHook};

/// Written by the pipeline as it goes.
#[derive(Debug, Default)]
pub struct Status {
    pub(crate) assigned: AtomicUsize,
    pub(crate) subscribed: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) failed: AtomicBool,
    /// Who executes a hook.
    pub(crate) hooks: Arc<HookWatch>,
    running_at_stop: AtomicUsize,
    unsettled_at_stop: AtomicUsize,
}

/// One look at a [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusView {
    /// Partitions assigned to this worker.
    pub assigned: usize,
    /// Whether the worker is a member of its group or on the way to be.
    pub subscribed: bool,
    /// Whether the worker is shutting down.
    pub draining: bool,
    /// Whether the poll thread or a partition task has died.
    pub failed: bool,
}

impl Status {
    /// A partition was handed over with this much unfinished.
    pub(crate) fn left_behind(&self, running_tasks: usize, unsettled: usize) {
        if self.draining.load(Ordering::Relaxed) {
            self.running_at_stop.fetch_add(running_tasks, Ordering::Relaxed);
            self.unsettled_at_stop.fetch_add(unsettled, Ordering::Relaxed);
        }
    }

    /// Tasks that ran and messages that were not settled when the worker stopped.
    #[must_use]
    pub fn at_stop(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.running_at_stop), of(&self.unsettled_at_stop))
    }

    /// A hook that has blocked its thread for `long` or more; of several the one that did so longest.
    #[must_use]
    pub fn stuck_hook(&self, long: Duration) -> Option<StuckHook> {
        self.hooks.longest().filter(|stuck| long <= stuck.since)
    }

    /// What is the case now.
    #[must_use]
    pub fn view(&self) -> StatusView {
        StatusView {
            assigned: self.assigned.load(Ordering::Relaxed),
            subscribed: self.subscribed.load(Ordering::Relaxed),
            draining: self.draining.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
