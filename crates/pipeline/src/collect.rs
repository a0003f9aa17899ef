//! How a task ended → payloads for the sinks, or a verdict on its failure; and the same for messages and
//! windows as a whole.
//!
//! These run beside the partition loop, one per ended task or group, and report back.

use std::{sync::Arc, time::Duration};

use drakkar_core::{
    Cause, Collect, Failure, Handler, HookResult, Message, MessageGroup, OnError, SourceMessage,
    Stage, Task, TaskFailure, TaskResult, TopicPartition, WindowGroup, hold::Hold,
};
use drakkar_telemetry::{Hook, SkipReason};

use crate::{
    aggregate::Outcome,
    deliver::{dead_letter, deliver},
    partition::Shared,
    turn::prioritized,
};

/// What became of a task after its run.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All it led to is confirmed, dead-lettered or skipped. How it ended, if the handler
    /// aggregates.
    Settled(Option<Outcome>),
    /// It is to be run again after this wait.
    Retry(Duration),
    /// These are to be run in its place; never empty, and already linked to it.
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
    let call = async { shared.handler.on_task_complete(&done).await };
    let collected = shared.ask(Hook::OnTaskComplete, Some(partition), call).await;
    let task = done.task.id();
    match collected {
        Ok(collect) if collect.is_empty() => {}
        Ok(collect) => deliver(shared, collect.into_payloads(), Some(task), &messages, hold).await,
        Err(failure) => {
            let cause = failure.cause(Stage::OnTaskComplete).task(task).attempt(done.attempt);
            dead_letter(shared, &messages, &cause, hold).await;
            let TaskResult { task, output, attempt } = done;
            let failure = Failure::Hook(failure.to_string());
            let failed = TaskFailure { task, failure, output, attempt, retries_left: 0 };
            return Ended::Settled(kept::<H>(Outcome::Error(failed)));
        }
    }
    Ended::Settled(kept::<H>(Outcome::Result(done)))
}

/// What a handler does not aggregate is let go at once.
fn kept<H: Handler>(outcome: Outcome) -> Option<Outcome> {
    (H::AGGREGATES_MESSAGES || H::AGGREGATES_WINDOWS).then_some(outcome)
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
    let call = async { shared.handler.on_error(&failed).await };
    let verdict = shared.ask(Hook::OnError, Some(partition), call).await;
    let task = failed.task.id();
    let cause = match verdict {
        Ok(OnError::Retry) if failed.retries_left > 0 => {
            let wait = shared.settings.backoff.delay(failed.attempt, fastrand::f64());
            shared.metrics.task_retried(&failed, wait);
            return Ended::Retry(wait);
        }
        Ok(OnError::Replace(tasks)) if !tasks.is_empty() && may_replace => {
            shared.metrics.task_replaced(&failed, tasks.len());
            let replacing = tasks.into_iter().map(|task| task.replacing(&failed.task));
            return Ended::Replace(prioritized(shared, partition, replacing));
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
                let label = shared.label(message);
                shared.metrics.message_skipped(message, label.as_deref(), SkipReason::OnError);
            }
            return Ended::Settled(kept::<H>(Outcome::Error(failed)));
        }
        Ok(OnError::Retry | OnError::DeadLetter) => {
            Cause::new(Stage::Execute, failed.failure.class(), describe(&failed))
        }
        Err(failure) => failure.cause(Stage::OnError),
    };
    let cause = cause.task(task).attempt(failed.attempt);
    dead_letter(shared, &messages, &cause, hold).await;
    Ended::Settled(kept::<H>(Outcome::Error(failed)))
}

/// Asks `on_message_complete` and delivers what it returns.
pub(crate) async fn complete_message<H: Handler>(
    shared: &Shared<H>,
    group: MessageGroup<H::Input>,
    hold: &Arc<Hold>,
) {
    let of = WholeHook { hook: Hook::OnMessageComplete, stage: Stage::OnMessageComplete };
    let call = async { shared.handler.on_message_complete(&group).await };
    complete_whole(shared, &of, std::slice::from_ref(&group.message), call, hold).await;
}

/// Asks `on_window_complete` and delivers what it returns.
pub(crate) async fn complete_window<H: Handler>(
    shared: &Shared<H>,
    window: WindowGroup<H::Input>,
    hold: &Arc<Hold>,
) {
    let of = WholeHook { hook: Hook::OnWindowComplete, stage: Stage::OnWindowComplete };
    let call = async { shared.handler.on_window_complete(&window).await };
    complete_whole(shared, &of, &window.messages, call, hold).await;
}

/// A hook that sees something as a whole.
struct WholeHook {
    hook: Hook,
    stage: Stage,
}

async fn complete_whole<H: Handler>(
    shared: &Shared<H>,
    of: &WholeHook,
    messages: &[Arc<Message<H::Input>>],
    call: impl Future<Output = HookResult<Collect>> + Send,
    hold: &Arc<Hold>,
) {
    let partition = messages.first().map(|message| &message.partition);
    let collected = shared.ask(of.hook, partition, call).await;
    let sources = || -> Vec<Arc<SourceMessage>> {
        messages.iter().map(|message| Arc::clone(&message.source)).collect()
    };
    match collected {
        Ok(collect) if collect.is_empty() => {}
        Ok(collect) => deliver(shared, collect.into_payloads(), None, &sources(), hold).await,
        Err(failure) => {
            dead_letter(shared, &sources(), &failure.cause(of.stage), hold).await;
        }
    }
}

/// The failure, and the last line the program wrote to its error output: often the reason.
fn describe(failed: &TaskFailure) -> String {
    let stderr = String::from_utf8_lossy(&failed.output.stderr);
    match stderr.trim().lines().next_back() {
        Some(line) if !line.is_empty() => format!("{}; stderr: {line}", failed.failure),
        _ => failed.failure.to_string(),
    }
}
