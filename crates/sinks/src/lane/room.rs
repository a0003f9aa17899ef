//! Who may come in, and who is held.
//!
//! A lane takes only so many payloads and bytes; callers beyond that wait outside. While nothing
//! moves inside, those who wait are held like those who are in: a hand-over must not wait for them.

use std::sync::Arc;

use drakkar_core::hold::{Held, Hold};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::trouble::Trouble;

/// What a lane may still take.
pub(super) struct Room {
    items: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_bytes: u32,
}

/// The share of one payload, given back when dropped.
pub(super) struct Space {
    _item: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(items: usize, bytes: usize) -> Self {
        let max_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            items: Arc::new(Semaphore::new(items)),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_bytes,
        }
    }

    /// Enters if there is room.
    pub(super) fn try_enter(&self, size: usize) -> Option<Space> {
        let share = self.share(size);
        let item = Arc::clone(&self.items).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(share).ok()?;
        Some(Space { _item: item, _bytes: bytes })
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
        let item = Arc::clone(&self.items).acquire_owned().await;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.share(size)).await;
        match (item, bytes) {
            (Ok(item), Ok(bytes)) => Space { _item: item, _bytes: bytes },
            // Only a closed semaphore errs, and these are never closed.
            _ => std::future::pending().await,
        }
    }

    /// A payload larger than the lane takes the whole lane.
    fn share(&self, size: usize) -> u32 {
        u32::try_from(size).unwrap_or(u32::MAX).min(self.max_bytes)
    }
}
