//! How a task ended → payloads for the sinks, or a verdict on its failure; and the same for messages and
//! windows as a whole.
//!
//! These run beside the partition loop, one per ended task or group, and report back.

use std::{pin::Pin, sync::Arc, time::Duration};

use drakkar_core::{
    Cause, Collect, Failure, Handler, HookResult, Message, MessageGroup, OnError, Output, Payload,
    SourceMessage, Stage, Task, TaskFailure, TaskResult, TopicPartition, WindowGroup,
    contain::let_go, hold::HoldBoard, ledger::TaskKey,
};
use drakkar_executor::Run;
use drakkar_telemetry::Hook;
use smallvec::SmallVec;

use crate::{
    aggregate::Outcome,
    deliver::{Origin, deliver},
    execute::Weight,
    flood::{Failed, GivenUp},
    flows::Begin,
    hook::HookFailure,
    partition::{Flow, Shared},
    turn::prioritize,
};

/// Where hooks and deliveries of one partition run.
pub(crate) struct Here<H> {
    pub shared: Arc<Shared<H>>,
    pub partition: TopicPartition,
    pub board: Arc<HoldBoard>,
}

/// What is to be collected.
pub(crate) struct Collecting<H: Handler> {
    pub here: Arc<Here<H>>,
    pub key: TaskKey,
    pub what: What<H::Input>,
}

pub(crate) enum What<I> {
    /// A task that has run.
    Task(Ran),
    /// A message or a window whose tasks have all ended; the output of `kept` was kept for it.
    Whole { kept: Vec<TaskKey>, whole: Whole<I> },
}

/// A task that has run, and how.
pub(crate) struct Ran {
    pub task: Arc<Task>,
    /// Nothing for a task that knew its result.
    pub run: Option<Box<Run>>,
    pub held_bytes: Weight,
    pub attempt: u32,
    pub retries_left: u32,
    pub may_replace: bool,
    /// What it stood for, if it failed: a success is told of them when it is delivered.
    pub messages: SmallVec<[Arc<SourceMessage>; 1]>,
}

impl<H: Handler> Begin for Collecting<H> {
    type End = Flow<H::Input>;

    async fn go(self) -> Flow<H::Input> {
        let Self { here, key, what } = self;
        match what {
            What::Task(ran) => {
                let held_bytes = ran.held_bytes;
                let (payloads, ended) = collect(&here, ran).await;
                Flow::Collected { key, held_bytes, payloads, ended }
            }
            What::Whole { kept, whole } => match Box::pin(complete_whole(&here, &whole)).await {
                Ok(()) => {
                    let_go(whole);
                    Flow::Closed { key, kept }
                }
                Err(cause) => {
                    let what = Failed::Closing { key, kept, whole };
                    Flow::GivenUp(Box::new(GivenUp { what, cause }))
                }
            },
        }
    }
}

/// What a task led to, and how it ends when that is delivered.
async fn collect<H: Handler>(here: &Here<H>, ran: Ran) -> (Vec<Payload>, Ended) {
    let Ran { task, run, attempt, retries_left, may_replace, messages, .. } = ran;
    match run.map_or_else(|| known(&task), |run| *run) {
        Run::Finished(output) => {
            let done = TaskResult { task, output, attempt };
            match complete(here, &done).await {
                Ok(collect) if collect.is_empty() => {
                    (Vec::new(), Ended::settled(kept::<H>(Outcome::Result(done))))
                }
                Ok(collect) => {
                    // A file takes room until it is removed, and is counted until all is confirmed.
                    let outcome = match done.output.spooled {
                        Some(_) => Some(Outcome::Result(done)),
                        None => kept::<H>(Outcome::Result(done)),
                    };
                    (collect.into_payloads(), Ended::settled(outcome))
                }
                Err(hook) => {
                    let cause = hook.cause(Stage::OnTaskComplete);
                    let cause = cause.task(done.task.id()).attempt(attempt);
                    let TaskResult { task, output, attempt } = done;
                    let failure = Failure::Hook(hook.to_string());
                    let failed = TaskFailure { task, failure, output, attempt, retries_left: 0 };
                    (Vec::new(), Ended::gave_up(cause, kept::<H>(Outcome::Error(failed))))
                }
            }
        }
        Run::Failed { failure, output } => {
            let failure = TaskFailure { task, failure, output, attempt, retries_left };
            // Boxed: most succeed, and the memory of those is to stay small.
            let failed = Box::pin(failed(here, failure, may_replace, &messages));
            (Vec::new(), failed.await)
        }
    }
}

/// What became of a task after its run.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It succeeded, and all it led to is confirmed or skipped. How it ended, if the handler aggregates.
    Settled(Option<Box<Outcome>>),
    /// It failed, and `on_error` gave it up. How it ended, if the handler aggregates, and how the handler
    /// calls each of its messages.
    Skipped(Box<(Option<Outcome>, Vec<Option<String>>)>),
    /// It failed for good, and its messages are to be dead-lettered. How it ended, if the handler
    /// aggregates.
    GivenUp(Box<(Cause, Option<Outcome>)>),
    /// It is to be run again after this wait.
    Retry(Duration),
    /// These are to be run in its place; never empty, and already linked to it.
    Replace(Vec<Task>),
}

impl Ended {
    fn settled(outcome: Option<Outcome>) -> Self {
        Self::Settled(outcome.map(Box::new))
    }

    fn gave_up(cause: Cause, outcome: Option<Outcome>) -> Self {
        Self::GivenUp(Box::new((cause, outcome)))
    }

    /// All it led to was confirmed, or some of it given up for this reason.
    pub(crate) fn delivered<H: Handler>(self, given_up: Option<Cause>) -> Self {
        let Self::Settled(outcome) = self else { return self };
        let outcome = outcome.and_then(|outcome| kept::<H>(*outcome));
        match given_up {
            None => Self::settled(outcome),
            Some(cause) => Self::gave_up(cause, outcome),
        }
    }
}

/// What a task ends with that knew it beforehand.
fn known(task: &Task) -> Run {
    let Some(known) = task.known_result() else { return Run::Finished(Output::default()) };
    let (stdout, stderr) = (known.stdout.clone(), known.stderr.clone());
    let output = Output { stdout, stderr, ..Output::default() };
    match known.exit_code {
        0 => Run::Finished(output),
        code => Run::Failed { failure: Failure::Exit(code), output },
    }
}

/// Asks `on_task_complete`.
async fn complete<H: Handler>(here: &Here<H>, done: &TaskResult) -> Result<Collect, HookFailure> {
    let Here { shared, partition, .. } = here;
    shared.metrics.task_completed(done);
    // Called inside: what is no `async fn` may panic before it is waited for.
    let call = async { shared.handler.on_task_complete(done).await };
    shared.ask(Hook::OnTaskComplete, Some(partition), call).await
}

/// What a handler does not aggregate is let go at once.
fn kept<H: Handler>(outcome: Outcome) -> Option<Outcome> {
    (H::AGGREGATES_MESSAGES || H::AGGREGATES_WINDOWS).then_some(outcome)
}

/// Asks `on_error` what to do, and does it unless the partition must.
async fn failed<H: Handler>(
    here: &Here<H>,
    failed: TaskFailure,
    may_replace: bool,
    messages: &[Arc<SourceMessage>],
) -> Ended {
    let Here { shared, partition, .. } = here;
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
            let mut replacing: Vec<Task> = replacing.collect();
            prioritize(shared, partition, &mut replacing);
            return Ended::Replace(replacing);
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
            let labels = messages.iter().map(|message| shared.label(message)).collect();
            return Ended::Skipped(Box::new((kept::<H>(Outcome::Error(failed)), labels)));
        }
        Ok(OnError::Retry | OnError::DeadLetter) => {
            Cause::new(Stage::Execute, failed.failure.class(), describe(&failed))
                .in_logs(failed.failure.to_string())
        }
        Err(failure) => failure.cause(Stage::OnError),
    };
    let cause = cause.task(task).attempt(failed.attempt);
    Ended::gave_up(cause, kept::<H>(Outcome::Error(failed)))
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
async fn complete_whole<H: Handler>(here: &Here<H>, whole: &Whole<H::Input>) -> Result<(), Cause> {
    let handler = &here.shared.handler;
    match whole {
        Whole::Message(group) => {
            let hook = (Hook::OnMessageComplete, Stage::OnMessageComplete, Origin::Message);
            let messages = std::slice::from_ref(&group.message);
            let call = async { handler.on_message_complete(group).await };
            call_whole(here, hook, messages, call).await
        }
        Whole::Window(group) => {
            let hook = (Hook::OnWindowComplete, Stage::OnWindowComplete, Origin::Window);
            let call = async { handler.on_window_complete(group).await };
            call_whole(here, hook, &group.messages, call).await
        }
    }
}

async fn call_whole<H: Handler>(
    here: &Here<H>,
    (hook, stage, origin): (Hook, Stage, Origin<'_>),
    messages: &[Arc<Message<H::Input>>],
    call: impl Future<Output = HookResult<Collect>> + Send,
) -> Result<(), Cause> {
    let collected = here.shared.ask(hook, Some(&here.partition), call).await;
    match collected {
        Ok(collect) if collect.is_empty() => Ok(()),
        Ok(collect) => {
            let sources: Vec<Arc<SourceMessage>> =
                messages.iter().map(|message| Arc::clone(&message.source)).collect();
            here.deliver(collect, origin, &sources).await
        }
        Err(failure) => Err(failure.cause(stage)),
    }
}

impl<H: Handler> Here<H> {
    /// Delivers what a hook answered. Boxed: few hooks of those that answer at once have anything to
    /// deliver, and the memory of those is to stay small.
    fn deliver<'a>(
        &'a self,
        collect: Collect,
        origin: Origin<'a>,
        messages: &'a [Arc<SourceMessage>],
    ) -> Pin<Box<dyn Future<Output = Result<(), Cause>> + Send + 'a>> {
        Box::pin(async move {
            let hold = self.board.task();
            deliver(&self.shared, collect.into_payloads(), origin, messages, &hold).await
        })
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
