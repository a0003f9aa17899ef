//! How a task ended → payloads for the sinks, or a verdict on its failure; and the same for messages and
//! windows as a whole.
//!
//! These run beside the partition loop, one per ended task or group, and report back.

use std::{sync::Arc, time::Duration};

use drakkar_core::{
    Cause, Collect, Failure, Handler, HookResult, Message, MessageGroup, OnError, Payload,
    SourceMessage, Stage, Task, TaskFailure, TaskResult, TopicPartition, WindowGroup, hold::Hold,
};
use drakkar_telemetry::{Hook, SkipReason};

use crate::{
    aggregate::Outcome,
    deliver::{Origin, deliver},
    partition::Shared,
    turn::prioritized,
};

/// What became of a task after its run.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All it led to is confirmed or skipped. How it ended, if the handler aggregates.
    Settled(Option<Outcome>),
    /// It failed for good, and its messages are to be dead-lettered. How it ended, if the handler
    /// aggregates.
    GivenUp(Cause, Option<Outcome>),
    /// It is to be run again after this wait.
    Retry(Duration),
    /// These are to be run in its place; never empty, and already linked to it.
    Replace(Vec<Task>),
}

impl Ended {
    /// The same, but for what it led to, which was given up.
    pub(crate) fn given_up<H: Handler>(self, cause: Cause) -> Self {
        match self {
            Self::Settled(outcome) => Self::GivenUp(cause, outcome.and_then(kept::<H>)),
            other => other,
        }
    }
}

/// Asks `on_task_complete`: what it returns is to be delivered, and then the task ends like this.
pub(crate) async fn complete<H: Handler>(
    shared: &Shared<H>,
    partition: &TopicPartition,
    done: TaskResult,
) -> (Vec<Payload>, Ended) {
    shared.metrics.task_completed(&done);
    let call = async { shared.handler.on_task_complete(&done).await };
    let collected = shared.ask(Hook::OnTaskComplete, Some(partition), call).await;
    match collected {
        Ok(collect) if collect.is_empty() => {
            (Vec::new(), Ended::Settled(kept::<H>(Outcome::Result(done))))
        }
        // Its output stays until its payloads are confirmed: it is counted for as long, and so bounds them.
        Ok(collect) => (collect.into_payloads(), Ended::Settled(Some(Outcome::Result(done)))),
        Err(failure) => {
            let task = done.task.id();
            let cause = failure.cause(Stage::OnTaskComplete).task(task).attempt(done.attempt);
            let TaskResult { task, output, attempt } = done;
            let failure = Failure::Hook(failure.to_string());
            let failed = TaskFailure { task, failure, output, attempt, retries_left: 0 };
            (Vec::new(), Ended::GivenUp(cause, kept::<H>(Outcome::Error(failed))))
        }
    }
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
    messages: &[Arc<SourceMessage>],
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
            let numbered = (0..).zip(tasks);
            let replacing = numbered.map(|(nth, task)| task.replacing(&failed.task).as_nth(nth));
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
            for message in messages {
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
    Ended::GivenUp(cause, kept::<H>(Outcome::Error(failed)))
}

/// What a hook sees as a whole.
#[derive(Debug)]
pub(crate) enum Whole<I> {
    Message(MessageGroup<I>),
    Window(WindowGroup<I>),
}

/// Asks `on_message_complete` or `on_window_complete`, and delivers what it returns.
///
/// # Errors
///
/// Why its messages are to be dead-lettered.
pub(crate) async fn complete_whole<H: Handler>(
    shared: &Shared<H>,
    whole: &Whole<H::Input>,
    hold: &Arc<Hold>,
) -> Result<(), Cause> {
    let handler = &shared.handler;
    match whole {
        Whole::Message(group) => {
            let hook = (Hook::OnMessageComplete, Stage::OnMessageComplete, Origin::Message);
            let messages = std::slice::from_ref(&group.message);
            let call = async { handler.on_message_complete(group).await };
            call_whole(shared, hook, messages, call, hold).await
        }
        Whole::Window(group) => {
            let hook = (Hook::OnWindowComplete, Stage::OnWindowComplete, Origin::Window);
            let call = async { handler.on_window_complete(group).await };
            call_whole(shared, hook, &group.messages, call, hold).await
        }
    }
}

async fn call_whole<H: Handler>(
    shared: &Shared<H>,
    (hook, stage, origin): (Hook, Stage, Origin<'_>),
    messages: &[Arc<Message<H::Input>>],
    call: impl Future<Output = HookResult<Collect>> + Send,
    hold: &Arc<Hold>,
) -> Result<(), Cause> {
    let partition = messages.first().map(|message| &message.partition);
    let collected = shared.ask(hook, partition, call).await;
    match collected {
        Ok(collect) if collect.is_empty() => Ok(()),
        Ok(collect) => {
            let sources: Vec<Arc<SourceMessage>> =
                messages.iter().map(|message| Arc::clone(&message.source)).collect();
            deliver(shared, collect.into_payloads(), origin, &sources, hold).await
        }
        Err(failure) => Err(failure.cause(stage)),
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
