//! What the probes answer.
//!
//! `/healthz` fails only for what a restart cures: the poll thread or a partition task has died, or a
//! hook has blocked its thread for too long.
//! `/readyz` says whether the group has told the worker which partitions are its own, be it none, and
//! it is not on its way out. A sink that is down is waited for, not restarted for: it is shown in the
//! details and makes the worker unready only. A partition that is held because too many of its messages
//! were dead-lettered is shown in the details, and so is what the Kafka client cannot read.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use drakkar_core::lenient;
use drakkar_debug::{Health, HealthSnapshot};
use drakkar_executor::{PoolWatch, ProgramStats};
use drakkar_pipeline::{HeldPartition, Status};
use drakkar_sinks::Sinks;
use drakkar_telemetry::Metrics;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// For how long the details show what the Kafka client reported. What is wrong for good it reports again
/// and again.
const RECENT: Duration = Duration::from_mins(1);

/// When probes fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How long a hook may block its thread before `/healthz` fails. One that waits is ended by
    /// `executor.hook_timeout_seconds` and never gets here. Default: `2m`.
    #[serde(with = "lenient::duration")]
    pub hook_stuck: Duration,
    /// How long a sink that holds something may accept nothing, or one that is idle not answer,
    /// before `/readyz` fails. Default: `1m`.
    #[serde(with = "lenient::duration")]
    pub sink_window: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { hook_stuck: Duration::from_mins(2), sink_window: Duration::from_mins(1) }
    }
}

impl HealthConfig {
    /// What is wrong with the section; every text begins with the key it is about.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let keys = [("hook_stuck", self.hook_stuck), ("sink_window", self.sink_window)];
        let zero = keys.into_iter().filter(|(_, time)| time.is_zero());
        zero.map(|(key, _)| format!("health.{key}: must be more than 0")).collect()
    }
}

/// Reads the pipeline's numbers when a probe asks. Asked from the first moment on: while a worker waits
/// for a broker or a sink, a restart cures nothing.
pub(crate) struct WorkerHealth {
    pub worker_id: String,
    pub status: Arc<Status>,
    pub metrics: Arc<Metrics>,
    pub config: HealthConfig,
    pub connected: OnceLock<Connected>,
}

/// What there is when all parts have started.
pub(crate) struct Connected {
    pub sinks: Sinks,
    pub pool: PoolWatch,
}

impl Health for WorkerHealth {
    fn snapshot(&self) -> HealthSnapshot {
        match self.connected.get() {
            Some(connected) => self.started(connected),
            None => HealthSnapshot {
                alive: Ok(()),
                ready: Err("the worker is starting: it waits for its broker or its sinks".into()),
                details: json!({"worker_id": self.worker_id}),
            },
        }
    }
}

impl WorkerHealth {
    fn started(&self, Connected { sinks, pool }: &Connected) -> HealthSnapshot {
        let view = self.status.view();
        let held = sinks.held();
        let HealthConfig { hook_stuck, sink_window } = self.config;
        let alive = if view.failed {
            Err("the poll thread or a partition task has died".to_owned())
        } else if let Some(stuck) = self.status.stuck_hook(hook_stuck) {
            Err(stuck.to_string())
        } else {
            Ok(())
        };
        let ready = if let Err(dead) = &alive {
            Err(dead.clone()) // What is dead is not ready either.
        } else if view.draining {
            Err("the worker is shutting down".to_owned())
        } else if !view.member {
            Err("the worker is not a member of its group".to_owned())
        } else if let Some((sink, since)) = held.iter().find(|(_, since)| sink_window <= *since) {
            Err(format!("sink {sink} has accepted nothing for {} s", since.as_secs()))
        } else {
            Ok(())
        };
        let held: Vec<_> = held
            .iter()
            .map(|(sink, since)| json!({"sink": sink.to_string(), "seconds": since.as_secs()}))
            .collect();
        let details = json!({
            "worker_id": self.worker_id,
            "assigned_partitions": view.assigned,
            "draining": view.draining,
            "held_sinks": held,
            "held_partitions": held_partitions(&self.status),
            "refused_dead_letter": sinks.refused_dead_letter().map(|(error, since)| json!({
                "reason": error.to_string(), "seconds": since.as_secs(),
            })),
            "kafka_error": self.metrics.client_error_within(RECENT).map(|(reason, ago)| json!({
                "reason": reason, "seconds": ago.as_secs(),
            })),
            "programs": programs(pool),
        });
        HealthSnapshot { alive, ready, details }
    }
}

/// Partitions that wait for one of their messages to succeed, and why.
fn held_partitions(status: &Status) -> Vec<Value> {
    let entry = |held: HeldPartition| {
        json!({
            "partition": held.partition.to_string(),
            "reason": format!("dlq.{}", held.reason.as_str()),
            "seconds": held.since.elapsed().as_secs(),
            "failed_tries": held.failed_tries,
            "waiting": held.waiting,
        })
    };
    status.held_partitions().into_iter().map(entry).collect()
}

/// How the persistent programs are. What a failure is called holds nothing that a program printed.
fn programs(pool: &PoolWatch) -> BTreeMap<String, Value> {
    let described = |stats: &ProgramStats| {
        json!({
            "processes": stats.instances,
            "ready": stats.ready,
            "in_flight": stats.in_flight,
            "queued": stats.queued,
            "failures": stats.failures,
            "crash_loop": stats.is_crash_looping(),
            "last_failure": stats.last_failure,
        })
    };
    pool.programs().iter().map(|(name, stats)| (name.clone(), described(stats))).collect()
}

#[cfg(test)]
mod tests {
    use drakkar_executor::{ExecutorConfig, Mode, Pool, ProgramConfig};

    use super::*;

    #[tokio::test]
    async fn the_probes_show_a_program_that_fails() {
        let mut config = ExecutorConfig::default();
        let program = ProgramConfig {
            mode: Mode::Persistent,
            binary: Some("false".into()),
            instances: Some(std::num::NonZeroUsize::MIN),
            backoff_initial: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            ..ProgramConfig::default()
        };
        config.programs.insert("broken".to_owned(), program);
        let pool = Pool::start(&config).unwrap();
        let watch = pool.watch();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let shown = loop {
            let shown = programs(&watch)["broken"].clone();
            if shown["crash_loop"] == true {
                break shown;
            }
            assert!(tokio::time::Instant::now() < deadline, "{shown}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(shown["processes"], 1);
        assert!(shown["last_failure"].as_str().unwrap().contains("exit status: 1"), "{shown}");
        pool.close().await;
    }
}
