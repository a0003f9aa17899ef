//! The series of the sinks. They are looked up per write, not per payload.

use drakkar_core::SinkName;
use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::register::{Registrar, Result};

const LABELS: [&str; 2] = ["sink_type", "sink_name"];
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The families that carry `sink_type` and `sink_name`.
#[derive(Debug)]
pub(crate) struct Sinks {
    duration: HistogramVec,
    errors: IntCounterVec,
    delivered: IntCounterVec,
    retries: IntCounterVec,
    skipped: IntCounterVec,
    circuit: GaugeVec,
    trips: IntCounterVec,
}

impl Sinks {
    pub(super) fn new(add: &Registrar<'_>) -> Result<Self> {
        let counters = |name: &str, help: &str| add.counters(name, help, &LABELS);
        Ok(Self {
            duration: add.histograms(
                "drakkar_sink_deliver_duration_seconds",
                "Time one write to a sink took",
                &LABELS,
                &BUCKETS,
            )?,
            errors: counters(
                "drakkar_sink_deliver_errors_total",
                "Payloads a sink did not accept, each attempt counted",
            )?,
            delivered: counters(
                "drakkar_sink_payloads_delivered_total",
                "Payloads a sink confirmed",
            )?,
            retries: counters(
                "drakkar_sink_delivery_retries_total",
                "Payloads held to be tried again",
            )?,
            skipped: counters(
                "drakkar_sink_deliveries_skipped_total",
                "Refused payloads given up because on_delivery_error said so",
            )?,
            circuit: add.float_gauges(
                "drakkar_sink_circuit_open",
                "1 while a sink is left alone because it failed again and again, 0.5 while it is tried",
                &LABELS,
            )?,
            trips: counters(
                "drakkar_sink_circuit_trips_total",
                "Times a sink was left alone because it failed again and again",
            )?,
        })
    }

    pub(crate) fn duration(&self, sink: &SinkName) -> Histogram {
        self.duration.with_label_values(&labels(sink))
    }

    pub(crate) fn errors(&self, sink: &SinkName) -> IntCounter {
        self.errors.with_label_values(&labels(sink))
    }

    pub(crate) fn delivered(&self, sink: &SinkName) -> IntCounter {
        self.delivered.with_label_values(&labels(sink))
    }

    pub(crate) fn retries(&self, sink: &SinkName) -> IntCounter {
        self.retries.with_label_values(&labels(sink))
    }

    pub(crate) fn circuit(&self, sink: &SinkName) -> Gauge {
        self.circuit.with_label_values(&labels(sink))
    }

    pub(crate) fn trips(&self, sink: &SinkName) -> IntCounter {
        self.trips.with_label_values(&labels(sink))
    }

    pub(crate) fn skipped(&self, sink: &SinkName) -> IntCounter {
        self.skipped.with_label_values(&labels(sink))
    }
}

fn labels(sink: &SinkName) -> [&str; 2] {
    [sink.kind.as_str(), &sink.instance]
}
