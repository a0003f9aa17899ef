//! How a task ended → payloads for the sinks, or a verdict on its failure.
//!
//! These run beside the partition loop, one per ended task, and report back with an [`Ended`].

use std::{sync::Arc, time::Duration};

use drakkar_core::{
    Cause, Handler, OnError, SourceMessage, Stage, Task, TaskFailure, TaskResult, TopicPartition,
    hold::Hold,
};
use drakkar_telemetry::{Hook, SkipReason};

use crate::{
    deliver::{dead_letter, deliver},
    hook::contained,
    partition::Shared,
};

/// What became of a task after its run.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All it led to is confirmed, dead-lettered or skipped.
    Settled,
    /// It is to be run again after this wait.
    Retry(Duration),
    /// These are to be run in its place; never empty.
    Replace(Vec<Task>),
}

/// Asks `on_task_complete` and delivers what it returns.
pub(crate) async fn complete<H: Handler>(
    shared: &Shared<H>,
    partition: &TopicPartition,
    done: TaskResult,
    messages: Vec<Arc<SourceMessage>>,
    hold: &Arc<Hold>,
) -> Ended {
    shared.metrics.task_completed(&done);
    let timer = shared.metrics.hook(Hook::OnTaskComplete).duration.start_timer();
    let limit = shared.settings.hook_timeout;
    let collected = contained(limit, async { shared.handler.on_task_complete(&done).await }).await;
    timer.observe_duration();
    let task = done.task.id();
    match collected {
        Ok(collect) if collect.is_empty() => {}
        Ok(collect) => deliver(shared, collect.into_payloads(), task, &messages, hold).await,
        Err(failure) => {
            let (class, text) = (failure.class(), failure.to_string());
            shared.metrics.hook_failed(Hook::OnTaskComplete, partition, class, &text);
            let cause = failure.cause(Stage::OnTaskComplete).task(task).attempt(done.attempt);
            dead_letter(shared, &messages, &cause, hold).await;
        }
    }
    Ended::Settled
}

/// Asks `on_error` what to do, and does it unless the partition must.
pub(crate) async fn failed<H: Handler>(
    shared: &Shared<H>,
    partition: &TopicPartition,
    failed: TaskFailure,
    may_replace: bool,
    messages: Vec<Arc<SourceMessage>>,
    hold: &Arc<Hold>,
) -> Ended {
    shared.metrics.task_failed(partition, &failed);
    let timer = shared.metrics.hook(Hook::OnError).duration.start_timer();
    let limit = shared.settings.hook_timeout;
    let verdict = contained(limit, async { shared.handler.on_error(&failed).await }).await;
    timer.observe_duration();
    let task = failed.task.id();
    let cause = match verdict {
        Ok(OnError::Retry) if failed.retries_left > 0 => {
            let wait = shared.settings.backoff.delay(failed.attempt, fastrand::f64());
            shared.metrics.task_retried(&failed, wait);
            return Ended::Retry(wait);
        }
        Ok(OnError::Replace(tasks)) if !tasks.is_empty() && may_replace => {
            shared.metrics.task_replaced(&failed, tasks.len());
            return Ended::Replace(tasks);
        }
        Ok(OnError::Replace(tasks)) if !tasks.is_empty() => Cause::new(
            Stage::Execute,
            "replacement_limit",
            format!(
                "{} (and the chain of replacements is as long as executor.max_replacements allows)",
                failed.failure
            ),
        ),
        Ok(OnError::Skip | OnError::Replace(_)) => {
            shared.metrics.task_skipped(partition, &failed);
            for message in &messages {
                shared.metrics.message_skipped(message, SkipReason::OnError);
            }
            return Ended::Settled;
        }
        Ok(OnError::Retry | OnError::DeadLetter) => {
            Cause::new(Stage::Execute, failed.failure.class(), describe(&failed))
        }
        Err(failure) => {
            let (class, text) = (failure.class(), failure.to_string());
            shared.metrics.hook_failed(Hook::OnError, partition, class, &text);
            failure.cause(Stage::OnError)
        }
    };
    let cause = cause.task(task).attempt(failed.attempt);
    dead_letter(shared, &messages, &cause, hold).await;
    Ended::Settled
}

/// The failure, and the last line the program wrote to its error output: often the reason.
fn describe(failed: &TaskFailure) -> String {
    let stderr = String::from_utf8_lossy(&failed.output.stderr);
    match stderr.trim().lines().next_back() {
        Some(line) if !line.is_empty() => format!("{}; stderr: {line}", failed.failure),
        _ => failed.failure.to_string(),
    }
}
