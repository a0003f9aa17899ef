//! One event, one place: its log line and its metrics are written together.
//!
//! Each method is one thing that happened. Messages are lower case, data is in fields, and every
//! line has a `category`. Lines that could flood are throttled; counters never are. What a program
//! printed and what a message holds is never logged here; what a hook or a sink says of its error is, once.

mod partitions; // those that come, go and are held

use drakkar_core::{
    DeadLetter, DeliveryFailure, Failure, Output, SinkError, SinkName, SourceMessage, Task,
    TaskFailure, TaskResult, TopicPartition,
};
use tracing::{debug, info, warn};

use crate::{Hook, Metrics};

/// Why a message was settled of which nothing succeeded or was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// `on_error` returned `Skip`.
    OnError,
    /// It did not decode, and `kafka.on_invalid` is `skip`.
    Invalid,
}

impl SkipReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::OnError => "on_error",
            Self::Invalid => "invalid",
        }
    }
}

/// Tasks.
impl Metrics {
    /// An attempt begins: it waits no longer.
    pub fn task_started(&self) {
        self.tasks_started.inc();
    }

    /// An attempt ended with exit code 0.
    pub fn task_completed(&self, done: &TaskResult) {
        self.tasks_completed.inc();
        if done.task.known_result().is_some() {
            self.tasks_precomputed.inc();
        } else {
            self.ran(&done.output);
        }
        debug!(
            category = "executor",
            task = %done.task.id(),
            attempt = done.attempt,
            took = ?done.output.took,
            "task completed"
        );
    }

    /// An attempt failed; what becomes of the task is decided next.
    pub fn task_failed(&self, partition: &TopicPartition, failed: &TaskFailure) {
        self.tasks_failed.inc();
        if failed.task.known_result().is_some() {
            self.tasks_precomputed.inc();
        } else {
            self.ran(&failed.output);
        }
        if matches!(failed.failure, Failure::TimedOut(_)) {
            self.timeouts.inc();
        }
        // For some handlers a failure is an answer. What is made of it is said louder.
        debug!(
            category = "executor",
            task = %failed.task.id(),
            %partition,
            offset = first_offset(failed),
            error = %failed.failure,
            error_class = failed.failure.class(),
            attempt = failed.attempt,
            retries_left = failed.retries_left,
            took = ?failed.output.took,
            "task failed"
        );
    }

    /// A failed task will run again after `wait`.
    pub fn task_retried(&self, failed: &TaskFailure, wait: std::time::Duration) {
        self.task_retries.inc();
        if let Some(suppressed) = self.throttles.task_retried.admit() {
            info!(
                category = "executor",
                task = %failed.task.id(),
                offset = first_offset(failed),
                error = %failed.failure,
                error_class = failed.failure.class(),
                attempt = failed.attempt,
                retries_left = failed.retries_left,
                ?wait,
                suppressed,
                "task will be retried"
            );
        }
    }

    /// `on_error` replaced a failed task by `replacements` others.
    pub fn task_replaced(&self, failed: &TaskFailure, replacements: usize) {
        debug!(
            category = "executor",
            task = %failed.task.id(),
            replacements,
            "task replaced"
        );
    }

    /// `on_error` gave a failed task up. A message of which nothing else comes is counted by
    /// [`Self::message_skipped`] when it settles.
    pub fn task_skipped(&self, partition: &TopicPartition, failed: &TaskFailure) {
        warn!(
            category = "handler",
            task = %failed.task.id(),
            %partition,
            offset = first_offset(failed),
            error = %failed.failure,
            error_class = failed.failure.class(),
            attempt = failed.attempt,
            "task skipped by on_error"
        );
    }

    /// A result is kept for the hooks that aggregate, but not the `bytes` it printed: the partition
    /// keeps too much already.
    pub fn kept_output_dropped(&self, partition: &TopicPartition, bytes: usize) {
        self.results_output_dropped.inc();
        if let Some(suppressed) = self.throttles.output_dropped.admit() {
            warn!(
                category = "handler",
                %partition,
                bytes,
                suppressed,
                "output is not kept for the aggregate: more than twice executor.max_result_bytes"
            );
        }
    }

    fn ran(&self, output: &Output) {
        self.executor_queue_wait.observe(output.waited.as_secs_f64());
        if output.pid.is_some() {
            // A process that stays was started for no task in particular.
            if !output.spawned_in.is_zero() {
                self.executor_spawn.observe(output.spawned_in.as_secs_f64());
            }
            self.executor_duration.observe(output.took.as_secs_f64());
        }
        if 0 < output.stdout_dropped {
            self.stdout_truncated.inc();
        }
        if 0 < output.stderr_dropped {
            self.stderr_truncated.inc();
        }
    }
}

/// Messages and hooks.
impl Metrics {
    /// A message was settled and nothing of it succeeded or was dead-lettered. Never throttled: this line is its only trace.
    pub fn message_skipped(
        &self,
        message: &SourceMessage,
        label: Option<&str>,
        reason: SkipReason,
    ) {
        match reason {
            SkipReason::OnError => self.skipped_on_error.inc(),
            SkipReason::Invalid => self.skipped_invalid.inc(),
        }
        warn!(
            category = "handler",
            message = "message skipped",
            coordinates = %message.coordinates(),
            label,
            reason = reason.as_str(),
        );
    }

    /// `on_delivery_error` gave a payload up; `label` is asked about each message behind it. Never
    /// throttled: these lines are its only trace.
    pub fn delivery_skipped(
        &self,
        failed: &DeliveryFailure,
        label: impl Fn(&SourceMessage) -> Option<String>,
    ) {
        self.sinks.skipped(&counted(failed)).inc();
        for message in &failed.messages {
            warn!(
                category = "handler",
                coordinates = %message.coordinates(),
                label = label(message),
                sink = %failed.sink,
                error = failed.error.message,
                error_class = failed.error.class,
                attempt = failed.attempt,
                task = failed.task.as_ref().map(tracing::field::display),
                "refused payload skipped by on_delivery_error"
            );
        }
    }

    /// A refused payload will be delivered again after `wait`.
    pub fn delivery_retried(&self, failed: &DeliveryFailure, wait: std::time::Duration) {
        self.sinks.retries(&counted(failed)).inc();
        if let Some(suppressed) = self.throttles.delivery_retried.admit() {
            info!(
                category = "handler",
                coordinates = failed.messages.first().map(|message| message.coordinates()),
                sink = %failed.sink,
                error = failed.error.message,
                error_class = failed.error.class,
                attempt = failed.attempt,
                retries_left = failed.retries_left,
                ?wait,
                suppressed,
                "refused payload will be delivered again"
            );
        }
    }

    /// The dead-letter topic confirmed a message that was given up. `label` is asked only for a line
    /// that is written.
    pub fn message_dead_lettered(
        &self,
        letter: &DeadLetter,
        label: impl FnOnce(&SourceMessage) -> Option<String>,
    ) {
        let DeadLetter { message, cause } = letter;
        self.dead_letters.with_label_values(&[cause.stage.as_str()]).inc();
        if let Some(suppressed) = self.throttles.dead_letter.admit() {
            warn!(
                category = "handler",
                coordinates = %message.coordinates(),
                label = label(message),
                stage = cause.stage.as_str(),
                error = cause.for_logs(),
                error_class = cause.class,
                attempt = cause.attempt,
                task = cause.task.as_ref().map(tracing::field::display),
                sink = cause.sink.as_ref().map(tracing::field::display),
                suppressed,
                "message dead-lettered"
            );
        }
    }

    /// A hook returned an error, panicked or exceeded its time-out (`class`).
    pub fn hook_failed(
        &self,
        hook: Hook,
        partition: Option<&TopicPartition>,
        class: &str,
        error: &str,
    ) {
        self.hook(hook).errors.inc();
        if let Some(suppressed) = self.throttles.hook_failed[hook as usize].admit() {
            warn!(
                category = "handler",
                hook = hook.as_str(),
                partition = partition.map(tracing::field::display),
                error,
                error_class = class,
                suppressed,
                "hook failed"
            );
        }
    }
}

/// Work by the clock.
impl Metrics {
    /// A run of periodic work ended.
    pub fn periodic_ran(&self, name: &str, took: std::time::Duration, error: Option<&str>) {
        let status = if error.is_some() { "error" } else { "ok" };
        self.periodic_runs.with_label_values(&[name, status]).inc();
        self.periodic_duration.with_label_values(&[name]).observe(took.as_secs_f64());
        match error {
            Some(error) => warn!(category = "handler", name, error, ?took, "periodic work failed"),
            None => debug!(category = "handler", name, ?took, "periodic work done"),
        }
    }
}

/// Priorities.
impl Metrics {
    /// `Handler::priority` panicked; the task keeps its own.
    pub fn priority_failed(&self, task: &Task, error: &str) {
        self.priority_errors.inc();
        self.hook(Hook::Priority).errors.inc();
        if let Some(suppressed) = self.throttles.priority_failed.admit() {
            warn!(
                category = "handler",
                task = %task.id(),
                error,
                suppressed,
                "priority failed, the task keeps its own"
            );
        }
    }
}

/// The sink under whose name a refusal is counted. A name that is not configured came with the
/// payload, perhaps out of a message: there may be any number of them.
fn counted(failed: &DeliveryFailure) -> SinkName {
    if failed.error.class == SinkError::UNKNOWN_SINK {
        return SinkName::new(failed.sink.kind, "");
    }
    failed.sink.clone()
}

fn first_offset(failed: &TaskFailure) -> Option<i64> {
    failed.task.source_offsets().first().map(|offset| offset.0)
}
