//! The naive model of the ledger and the steps that both take.
//!
//! A message of the model is settled when its window is arranged and neither a task nor a closing that
//! stands for it is left. A closing may begin when each of its messages is arranged and has neither a task nor an
//! older closing left. A hand-over keeps what hangs together, by any chain of tasks, with a message that has started.

use std::collections::{BTreeMap, BTreeSet};

use drakkar_core::{
    Offset,
    ledger::{Freed, Ledger, TaskKey},
};
use proptest::{prelude::*, sample::Index};

#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A message this far behind the last one.
    Admit(i64),
    /// A message that an earlier owner settled.
    AdmitSettled(i64),
    /// A message that was delivered before.
    AdmitAgain(i64),
    /// A task that stands for these of all messages ever admitted, settled and dropped ones included.
    Task(Vec<Index>),
    /// A task that stands for some of the messages that are open: fan-out and fan-in.
    OpenTask(Vec<Index>),
    /// A closing of some of the messages that are open.
    Close(Vec<Index>),
    /// A closing ends, whether it may have begun or not.
    FinishClosing(Index),
    /// These messages are arranged; some may be named twice, or were arranged before.
    Arranged(Vec<Index>),
    Start(Index),
    Finish(Index),
    /// A task that has ended, was dropped or never was.
    FinishUnknown(u64),
    Replace(Index, usize),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let some = || prop::collection::vec(any::<Index>(), 1..4);
    let gap = || prop_oneof![4 => Just(1_i64), 1 => 2..9_i64];
    prop_oneof![
        6 => gap().prop_map(Op::Admit),
        1 => gap().prop_map(Op::AdmitSettled),
        1 => (0..20_i64).prop_map(Op::AdmitAgain),
        1 => some().prop_map(Op::Task),
        8 => some().prop_map(Op::OpenTask),
        2 => some().prop_map(Op::Close),
        3 => any::<Index>().prop_map(Op::FinishClosing),
        4 => some().prop_map(Op::Arranged),
        2 => any::<Index>().prop_map(Op::Start),
        6 => any::<Index>().prop_map(Op::Finish),
        1 => (0..60_u64).prop_map(Op::FinishUnknown),
        2 => (any::<Index>(), 0..4_usize).prop_map(|(task, count)| Op::Replace(task, count)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open { arranged: bool, started: bool },
    Settled,
    Dropped,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    ledger: Ledger<i64>,
    messages: BTreeMap<i64, State>,
    tasks: BTreeMap<TaskKey, BTreeSet<i64>>,
    closings: BTreeMap<TaskKey, BTreeSet<i64>>,
    /// Closings that were reported as ready.
    ready: BTreeSet<TaskKey>,
    /// Messages that wait for nothing but their last closing.
    at_last: BTreeSet<i64>,
    before: Option<Offset>,
}

type Checked<T = ()> = Result<T, TestCaseError>;

impl World {
    pub(crate) fn run(&mut self, op: &Op) -> Checked {
        match op {
            Op::Admit(gap) => {
                let offset = self.next(*gap);
                prop_assert_eq!(self.ledger.admit(Offset(offset), offset), Ok(()));
                self.messages.insert(offset, State::Open { arranged: false, started: false });
            }
            Op::AdmitSettled(gap) => {
                let offset = self.next(*gap);
                self.ledger.admit_settled(Offset(offset));
                self.messages.insert(offset, State::Settled);
            }
            Op::AdmitAgain(back) => {
                if let Some(&last) = self.messages.keys().next_back() {
                    let again = last - back;
                    prop_assert_eq!(self.ledger.admit(Offset(again), again), Err(again));
                    self.ledger.admit_settled(Offset(again));
                }
            }
            Op::Task(picks) => self.add_task(pick(&self.all(), picks))?,
            Op::OpenTask(picks) => self.add_task(pick(&self.open(), picks))?,
            Op::Arranged(picks) => self.arranged(&pick(&self.all(), picks))?,
            Op::Start(task) => {
                if let Some(key) = self.task(*task) {
                    self.ledger.mark_started(key);
                    self.start(&self.tasks[&key].clone());
                }
            }
            Op::Finish(task) => {
                if let Some(key) = self.task(*task) {
                    self.finish(key)?;
                }
            }
            Op::Close(picks) => self.close(&pick(&self.open(), picks))?,
            Op::FinishClosing(closing) => {
                let keys: Vec<TaskKey> = self.closings.keys().copied().collect();
                if !keys.is_empty() {
                    self.finish_closing(*closing.get(&keys))?;
                }
            }
            Op::FinishUnknown(key) => {
                let key = &TaskKey(*key).0;
                if !self.tasks.contains_key(&TaskKey(*key))
                    && !self.closings.contains_key(&TaskKey(*key))
                {
                    prop_assert_eq!(self.ledger.finish(TaskKey(*key)), Freed::default());
                    prop_assert!(self.ledger.replace(TaskKey(*key), 2).is_none());
                }
            }
            Op::Replace(task, count) => {
                if let Some(key) = self.task(*task) {
                    self.replace(key, *count)?;
                }
            }
        }
        self.check()
    }

    fn add_task(&mut self, links: Vec<i64>) -> Checked {
        if links.is_empty() {
            return Ok(());
        }
        let all_wait = links.iter().all(|offset| self.waits(*offset));
        let answer = self.ledger.add_task(links.iter().copied().map(Offset));
        prop_assert_eq!(answer.is_ok(), all_wait, "a task for {:?}", links);
        if let Ok(key) = answer {
            let known = self.tasks.insert(key, links.into_iter().collect());
            prop_assert!(known.is_none(), "a key was given twice");
        }
        Ok(())
    }

    fn close(&mut self, links: &[i64]) -> Checked {
        if links.is_empty() {
            return Ok(());
        }
        let all_wait = links.iter().all(|offset| self.waits(*offset));
        let answer = self.ledger.close_with(links.iter().copied().map(Offset));
        prop_assert_eq!(answer.is_ok(), all_wait, "a closing for {:?}", links);
        if let Ok(key) = answer {
            let known = self.closings.insert(key, links.iter().copied().collect());
            prop_assert!(
                known.is_none() && !self.tasks.contains_key(&key),
                "a key was given twice"
            );
            prop_assert!(self.ledger.replace(key, 2).is_none(), "a closing is not replaced");
        }
        Ok(())
    }

    fn finish_closing(&mut self, key: TaskKey) -> Checked {
        let freed = self.ledger.finish(key);
        if self.ready.remove(&key) {
            let links = self.closings.remove(&key).unwrap_or_default();
            self.start(&links);
            self.expect(freed)
        } else {
            prop_assert_eq!(freed, Freed::default(), "it may not begin yet");
            Ok(())
        }
    }

    fn arranged(&mut self, window: &[i64]) -> Checked {
        let freed = self.ledger.arranged(window.iter().copied().map(Offset));
        for offset in window {
            if let Some(State::Open { arranged, .. }) = self.messages.get_mut(offset) {
                *arranged = true;
            }
        }
        self.expect(freed)
    }

    fn finish(&mut self, key: TaskKey) -> Checked {
        let freed = self.ledger.finish(key);
        let links = self.tasks.remove(&key).unwrap_or_default();
        self.start(&links);
        self.expect(freed)
    }

    fn replace(&mut self, key: TaskKey, count: usize) -> Checked {
        let Some((keys, freed)) = self.ledger.replace(key, count) else {
            return Err(TestCaseError::fail("a task that is open is not known"));
        };
        prop_assert_eq!(keys.len(), count);
        prop_assert!(count == 0 || freed == Freed::default(), "freed early: {:?}", freed);
        let links = self.tasks.remove(&key).unwrap_or_default();
        self.start(&links);
        for new in keys {
            prop_assert!(self.tasks.insert(new, links.clone()).is_none());
        }
        self.expect(freed)
    }

    /// What the model says has settled or may begin by the last step is what the ledger answered.
    fn expect(&mut self, freed: Freed<i64>) -> Checked {
        let Freed { settled: mut answered, ready, mut ended } = freed;
        let closes = |offset: &i64| self.closings.values().any(|links| links.contains(offset));
        let settled: Vec<i64> = self
            .open()
            .into_iter()
            .filter(|offset| !self.waits(*offset) && !closes(offset))
            .collect();
        answered.sort_unstable();
        prop_assert_eq!(&answered, &settled);
        let begins = |key: &TaskKey, links: &BTreeSet<i64>| {
            links.iter().all(|&offset| {
                let first = self.closings.iter().find(|(_, links)| links.contains(&offset));
                !self.waits(offset) && first.is_some_and(|(first, _)| first == key)
            })
        };
        let expected: BTreeSet<TaskKey> = self
            .closings
            .iter()
            .filter(|(key, links)| !self.ready.contains(key) && begins(key, links))
            .map(|(&key, _)| key)
            .collect();
        let last = |offset: &i64| {
            let mut left = self.closings.iter().filter(|(_, links)| links.contains(offset));
            left.next().is_some() && left.next().is_none() && !self.waits(*offset)
        };
        let at_last: BTreeSet<i64> = self.open().into_iter().filter(last).collect();
        ended.sort_unstable();
        let news: Vec<Offset> = at_last.difference(&self.at_last).copied().map(Offset).collect();
        prop_assert_eq!(ended, news);
        let count = ready.len();
        let ready: BTreeSet<TaskKey> = ready.into_iter().collect();
        prop_assert_eq!((&ready, ready.len()), (&expected, count));
        self.ready.extend(ready);
        self.at_last = at_last;
        self.messages.extend(settled.into_iter().map(|offset| (offset, State::Settled)));
        Ok(())
    }

    /// Messages are in as many lines as `lines` says: every one waits for those before it in its line.
    pub(crate) fn hand_over(&mut self, lines: i64) -> Checked {
        let open = self.open();
        let before =
            |at: i64| open.iter().rev().copied().find(|&o| o < at && (at - o) % lines == 0);
        let kept = self.hangs_together_with_what_started(before);
        let dropped = self.ledger.drop_unstarted(|at| before(at.0).map(Offset));
        let messages: BTreeSet<i64> = dropped.messages.iter().copied().collect();
        let tasks: BTreeSet<TaskKey> = dropped.tasks.iter().copied().collect();
        prop_assert_eq!(messages.len(), dropped.messages.len(), "a message was dropped twice");
        let expected: BTreeSet<i64> =
            self.open().into_iter().filter(|offset| !kept.contains(offset)).collect();
        prop_assert_eq!(&messages, &expected);
        for (key, links) in self.tasks.iter().chain(&self.closings) {
            let for_dropped = links.iter().filter(|link| messages.contains(link)).count();
            let all_or_none = if tasks.contains(key) { links.len() } else { 0 };
            prop_assert_eq!(for_dropped, all_or_none, "task {:?} stands for {:?}", key, links);
        }
        self.tasks.retain(|key, _| !tasks.contains(key));
        self.closings.retain(|key, _| !tasks.contains(key));
        self.ready.retain(|key| !tasks.contains(key));
        self.messages.extend(messages.into_iter().map(|offset| (offset, State::Dropped)));
        self.check()
    }

    fn hangs_together_with_what_started(
        &self,
        before: impl Fn(i64) -> Option<i64>,
    ) -> BTreeSet<i64> {
        let started = |state: &State| matches!(state, State::Open { started: true, .. });
        let mut kept: BTreeSet<i64> =
            self.messages.iter().filter(|(_, state)| started(state)).map(|(&o, _)| o).collect();
        for _ in 0..self.tasks.len() + self.closings.len() + self.messages.len() {
            kept.extend(kept.clone().into_iter().filter_map(&before));
            for links in self.tasks.values().chain(self.closings.values()) {
                if !links.is_disjoint(&kept) {
                    kept.extend(links);
                }
            }
        }
        kept
    }

    /// Everything that is left ends; then nothing may be open, and only what was dropped may hold.
    pub(crate) fn end_everything(&mut self) -> Checked {
        for key in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.finish(key)?;
            self.check()?;
        }
        self.arranged(&self.all())?;
        self.check()?;
        while let Some(&key) = self.ready.first() {
            self.finish_closing(key)?;
            self.check()?;
        }
        prop_assert!(self.closings.is_empty(), "these never begin: {:?}", self.closings);
        prop_assert_eq!((self.ledger.open_messages(), self.ledger.open_tasks()), (0, 0));
        if !self.messages.values().any(|state| *state == State::Dropped) {
            let end = self.messages.keys().next_back().map(|&last| Offset(last).next());
            prop_assert_eq!(self.ledger.watermark().position(), end);
        }
        Ok(())
    }

    fn check(&mut self) -> Checked {
        let held = |state: &State| *state != State::Settled;
        let first =
            self.messages.iter().find(|(_, state)| held(state)).map_or(i64::MAX, |(&o, _)| o);
        let passed = self.messages.range(..first).next_back().map(|(&o, _)| Offset(o).next());
        let position = self.ledger.watermark().position();
        prop_assert!(self.before <= position, "went back from {:?} to {position:?}", self.before);
        self.before = position;
        prop_assert_eq!(position, passed, "the first that is not settled is {}", first);
        let above =
            self.messages.range(first.min(i64::MAX - 1)..).filter(|(_, state)| !held(state));
        let above: Vec<Offset> = above.map(|(&offset, _)| Offset(offset)).collect();
        prop_assert_eq!(self.ledger.watermark().settled_above().collect::<Vec<_>>(), above);
        prop_assert_eq!(self.ledger.open_messages(), self.open().len());
        prop_assert_eq!(self.ledger.open_tasks(), self.tasks.len());
        for (&key, links) in self.tasks.iter().chain(&self.closings) {
            let messages: BTreeSet<i64> = self.ledger.messages_of(key).copied().collect();
            prop_assert_eq!(&messages, links, "a message settled or went before its task ended");
            prop_assert_eq!(self.ledger.messages_of(key).count(), links.len(), "named twice");
        }
        let linked: BTreeSet<i64> = self.tasks.values().flatten().copied().collect();
        for offset in self.open() {
            let has = linked.contains(&offset);
            prop_assert_eq!(self.ledger.has_task(Offset(offset)), has, "a task for {}", offset);
        }
        Ok(())
    }

    fn start(&mut self, links: &BTreeSet<i64>) {
        for link in links {
            if let Some(State::Open { started, .. }) = self.messages.get_mut(link) {
                *started = true;
            }
        }
    }

    /// Whether an open message waits for its arrangement or for a task.
    fn waits(&self, offset: i64) -> bool {
        match self.messages.get(&offset) {
            Some(State::Open { arranged, .. }) => {
                !arranged || self.tasks.values().any(|links| links.contains(&offset))
            }
            _ => false,
        }
    }

    fn next(&self, gap: i64) -> i64 {
        self.messages.keys().next_back().map_or(7, |last| last + gap)
    }

    fn is_open(&self, offset: i64) -> bool {
        matches!(self.messages.get(&offset), Some(State::Open { .. }))
    }

    fn all(&self) -> Vec<i64> {
        self.messages.keys().copied().collect()
    }

    fn open(&self) -> Vec<i64> {
        self.all().into_iter().filter(|offset| self.is_open(*offset)).collect()
    }

    fn task(&self, pick: Index) -> Option<TaskKey> {
        let keys: Vec<TaskKey> = self.tasks.keys().copied().collect();
        (!keys.is_empty()).then(|| *pick.get(&keys))
    }
}

fn pick(from: &[i64], picks: &[Index]) -> Vec<i64> {
    if from.is_empty() { Vec::new() } else { picks.iter().map(|pick| *pick.get(from)).collect() }
}
