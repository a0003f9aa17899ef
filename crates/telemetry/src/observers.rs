//! What the poll thread and the sinks report, logged and counted.

use std::{sync::PoisonError, time::Duration};

use drakkar_core::{
    SinkError, SinkKind, SinkName, TopicPartition,
    observe::{Circuit, SinkObserver, SourceObserver},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::Metrics;

impl SinkObserver for Metrics {
    fn batch(&self, sink: &SinkName, confirmed: usize, took: Duration) {
        self.sinks.duration(sink).observe(took.as_secs_f64());
        self.sinks.delivered(sink).inc_by(confirmed as u64);
        if sink.kind == SinkKind::DeadLetter {
            self.dlq_messages.inc_by(confirmed as u64);
        }
        debug!(category = "sink", %sink, confirmed, ?took, "batch written");
    }

    fn refused(&self, sink: &SinkName, error: &SinkError, held: bool) {
        self.sinks.errors(sink).inc();
        if held {
            self.sinks.retries(sink).inc();
        }
        if sink.kind == SinkKind::DeadLetter {
            self.dlq_send_failures.inc();
        }
        if let Some(suppressed) = self.throttles.sink_refused.admit() {
            warn!(
                category = "sink",
                %sink,
                error = error.message,
                error_class = error.class,
                held,
                suppressed,
                "payload not accepted"
            );
        }
    }

    fn circuit(&self, sink: &SinkName, now: Circuit) {
        let shown = match now {
            Circuit::Closed => 0.0,
            Circuit::HalfOpen => 0.5,
            Circuit::Open => 1.0,
        };
        self.sinks.circuit(sink).set(shown);
        match now {
            Circuit::Closed => info!(category = "sink", %sink, "sink is written to again"),
            Circuit::HalfOpen => debug!(category = "sink", %sink, "one write tries the sink"),
            Circuit::Open => {
                self.sinks.trips(sink).inc();
                warn!(category = "sink", %sink, "sink failed again and again and is left alone");
            }
        }
    }
}

impl SourceObserver for Metrics {
    fn rebalanced(&self, kind: &'static str, partitions: &[TopicPartition]) {
        self.rebalances.with_label_values(&[kind]).inc();
        self.with_held(|held| {
            for partition in partitions {
                held.paused.remove(partition);
                if kind == "assign" {
                    held.assigned.insert(partition.clone());
                } else {
                    held.assigned.remove(partition);
                }
            }
        });
        info!(
            category = "kafka",
            kind,
            count = partitions.len(),
            partitions = %Listed(partitions),
            "partitions rebalanced"
        );
    }

    fn committed(&self, partition: &TopicPartition, next: i64) {
        let number = partition.partition.to_string();
        self.by_partition.committed.with_label_values(&[&*partition.topic, &number]).inc();
        debug!(category = "kafka", %partition, next, "offset committed");
    }

    fn commit_refused(&self, error: &str) {
        self.commit_failures.inc();
        if let Some(suppressed) = self.throttles.commit_refused.admit() {
            warn!(category = "kafka", error, suppressed, "commit refused");
        }
    }

    fn client_error(&self, error: &str) {
        self.consumer_errors.inc();
        // Replaced as a whole: a panic elsewhere cannot leave it half changed.
        let mut last = self.last_client_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((error.to_owned(), Instant::now()));
        drop(last);
        if let Some(suppressed) = self.throttles.client_error.admit() {
            warn!(category = "kafka", error, suppressed, "kafka client error");
        }
    }

    fn rewound(&self, partition: &TopicPartition, next: i64, from: i64) {
        self.log_rewinds.inc();
        if let Some(suppressed) = self.throttles.rewound.admit() {
            warn!(
                category = "kafka",
                %partition,
                next,
                from,
                suppressed,
                "the log was cut or made anew below what was read; it is read again"
            );
        }
    }

    fn paused(&self, partition: &TopicPartition, paused: bool) {
        self.with_held(|held| {
            if paused {
                held.paused.insert(partition.clone());
            } else {
                held.paused.remove(partition);
            }
        });
        debug!(category = "kafka", %partition, paused, "partition pause changed");
    }

    fn lag(&self, partition: &TopicPartition, messages: i64) {
        let number = partition.partition.to_string();
        self.by_partition.lag.with_label_values(&[&*partition.topic, &number]).set(messages);
    }
}

impl Metrics {
    /// What the Kafka client reported last, and how long ago, unless that is longer than `within`.
    #[must_use]
    pub fn client_error_within(&self, within: Duration) -> Option<(String, Duration)> {
        let last = self.last_client_error.lock().unwrap_or_else(PoisonError::into_inner);
        let (error, at) = last.as_ref()?;
        Some((error.clone(), at.elapsed())).filter(|(_, ago)| *ago <= within)
    }
}

/// `orders:0 orders:1 …`, cut where a line would become unreadable.
struct Listed<'a>(&'a [TopicPartition]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 50;
        for (index, partition) in self.0.iter().take(SHOWN).enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{partition}")?;
        }
        if SHOWN < self.0.len() {
            f.write_str(" ...")?;
        }
        Ok(())
    }
}
