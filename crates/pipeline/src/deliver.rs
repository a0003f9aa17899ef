//! Payloads → sinks, messages → dead letters.
//!
//! Returns only when the far side has confirmed. A sink that is down makes these calls wait, for as
//! long as it lasts. What becomes of the messages behind a payload that is refused for good is not
//! decided here.

use std::sync::Arc;

use drakkar_core::{Cause, DeadLetter, Handler, Payload, SourceMessage, Stage, TaskId, hold::Hold};
use drakkar_sinks::Settled;
use futures_util::future::join_all;

use crate::partition::Shared;

/// Delivers `payloads`, which were derived by `task`, or from several tasks together.
///
/// # Errors
///
/// Why the messages behind them are to be dead-lettered.
pub(crate) async fn deliver<H: Handler>(
    shared: &Shared<H>,
    payloads: Vec<Payload>,
    task: Option<&TaskId>,
    hold: &Arc<Hold>,
) -> Result<(), Cause> {
    let outcomes = match <[Payload; 1]>::try_from(payloads) {
        Ok([only]) => vec![shared.sinks.deliver(only, hold).await],
        Err(payloads) => {
            join_all(payloads.into_iter().map(|payload| shared.sinks.deliver(payload, hold))).await
        }
    };
    let mut refused = outcomes.into_iter().filter_map(|outcome| match outcome {
        Settled::Confirmed => None,
        Settled::Refused { sink, error, attempts } => Some((sink, error, attempts)),
    });
    let Some((sink, error, attempts)) = refused.next() else { return Ok(()) };
    let text = match refused.count() {
        0 => error.message,
        more => format!("{} (and {more} more payloads of this hook)", error.message),
    };
    let mut cause = Cause::new(Stage::Deliver, error.class, text).sink(sink).attempt(attempts);
    cause.task = task.cloned();
    Err(cause)
}

/// Sends every one of `messages` to the dead-letter topic; returns when all are confirmed there.
pub(crate) async fn dead_letter<H: Handler>(
    shared: &Shared<H>,
    messages: &[Arc<SourceMessage>],
    cause: &Cause,
    hold: &Arc<Hold>,
) {
    join_all(messages.iter().map(|message| async {
        let letter = DeadLetter { message: Arc::clone(message), cause: cause.clone() };
        shared.sinks.dead_letter(letter.clone(), hold).await;
        shared.metrics.message_dead_lettered(&letter);
    }))
    .await;
}
