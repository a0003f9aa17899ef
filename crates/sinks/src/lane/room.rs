//! Who may come in, and who is held.
//!
//! A lane takes only so many payloads and bytes; callers beyond that wait outside, in turn. While
//! nothing moves inside, those who wait are held like those who are in: a hand-over must not wait for them.
//!
//! The last that comes in need not fit. What is held may stay for ever: who waited until the room is
//! empty, or nearly, would wait as long, and whoever comes later behind him. Its caller has it in memory
//! anyway.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use drakkar_core::hold::{Held, Hold};
use tokio::sync::{Notify, Semaphore};

use super::trouble::Trouble;

/// What a lane may still take. Each payload takes the larger of its bytes and an equal share of all, so
/// that neither their number nor their bytes exceed what is allowed, but for the bytes of one of them.
pub(super) struct Room {
    inside: Arc<Inside>,
    /// One, which is with the caller who is the next to come in.
    turn: Semaphore,
    least: usize,
}

struct Inside {
    all: usize,
    taken: AtomicUsize,
    /// There is room again.
    free: Notify,
}

/// What one payload takes, given back when dropped.
pub(super) struct Space {
    inside: Arc<Inside>,
    size: usize,
}

impl Inside {
    /// Takes `size` if anything is left.
    fn take(self: &Arc<Self>, size: usize) -> Option<Space> {
        let more = |taken| (taken < self.all).then_some(taken + size);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Space { inside: Arc::clone(self), size })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let Inside { all, taken, free } = &*self.inside;
        let before = taken.fetch_sub(self.size, Ordering::AcqRel);
        if *all <= before && before - self.size < *all {
            free.notify_one(); // Kept for whoever is about to wait.
        }
    }
}

impl Room {
    pub(super) fn new(items: usize, bytes: usize) -> Self {
        let items = items.max(1);
        let least = (bytes / items).max(1);
        let all = least * items;
        let inside = Inside { all, taken: AtomicUsize::new(0), free: Notify::new() };
        Self { inside: Arc::new(inside), turn: Semaphore::new(1), least }
    }

    /// Enters if there is room and nobody waits for it.
    pub(super) fn try_enter(&self, size: usize) -> Option<Space> {
        let is_waited_for = self.turn.available_permits() == 0;
        if is_waited_for { None } else { self.inside.take(self.size(size)) }
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
        let _turn = self.turn.acquire().await; // It is never closed.
        loop {
            match self.inside.take(self.size(size)) {
                Some(space) => return space,
                None => self.inside.free.notified().await,
            }
        }
    }

    /// What a payload takes: one larger than the room takes the whole room.
    fn size(&self, size: usize) -> usize {
        size.clamp(self.least, self.inside.all)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// How many of `size` bytes enter.
    fn enter(room: &Room, size: usize) -> usize {
        std::iter::from_fn(|| room.try_enter(size)).collect::<Vec<_>>().len()
    }

    #[test]
    fn neither_the_number_nor_the_bytes_exceed_what_is_allowed_but_for_those_of_one() {
        for (items, bytes) in [(4, 1_000), (3, 1_000), (1_000, 10), (1, 1), (16_384, 32 << 20)] {
            let room = Room::new(items, bytes);
            for size in [0, 1, 7, 250, 251, 999, 40 << 20] {
                let entered = enter(&room, size);
                let fits = (entered - 1) * size < bytes.max(items);
                assert!(entered <= items && fits, "{entered} of {size} in {items} and {bytes}");
            }
            assert_eq!(enter(&room, 0), items, "all has been given back");
        }
    }

    #[tokio::test]
    async fn who_waits_comes_in_when_there_is_room_and_nobody_before_him() {
        let room = Room::new(4, 1_000);
        let mut inside: Vec<_> = std::iter::from_fn(|| room.try_enter(400)).collect();
        assert_eq!(inside.len(), 3, "the last one did not fit");
        let mut first = std::pin::pin!(room.wait(2_000));
        assert!((&mut first).now_or_never().is_none());
        let mut second = std::pin::pin!(room.wait(1));
        assert!((&mut second).now_or_never().is_none());
        inside.pop();
        assert!(room.try_enter(1).is_none(), "others wait");
        assert!((&mut second).now_or_never().is_none(), "in turn");
        let first = first.now_or_never().unwrap();
        assert!((&mut second).now_or_never().is_none(), "800 and 1000 of 1000");
        inside.clear();
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        drop(second.now_or_never().unwrap());
        assert_eq!(enter(&room, 0), 4, "all has been given back");
    }

    #[tokio::test]
    async fn who_does_not_wait_any_more_keeps_nobody_waiting() {
        let room = Room::new(1, 1_000);
        let inside = room.try_enter(1);
        let mut second = Box::pin(room.wait(1));
        assert!((&mut second).now_or_never().is_none());
        let mut third = Box::pin(room.wait(1));
        assert!((&mut third).now_or_never().is_none());
        drop(inside);
        drop(second); // It was told that there is room.
        assert!(third.now_or_never().is_some());
    }
}
