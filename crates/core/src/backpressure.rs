//! When a partition pauses, and when it goes on.
//!
//! The poll thread adds what it reads to the [`Load`] of the partition, the partition subtracts what
//! is settled or dropped. Above a high mark the partition is paused; at or below a low mark it is
//! resumed. The marks lie far apart because a pause throws away what the client had prefetched.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Marks of one partition; the low ones are below the high ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages held at or above which the partition is paused.
    pub high_messages: usize,
    /// Messages held at or below which it goes on.
    pub low_messages: usize,
    /// Bytes held at or above which the partition is paused.
    pub high_bytes: usize,
    /// Bytes held at or below which it goes on.
    pub low_bytes: usize,
}

impl Limits {
    /// Pauses at `messages` or `bytes`, goes on at half of both.
    #[must_use]
    pub fn new(messages: usize, bytes: usize) -> Self {
        Self {
            high_messages: messages.max(1),
            low_messages: messages / 2,
            high_bytes: bytes.max(1),
            low_bytes: bytes / 2,
        }
    }
}

/// How much of one partition is held: polled and not yet settled.
#[derive(Debug)]
pub struct Load {
    limits: Limits,
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
            limits,
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// The poll thread read a message of `bytes`.
    pub fn add(&self, bytes: usize) -> Intake {
        let messages = self.messages.fetch_add(1, Ordering::SeqCst) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let over = messages >= self.limits.high_messages || bytes >= self.limits.high_bytes;
        if !over || self.paused.swap(true, Ordering::SeqCst) {
            return Intake::Open;
        }
        // The partition may have emptied between the additions and the flag; then nobody else
        // would resume.
        if self.has_room() && self.paused.swap(false, Ordering::SeqCst) {
            return Intake::Open;
        }
        Intake::Pause
    }

    /// The partition settled or dropped a message of `bytes`. `true`: ask the poll thread to resume.
    #[must_use]
    pub fn remove(&self, bytes: usize) -> bool {
        self.messages.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.has_room()
            && self.paused.load(Ordering::SeqCst)
            && self.paused.swap(false, Ordering::SeqCst)
    }

    fn has_room(&self) -> bool {
        self.messages.load(Ordering::SeqCst) <= self.limits.low_messages
            && self.bytes.load(Ordering::SeqCst) <= self.limits.low_bytes
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
    fn bytes_pause_as_well() {
        let load = Load::new(Limits::new(1_000, 10));
        assert_eq!(load.add(10), Intake::Pause);
        assert!(load.remove(10));
        assert!(!load.is_paused());
    }
}
