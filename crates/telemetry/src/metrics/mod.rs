//! Every metric the worker shows, under the names dashboards already know.
//!
//! [`Metrics`] owns its registry, so that two workers in one process (and every test) count apart.
//! What is counted per message goes through handles that are looked up once:
//! [`Metrics::partition`], [`Metrics::hook`] and the plain fields. Sums and states that follow
//! from other series are computed when they are read and cannot disagree with them.

mod register; // name and help become a registered metric
mod partition; // series with topic and partition
mod hook; // series with hook
mod sink; // series with sink_type and sink_name
mod program; // series with program
mod derived; // computed when read
#[cfg(test)]
mod tests;

use std::{
    sync::{Mutex, OnceLock},
    time::Duration,
};

use prometheus::{
    Counter, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, TextEncoder,
};
use tokio::time::Instant;

pub use hook::{Hook, HookMetrics};
pub use partition::PartitionMetrics;
pub use program::ProgramView;

use hook::Hooks;
use partition::{Families, Held};
use program::Programs;
use register::{Registrar, Result};
use sink::Sinks;

use crate::{job_log::JobLog, throttle::Throttles};

const DURATION: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
const SPAWN: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const QUEUE_WAIT: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
const PERIODIC: [f64; 9] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];
const BATCH: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// All metrics of one worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    worker: IntGaugeVec,
    pub(crate) by_partition: Families,
    pub(crate) sinks: Sinks,
    hooks: Hooks,
    programs: Programs,
    held: Mutex<Held>,
    /// What the Kafka client said last, and when.
    pub(crate) last_client_error: Mutex<Option<(String, Instant)>>,
    pub(crate) throttles: Throttles,
    pub(crate) job_log: OnceLock<JobLog>,

    /// `drakkar_executor_tasks_total{status="started"}`
    pub tasks_started: IntCounter,
    /// `drakkar_executor_tasks_total{status="completed"}`
    pub tasks_completed: IntCounter,
    /// `drakkar_executor_tasks_total{status="failed"}`; attempts, not tasks.
    pub tasks_failed: IntCounter,
    /// `drakkar_executor_duration_seconds`; real processes only, failed ones too.
    pub executor_duration: Histogram,
    /// `drakkar_executor_spawn_seconds`
    pub executor_spawn: Histogram,
    /// `drakkar_executor_queue_wait_seconds`
    pub executor_queue_wait: Histogram,
    /// `drakkar_executor_escaped_processes_total`
    pub escaped_processes: IntCounter,
    /// `drakkar_executor_memory_paused`
    pub memory_paused: IntGauge,
    /// `drakkar_executor_memory_requeued_total`
    pub memory_requeued: IntCounter,
    /// `drakkar_executor_memory_pauses_total`
    pub memory_pauses: IntCounter,
    /// `drakkar_job_log_dropped_total`: lines that the job log did not take.
    pub job_log_dropped: IntCounter,
    /// `drakkar_executor_priority_fn_errors_total`: panics in `Handler::priority`.
    pub priority_errors: IntCounter,
    /// `drakkar_executor_pool_active`
    pub pool_active: IntGauge,
    /// `drakkar_executor_pool_max`
    pub pool_max: IntGauge,
    /// `drakkar_executor_idle_slot_seconds_total`; counted by [`Metrics::idled`].
    idle_slot_seconds: Counter,
    /// `drakkar_consumer_idle_seconds_total`; counted by [`Metrics::idled`].
    consumer_idle_seconds: Counter,
    /// `drakkar_host_effective_cpus`
    pub effective_cpus: Gauge,
    /// `drakkar_executor_timeouts_total`
    pub timeouts: IntCounter,
    /// `drakkar_executor_output_truncated_total{stream="stdout"}`
    pub stdout_truncated: IntCounter,
    /// `drakkar_executor_output_truncated_total{stream="stderr"}`
    pub stderr_truncated: IntCounter,
    /// `drakkar_results_output_dropped_total`: results kept for a hook that aggregates without their
    /// output, because the partition kept too much.
    pub results_output_dropped: IntCounter,
    /// `drakkar_task_retries_total`
    pub task_retries: IntCounter,
    /// `drakkar_tasks_precomputed_total`
    pub tasks_precomputed: IntCounter,
    /// `drakkar_periodic_task_runs_total`, by name and status (`ok`, `error`).
    pub periodic_runs: IntCounterVec,
    /// `drakkar_periodic_task_duration_seconds`, by name.
    pub periodic_duration: HistogramVec,
    /// `drakkar_batch_duration_seconds`: from `arrange` of a window to its last message settled.
    pub batch_duration: Histogram,
    /// `drakkar_backpressure_active`: 1 while any partition is paused for want of room.
    pub backpressure_active: IntGauge,
    /// `drakkar_assigned_partitions`
    pub assigned_partitions: IntGauge,
    /// `drakkar_consumer_errors_total`
    pub consumer_errors: IntCounter,
    /// `drakkar_commit_failures_total`
    pub commit_failures: IntCounter,
    /// `drakkar_log_rewinds_total`
    pub log_rewinds: IntCounter,
    /// `drakkar_rebalance_events_total`
    pub rebalances: IntCounterVec,
    /// `drakkar_sink_dlq_messages_total`: records the dead-letter topic confirmed.
    pub dlq_messages: IntCounter,
    /// `drakkar_dlq_send_failures_total`: attempts the dead-letter topic refused.
    pub dlq_send_failures: IntCounter,
    /// `drakkar_dead_letters_total`, by stage: messages given up.
    pub dead_letters: IntCounterVec,
    /// `drakkar_messages_skipped_total{reason="on_error"}`
    pub skipped_on_error: IntCounter,
    /// `drakkar_messages_skipped_total{reason="invalid"}`
    pub skipped_invalid: IntCounter,
    /// `drakkar_uncommitted_offsets_at_stop`
    pub uncommitted_at_stop: IntGauge,
    /// `drakkar_inflight_at_stop`
    pub inflight_at_stop: IntGauge,
    /// `drakkar_drain_timeout_hit_total`
    pub drain_timeouts: IntCounter,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    ///
    /// # Errors
    ///
    /// When a name is malformed or taken twice, which only a change of this crate can cause.
    #[allow(clippy::too_many_lines)] // A table: one entry per metric, nothing is decided.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let add = Registrar(&registry);
        let tasks = add.counters(
            "drakkar_executor_tasks_total",
            "Attempts of tasks: started (in a slot or a persistent process, or with a known result), completed, failed",
            &["status"],
        )?;
        let truncated = add.counters(
            "drakkar_executor_output_truncated_total",
            "Runs whose output exceeded the capture limit",
            &["stream"],
        )?;
        let skipped = add.counters(
            "drakkar_messages_skipped_total",
            "Messages settled of which nothing succeeded or was dead-lettered, because on_error or kafka.on_invalid said so",
            &["reason"],
        )?;
        let by_partition = Families::new(&add)?;
        derived::register(&registry, &by_partition)?;
        Ok(Self {
            worker: add.gauges(
                "drakkar_worker_info",
                "Which worker this is; always 1",
                &["worker_id", "version", "consumer_group"],
            )?,
            by_partition,
            sinks: Sinks::new(&add)?,
            hooks: Hooks::new(&add)?,
            programs: Programs::new(&add)?,
            held: Mutex::default(),
            last_client_error: Mutex::default(),
            throttles: Throttles::default(),
            job_log: OnceLock::new(),
            tasks_started: tasks.with_label_values(&["started"]),
            tasks_completed: tasks.with_label_values(&["completed"]),
            tasks_failed: tasks.with_label_values(&["failed"]),
            executor_duration: add.histogram(
                "drakkar_executor_duration_seconds",
                "Time from the start of a process to its end",
                &DURATION,
            )?,
            executor_spawn: add.histogram(
                "drakkar_executor_spawn_seconds",
                "Time the operating system took to start a process",
                &SPAWN,
            )?,
            executor_queue_wait: add.histogram(
                "drakkar_executor_queue_wait_seconds",
                "Time a task waited for a slot",
                &QUEUE_WAIT,
            )?,
            escaped_processes: add.counter(
                "drakkar_executor_escaped_processes_total",
                "Processes that had left the group of their task and were ended",
            )?,
            memory_paused: add.gauge(
                "drakkar_executor_memory_paused",
                "Whether no task is started because memory is short",
            )?,
            memory_requeued: add.counter(
                "drakkar_executor_memory_requeued_total",
                "Tasks that were ended and put back in line because memory was short",
            )?,
            memory_pauses: add.counter(
                "drakkar_executor_memory_pauses_total",
                "Times that memory got too short to start tasks",
            )?,
            job_log_dropped: add
                .counter("drakkar_job_log_dropped_total", "Lines that the job log did not take")?,
            priority_errors: add.counter(
                "drakkar_executor_priority_fn_errors_total",
                "Panics in Handler::priority; the task kept its own priority",
            )?,
            pool_active: add.gauge("drakkar_executor_pool_active", "Slots in use")?,
            pool_max: add.gauge("drakkar_executor_pool_max", "Slots there are")?,
            idle_slot_seconds: add.float_counter(
                "drakkar_executor_idle_slot_seconds_total",
                "Free slots times the seconds in which more messages were held than tasks ran",
            )?,
            consumer_idle_seconds: add.float_counter(
                "drakkar_consumer_idle_seconds_total",
                "Seconds in which no message was held: there was nothing to do",
            )?,
            effective_cpus: add.float_gauge(
                "drakkar_host_effective_cpus",
                "CPUs this worker may use, after affinity and cgroup quota",
            )?,
            timeouts: add.counter(
                "drakkar_executor_timeouts_total",
                "Processes ended because they exceeded their time limit",
            )?,
            stdout_truncated: truncated.with_label_values(&["stdout"]),
            stderr_truncated: truncated.with_label_values(&["stderr"]),
            results_output_dropped: add.counter(
                "drakkar_results_output_dropped_total",
                "Results kept for on_message_complete or on_window_complete without their output",
            )?,
            task_retries: add
                .counter("drakkar_task_retries_total", "Failed tasks that were run again")?,
            tasks_precomputed: add
                .counter("drakkar_tasks_precomputed_total", "Tasks that needed no process")?,
            periodic_runs: add.counters(
                "drakkar_periodic_task_runs_total",
                "Runs of periodic work by how they ended",
                &["name", "status"],
            )?,
            periodic_duration: add.histograms(
                "drakkar_periodic_task_duration_seconds",
                "Time a run of periodic work took",
                &["name"],
                &PERIODIC,
            )?,
            batch_duration: add.histogram(
                "drakkar_batch_duration_seconds",
                "Time from the arrange of a window to its last message settled",
                &BATCH,
            )?,
            backpressure_active: add.gauge(
                "drakkar_backpressure_active",
                "1 while any partition is paused for want of room",
            )?,
            assigned_partitions: add
                .gauge("drakkar_assigned_partitions", "Partitions this worker owns")?,
            consumer_errors: add
                .counter("drakkar_consumer_errors_total", "Errors the Kafka client reported")?,
            commit_failures: add
                .counter("drakkar_commit_failures_total", "Commits that were refused")?,
            log_rewinds: add.counter(
                "drakkar_log_rewinds_total",
                "Partitions read again because their log was cut or made anew below what was read",
            )?,
            rebalances: add.counters(
                "drakkar_rebalance_events_total",
                "Rebalances by what they did: assign, revoke or lost",
                &["type"],
            )?,
            dlq_messages: add.counter(
                "drakkar_sink_dlq_messages_total",
                "Records the dead-letter topic confirmed",
            )?,
            dlq_send_failures: add.counter(
                "drakkar_dlq_send_failures_total",
                "Attempts to write a record that the dead-letter topic refused",
            )?,
            dead_letters: add.counters(
                "drakkar_dead_letters_total",
                "Messages given up, by the stage that gave them up",
                &["stage"],
            )?,
            skipped_on_error: skipped.with_label_values(&["on_error"]),
            skipped_invalid: skipped.with_label_values(&["invalid"]),
            uncommitted_at_stop: add.gauge(
                "drakkar_uncommitted_offsets_at_stop",
                "Messages held and not settled when the worker stopped: the next owner reads them again",
            )?,
            inflight_at_stop: add.gauge(
                "drakkar_inflight_at_stop",
                "Tasks still running when the worker stopped waiting for them",
            )?,
            drain_timeouts: add.counter(
                "drakkar_drain_timeout_hit_total",
                "Shutdowns and hand-overs that hit their deadline, whatever the number of their partitions",
            )?,
            registry,
        })
    }

    /// Says which worker this is.
    pub fn identify(&self, worker_id: &str, version: &str, consumer_group: &str) {
        self.worker.reset();
        self.worker.with_label_values(&[worker_id, version, consumer_group]).set(1);
    }

    /// The handles of `hook`.
    #[must_use]
    pub fn hook(&self, hook: Hook) -> &HookMetrics {
        self.hooks.get(hook)
    }

    /// Shows how a persistent program is.
    pub fn program(&self, name: &str, view: &ProgramView) {
        self.programs.show(name, view);
    }

    /// For the last `time`, `free` slots were idle and `running` tasks ran while `held` messages were held.
    pub fn idled(&self, time: Duration, free: usize, running: usize, held: usize) {
        if held == 0 {
            self.consumer_idle_seconds.inc_by(time.as_secs_f64());
        } else if running < held {
            let slots = u32::try_from(free).unwrap_or(u32::MAX);
            self.idle_slot_seconds.inc_by(time.as_secs_f64() * f64::from(slots));
        }
    }

    /// The registry, for metrics of the user's own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything in the text format that Prometheus scrapes.
    ///
    /// # Errors
    ///
    /// When a metric of the user's own does not encode.
    pub fn render(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
