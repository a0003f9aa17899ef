//! Who may come in, and who is held.
//!
//! A lane takes only so many payloads and bytes; callers beyond that wait outside. While nothing
//! moves inside, those who wait are held like those who are in: a hand-over must not wait for them.

use std::sync::Arc;

use drakkar_core::hold::{Held, Hold};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::trouble::Trouble;

/// What a lane may still take. Each payload takes the larger of its bytes and an equal share of all, so
/// that neither their number nor their bytes exceed what is allowed.
pub(super) struct Room {
    free: Arc<Semaphore>,
    all: u32,
    least: u32,
}

/// What one payload takes, given back when dropped.
pub(super) struct Space(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Room {
    pub(super) fn new(items: usize, bytes: usize) -> Self {
        let share = (bytes / items.max(1)).max(1);
        let least = u32::try_from(share).unwrap_or(u32::MAX);
        let all = u32::try_from(share.saturating_mul(items)).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(all as usize)), all, least }
    }

    /// Enters if there is room.
    pub(super) fn try_enter(&self, size: usize) -> Option<Space> {
        Arc::clone(&self.free).try_acquire_many_owned(self.taken(size)).ok().map(Space)
    }

    /// Waits for room; held while nothing moves inside.
    pub(super) async fn enter(&self, size: usize, hold: &Arc<Hold>, trouble: &Trouble) -> Space {
        let mut stuck = trouble.stuck();
        let mut entered = std::pin::pin!(self.wait(size));
        let mut waiting = None;
        loop {
            match (*stuck.borrow_and_update(), waiting.is_some()) {
                (true, false) => waiting = Some(Held::begin(hold)),
                (false, true) => waiting = None,
                _ => {}
            }
            tokio::select! {
                space = &mut entered => return space,
                Ok(()) = stuck.changed() => {}
            }
        }
    }

    async fn wait(&self, size: usize) -> Space {
        match Arc::clone(&self.free).acquire_many_owned(self.taken(size)).await {
            Ok(space) => Space(space),
            // Only a closed semaphore errs, and this one is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// A payload larger than the lane takes the whole lane.
    fn taken(&self, size: usize) -> u32 {
        u32::try_from(size).unwrap_or(u32::MAX).clamp(self.least.min(self.all), self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `size` bytes enter.
    fn enter(room: &Room, size: usize) -> usize {
        std::iter::from_fn(|| room.try_enter(size)).collect::<Vec<_>>().len()
    }

    #[test]
    fn neither_the_number_nor_the_bytes_exceed_what_is_allowed() {
        for (items, bytes) in [(4, 1_000), (3, 1_000), (1_000, 10), (1, 1), (16_384, 32 << 20)] {
            let room = Room::new(items, bytes);
            for size in [0, 1, 7, 250, 251, 999, 40 << 20] {
                let entered = enter(&room, size);
                let within = entered <= items && entered * size.min(bytes) <= bytes.max(items);
                assert!(0 < entered && within, "{entered} of {size} in {items} and {bytes}");
            }
            assert_eq!(enter(&room, 0), items, "all has been given back");
        }
    }
}
