//! No write begins while the far side wants to be left alone.
//!
//! It says so in an answer, for all that is meant for it. The longest wait counts, but none is longer than an
//! hour: what somebody says by mistake must not stop a sink for ever. What is under way goes on.

use std::{sync::Arc, time::Duration};

use drakkar_core::SinkError;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Common,
    breaker::{Breaker, Pass, Writes},
    next,
};

/// Longest wait that is kept.
const LONGEST: Duration = Duration::from_hours(1);
/// Class of what was not sent because the far side wants to be left alone.
const UNSENT: &str = "paused";

/// Whether a far side wants to be left alone.
#[derive(Default)]
pub(crate) struct Pause {
    asked: watch::Sender<Option<Asked>>,
}

/// What it asked for.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Since when it wants to be left alone, without a gap.
    pub since: Instant,
    pub until: Instant,
    /// Its answer.
    pub error: SinkError,
}

/// How long the wait is that `error` asks for.
pub(super) fn wait(error: &SinkError) -> Duration {
    error.retry_after.unwrap_or_default().min(LONGEST)
}

impl Pause {
    /// The far side answered this: perhaps that it wants to be left alone.
    pub(crate) fn heard(&self, error: &SinkError) {
        let now = Instant::now();
        let until = now + wait(error);
        if !error.pauses_sink || until <= now {
            return;
        }
        self.asked.send_if_modified(|asked| {
            let known = asked.as_ref().filter(|known| now < known.until);
            if known.is_some_and(|known| until <= known.until) {
                return false;
            }
            let since = known.map_or(now, |known| known.since);
            *asked = Some(Asked { since, until, error: error.clone() });
            true
        });
    }

    /// What it asked for, while that lasts.
    pub(crate) fn now(&self) -> Option<Asked> {
        let asked = self.asked.borrow();
        asked.as_ref().filter(|asked| Instant::now() < asked.until).cloned()
    }

    /// Tells when it asks for more.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Asked>> {
        self.asked.subscribe()
    }
}

#[cfg(any(test, feature = "http"))]
impl Asked {
    /// What becomes of a payload that is not sent for it.
    pub(crate) fn unsent(&self) -> SinkError {
        let text = format!("not sent, others were asked to wait: {}", self.error.message);
        let left = self.until.saturating_duration_since(Instant::now());
        let error = SinkError::new(UNSENT, text);
        SinkError { retry_after: Some(left), pauses_sink: true, ..error }
    }
}

/// Whether nothing was sent: that says nothing of the far side.
pub(super) fn is_unsent(error: &SinkError) -> bool {
    error.class == UNSENT
}

impl Common {
    /// Waits as `asked`, or else until the circuit lets a write pass; `None` when something else may have to
    /// be waited for. Nobody is the probe of a circuit while the far side wants to be left alone.
    pub(super) async fn turn(
        &self,
        breaker: Option<Arc<Breaker>>,
        writes: Writes,
        asked: Option<Asked>,
    ) -> Option<Pass> {
        let mut more = self.pause.watch();
        let mut circuit = breaker.as_ref().map(|breaker| breaker.watch());
        let Some(breaker) = breaker.filter(|_| asked.is_none()) else {
            let until = asked.map_or_else(Instant::now, |asked| asked.until);
            tokio::select! {
                () = sleep_until(until) => {}
                Some(_) = next(&mut circuit) => {}
            }
            return None;
        };
        tokio::select! {
            biased; // Before somebody is let pass.
            Ok(()) = more.changed() => None,
            pass = Breaker::pass(&breaker, writes) => Some(pass).filter(|_| self.pause.now().is_none()),
        }
    }
}
