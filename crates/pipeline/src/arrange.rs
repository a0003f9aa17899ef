//! Window → tasks: decoding, then the user's `arrange`.
//!
//! Runs beside the partition loop and answers with a [`Plan`]. Where `arrange` fails, the whole window
//! is tried again, as often as a task would be; then it is split in halves until the failure is down
//! to single messages: one poisonous message does not take its neighbours along.
//!
//! Each time-out costs the partition `executor.hook_timeout_seconds`. A window is split after a
//! time-out as often as it takes to find one message that hangs; what hangs beyond that is given up
//! as a whole.

use std::{ops::Range, sync::Arc};

use drakkar_core::{
    Cause, Handler, Message, Offset, OnInvalid, Pending, SourceMessage, Stage, Task,
    contain::{Each, error_text},
};
use drakkar_telemetry::{Hook, SkipReason};
use tokio::time::sleep;

use crate::{hook::HookFailure, partition::Shared, turn::prioritize};

/// What is to be done for the messages of one window.
#[derive(Debug)]
pub(crate) struct Plan<I> {
    /// Messages that `arrange` answered for.
    pub arranged: Vec<Offset>,
    /// The same as the handler saw them, if it aggregates; else none.
    pub messages: Each<Message<I>>,
    /// What to run for them; every task names messages of the window.
    pub tasks: Vec<Arc<Task>>,
    /// Messages to dead-letter, and why.
    pub rejected: Vec<(Arc<SourceMessage>, Cause)>,
    /// Messages that do not decode and are skipped, as configured.
    pub skipped: Vec<Offset>,
    /// A message that does not decode and stops the worker, as configured.
    pub fatal: Option<String>,
}

impl<I> Default for Plan<I> {
    fn default() -> Self {
        Self {
            arranged: Vec::new(),
            messages: Each::default(),
            tasks: Vec::new(),
            rejected: Vec::new(),
            skipped: Vec::new(),
            fatal: None,
        }
    }
}

/// Decodes and arranges `window`.
pub(crate) async fn arrange<H: Handler>(
    shared: &Shared<H>,
    window: Vec<Arc<SourceMessage>>,
    pending: Pending,
) -> Plan<H::Input> {
    let mut plan = Plan::default();
    let mut messages = decode(shared, window, &mut plan);
    if plan.fatal.is_some() || messages.is_empty() {
        return plan;
    }
    search(shared, &messages, &pending, &mut plan).await;
    if H::AGGREGATES_MESSAGES || H::AGGREGATES_WINDOWS {
        // Parts were answered from left to right, so both ascend.
        let is_arranged =
            |message: &mut Message<H::Input>| plan.arranged.binary_search(&message.offset).is_ok();
        plan.messages = messages.extract_if(.., is_arranged).collect::<Vec<_>>().into();
    }
    plan
}

/// Arranges `messages`; what cannot be arranged ends up in `plan.rejected`.
async fn search<H: Handler>(
    shared: &Shared<H>,
    messages: &[Message<H::Input>],
    pending: &Pending,
    plan: &mut Plan<H::Input>,
) {
    let mut splits_left = splits_to_find_one(messages.len());
    // Depth first from the left, so that tasks come out in the order of the messages.
    let mut parts = Vec::from([Part { range: 0..messages.len(), asked: 0 }]);
    while let Some(mut part) = parts.pop() {
        let of_part = &messages[part.range.clone()];
        let answer = match part.asked {
            0 => arrange_again(shared, of_part, pending, &mut part.asked).await,
            _ => arrange_once(shared, of_part, pending, &mut part.asked).await,
        };
        let failure = match answer {
            Ok(mut tasks) => {
                plan.arranged.extend(of_part.iter().map(|message| message.offset));
                prioritize(shared, &of_part[0].partition, &mut tasks);
                plan.tasks.extend(tasks.into_iter().map(Arc::new));
                continue;
            }
            Err(failure) => failure,
        };
        let hung = matches!(failure, HookFailure::TimedOut(_));
        match part.halves() {
            Some((left, right)) if !hung || 0 < splits_left => {
                splits_left -= u32::from(hung);
                parts.extend([right, left]);
            }
            _ => plan.reject(of_part, &failure, part.asked),
        }
    }
}

impl<I> Plan<I> {
    fn reject(&mut self, part: &[Message<I>], failure: &HookFailure, asked: u32) {
        let mut cause = failure.cause(Stage::Arrange).attempt(asked);
        if 1 < part.len() {
            cause.message = format!(
                "{}; it hung too often in this window to find out for which of {} messages",
                cause.message,
                part.len()
            );
        }
        self.rejected.extend(part.iter().map(|m| (Arc::clone(&m.source), cause.clone())));
    }
}

/// Neighbouring messages of a window.
struct Part {
    range: Range<usize>,
    /// How often `arrange` was asked about them.
    asked: u32,
}

impl Part {
    fn halves(&self) -> Option<(Self, Self)> {
        let Range { start, end } = self.range;
        let middle = start + (end - start) / 2;
        let part = |range| Self { range, asked: self.asked };
        (start < middle).then(|| (part(start..middle), part(middle..end)))
    }
}

/// How often a window of `count` messages must be split to find one of them.
fn splits_to_find_one(count: usize) -> u32 {
    count.next_power_of_two().ilog2()
}

fn decode<H: Handler>(
    shared: &Shared<H>,
    window: Vec<Arc<SourceMessage>>,
    plan: &mut Plan<H::Input>,
) -> Each<Message<H::Input>> {
    // Once for all of them: the clock would be a good part of the time it measures.
    let _attended = window.first().map(|first| shared.attend(Hook::Decode, &first.partition));
    let mut messages = Each::from(Vec::with_capacity(window.len()));
    for source in window {
        match decode_one(shared, &source) {
            Ok(input) => messages.push(Message { source, input }),
            Err(reason) => {
                shared.metrics.partition(&source.partition).parse_failures.inc();
                match shared.settings.on_invalid {
                    OnInvalid::DeadLetter => {
                        let cause = Cause::new(Stage::Decode, "invalid_value", reason)
                            .in_logs("it does not decode");
                        plan.rejected.push((source, cause));
                    }
                    OnInvalid::Skip => {
                        let label = shared.label(&source);
                        shared.metrics.message_skipped(
                            &source,
                            label.as_deref(),
                            SkipReason::Invalid,
                        );
                        plan.skipped.push(source.offset);
                    }
                    OnInvalid::Fail => {
                        // The reason may quote the message, and this is logged.
                        plan.fatal = Some(format!(
                            "message {} does not decode (kafka.on_invalid is fail)",
                            source.coordinates()
                        ));
                        return messages;
                    }
                }
            }
        }
    }
    messages
}

/// Decoding is user code as well: a panic in it is an invalid message, not the end of a partition.
fn decode_one<H: Handler>(shared: &Shared<H>, source: &SourceMessage) -> Result<H::Input, String> {
    let decode = || shared.handler.decode(source);
    match shared.ask_now(Hook::Decode, &source.partition, decode) {
        Ok(Ok(input)) => Ok(input),
        Ok(Err(error)) => Err(error_text(error)),
        Err(failure) => Err(format!("decoding {failure}")),
    }
}

/// Asks until there is an answer, or the retries are used up.
async fn arrange_again<H: Handler>(
    shared: &Shared<H>,
    window: &[Message<H::Input>],
    pending: &Pending,
    asked: &mut u32,
) -> Result<Vec<Task>, HookFailure> {
    loop {
        let answer = arrange_once(shared, window, pending, asked).await;
        match &answer {
            Err(failure) if failure.may_pass() && *asked <= shared.settings.max_retries => {
                sleep(shared.settings.backoff.delay(*asked, fastrand::f64())).await;
            }
            _ => return answer,
        }
    }
}

async fn arrange_once<H: Handler>(
    shared: &Shared<H>,
    part: &[Message<H::Input>],
    pending: &Pending,
    asked: &mut u32,
) -> Result<Vec<Task>, HookFailure> {
    *asked += 1;
    let partition = Some(&part[0].partition);
    let call = async { shared.handler.arrange(part, pending).await };
    let mut tasks = shared.ask(Hook::Arrange, partition, call).await?;
    match link(part, &mut tasks) {
        Ok(()) => Ok(tasks),
        Err(failure) => {
            shared.hook_failed(Hook::Arrange, partition, &failure);
            Err(failure)
        }
    }
}

/// A task that names no message stands for all of `part`; one that names another message is refused.
/// Each is numbered among those of its first message.
fn link<T>(part: &[Message<T>], tasks: &mut [Task]) -> Result<(), HookFailure> {
    let mut ordinals = vec![0; part.len()];
    // Most tasks come in the order of their messages: that of the last one, or the next.
    let mut near = 0;
    for task in tasks {
        if task.source_offsets().is_empty() {
            let all: Vec<Offset> = part.iter().map(|message| message.offset).collect();
            *task = std::mem::take(task).with_source_offsets(all);
        }
        let mut first = part.len();
        for &offset in task.source_offsets() {
            let Some(index) = index_of(part, offset, near) else {
                let (task, offset) = (task.id().to_string(), offset.0);
                return Err(HookFailure::ForeignOffset { task, offset });
            };
            first = first.min(index);
        }
        near = first;
        let next: &mut u32 = &mut ordinals[first];
        let nth = std::mem::replace(next, *next + 1);
        task.number(nth);
    }
    Ok(())
}

/// Where in `part` the message at `offset` is. Offsets of a window ascend.
fn index_of<T>(part: &[Message<T>], offset: Offset, near: usize) -> Option<usize> {
    let is_at = |index: &usize| part.get(*index).is_some_and(|message| message.offset == offset);
    [near, near + 1]
        .into_iter()
        .find(is_at)
        .or_else(|| part.binary_search_by_key(&offset, |message| message.offset).ok())
}
