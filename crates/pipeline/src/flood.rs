//! What was given up → dead letters, up to a limit; beyond it the partition is held.
//!
//! Everything that fails for good comes here as a [`GivenUp`] before its dead letters are written.
//! [`Flood`] decides whether they may be. What may not waits, with nothing under way for it, so that a
//! hand-over does not wait for it; no new window is opened meanwhile. Now and then one message is
//! tried again from where it failed: the oldest that waits, else the next of the inbox. When that
//! succeeds everything that waits is done again, as if it had not failed: what was down must not cost
//! messages. What is tried may have to wait for its turn behind something that waits here; then that is
//! tried instead. Where windows are aggregated a message settles with its window, so the whole of it is
//! tried; still only what fails first is dead-lettered for it.

use std::{collections::VecDeque, sync::Arc};

use drakkar_core::{
    Cause, Handler, Offset, SourceMessage,
    contain::let_go,
    flood::{Admission, Flood, FloodMark},
    ledger::TaskKey,
};
use tokio::time::Instant;

use crate::{
    aggregate::Outcome,
    collect::Whole,
    deliver::dead_letter,
    execute::Weight,
    held::Held,
    partition::{Flow, Partition, TaskStage},
    status::HeldPartition,
};

/// What is kept of the error text of something that waits, in bytes: a message may have 100 000 tasks. Of
/// the payloads that were refused nothing is kept.
const KEPT_TEXT: usize = 512;

/// Something that failed for good, before its dead letters are written.
#[derive(Debug)]
pub(crate) struct GivenUp<I> {
    pub what: Failed<I>,
    pub cause: Cause,
}

/// What failed for good.
#[derive(Debug)]
pub(crate) enum Failed<I> {
    /// A message that was not arranged.
    Message(Offset),
    /// A task. How it ended, if the handler aggregates.
    Task { key: TaskKey, outcome: Option<Outcome> },
    /// A message or a window as a whole; the output of `kept` is kept for it.
    Closing { key: TaskKey, kept: Vec<TaskKey>, whole: Whole<I> },
}

/// Which messages a try is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Message(Offset),
    Window(u64),
}

impl Unit {
    fn includes(self, held: &Held) -> bool {
        match self {
            Self::Message(offset) => held.message.offset == offset,
            Self::Window(window) => held.window == window,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trying {
    Nothing,
    /// It is time, and there was nothing to try yet.
    Due,
    Unit(Unit),
}

/// What a partition keeps of what it gave up.
#[derive(Debug)]
pub(crate) struct Gate<I> {
    flood: Flood,
    trying: Trying,
    /// What may not be dead-lettered yet, oldest first. Bounded by what is in flight.
    waiting: VecDeque<GivenUp<I>>,
    /// Messages to be arranged again.
    again: Vec<Arc<SourceMessage>>,
    /// What was not looked at yet.
    undecided: Vec<GivenUp<I>>,
}

impl<I> Gate<I> {
    pub(crate) fn new(flood: Flood) -> Self {
        Self {
            flood,
            trying: Trying::Nothing,
            waiting: VecDeque::new(),
            again: Vec::new(),
            undecided: Vec::new(),
        }
    }

    /// What was counted, for the next owner.
    pub(crate) fn flood(&self) -> &Flood {
        &self.flood
    }

    /// How many messages the next window may take.
    pub(crate) fn room(&self, room: usize) -> usize {
        match (self.flood.hold(), self.trying) {
            (None, _) => room,
            (Some(_), Trying::Due) => room.min(1),
            (Some(_), _) => 0,
        }
    }
}

impl<H: Handler> Partition<H> {
    /// Says so, if the partition is held from now on: by its own messages or as the last owner left it.
    pub(crate) fn announce_hold(&self) {
        if let Some(hold) = self.gate.flood.hold() {
            let (limits, mark) = (&self.shared.settings.flood, self.gate.flood.mark());
            self.shared.metrics.partition_flooded(&self.id, hold.reason, limits, mark);
            self.show_hold();
        }
    }

    /// When to try a message; nothing is tried any more once the partition is being handed over.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        let next = self.gate.flood.next_try().filter(|_| self.drain.is_none())?;
        Some(self.shared.born + next)
    }

    /// It is time to try a message.
    pub(crate) fn try_one(&mut self) {
        self.gate.flood.begin_try();
        self.gate.trying = Trying::Due;
    }

    /// Does what the gate wants to have done, as far as it can be done now.
    pub(crate) fn tend_gate(&mut self) {
        for given_up in std::mem::take(&mut self.gate.undecided) {
            self.decide(given_up);
        }
        if self.drain.is_some() {
            return;
        }
        if matches!(self.gate.trying, Trying::Unit(_)) && self.stands_still() {
            // What is tried waits, for its turn or with others, for what failed as well: try that.
            self.gate.trying = Trying::Due;
        }
        while self.gate.trying == Trying::Due
            && let Some(oldest) = self.gate.waiting.pop_front()
        {
            self.try_again(oldest);
        }
        if self.arranging.is_none() && !self.gate.again.is_empty() {
            self.arrange_again();
        }
    }

    /// Whether nothing will happen unless something that waits here is taken up.
    fn stands_still(&self) -> bool {
        let working = self.pooled
            + self.ran.len()
            + self.backlog.len()
            + self.groups.waiting()
            + self.under_way()
            + self.retries.len()
            + self.gate.again.len();
        working == 0 && !self.gate.waiting.is_empty()
    }

    /// Something failed for good. Decided upon by the loop: what fails while the last word is being said
    /// must start nothing.
    pub(crate) fn give_up(&mut self, given_up: GivenUp<H::Input>) {
        self.gate.undecided.push(given_up);
    }

    /// It is dead-lettered, or waits.
    fn decide(&mut self, given_up: GivenUp<H::Input>) {
        let now = self.shared.born.elapsed();
        let uncounted = self.uncounted(&given_up).count();
        if self.is_tried(&given_up) {
            self.gate.trying = Trying::Nothing;
            self.gate.flood.try_failed(uncounted, now);
            self.shared.metrics.flood_try_failed(&self.id, &given_up.cause);
            self.send(given_up);
            self.show_hold();
            return;
        }
        let was_held = self.gate.flood.hold().is_some();
        match self.gate.flood.admit(uncounted, now) {
            Admission::Send => self.send(given_up),
            Admission::Wait => self.park(given_up),
        }
        if was_held {
            self.show_hold();
        } else {
            self.announce_hold();
        }
    }

    /// A new window of one message is the try, if one was due.
    pub(crate) fn window_is_tried(&mut self, messages: &[Arc<SourceMessage>]) {
        if let (Trying::Due, [only]) = (self.gate.trying, messages) {
            self.gate.trying = Trying::Unit(Unit::Message(only.offset));
        }
    }

    /// Counts messages that settled; a try that succeeded lifts the hold.
    pub(crate) fn count_settled(&mut self, settled: &[Held]) {
        let (mut tried, mut succeeded, mut idle) = (false, false, false);
        for held in settled {
            let in_try = matches!(self.gate.trying, Trying::Unit(unit) if unit.includes(held));
            if held.idle {
                idle |= in_try;
                continue;
            }
            tried |= in_try;
            succeeded |= in_try && !held.given_up;
            if !in_try && !held.given_up {
                self.gate.flood.succeeded();
            }
        }
        if succeeded {
            self.lift();
        } else if tried {
            // All of it was dead-lettered before it was tried: it says nothing.
            self.gate.trying = Trying::Nothing;
            self.gate.flood.try_failed(0, self.shared.born.elapsed());
            self.show_hold();
        } else if idle {
            // There was nothing to be tried of it: the next message is.
            self.gate.trying = Trying::Due;
        }
    }

    /// The dead letters of something are confirmed: it has ended.
    pub(crate) fn dead_lettered(&mut self, what: Failed<H::Input>) {
        match what {
            Failed::Message(offset) => {
                let freed = self.ledger.arranged([offset]);
                self.freed(freed);
            }
            Failed::Task { key, outcome } => {
                self.collecting -= 1;
                self.result_bytes -= size(outcome.as_ref());
                self.forget_task(key);
                self.keep(key, outcome);
                let freed = self.ledger.finish(key);
                self.freed(freed);
            }
            Failed::Closing { key, kept, whole } => {
                let_go(whole);
                self.closed(key, kept);
            }
        }
    }

    /// Forgets what an earlier owner counted. For the first message: nothing of ours waits yet.
    pub(crate) fn count_anew(&mut self) {
        let (limits, now) = (self.shared.settings.flood, self.shared.born.elapsed());
        self.gate = Gate::new(Flood::resume(limits, FloodMark::default(), now));
        self.show_hold();
    }

    /// Says what holds the partition, if anything does.
    pub(crate) fn show_hold(&self) {
        let hold = self.gate.flood.hold();
        self.shared.metrics.partition_held(&self.id, hold.map(|hold| hold.reason));
        let shown = hold.map(|hold| HeldPartition {
            partition: self.id.clone(),
            epoch: self.epoch,
            reason: hold.reason,
            since: self.shared.born + hold.since,
            failed_tries: hold.failed_tries,
            waiting: self.gate.waiting.len(),
        });
        self.shared.status.show_hold(&self.id, self.epoch, shown);
    }

    /// Messages of it that were not counted before.
    fn uncounted<'a>(&'a self, given_up: &'a GivenUp<H::Input>) -> impl Iterator<Item = &'a Held> {
        self.messages_in(&given_up.what).filter(|held| !held.given_up)
    }

    fn messages_in<'a>(&'a self, what: &'a Failed<H::Input>) -> impl Iterator<Item = &'a Held> {
        let (one, key) = match what {
            Failed::Message(offset) => (self.ledger.message(*offset), None),
            Failed::Task { key, .. } | Failed::Closing { key, .. } => (None, Some(*key)),
        };
        one.into_iter().chain(key.into_iter().flat_map(|key| self.ledger.messages_of(key)))
    }

    fn is_tried(&self, given_up: &GivenUp<H::Input>) -> bool {
        let Trying::Unit(unit) = self.gate.trying else { return false };
        self.messages_in(&given_up.what).any(|held| unit.includes(held))
    }

    /// Writes its dead letters, beside the loop.
    fn send(&mut self, given_up: GivenUp<H::Input>) {
        let GivenUp { what, cause } = given_up;
        let messages: Vec<Arc<SourceMessage>> =
            self.messages_in(&what).map(|held| Arc::clone(&held.message)).collect();
        for message in &messages {
            self.ledger.mark_message_started(message.offset);
            if let Some(held) = self.ledger.message_mut(message.offset) {
                held.given_up = true;
            }
        }
        match &what {
            Failed::Message(_) => {}
            Failed::Task { outcome, .. } => {
                self.collecting += 1;
                self.result_bytes += size(outcome.as_ref());
            }
            Failed::Closing { .. } => self.collecting += 1,
        }
        let (shared, hold) = (Arc::clone(&self.shared), self.board.task());
        self.flows.spawn(async move {
            dead_letter(&shared, &messages, &cause, &hold).await;
            Flow::DeadLettered(Box::new(what))
        });
    }

    /// Keeps it until it may be tried, or everything may. Its output counts meanwhile.
    fn park(&mut self, mut given_up: GivenUp<H::Input>) {
        let text = &mut given_up.cause.message;
        text.truncate(text.floor_char_boundary(KEPT_TEXT));
        text.shrink_to_fit();
        let carried = &mut given_up.cause.carried;
        *carried = std::mem::take(carried).left_out();
        if let Failed::Task { key, outcome } = &given_up.what {
            self.result_bytes += size(outcome.as_ref());
            if let Some(active) = self.tasks.get_mut(key) {
                active.stage = TaskStage::GivenUp;
            }
        }
        self.gate.waiting.push_back(given_up);
    }

    /// Takes the oldest that waits, and all else that one of its messages waits for, up again.
    fn try_again(&mut self, oldest: GivenUp<H::Input>) {
        let Some(held) = self.uncounted(&oldest).next() else {
            // Something else of all its messages was dead-lettered meanwhile.
            self.unpark(&oldest);
            return self.send(oldest);
        };
        let unit = match oldest.what {
            Failed::Task { .. } | Failed::Closing { .. } if H::AGGREGATES_WINDOWS => {
                Unit::Window(held.window)
            }
            _ => Unit::Message(held.message.offset),
        };
        self.gate.trying = Trying::Unit(unit);
        self.redo(oldest);
        for other in std::mem::take(&mut self.gate.waiting) {
            if self.is_tried(&other) {
                self.redo(other);
            } else {
                self.gate.waiting.push_back(other);
            }
        }
        self.show_hold();
    }

    /// The hold is over: everything that waits is done again.
    fn lift(&mut self) {
        self.gate.trying = Trying::Nothing;
        if let Some(hold) = self.gate.flood.hold() {
            let took = self.shared.born.elapsed().saturating_sub(hold.since);
            let (tries, waiting) = (hold.failed_tries, self.gate.waiting.len());
            self.shared.metrics.flood_lifted(&self.id, took, tries, waiting);
        }
        self.gate.flood.try_succeeded();
        for given_up in std::mem::take(&mut self.gate.waiting) {
            self.redo(given_up);
        }
        for (_, cause) in self.rejected.values_mut() {
            *cause = None; // It failed as well before this, and its turn has not come.
        }
        self.show_hold();
    }

    /// It waits no longer.
    fn unpark(&mut self, given_up: &GivenUp<H::Input>) {
        if let Failed::Task { outcome, .. } = &given_up.what {
            self.result_bytes -= size(outcome.as_ref());
        }
    }

    /// Does it again from where it failed; a task has all its retries again.
    fn redo(&mut self, given_up: GivenUp<H::Input>) {
        self.unpark(&given_up);
        match given_up.what {
            Failed::Message(offset) => self.arrange_later(offset),
            Failed::Task { key, .. } => {
                if let Some(active) = self.tasks.get_mut(&key) {
                    active.forgiven = active.attempt;
                    active.attempt += 1;
                    active.stage =
                        TaskStage::Backlog(self.backlog.push(active.line, active.rank, key));
                }
            }
            Failed::Closing { key, kept, whole } => self.close(key, kept, whole),
        }
    }

    /// Has a message arranged again whose turn has come.
    pub(crate) fn arrange_later(&mut self, offset: Offset) {
        let message = self.ledger.message(offset).map(|held| Arc::clone(&held.message));
        self.gate.again.extend(message);
    }

    /// Has messages arranged that were not, as a window of their own.
    fn arrange_again(&mut self) {
        let count = self.gate.again.len().min(self.shared.settings.window_size);
        self.gate.again.sort_unstable_by_key(|message| message.offset);
        let messages: Vec<_> = self.gate.again.drain(..count).collect();
        let window = self.next_window;
        for message in &messages {
            let Some(held) = self.ledger.message_mut(message.offset) else { continue };
            let old = std::mem::replace(&mut held.window, window);
            self.leave_window(old, Instant::now());
        }
        self.arrange_window(messages);
    }
}

/// Bytes that `outcome` holds.
fn size(outcome: Option<&Outcome>) -> Weight {
    outcome.map(Outcome::weight).unwrap_or_default()
}
