//! What probes may see of the pipeline: a few numbers, written by the pipeline, read by anyone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use drakkar_core::{TopicPartition, backpressure::Load, flood::FloodReason};
use drakkar_telemetry::prometheus::IntGauge;
use tokio::{sync::watch, time::Instant};

use crate::watch::{HookWatch, StuckHook};

/// Written by the pipeline as it goes.
#[derive(Debug, Default)]
pub struct Status {
    pub(crate) assigned: AtomicUsize,
    pub(crate) member: AtomicBool,
    pub(crate) draining: AtomicBool,
    pub(crate) failed: AtomicBool,
    /// Who executes a hook.
    pub(crate) hooks: Arc<HookWatch>,
    running_at_stop: AtomicUsize,
    unsettled_at_stop: AtomicUsize,
    held: watch::Sender<BTreeMap<TopicPartition, HeldPartition>>,
    loads: Mutex<HashMap<TopicPartition, Shown>>,
}

/// How much a partition holds, and where that is shown.
#[derive(Debug)]
struct Shown {
    epoch: u64,
    load: Arc<Load>,
    gauge: IntGauge,
}

/// A partition that is held because too many of its messages were dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPartition {
    /// Which partition.
    pub partition: TopicPartition,
    pub(crate) epoch: u64,
    /// The limit that holds it.
    pub reason: FloodReason,
    /// Since when.
    pub since: Instant,
    /// How many messages were tried since then, and failed.
    pub failed_tries: u64,
    /// How much waits to be tried again or dead-lettered: tasks, and messages that were not arranged.
    pub waiting: usize,
}

/// One look at a [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusView {
    /// Partitions assigned to this worker.
    pub assigned: usize,
    /// Whether the group has told this worker what is its own, be it nothing, and has not taken it
    /// away unasked since.
    pub member: bool,
    /// Whether the worker is shutting down.
    pub draining: bool,
    /// Whether the poll thread or a partition task has died.
    pub failed: bool,
}

impl Status {
    /// A partition ended with this much unfinished; counted when the worker stops.
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

    /// Partitions that are held because too many of their messages were dead-lettered.
    #[must_use]
    pub fn held_partitions(&self) -> Vec<HeldPartition> {
        self.held.borrow().values().cloned().collect()
    }

    /// What holds a partition, if anything does. An older assignment does not take back what a newer
    /// one shows.
    pub(crate) fn show_hold(
        &self,
        partition: &TopicPartition,
        epoch: u64,
        hold: Option<HeldPartition>,
    ) {
        self.held.send_if_modified(|held| {
            if held.get(partition).is_some_and(|shown| epoch < shown.epoch) {
                return false;
            }
            match hold {
                Some(hold) => held.insert(partition.clone(), hold).is_none(),
                None => held.remove(partition).is_some(),
            }
        });
    }

    /// A partition was assigned: what it holds is shown in `gauge` until it is [hidden](Self::hide_load).
    pub(crate) fn show_load(
        &self,
        partition: &TopicPartition,
        epoch: u64,
        load: &Arc<Load>,
        gauge: &IntGauge,
    ) {
        let shown = Shown { epoch, load: Arc::clone(load), gauge: gauge.clone() };
        self.loads().insert(partition.clone(), shown);
    }

    /// This assignment has ended; a newer one stays.
    pub(crate) fn hide_load(&self, partition: &TopicPartition, epoch: u64) {
        let mut loads = self.loads();
        if loads.get(partition).is_some_and(|shown| shown.epoch == epoch) {
            loads.remove(partition);
        }
    }

    /// Messages that a partition holds.
    pub(crate) fn load(&self, partition: &TopicPartition) -> usize {
        self.loads().get(partition).map_or(0, |shown| shown.load.messages())
    }

    /// Sets the gauges of what the partitions hold, and answers how many messages these are. A partition
    /// that is stuck does nothing by which it could do so itself, and what it holds grows all the same.
    pub fn show_loads(&self) -> usize {
        let mut held = 0;
        for Shown { load, gauge, .. } in self.loads().values() {
            let messages = load.messages();
            gauge.set(i64::try_from(messages).unwrap_or(i64::MAX));
            held += messages;
        }
        held
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<TopicPartition, Shown>> {
        // A panic while the lock was held cannot leave the map half changed.
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is the case now.
    #[must_use]
    pub fn view(&self) -> StatusView {
        StatusView {
            assigned: self.assigned.load(Ordering::Relaxed),
            member: self.member.load(Ordering::Relaxed),
            draining: self.draining.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
