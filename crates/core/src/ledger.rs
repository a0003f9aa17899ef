//! Which message waits for what.
//!
//! A message is *open* from its delivery to us until everything it waits for has ended: the answer of
//! `arrange`, then each task that stands for it, then what is made of it as a whole (*closings*: one
//! for the message, one for its window). A task *ends* when all it led to is confirmed by a
//! sink or by the dead-letter topic, or was skipped by a hook. When nothing is left to wait for, the
//! message settles and the [`Watermark`] may move.
//!
//! The ledger is pure: it starts nothing and knows no time. It belongs to one assignment of one
//! partition and is dropped with it, so that nothing can settle after the fence.

use std::collections::{
    HashMap, HashSet, VecDeque,
    hash_map::{Entry, OccupiedEntry},
};

use smallvec::SmallVec;

use crate::{Offset, numbered::NumberedMap, watermark::Watermark};

/// Names a task or a closing within one ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(pub u64);

/// Most tasks stand for one message.
type Links = SmallVec<[Offset; 2]>;

#[derive(Debug)]
struct Open<M> {
    message: M,
    /// What it waits for: its arrangement and its tasks.
    waits: usize,
    /// Whether its arrangement has ended; a second report must not count for a task.
    arranged: bool,
    /// Whether one of its tasks has started, so that dropping it would repeat work.
    started: bool,
    /// What begins when `waits` is 0, one after the other.
    closings: VecDeque<TaskKey>,
}

/// What is open in one assignment of one partition; `M` is what the owner keeps per message.
#[derive(Debug)]
pub struct Ledger<M> {
    watermark: Watermark,
    open: NumberedMap<Offset, Open<M>>,
    /// The messages of each task and of each closing.
    tasks: NumberedMap<TaskKey, Links>,
    /// How many messages of each closing still wait for something that comes before it.
    closings: NumberedMap<TaskKey, usize>,
    next_key: u64,
}

impl<M> Default for Ledger<M> {
    fn default() -> Self {
        Self {
            watermark: Watermark::default(),
            open: NumberedMap::default(),
            tasks: NumberedMap::default(),
            closings: NumberedMap::default(),
            next_key: 0,
        }
    }
}

/// A task names a message that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset {0} is not open in this partition")]
pub struct NotOpen(pub Offset);

/// What followed from something that ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Freed<M> {
    /// Messages that settled.
    pub settled: Vec<M>,
    /// Closings that may begin.
    pub ready: Vec<TaskKey>,
    /// Messages that wait for nothing but their last closing.
    pub ended: Vec<Offset>,
}

impl<M> Default for Freed<M> {
    fn default() -> Self {
        Self { settled: Vec::new(), ready: Vec::new(), ended: Vec::new() }
    }
}

/// What [`Ledger::drop_unstarted`] dropped.
#[derive(Debug)]
pub struct Dropped<M> {
    /// Messages that will be read again by the next owner.
    pub messages: Vec<M>,
    /// Tasks and closings that must not start any more.
    pub tasks: Vec<TaskKey>,
}

impl<M> Ledger<M> {
    /// A message was delivered to us; it waits for its arrangement. A message that was delivered
    /// before is handed back.
    ///
    /// # Errors
    ///
    /// `message`, if it or a later one was admitted before.
    pub fn admit(&mut self, offset: Offset, message: M) -> Result<(), M> {
        if !self.watermark.begin(offset) {
            return Err(message);
        }
        let open =
            Open { message, waits: 1, arranged: false, started: false, closings: VecDeque::new() };
        self.open.insert(offset, open);
        Ok(())
    }

    /// A message was delivered that an earlier owner settled: it settles without running.
    pub fn admit_settled(&mut self, offset: Offset) {
        if self.watermark.begin(offset) {
            self.watermark.settle(offset);
        }
    }

    /// A task stands for the messages at `links`: they wait for it.
    ///
    /// # Errors
    ///
    /// When one of them is not open, or all its tasks have ended; nothing has changed then.
    pub fn add_task(
        &mut self,
        links: impl IntoIterator<Item = Offset>,
    ) -> Result<TaskKey, NotOpen> {
        let mut links: Links = links.into_iter().collect();
        if let [only] = links[..] {
            // As most do: it is looked up once.
            let open = self.open.get_mut(&only).filter(|open| 0 < open.waits);
            open.ok_or(NotOpen(only))?.waits += 1;
            return Ok(self.insert(links));
        }
        links = self.unfinished(links)?;
        for offset in &links {
            if let Some(open) = self.open.get_mut(offset) {
                open.waits += 1;
            }
        }
        Ok(self.insert(links))
    }

    /// The messages at `links` have something in common that begins when the last task of each has
    /// ended, and after every closing that was added for one of them before: what is made of a message
    /// or a window as a whole. They do not settle before it has [finished](Self::finish).
    ///
    /// Must be added before the messages are [arranged](Self::arranged).
    ///
    /// # Errors
    ///
    /// As [`Self::add_task`].
    pub fn close_with(
        &mut self,
        links: impl IntoIterator<Item = Offset>,
    ) -> Result<TaskKey, NotOpen> {
        let links = self.unfinished(links)?;
        let count = links.len();
        let key = TaskKey(self.next_key);
        for offset in &links {
            if let Some(open) = self.open.get_mut(offset) {
                open.closings.push_back(key);
            }
        }
        self.closings.insert(key, count);
        Ok(self.insert(links))
    }

    /// `links` in order and once each, if each still waits for its arrangement or for a task.
    fn unfinished(&self, links: impl IntoIterator<Item = Offset>) -> Result<Links, NotOpen> {
        let mut links: Links = links.into_iter().collect();
        links.sort_unstable();
        links.dedup();
        let waits = |offset: &Offset| self.open.get(offset).is_some_and(|open| 0 < open.waits);
        match links.iter().find(|offset| !waits(offset)) {
            Some(finished) => Err(NotOpen(*finished)),
            None => Ok(links),
        }
    }

    fn insert(&mut self, links: Links) -> TaskKey {
        let key = TaskKey(self.next_key);
        self.next_key += 1;
        self.tasks.insert(key, links);
        key
    }

    /// `arrange` has answered for these messages and their tasks and closings were added, or they were
    /// dead-lettered. Unknown and repeated offsets change nothing.
    pub fn arranged(&mut self, window: impl IntoIterator<Item = Offset>) -> Freed<M> {
        let mut freed = Freed::default();
        for offset in window {
            let Entry::Occupied(mut open) = self.open.entry(offset) else { continue };
            if !std::mem::replace(&mut open.get_mut().arranged, true) {
                release(open, &mut self.closings, &mut self.watermark, &mut freed);
            }
        }
        freed
    }

    /// A task gives way to `count` others that stand for the same messages. Nothing settles unless
    /// `count` is 0. `None` if the task is unknown.
    pub fn replace(&mut self, task: TaskKey, count: usize) -> Option<(Vec<TaskKey>, Freed<M>)> {
        if self.closings.contains_key(&task) {
            return None;
        }
        let links = self.tasks.get(&task)?.clone();
        // First the new ones, then the old one: a message never looks finished in between.
        let keys = (0..count).filter_map(|_| self.add_task(links.iter().copied()).ok()).collect();
        Some((keys, self.finish(task)))
    }

    /// A task or a closing has started: from now on a hand-over finishes its messages instead of dropping them.
    pub fn mark_started(&mut self, task: TaskKey) {
        for offset in self.tasks.get(&task).into_iter().flatten() {
            if let Some(open) = self.open.get_mut(offset) {
                open.started = true;
            }
        }
    }

    /// Something derived from this message is on its way although no task stands for it (a dead
    /// letter): a hand-over finishes it instead of dropping it.
    pub fn mark_message_started(&mut self, offset: Offset) {
        if let Some(open) = self.open.get_mut(&offset) {
            open.started = true;
        }
    }

    /// A task or a closing has ended, and all it led to is confirmed, dead-lettered or skipped.
    /// Unknown ones, and closings that may not begin yet, change nothing.
    pub fn finish(&mut self, key: TaskKey) -> Freed<M> {
        let mut freed = Freed::default();
        self.finish_into(key, &mut freed);
        freed
    }

    /// The same; what follows is added to `freed`.
    pub fn finish_into(&mut self, key: TaskKey, freed: &mut Freed<M>) {
        let is_closing = match self.closings.get(&key) {
            Some(0) => self.closings.remove(&key).is_some(),
            Some(_) => return,
            None => false,
        };
        for offset in self.tasks.remove(&key).unwrap_or_default() {
            let Entry::Occupied(mut open) = self.open.entry(offset) else { continue };
            // What is not settled by it is not dropped any more either.
            open.get_mut().started = true;
            if is_closing {
                open.get_mut().closings.pop_front();
                announce(open, &mut self.closings, &mut self.watermark, freed);
            } else {
                release(open, &mut self.closings, &mut self.watermark, freed);
            }
        }
    }

    /// A task that has not started never will: its messages wait for it no longer. Unknown ones and
    /// closings change nothing.
    pub fn withdraw(&mut self, task: TaskKey) -> Freed<M> {
        let mut freed = Freed::default();
        if self.closings.contains_key(&task) {
            return freed;
        }
        for offset in self.tasks.remove(&task).unwrap_or_default() {
            if let Entry::Occupied(open) = self.open.entry(offset) {
                release(open, &mut self.closings, &mut self.watermark, &mut freed);
            }
        }
        freed
    }

    /// Drops every message none of whose tasks has started, and the tasks that stand only for such.
    ///
    /// A task that is not started but stands for a message that is kept will run, so every message it
    /// stands for is kept as well, and so on along shared messages. So is the message `before` one that
    /// is kept, for which that has to wait. What is dropped never settles: the watermark stays below
    /// it. Costs one pass over all links.
    pub fn drop_unstarted(&mut self, before: impl Fn(Offset) -> Option<Offset>) -> Dropped<M> {
        let mut tasks_of: HashMap<Offset, Vec<TaskKey>> = HashMap::new();
        for (&key, links) in &self.tasks {
            for &offset in links {
                tasks_of.entry(offset).or_default().push(key);
            }
        }
        let mut reached: Vec<Offset> =
            self.open.iter().filter(|(_, open)| open.started).map(|(&offset, _)| offset).collect();
        let mut kept: HashSet<Offset> = reached.iter().copied().collect();
        let mut seen: HashSet<TaskKey> = HashSet::new();
        while let Some(offset) = reached.pop() {
            let before = before(offset).filter(|before| self.open.contains_key(before));
            reached.extend(before.filter(|&before| kept.insert(before)));
            for key in tasks_of.remove(&offset).unwrap_or_default() {
                if seen.insert(key) {
                    let links = self.tasks.get(&key).into_iter().flatten();
                    reached.extend(links.copied().filter(|&link| kept.insert(link)));
                }
            }
        }
        let tasks =
            self.tasks.extract_if(|key, _| !seen.contains(key)).map(|(key, _)| key).collect();
        self.closings.retain(|key, _| seen.contains(key));
        let messages = self
            .open
            .extract_if(|offset, _| !kept.contains(offset))
            .map(|(_, open)| open.message)
            .collect();
        Dropped { messages, tasks }
    }

    /// The message at `offset`, while it is open.
    #[must_use]
    pub fn message(&self, offset: Offset) -> Option<&M> {
        self.open.get(&offset).map(|open| &open.message)
    }

    /// The same, to be changed.
    pub fn message_mut(&mut self, offset: Offset) -> Option<&mut M> {
        self.open.get_mut(&offset).map(|open| &mut open.message)
    }

    /// The messages a task or a closing stands for.
    pub fn messages_of(&self, task: TaskKey) -> impl Iterator<Item = &M> {
        let links = self.tasks.get(&task).into_iter().flatten();
        links.filter_map(|&offset| self.message(offset))
    }

    /// Changes what is kept of them, in the same order.
    pub fn change_messages_of(&mut self, task: TaskKey, mut change: impl FnMut(&mut M)) {
        for offset in self.tasks.get(&task).into_iter().flatten() {
            if let Some(open) = self.open.get_mut(offset) {
                change(&mut open.message);
            }
        }
    }

    /// What may be committed, and which later offsets are settled.
    #[must_use]
    pub fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// How many messages are open.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.open.len()
    }

    /// How many tasks have not ended, closings not counted.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.tasks.len() - self.closings.len()
    }

    /// Whether a task that has not ended stands for the message at `offset`.
    #[must_use]
    pub fn has_task(&self, offset: Offset) -> bool {
        self.open.get(&offset).is_some_and(|open| usize::from(!open.arranged) < open.waits)
    }
}

/// One thing less that a message waits for before its closings.
fn release<M>(
    mut open: OccupiedEntry<'_, Offset, Open<M>>,
    closings: &mut NumberedMap<TaskKey, usize>,
    watermark: &mut Watermark,
    freed: &mut Freed<M>,
) {
    open.get_mut().waits -= 1;
    if open.get().waits == 0 {
        announce(open, closings, watermark, freed);
    }
}

/// A message waits for nothing but its closings: its next one, if there is one, waits for it no longer.
fn announce<M>(
    open: OccupiedEntry<'_, Offset, Open<M>>,
    closings: &mut NumberedMap<TaskKey, usize>,
    watermark: &mut Watermark,
    freed: &mut Freed<M>,
) {
    let offset = *open.key();
    let Some(&next) = open.get().closings.front() else {
        watermark.settle(offset);
        freed.settled.push(open.remove().message);
        return;
    };
    if open.get().closings.len() == 1 {
        freed.ended.push(offset);
    }
    if let Some(missing) = closings.get_mut(&next) {
        *missing -= 1;
        if *missing == 0 {
            freed.ready.push(next);
        }
    }
}
