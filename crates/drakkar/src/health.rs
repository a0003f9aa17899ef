//! What the probes answer.
//!
//! `/healthz` fails only for what a restart cures: the poll thread or a partition task has died, or a
//! hook has blocked its thread for too long.
//! `/readyz` says whether the worker is a member of its group (with partitions or waiting for some)
//! and not on its way out. A sink that is down is waited for, not restarted for: it is shown in the
//! details and makes the worker unready only.

use std::{sync::Arc, time::Duration};

use drakkar_core::lenient;
use drakkar_debug::{Health, HealthSnapshot};
use drakkar_pipeline::Status;
use drakkar_sinks::Sinks;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// When probes fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How long a hook may block its thread before `/healthz` fails; default 2 minutes. A hook that
    /// waits is ended by its time-out and never gets here.
    #[serde(with = "lenient::duration")]
    pub hook_stuck: Duration,
    /// How long a sink that holds something may accept nothing before `/readyz` fails; default
    /// 1 minute.
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

/// Reads the pipeline's numbers when a probe asks.
pub(crate) struct WorkerHealth {
    pub worker_id: String,
    pub status: Arc<Status>,
    pub sinks: Sinks,
    pub config: HealthConfig,
}

impl Health for WorkerHealth {
    fn snapshot(&self) -> HealthSnapshot {
        let view = self.status.view();
        let held = self.sinks.held();
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
        } else if !view.subscribed {
            Err("the worker has not joined its group yet".to_owned())
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
        });
        HealthSnapshot { alive, ready, details }
    }
}
