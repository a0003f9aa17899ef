//! Series that are computed when they are read: sums that follow from others, and what lives
//! outside of [`Metrics`](super::Metrics).

use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{partition::Families, register::Result};
use crate::logging;

pub(super) fn register(registry: &Registry, families: &Families) -> Result<()> {
    registry.register(Box::new(TotalQueued {
        queues: families.queue_size.clone(),
        total: IntGauge::new(
            "drakkar_total_queued",
            "Messages held over all partitions: polled and not yet settled",
        )?,
    }))?;
    registry.register(Box::new(LogDrops {
        lines: IntCounter::new(
            "drakkar_log_lines_dropped_total",
            "Log lines dropped because they came too fast for the log, or because it refused them (a full disk, a broken pipe)",
        )?,
    }))
}

/// The sum of `drakkar_partition_queue_size`.
struct TotalQueued {
    queues: IntGaugeVec,
    total: IntGauge,
}

impl Collector for TotalQueued {
    fn desc(&self) -> Vec<&Desc> {
        self.total.desc()
    }

    #[allow(clippy::cast_possible_truncation)] // Numbers of messages in memory.
    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.queues.collect();
        let series = families.iter().flat_map(MetricFamily::get_metric);
        let sum: f64 = series.map(|metric| metric.get_gauge().get_value()).sum();
        self.total.set(sum as i64);
        self.total.collect()
    }
}

/// What the log writer of this process dropped.
struct LogDrops {
    lines: IntCounter,
}

impl Collector for LogDrops {
    fn desc(&self) -> Vec<&Desc> {
        self.lines.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.lines.inc_by(logging::dropped_lines().saturating_sub(self.lines.get()));
        self.lines.collect()
    }
}
