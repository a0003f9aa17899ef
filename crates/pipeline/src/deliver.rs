//! Payloads → sinks, messages → dead letters.
//!
//! Returns only when the far side has confirmed, or a hook said so. A sink that is down makes these
//! calls wait, for as long as it lasts, and asks nobody; a payload that is refused for good is the
//! business of `on_delivery_error`. What becomes of the messages behind one that is given up is not
//! decided here.

use std::sync::Arc;

use drakkar_core::{
    Carried, Cause, DeadLetter, DeliveryFailure, Handler, OnDeliveryError, Payload, SourceMessage,
    Stage, TaskId,
    hold::{Held, Hold},
};
use drakkar_sinks::{Refused, Settled};
use drakkar_telemetry::Hook;
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::partition::Shared;

/// Delivers `payloads`, which were derived from `messages`: by `task`, or of a message or a window as a
/// whole.
///
/// # Errors
///
/// Why `messages` are to be dead-lettered: once, however many of the payloads are given up.
pub(crate) async fn deliver<H: Handler>(
    shared: &Shared<H>,
    payloads: Vec<Payload>,
    task: Option<&TaskId>,
    messages: &[Arc<SourceMessage>],
    hold: &Arc<Hold>,
) -> Result<(), Cause> {
    let one = |payload| deliver_one(shared, payload, task, messages, hold);
    let given_up: Vec<Option<Cause>> = match <[Payload; 1]>::try_from(payloads) {
        Ok([only]) => vec![one(only).await],
        Err(payloads) => join_all(payloads.into_iter().map(one)).await,
    };
    let mut causes = given_up.into_iter().flatten();
    let Some(first) = causes.next() else { return Ok(()) };
    let mut more = 0;
    let mut cause = causes.fold(first, |first, other| {
        more += 1;
        first.carrying(other.carried)
    });
    if more > 0 {
        cause.message = format!("{} (and {more} more payloads of this hook)", cause.message);
    }
    Err(cause)
}

/// Delivers `payload`. What comes back is why it is given up.
async fn deliver_one<H: Handler>(
    shared: &Shared<H>,
    mut payload: Payload,
    task: Option<&TaskId>,
    messages: &[Arc<SourceMessage>],
    hold: &Arc<Hold>,
) -> Option<Cause> {
    let mut writes: u32 = 0;
    let mut attempt = 1;
    loop {
        let Settled::Refused(refused) = shared.sinks.deliver(payload, hold).await else {
            return None;
        };
        let Refused { payload: back, sink, error, attempts } = *refused;
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
                payload = failed.payload;
                attempt += 1;
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
