//! How many payloads are sent at once: fewer while that takes too long.
//!
//! It knows nothing of who takes them. What was sent and took too long may have been carried out all the
//! same; smaller pieces end in time, so that there is an answer.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many go together: halved when that takes too long, doubled when it does not.
#[derive(Debug)]
pub(crate) struct Most(AtomicUsize);

impl Default for Most {
    fn default() -> Self {
        Self(AtomicUsize::new(Self::UNLIMITED))
    }
}

impl Most {
    const UNLIMITED: usize = 1 << 20;

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(crate) fn was_too_many(&self, many: usize) {
        self.0.store((many / 2).max(1), Relaxed);
    }

    pub(crate) fn was_fine(&self, many: usize) {
        if self.get() <= many {
            self.0.store((many * 2).min(Self::UNLIMITED), Relaxed);
        }
    }
}
