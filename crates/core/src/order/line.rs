//! The messages of one key, one behind the other.
//!
//! A doubly linked list per key, because a message that needs nothing done leaves from the middle.
//! Those that may start are always the first ones. Every step costs O(1), and O(1) for each message and
//! task it frees.

use std::collections::HashMap;

use bytes::Bytes;

use super::circle::Circles;
use crate::{Offset, ledger::TaskKey};

/// One message in its line.
#[derive(Debug)]
struct Place {
    key: Bytes,
    window: u64,
    circles: Circles,
    before: Option<Offset>,
    behind: Option<Offset>,
    /// Only its window is missing for it to settle.
    ended: bool,
    /// May start; never taken back.
    free: bool,
    /// What waits until it may.
    tasks: Vec<TaskKey>,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    first: Offset,
    last: Offset,
    /// The first that has not ended.
    open: Option<Offset>,
    /// The first that may not start.
    waiting: Option<Offset>,
}

/// The lines of all keys that have a message.
#[derive(Debug, Default)]
pub(super) struct Lines {
    places: HashMap<Offset, Place>,
    lines: HashMap<Bytes, Line>,
}

impl Lines {
    /// Puts a message at the end of its line.
    pub(super) fn push(&mut self, offset: Offset, key: &Bytes, window: u64, circles: Circles) {
        let empty = Line { first: offset, last: offset, open: None, waiting: None };
        let line = self.lines.entry(key.clone()).or_insert(empty);
        let before = std::mem::replace(&mut line.last, offset);
        line.open.get_or_insert(offset);
        line.waiting.get_or_insert(offset);
        let before = self.places.get_mut(&before).map(|place| {
            place.behind = Some(offset);
            before
        });
        let place = Place {
            key: key.clone(),
            window,
            circles,
            before,
            behind: None,
            ended: false,
            free: false,
            tasks: Vec::new(),
        };
        self.places.insert(offset, place);
        self.advance(key); // Nothing waits for it yet.
    }

    /// Notes that `task` waits until the message at `offset` may start, unless it may already.
    pub(super) fn wait(&mut self, offset: Offset, task: TaskKey) -> bool {
        match self.places.get_mut(&offset) {
            Some(place) if !place.free => {
                place.tasks.push(task);
                true
            }
            _ => false,
        }
    }

    /// Takes a message out of its line. Answers what waited for those that may start by that, once for
    /// each message it waited for.
    pub(super) fn remove(&mut self, offset: Offset) -> Vec<TaskKey> {
        let Some(Place { key, before, behind, .. }) = self.places.remove(&offset) else {
            return Vec::new();
        };
        if let Some(before) = before.and_then(|before| self.places.get_mut(&before)) {
            before.behind = behind;
        }
        if let Some(behind) = behind.and_then(|behind| self.places.get_mut(&behind)) {
            behind.before = before;
        }
        let Some(line) = self.lines.get_mut(&key) else { return Vec::new() };
        for mark in [&mut line.open, &mut line.waiting] {
            if *mark == Some(offset) {
                *mark = behind;
            }
        }
        match (before, behind) {
            (None, None) => drop(self.lines.remove(&key)),
            (None, Some(behind)) => line.first = behind,
            (Some(before), None) => line.last = before,
            (Some(_), Some(_)) => {}
        }
        self.advance(&key)
    }

    /// Messages of the same window need not wait for this one any longer. Answers as
    /// [`Self::remove`].
    pub(super) fn end(&mut self, offset: Offset) -> Vec<TaskKey> {
        let Some(place) = self.places.get_mut(&offset) else { return Vec::new() };
        place.ended = true;
        let key = place.key.clone();
        self.advance(&key)
    }

    pub(super) fn has_place(&self, offset: Offset) -> bool {
        self.places.contains_key(&offset)
    }

    pub(super) fn before(&self, offset: Offset) -> Option<Offset> {
        self.places.get(&offset)?.before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.lines.is_empty()
    }

    /// Lets start whose turn has come: who has none before it but such as are of its window and have
    /// ended or are on a circle with it. Those on one circle stand together, so the first tells.
    fn advance(&mut self, key: &Bytes) -> Vec<TaskKey> {
        let mut freed = Vec::new();
        let Some(line) = self.lines.get_mut(key) else { return freed };
        let window = self.places.get(&line.first).map(|first| first.window);
        let open = loop {
            let Some(open) = line.open.and_then(|open| self.places.get(&open)) else { break None };
            if !open.ended {
                break Some(open.circles);
            }
            line.open = open.behind;
        };
        while let Some(offset) = line.waiting {
            let Some(place) = self.places.get_mut(&offset) else { break };
            let none_is_open = line.open.is_none_or(|open| offset <= open);
            let together = open.is_some_and(|open| open.end == place.circles.start);
            if Some(place.window) != window || !(none_is_open || together) {
                break;
            }
            place.free = true;
            freed.append(&mut place.tasks);
            line.waiting = place.behind;
        }
        freed
    }
}
