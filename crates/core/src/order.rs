//! Which message may start when.
//!
//! Messages of one key form a *line*, by offset. A message starts when every earlier one of its line is
//! settled; what stands for several messages (a task with fan-in) starts when each of them may. Lines
//! of different keys know nothing of each other.
//!
//! Within one window this can be too much to ask. A task that stands for two messages of one key
//! cannot wait until the first of them is settled; and of two tasks that cross, one for the messages
//! 1 and 4, one for 2 and 3, where 1 and 2 have one key and 3 and 4 another, each would wait for the
//! other. Messages on such a *circle* do not wait for each other: they start as soon as the first of
//! them in their line may. Across windows no circle can come up, because later windows wait for earlier
//! ones only. So whatever runs ends, and everything gets its turn.
//!
//! Where windows are aggregated, a message settles only with its whole window. Then the messages of
//! one window wait until the earlier ones have *ended* (their own tasks, and what is made of them as
//! messages), and later windows until they are settled.
//!
//! This is pure: it starts nothing. What it holds is bounded by the open messages.

mod circle; // which messages of a window cannot wait for each other
mod line; // the messages of one key, one behind the other

use std::{collections::HashMap, iter};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::line::Lines;
use crate::{Offset, ledger::TaskKey};

/// Which messages of a partition are processed one after the other (`executor.ordering`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// None.
    #[default]
    Unordered,
    /// Those of the same key. Messages without a key are processed in no order.
    Key,
    /// All of them.
    Partition,
}

/// The lines of one assignment of one partition, and who waits in them.
#[derive(Debug, Default)]
pub struct Order {
    mode: Ordering,
    lines: Lines,
    windows: u64,
    /// For how many of its messages a task still has to wait.
    waiting: HashMap<TaskKey, usize>,
}

impl Order {
    /// An empty order of this mode.
    #[must_use]
    pub fn new(mode: Ordering) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Whether there is any order to keep.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.mode != Ordering::Unordered
    }

    /// The next window was arranged: its messages (offset and key), by offset, get in line. `tasks`
    /// names the messages of each of its tasks.
    pub fn enter<'a>(
        &mut self,
        window: impl IntoIterator<Item = (Offset, Option<&'a Bytes>)>,
        tasks: impl IntoIterator<Item = &'a [Offset]>,
    ) {
        if !self.is_kept() {
            return;
        }
        let key_of = |key: Option<&Bytes>| match self.mode {
            Ordering::Unordered => None,
            Ordering::Key => key.cloned(),
            Ordering::Partition => Some(Bytes::new()),
        };
        let window: Vec<(Offset, Bytes)> =
            window.into_iter().filter_map(|(offset, key)| Some((offset, key_of(key)?))).collect();
        let joined: Vec<&[Offset]> = tasks.into_iter().filter(|links| 1 < links.len()).collect();
        let circles = circle::find(&window, &joined);
        self.windows += 1;
        for ((offset, key), circles) in iter::zip(window, circles) {
            self.lines.push(offset, &key, self.windows, circles);
        }
    }

    /// Whether a task that stands for the messages at `links` may start. One that may not is among
    /// what a later [`settled`](Self::settled) or [`ended`](Self::ended) answers.
    pub fn may_start(&mut self, task: TaskKey, links: &[Offset]) -> bool {
        let missing = links.iter().filter(|&&offset| self.lines.wait(offset, task)).count();
        if 0 < missing {
            self.waiting.insert(task, missing);
        }
        missing == 0
    }

    /// The message at `offset` has settled. Answers the tasks that may start by that, in the order of
    /// their keys.
    pub fn settled(&mut self, offset: Offset) -> Vec<TaskKey> {
        if !self.is_kept() {
            return Vec::new();
        }
        let freed = self.lines.remove(offset);
        self.ready(freed)
    }

    /// Nothing but the end of its window is missing for the message at `offset` to settle. Answers as
    /// [`Self::settled`].
    pub fn ended(&mut self, offset: Offset) -> Vec<TaskKey> {
        let freed = self.lines.end(offset);
        self.ready(freed)
    }

    fn ready(&mut self, freed: Vec<TaskKey>) -> Vec<TaskKey> {
        let mut ready = Vec::new();
        for task in freed {
            let Some(missing) = self.waiting.get_mut(&task) else {
                continue; // It was withdrawn.
            };
            *missing -= 1;
            if *missing == 0 {
                self.waiting.remove(&task);
                ready.push(task);
            }
        }
        ready.sort_unstable();
        ready
    }

    /// A task that was told to wait will never start.
    pub fn withdraw(&mut self, task: TaskKey) {
        self.waiting.remove(&task);
    }

    /// Whether the message at `offset` is in a line.
    #[must_use]
    pub fn has_place(&self, offset: Offset) -> bool {
        self.lines.has_place(offset)
    }

    /// The message in front of the one at `offset`. While it is open, those behind it cannot settle
    /// in order: whoever finishes these must finish it, too.
    #[must_use]
    pub fn before(&self, offset: Offset) -> Option<Offset> {
        self.lines.before(offset)
    }

    /// How many tasks wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is remembered any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.waiting.is_empty()
    }
}
