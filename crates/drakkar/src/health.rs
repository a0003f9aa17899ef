//! What the probes answer.
//!
//! `/healthz` fails only for what a restart cures: the poll thread or a partition task has died.
//! `/readyz` says whether the worker is a member of its group (with partitions or waiting for some)
//! and not on its way out. A sink that is down is waited for, not restarted for: it is shown in the
//! details and makes the worker unready only.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drakkar_debug::{Health, HealthSnapshot};
use drakkar_executor::{PoolWatch, ProgramStats};
use drakkar_pipeline::Status;
use drakkar_sinks::Sinks;
use serde_json::{Value, json};

/// A sink that has accepted nothing for this long makes the worker unready.
const SINK_WINDOW: Duration = Duration::from_mins(1);

/// Reads the pipeline's numbers when a probe asks.
pub(crate) struct WorkerHealth {
    pub worker_id: String,
    pub status: Arc<Status>,
    pub sinks: Sinks,
    pub pool: PoolWatch,
}

impl Health for WorkerHealth {
    fn snapshot(&self) -> HealthSnapshot {
        let view = self.status.view();
        let held = self.sinks.held();
        let alive = if view.failed {
            Err("the poll thread or a partition task has died".to_owned())
        } else {
            Ok(())
        };
        let ready = if view.draining {
            Err("the worker is shutting down".to_owned())
        } else if !view.subscribed {
            Err("the worker has not joined its group yet".to_owned())
        } else if let Some((sink, since)) = held.iter().find(|(_, since)| SINK_WINDOW <= *since) {
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
            "programs": programs(&self.pool),
        });
        HealthSnapshot { alive, ready: alive_and(ready, view.failed), details }
    }
}

/// What is dead is not ready either.
fn alive_and(ready: Result<(), String>, failed: bool) -> Result<(), String> {
    if failed { Err("the worker has failed".to_owned()) } else { ready }
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
