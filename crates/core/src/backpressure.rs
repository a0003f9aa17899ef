//! When a partition pauses, and when it goes on.
//!
//! The poll thread adds what it reads to the [`Load`] of the partition, the partition subtracts what
//! is settled or dropped. At a high mark the partition is paused; at or below a low mark it is
//! resumed. The marks lie far apart because a pause throws away what the client had prefetched. The
//! limits of a partition are its share of what the worker may hold, and change with the assignment.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How much of one partition may be held. At or above either number it is paused; it goes on at or
/// below half of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes of their keys, values and headers.
    pub bytes: usize,
}

impl Limits {
    /// At least one of each, so that every message passes, however large, and be it alone.
    #[must_use]
    pub fn new(messages: usize, bytes: usize) -> Self {
        Self { messages: messages.max(1), bytes: bytes.max(1) }
    }

    /// What one of `partitions` may hold so that all of them together hold no more than `total`: its
    /// equal share, and no more than `self`.
    #[must_use]
    pub fn share(self, total: Self, partitions: usize) -> Self {
        let among = |total: usize| total / partitions.max(1);
        Self::new(self.messages.min(among(total.messages)), self.bytes.min(among(total.bytes)))
    }
}

/// How much of one partition is held: polled and not yet settled.
#[derive(Debug)]
pub struct Load {
    max_messages: AtomicUsize,
    max_bytes: AtomicUsize,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    paused: AtomicBool,
}

/// What the poll thread does after it added a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Intake {
    /// Go on fetching.
    Open,
    /// Pause the partition.
    Pause,
}

impl Load {
    /// Nothing held.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            max_messages: AtomicUsize::new(limits.messages),
            max_bytes: AtomicUsize::new(limits.bytes),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// The poll thread read a message of `bytes`, and hands it on only after this. So a pause that
    /// comes too late, when all the others are settled, is ended by this message itself.
    pub fn add(&self, bytes: usize) -> Intake {
        let messages = self.messages.fetch_add(1, Ordering::SeqCst) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let over = messages >= self.max_messages.load(Ordering::SeqCst)
            || bytes >= self.max_bytes.load(Ordering::SeqCst);
        if over && !self.paused.swap(true, Ordering::SeqCst) { Intake::Pause } else { Intake::Open }
    }

    /// The partition settled or dropped a message of `bytes`. `true`: ask the poll thread to resume.
    #[must_use]
    pub fn remove(&self, bytes: usize) -> bool {
        self.remove_all(1, bytes)
    }

    /// The same for several messages, which were `bytes` together.
    #[must_use]
    pub fn remove_all(&self, messages: usize, bytes: usize) -> bool {
        self.messages.fetch_sub(messages, Ordering::SeqCst);
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.goes_on()
    }

    /// From now on this much may be held. `true`: there is room again, resume. What is held above a
    /// lower limit is kept; the next message pauses the partition.
    #[must_use]
    pub fn limit(&self, limits: Limits) -> bool {
        self.max_messages.store(limits.messages, Ordering::SeqCst);
        self.max_bytes.store(limits.bytes, Ordering::SeqCst);
        self.goes_on()
    }

    /// Ends a pause if there is room; whoever ends it resumes, and nobody else.
    fn goes_on(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
            && self.has_room()
            && self.paused.swap(false, Ordering::SeqCst)
    }

    fn has_room(&self) -> bool {
        self.messages.load(Ordering::SeqCst) <= self.max_messages.load(Ordering::SeqCst) / 2
            && self.bytes.load(Ordering::SeqCst) <= self.max_bytes.load(Ordering::SeqCst) / 2
    }

    /// Messages held.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::SeqCst)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.max_bytes.load(Ordering::SeqCst)
    }

    /// Whether the partition is paused for want of room.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_once_at_the_high_mark_and_resumes_once_at_the_low_mark() {
        let load = Load::new(Limits::new(4, 1_000));
        let added: Vec<Intake> = (0..5).map(|_| load.add(1)).collect();
        assert_eq!(
            added,
            [Intake::Open, Intake::Open, Intake::Open, Intake::Pause, Intake::Open],
            "what was in the air when the pause was asked for is still taken"
        );
        let resumed: Vec<bool> = (0..5).map(|_| load.remove(1)).collect();
        assert_eq!(resumed, [false, false, true, false, false]);
    }

    #[test]
    fn all_shares_together_are_no_more_than_the_total_as_long_as_each_may_hold_one_message() {
        let each = Limits::new(10_000, 8 << 20);
        let total = Limits::new(50_000, 32 << 20);
        assert_eq!(each.share(total, 1), each);
        assert_eq!(each.share(total, 4), each);
        assert_eq!(each.share(total, 8), Limits { messages: 6_250, bytes: 4 << 20 });
        assert_eq!(each.share(total, 200), Limits { messages: 250, bytes: 167_772 });
        assert_eq!(each.share(total, 1_000_000), Limits { messages: 1, bytes: 33 });
        assert_eq!(each.share(total, 0), each, "nobody divides by zero");
    }

    #[test]
    fn several_messages_that_settle_together_end_a_pause_once() {
        let load = Load::new(Limits::new(4, 1_000));
        let added: Vec<Intake> = (0..4).map(|_| load.add(10)).collect();
        assert_eq!(added.last(), Some(&Intake::Pause));
        assert!(load.remove_all(3, 30));
        assert!(!load.remove_all(1, 10));
        assert_eq!((load.messages(), load.bytes()), (0, 0));
    }

    #[test]
    fn a_message_larger_than_any_limit_passes() {
        let load = Load::new(Limits::new(0, 0));
        assert_eq!(load.add(1 << 20), Intake::Pause);
        assert!(load.remove(1 << 20));
    }

    #[test]
    fn a_higher_limit_ends_a_pause_and_a_lower_one_begins_it_with_the_next_message() {
        let load = Load::new(Limits::new(4, 1_000));
        let added: Vec<Intake> = (0..4).map(|_| load.add(1)).collect();
        assert_eq!(added.last(), Some(&Intake::Pause));
        assert!(!load.limit(Limits::new(7, 1_000)), "four are more than half of seven");
        assert!(load.limit(Limits::new(8, 1_000)));
        assert!(!load.limit(Limits::new(9, 1_000)), "it goes on already");
        assert!(!load.limit(Limits::new(2, 1_000)));
        assert_eq!(load.add(1), Intake::Pause);
    }

    #[test]
    fn bytes_pause_as_well() {
        let load = Load::new(Limits::new(1_000, 10));
        assert_eq!(load.add(10), Intake::Pause);
        assert!(load.remove(10));
        assert!(!load.is_paused());
    }
}
