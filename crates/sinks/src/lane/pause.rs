//! No write begins while the far side wants to be left alone.
//!
//! It says so in an answer, for all that is meant for it. The longest wait counts, but none is longer than an
//! hour: what somebody says by mistake must not stop a sink for ever. What is under way goes on.

use std::time::Duration;

use drakkar_core::SinkError;
use tokio::{sync::watch, time::Instant};

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
