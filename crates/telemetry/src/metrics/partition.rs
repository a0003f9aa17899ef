//! The series of one partition.
//!
//! A partition task asks once for its handles and then counts without a lookup. Gauges of a
//! partition disappear when it is given up, because the value would be a lie from then on.
//! Counters stay: what was counted last would otherwise be gone before anyone scrapes it.

use std::collections::HashSet;

use drakkar_core::{TopicPartition, flood::FloodReason};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{
    Metrics,
    register::{Registrar, Result},
};

const LABELS: [&str; 2] = ["topic", "partition"];
const HELD_LABELS: [&str; 3] = ["topic", "partition", "reason"];

/// The families that carry `topic` and `partition`.
#[derive(Debug)]
pub(crate) struct Families {
    pub(super) consumed: IntCounterVec,
    pub(super) parse_failures: IntCounterVec,
    pub(super) settled: IntCounterVec,
    pub(super) dropped_at_revoke: IntCounterVec,
    pub(crate) committed: IntCounterVec,
    pub(super) queue_size: IntGaugeVec,
    pub(super) task_bytes: IntGaugeVec,
    pub(super) done_map_left_out: IntGaugeVec,
    pub(crate) lag: IntGaugeVec,
    pub(super) held: IntGaugeVec,
    pub(crate) holds: IntCounterVec,
}

impl Families {
    pub(super) fn new(add: &Registrar<'_>) -> Result<Self> {
        let counters = |name: &str, help: &str| add.counters(name, help, &LABELS);
        let gauges = |name: &str, help: &str| add.gauges(name, help, &LABELS);
        Ok(Self {
            consumed: counters(
                "drakkar_messages_consumed_total",
                "Messages taken from Kafka by the partition",
            )?,
            parse_failures: counters(
                "drakkar_message_parse_failures_total",
                "Messages whose value could not be decoded",
            )?,
            settled: counters(
                "drakkar_messages_settled_total",
                "Messages whose every task and delivery has ended",
            )?,
            dropped_at_revoke: counters(
                "drakkar_messages_dropped_at_revoke_total",
                "Messages given back unsettled at a revoke; the next owner reads them again",
            )?,
            committed: counters("drakkar_offsets_committed_total", "Commits that were confirmed")?,
            queue_size: gauges(
                "drakkar_partition_queue_size",
                "Messages held: polled and not yet settled",
            )?,
            task_bytes: gauges(
                "drakkar_partition_task_bytes",
                "Bytes of the tasks that have not ended: input, arguments, metadata and known results",
            )?,
            done_map_left_out: gauges(
                "drakkar_done_map_left_out",
                "Messages settled ahead that a commit has no room to name; the next owner does them again",
            )?,
            lag: gauges(
                "drakkar_offset_lag",
                "Messages between the committed position and the end of the partition",
            )?,
            held: add.gauges(
                "drakkar_partition_held",
                "1 while the partition is held because too many messages were dead-lettered",
                &HELD_LABELS,
            )?,
            holds: add.counters(
                "drakkar_partition_holds_total",
                "How often the partition was held because too many messages were dead-lettered",
                &HELD_LABELS,
            )?,
        })
    }
}

/// Handles to the series of one partition; cheap to clone and to use.
#[derive(Debug, Clone)]
pub struct PartitionMetrics {
    /// `drakkar_messages_consumed_total`
    pub consumed: IntCounter,
    /// `drakkar_message_parse_failures_total`
    pub parse_failures: IntCounter,
    /// `drakkar_messages_settled_total`
    pub settled: IntCounter,
    /// `drakkar_messages_dropped_at_revoke_total`
    pub dropped_at_revoke: IntCounter,
    /// `drakkar_partition_queue_size`; `drakkar_total_queued` is their sum.
    pub queue_size: IntGauge,
    /// `drakkar_partition_task_bytes`
    pub task_bytes: IntGauge,
    /// `drakkar_done_map_left_out`
    pub done_map_left_out: IntGauge,
}

/// Which partitions are ours, for the gauges that count them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) assigned: HashSet<TopicPartition>,
    pub(crate) paused: HashSet<TopicPartition>,
}

impl Metrics {
    /// The handles of `partition`.
    #[must_use]
    pub fn partition(&self, partition: &TopicPartition) -> PartitionMetrics {
        let number = partition.partition.to_string();
        let labels = [&*partition.topic, number.as_str()];
        let families = &self.by_partition;
        PartitionMetrics {
            consumed: families.consumed.with_label_values(&labels),
            parse_failures: families.parse_failures.with_label_values(&labels),
            settled: families.settled.with_label_values(&labels),
            dropped_at_revoke: families.dropped_at_revoke.with_label_values(&labels),
            queue_size: families.queue_size.with_label_values(&labels),
            task_bytes: families.task_bytes.with_label_values(&labels),
            done_map_left_out: families.done_map_left_out.with_label_values(&labels),
        }
    }

    /// So many messages were given back unsettled. Brings no gauge back that was removed.
    pub(crate) fn dropped_at_revoke(&self, partition: &TopicPartition, messages: u64) {
        let number = partition.partition.to_string();
        let labels = [&*partition.topic, number.as_str()];
        self.by_partition.dropped_at_revoke.with_label_values(&labels).inc_by(messages);
    }

    /// Removes the gauges of a partition that is no longer ours. Handles taken before count into
    /// the void, so a straggler cannot bring the series back.
    pub fn forget_partition(&self, partition: &TopicPartition) {
        let number = partition.partition.to_string();
        let labels = [&*partition.topic, number.as_str()];
        let Families { queue_size, task_bytes, done_map_left_out, lag, .. } = &self.by_partition;
        for family in [queue_size, task_bytes, done_map_left_out, lag] {
            // Absent is as good as removed: the lag of a short assignment was never reported.
            drop(family.remove_label_values(&labels));
        }
        self.partition_held(partition, None);
    }

    /// Which limit holds the partition. The series exists only while one does.
    pub fn partition_held(&self, partition: &TopicPartition, reason: Option<FloodReason>) {
        let number = partition.partition.to_string();
        for known in [FloodReason::Consecutive, FloodReason::Ratio] {
            let labels = [&*partition.topic, number.as_str(), known.as_str()];
            let held = &self.by_partition.held;
            if reason == Some(known) {
                held.with_label_values(&labels).set(1);
            } else {
                drop(held.remove_label_values(&labels)); // Absent is as good as removed.
            }
        }
    }

    /// Changes the sets of partitions and the gauges that count them.
    pub(crate) fn with_held(&self, change: impl FnOnce(&mut Held)) {
        // A panic while the lock was held cannot leave a set half changed.
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut held);
        self.assigned_partitions.set(i64::try_from(held.assigned.len()).unwrap_or(i64::MAX));
        self.backpressure_active.set(i64::from(!held.paused.is_empty()));
    }
}
