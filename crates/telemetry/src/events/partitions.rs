//! Partitions that come, go and are held; and the end of the worker.

use drakkar_core::{
    Cause, Offset, TopicPartition,
    flood::{FloodLimits, FloodMark, FloodReason},
};
use tracing::{debug, error, info, warn};

use crate::Metrics;

/// Partitions that are held because too many of their messages were dead-lettered.
impl Metrics {
    /// A limit was reached, here or by the last owner of the partition.
    pub fn partition_flooded(
        &self,
        partition: &TopicPartition,
        reason: FloodReason,
        limits: &FloodLimits,
        counted: FloodMark,
    ) {
        let number = partition.partition.to_string();
        let labels = [&*partition.topic, number.as_str(), reason.as_str()];
        self.by_partition.holds.with_label_values(&labels).inc();
        error!(
            category = "worker",
            %partition,
            limit = reason.as_str(),
            max_consecutive = limits.max_consecutive,
            max_ratio = limits.max_ratio,
            in_a_row = counted.consecutive,
            of_recent = counted.recent_dead,
            recent = counted.recent,
            probe_interval = ?limits.probe_interval,
            "too many messages were dead-lettered: the partition is held, one message is tried at a time"
        );
    }

    /// A message of a held partition was tried, and failed for `cause`.
    pub fn flood_try_failed(&self, partition: &TopicPartition, cause: &Cause) {
        warn!(
            category = "worker",
            %partition,
            stage = cause.stage.as_str(),
            error = cause.for_logs(),
            error_class = cause.class,
            "a message of the held partition was tried and failed; it is dead-lettered"
        );
    }

    /// A message of a held partition was tried and succeeded after `held_for`; `waiting` tasks and
    /// messages are done again.
    pub fn flood_lifted(
        &self,
        partition: &TopicPartition,
        held_for: std::time::Duration,
        failed_tries: u64,
        waiting: usize,
    ) {
        warn!(
            category = "worker",
            %partition,
            ?held_for,
            failed_tries,
            waiting,
            "a message of the held partition was tried and succeeded: it is held no longer"
        );
    }
}

/// Partitions and the end.
impl Metrics {
    /// A partition begins to work; `committed` is where the last commit left off.
    pub fn partition_assigned(
        &self,
        partition: &TopicPartition,
        epoch: u64,
        committed: Option<Offset>,
    ) {
        let committed = committed.map(|offset| offset.0);
        debug!(category = "worker", %partition, epoch, committed, "partition started");
    }

    /// The metadata of a commit has no room for so many settled offsets; the one before had room for all.
    pub fn done_map_over(&self, partition: &TopicPartition, next: Offset, left_out: u64) {
        if let Some(suppressed) = self.throttles.done_map_over.admit() {
            warn!(
                category = "kafka",
                %partition,
                %next,
                left_out,
                suppressed,
                "so much is settled ahead of an open message that a commit cannot name all of it; the next \
                 owner does the rest again"
            );
        }
    }

    /// A partition was handed over. `dropped` messages were given back unsettled, for the next owner
    /// to read again.
    pub fn partition_revoked(
        &self,
        partition: &TopicPartition,
        committed: Option<Offset>,
        dropped: u64,
    ) {
        self.dropped_at_revoke(partition, dropped);
        let committed = committed.map(|offset| offset.0);
        info!(category = "worker", %partition, committed, dropped, "partition handed over");
    }

    /// A partition was taken without a hand-over: nothing of it can be committed any more.
    pub fn partition_lost(&self, partition: &TopicPartition, dropped: u64) {
        self.dropped_at_revoke(partition, dropped);
        warn!(category = "worker", %partition, dropped, "partition lost");
    }

    /// A shutdown or hand-over hit its deadline with this much of `partition` unfinished. It is counted
    /// with the `first` of its partitions.
    pub fn drain_timed_out(
        &self,
        partition: &TopicPartition,
        first: bool,
        running_tasks: usize,
        unsettled: usize,
    ) {
        if first {
            self.drain_timeouts.inc();
        }
        warn!(
            category = "worker",
            %partition,
            running_tasks,
            unsettled,
            "drain timed out; what is not settled will be read again"
        );
    }

    /// The pipeline has ended with this many tasks running and messages not settled.
    pub fn stopped(&self, running_tasks: usize, unsettled: usize) {
        self.inflight_at_stop.set(i64::try_from(running_tasks).unwrap_or(i64::MAX));
        self.uncommitted_at_stop.set(i64::try_from(unsettled).unwrap_or(i64::MAX));
        info!(category = "worker", running_tasks, unsettled, "no partition is worked on any more");
    }
}
