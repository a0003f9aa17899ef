//! At most so many letters per second.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::{args::Pace, stop::Stop};

/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(20);

/// When the next letter may go.
pub(super) struct Pacer {
    /// Letters per second.
    rate: Option<NonZeroU32>,
    due: Instant,
}

impl Pacer {
    /// What is only shown is shown at once.
    pub(super) fn new(pace: &Pace) -> Self {
        Self { rate: pace.rate.filter(|_| !pace.dry_run), due: Instant::now() }
    }

    /// How long until another letter may go.
    pub(super) fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Waits until another letter may go; false when told to stop meanwhile.
    pub(super) fn pass(&mut self, stop: &Stop) -> bool {
        let Some(rate) = self.rate else { return !stop.is_set() };
        while !self.wait().is_zero() && !stop.is_set() {
            std::thread::sleep(LOOK.min(self.wait()));
        }
        // Time that was lost is not made up for by a burst.
        self.due = self.due.max(Instant::now() - LOOK) + Duration::from_secs(1) / rate.get();
        !stop.is_set()
    }
}
