//! Payloads → sinks, messages → dead letters.
//!
//! Returns only when the far side has confirmed, or a hook said so. A sink that is down makes these
//! calls wait, for as long as it lasts, and asks nobody; a payload that is refused for good is the
//! business of `on_delivery_error`. What becomes of the messages behind one that is given up is not
//! decided here.

use std::sync::Arc;

use drakkar_core::{
    Carried, Cause, DeadLetter, DeliveryFailure, Handler, Offset, OnDeliveryError, Payload,
    SourceMessage, Stage, Task, TaskId,
    hold::{Held, Hold},
};
use drakkar_sinks::{Refused, Settled};
use drakkar_telemetry::Hook;
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::partition::Shared;

/// What payloads were derived from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    Task(&'a Task),
    Message,
    Window,
}

impl Origin<'_> {
    fn task(&self) -> Option<&TaskId> {
        match self {
            Self::Task(task) => Some(task.id()),
            Self::Message | Self::Window => None,
        }
    }

    /// The same words whenever the same `messages` are processed again, and no others: several
    /// messages are told from several others by every one of their offsets.
    pub(crate) fn words(&self, messages: &[Arc<SourceMessage>]) -> String {
        let mut offsets: Vec<Offset> = messages.iter().map(|message| message.offset).collect();
        offsets.sort_unstable();
        let partition = messages.first().map(|message| message.partition.to_string());
        let which = match offsets[..] {
            [] => TaskId::from("none"),
            [only] => TaskId::from(only.to_string()),
            [first, .., last] => {
                let all = offsets.iter().map(|offset| offset.0.to_be_bytes());
                TaskId::stable(&format!("{first}-{last}"), all)
            }
        };
        let what = match self {
            Self::Task(task) => task.ordinal(),
            Self::Message => "message".to_owned(),
            Self::Window => "window".to_owned(),
        };
        format!("{}:{which}:{what}", partition.unwrap_or_default())
    }
}

/// Delivers `payloads`, which were derived from `messages`.
///
/// # Errors
///
/// Why `messages` are to be dead-lettered: once, however many of the payloads are given up.
pub(crate) async fn deliver<H: Handler>(
    shared: &Shared<H>,
    mut payloads: Vec<Payload>,
    origin: Origin<'_>,
    messages: &[Arc<SourceMessage>],
    hold: &Arc<Hold>,
) -> Result<(), Cause> {
    identify(&mut payloads, || origin.words(messages));
    joined(deliver_each(shared, payloads, origin.task(), messages, hold).await).map_or(Ok(()), Err)
}

/// Tells `payloads`, of one hook, what they were derived from.
pub(crate) fn identify(payloads: &mut [Payload], words: impl Fn() -> String) {
    for (nth, payload) in payloads.iter_mut().enumerate() {
        payload.identify(nth, &words);
    }
}

/// Delivers `payloads` and waits for all. What comes back is why some are given up.
pub(crate) async fn deliver_each<H: Handler>(
    shared: &Shared<H>,
    payloads: Vec<Payload>,
    task: Option<&TaskId>,
    messages: &[Arc<SourceMessage>],
    hold: &Arc<Hold>,
) -> Vec<Cause> {
    let each =
        payloads.into_iter().map(async |payload| match shared.sinks.deliver(payload, hold).await {
            Settled::Confirmed => None,
            Settled::Refused(refused) => appeal(shared, refused, task, messages, hold).await,
        });
    join_all(each).await.into_iter().flatten().collect()
}

/// Why a hook's messages are to be dead-lettered, if some of its payloads are given up.
pub(crate) fn joined(causes: impl IntoIterator<Item = Cause>) -> Option<Cause> {
    let mut causes = causes.into_iter();
    let first = causes.next()?;
    let mut more = 0;
    let mut cause = causes.fold(first, |first, other| {
        more += 1;
        first.carrying(other.carried)
    });
    if more > 0 {
        cause.message = format!("{} (and {more} more payloads of this hook)", cause.message);
    }
    Some(cause)
}

/// Does what `on_delivery_error` says about a payload that was refused. What comes back is why it is
/// given up.
pub(crate) async fn appeal<H: Handler>(
    shared: &Shared<H>,
    mut refused: Box<Refused>,
    task: Option<&TaskId>,
    messages: &[Arc<SourceMessage>],
    hold: &Arc<Hold>,
) -> Option<Cause> {
    let mut writes: u32 = 0;
    let mut attempt = 1;
    loop {
        let Refused { payload: back, sink, error, attempts, .. } = *refused;
        writes = writes.saturating_add(attempts);
        let failed = DeliveryFailure {
            sink,
            payload: back,
            error,
            messages: messages.to_vec(),
            task: task.cloned(),
            attempt,
            retries_left: shared.settings.max_retries.saturating_sub(attempt - 1),
        };
        match verdict(shared, &failed).await {
            Ok(OnDeliveryError::Retry) if failed.retries_left > 0 => {
                let wait = shared.settings.backoff.delay(attempt, fastrand::f64());
                shared.metrics.delivery_retried(&failed, wait);
                // A hand-over does not wait for a backoff.
                let backing_off = Held::begin(hold);
                sleep(wait).await;
                drop(backing_off);
                attempt += 1;
                match shared.sinks.deliver(failed.payload, hold).await {
                    Settled::Confirmed => return None,
                    Settled::Refused(again) => refused = again,
                }
            }
            Ok(OnDeliveryError::Skip) => {
                shared.metrics.delivery_skipped(&failed, |message| shared.label(message));
                return None;
            }
            Ok(OnDeliveryError::Dlq | OnDeliveryError::Retry) => {
                return Some(cause(failed, writes));
            }
            Err(more) => {
                let mut cause = cause(failed, writes);
                // What the hook said was logged when it failed.
                cause.in_logs = Some(format!("{} (on_delivery_error failed)", cause.for_logs()));
                cause.message = format!("{} (on_delivery_error {more})", cause.message);
                return Some(cause);
            }
        }
    }
}

/// Asks `on_delivery_error`; `Err` says how the hook itself failed.
async fn verdict<H: Handler>(
    shared: &Shared<H>,
    failed: &DeliveryFailure,
) -> Result<OnDeliveryError, String> {
    let partition = failed.messages.first().map(|message| &message.partition);
    let call = async { shared.handler.on_delivery_error(failed).await };
    let answer = shared.ask(Hook::OnDeliveryError, partition, call).await;
    answer.map_err(|failure| format!("{}: {failure}", failure.class()))
}

fn cause(failed: DeliveryFailure, writes: u32) -> Cause {
    let DeliveryFailure { sink, mut payload, error, task, .. } = failed;
    if !sink.instance.is_empty() {
        payload.name_sink(&sink.instance); // Who delivers it again must not have to guess.
    }
    let cause = Cause::new(Stage::Deliver, error.class, error.message)
        .carrying(Carried::of(&payload))
        .sink(sink)
        .attempt(writes);
    match &task {
        Some(task) => cause.task(task),
        None => cause,
    }
}

/// Sends every one of `messages` to the dead-letter topic; returns when all are confirmed there. Refused
/// payloads travel with the first: delivered again, they must not come once per message.
pub(crate) async fn dead_letter<H: Handler>(
    shared: &Shared<H>,
    messages: &[Arc<SourceMessage>],
    cause: &Cause,
    hold: &Arc<Hold>,
) {
    let Some(first) = messages.first() else { return };
    let behind = &Cause { carried: cause.carried.elsewhere(first), ..cause.clone() };
    join_all(messages.iter().enumerate().map(|(index, message)| async move {
        let cause = if index == 0 { cause } else { behind }.clone();
        let letter = DeadLetter { message: Arc::clone(message), cause };
        shared.sinks.dead_letter(letter.clone(), hold).await;
        shared.metrics.message_dead_lettered(&letter, |message| shared.label(message));
    }))
    .await;
}

#[cfg(test)]
mod tests {
    use drakkar_core::TopicPartition;

    use super::*;

    fn messages(offsets: &[i64]) -> Vec<Arc<SourceMessage>> {
        let message = |&offset: &i64| {
            Arc::new(SourceMessage {
                partition: TopicPartition::new("orders", 3),
                offset: Offset(offset),
                timestamp: None,
                key: None,
                value: None,
                headers: Vec::new(),
            })
        };
        offsets.iter().map(message).collect()
    }

    #[test]
    fn what_is_derived_from_one_message_is_known_by_its_coordinates_and_the_ordinal_of_its_task() {
        let task = Task::new().as_nth(1);
        assert_eq!(Origin::Task(&task).words(&messages(&[42])), "orders:3:42:1");
        let replacing = Task::new().replacing(&task).as_nth(0);
        assert_eq!(Origin::Task(&replacing).words(&messages(&[42])), "orders:3:42:1.0");
        assert_eq!(Origin::Message.words(&messages(&[42])), "orders:3:42:message");
    }

    #[test]
    fn what_is_derived_from_several_messages_is_the_same_for_the_same_ones_only() {
        let words = |offsets: &[i64]| Origin::Window.words(&messages(offsets));
        assert!(words(&[10, 12, 15]).starts_with("orders:3:10-15-"), "{}", words(&[10, 12, 15]));
        assert_eq!(words(&[10, 12, 15]), words(&[15, 10, 12]));
        // A window that was cut elsewhere after a crash must not pass for the one before it.
        assert_ne!(words(&[10, 12, 15]), words(&[10, 13, 15]));
        assert_ne!(words(&[10, 12, 15]), words(&[10, 12, 15, 16]));
    }
}
