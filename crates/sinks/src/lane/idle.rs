//! A sink that nothing is meant for is asked now and then whether it is there.
//!
//! So that who looks at the worker hears of a sink that went away before a payload does. Nothing else
//! depends on the answer: it opens no circuit, it is no delivery, and a payload that comes meanwhile is
//! tried at once.

use std::{pin::pin, sync::Arc, time::Duration};

use drakkar_core::{
    Sink, SinkError,
    contain::{Contained, panic_text},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::error;

use super::Common;

/// How long nothing is meant for a sink before it is asked, and asked again.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Longest wait for an answer from a sink whose writes have a limit of their own.
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);

/// When a sink was last written to, or asked.
pub(super) struct Idle<S> {
    sink: Arc<S>,
    common: Arc<Common>,
    since: Instant,
}

impl<S: Sink> Idle<S> {
    pub(super) fn new(sink: Arc<S>, common: Arc<Common>) -> Self {
        Self { sink, common, since: Instant::now() }
    }

    /// It is written to.
    pub(super) fn interrupt(&mut self) {
        self.since = Instant::now();
    }

    /// Waits until it is time, and asks. May be dropped at any time.
    pub(super) async fn ask(&mut self) {
        sleep_until(self.since + INTERVAL).await;
        // On a task of its own, which ends with the set: one that blocks must not hold up the lane.
        let mut asking = JoinSet::new();
        asking.spawn(answer(Arc::clone(&self.sink), Arc::clone(&self.common)));
        if let Some(Ok(answer)) = asking.join_next().await {
            self.common.trouble.asked(answer);
        }
        self.since = Instant::now();
    }
}

/// What the sink says, whatever it does.
async fn answer<S: Sink>(sink: Arc<S>, common: Arc<Common>) -> Result<(), SinkError> {
    let limit = common.settings.patience.timeout.unwrap_or(USUAL_TIMEOUT);
    let place = pin!(Some(async { sink.probe().await }));
    match timeout(limit, Contained::new(place)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            let text = panic_text(panic);
            error!(sink = %common.settings.name, error = text, "bug in a sink: its probe panicked");
            Err(SinkError::new("panic", text))
        }
        Err(_) => Err(SinkError::new("timeout", format!("no answer within {limit:?}"))),
    }
}
