//! The naive model of the order and the steps that both take, with a ledger between them.
//!
//! The model knows the line, the window and the fate of each message, and decides by looking at all
//! earlier ones. Which messages of a window cannot wait for each other it finds by following every
//! need.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drakkar_core::{
    Offset,
    ledger::{Freed, Ledger, TaskKey},
    order::{Order, Ordering},
};
use proptest::{prelude::*, sample::Index};

#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// How far each message is behind the last one, its key, and whether it is aggregated; then the
    /// messages of each task.
    Window(Vec<(i64, Option<u8>, bool)>, Vec<Vec<Index>>),
    /// One that may start does.
    Start(Index),
    /// One that may start did, and ends.
    Finish(Index),
    /// One that may start did, and gives way to others.
    Replace(Index, usize),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let message = (1..3_i64, prop::option::weighted(0.9, 0..3_u8), prop::bool::weighted(0.9));
    let messages = || prop::collection::vec(message.clone(), 1..8);
    let links = || prop_oneof![3 => Just(1..2), 1 => Just(1..4)];
    let task = links().prop_flat_map(|count| prop::collection::vec(any::<Index>(), count));
    prop_oneof![
        1 => (messages(), prop::collection::vec(task, 0..8)).prop_map(|(m, t)| Op::Window(m, t)),
        1 => any::<Index>().prop_map(Op::Start),
        4 => any::<Index>().prop_map(Op::Finish),
        1 => (any::<Index>(), 0..3_usize).prop_map(|(task, count)| Op::Replace(task, count)),
    ]
}

/// What is made of messages and of windows as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aggregates {
    pub messages: bool,
    pub windows: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Only its window is missing.
    Ended,
    Settled,
    Dropped,
}

#[derive(Debug)]
struct Message {
    line: Option<u8>,
    window: usize,
    state: State,
}

#[derive(Debug)]
struct Task {
    links: Vec<i64>,
    may_start: bool,
    closing: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    mode: Ordering,
    aggregates: Aggregates,
    order: Order,
    ledger: Ledger<i64>,
    messages: BTreeMap<i64, Message>,
    tasks: BTreeMap<TaskKey, Task>,
    windows: usize,
    /// The second cannot wait for the first.
    circles: BTreeSet<(i64, i64)>,
    handed_over: bool,
}

type Checked<T = ()> = Result<T, TestCaseError>;

impl World {
    pub(crate) fn new(mode: Ordering, aggregates: Aggregates) -> Self {
        Self {
            mode,
            aggregates,
            order: Order::new(mode),
            ledger: Ledger::default(),
            messages: BTreeMap::new(),
            tasks: BTreeMap::new(),
            windows: 0,
            circles: BTreeSet::new(),
            handed_over: false,
        }
    }

    pub(crate) fn run(&mut self, op: &Op) -> Checked {
        match op {
            Op::Window(messages, tasks) if !self.handed_over => self.window(messages, tasks)?,
            Op::Window(..) => {}
            Op::Start(pick) => {
                if let Some(key) = self.one_that_may_start(*pick) {
                    self.ledger.mark_started(key);
                }
            }
            Op::Finish(pick) => {
                if let Some(key) = self.one_that_may_start(*pick) {
                    self.finish(key)?;
                }
            }
            Op::Replace(pick, count) => {
                if let Some(key) = self.one_that_may_start(*pick) {
                    self.replace(key, *count)?;
                }
            }
        }
        self.check()
    }

    fn window(&mut self, given: &[(i64, Option<u8>, bool)], tasks: &[Vec<Index>]) -> Checked {
        self.windows += 1;
        let mut window = Vec::new();
        for &(gap, key, aggregated) in given {
            let offset = self.messages.keys().next_back().map_or(7, |last| last + gap);
            let line = match self.mode {
                Ordering::Unordered => None,
                Ordering::Key => key,
                Ordering::Partition => Some(0),
            };
            let message = Message { line, window: self.windows, state: State::Open };
            self.messages.insert(offset, message);
            prop_assert_eq!(self.ledger.admit(Offset(offset), offset), Ok(()));
            window.push((offset, key.map(|key| Bytes::from(vec![key])), aggregated));
        }
        let at = |pick: &Index| pick.get(&window).0;
        let tasks: Vec<Vec<i64>> =
            tasks.iter().map(|picks| picks.iter().map(at).collect()).collect();
        self.find_circles(&window.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), &tasks);
        let links: Vec<Vec<Offset>> = tasks.iter().map(|links| offsets(links)).collect();
        let keys = window.iter().map(|(offset, key, _)| (Offset(*offset), key.as_ref()));
        self.order.enter(keys, links.iter().map(|links| &links[..]));
        for links in tasks {
            let Ok(key) = self.ledger.add_task(offsets(&links)) else {
                return Err(TestCaseError::fail("a message is not open"));
            };
            self.ask(key, links, false)?;
        }
        self.add_closings(&window);
        let all = window.iter().map(|(offset, ..)| Offset(*offset));
        let freed = self.ledger.arranged(all);
        self.follow(freed)
    }

    fn add_closings(&mut self, window: &[(i64, Option<Bytes>, bool)]) {
        let aggregated = window.iter().filter(|(.., aggregated)| *aggregated);
        let aggregated: Vec<Offset> = aggregated.map(|(offset, ..)| Offset(*offset)).collect();
        if self.aggregates.messages {
            for &offset in &aggregated {
                assert!(self.ledger.close_with(vec![offset]).is_ok());
            }
        }
        if self.aggregates.windows && !aggregated.is_empty() {
            assert!(self.ledger.close_with(aggregated).is_ok());
        }
    }

    fn find_circles(&mut self, window: &[i64], tasks: &[Vec<i64>]) {
        for (index, &second) in window.iter().enumerate() {
            for &first in &window[..index] {
                let line = |at: i64| self.messages[&at].line;
                if line(first).is_some() && line(first) == line(second) {
                    let mut seen = BTreeSet::new();
                    self.follow_needs(Need::End(first), window, tasks, &mut seen);
                    if seen.contains(&Need::Start(second)) {
                        self.circles.insert((first, second));
                    }
                }
            }
        }
    }

    fn follow_needs(
        &self,
        from: Need,
        window: &[i64],
        tasks: &[Vec<i64>],
        seen: &mut BTreeSet<Need>,
    ) {
        if !seen.insert(from) {
            return;
        }
        let line = |at: i64| self.messages[&at].line;
        let mut next = Vec::new();
        match from {
            Need::Start(message) => {
                let earlier = window
                    .iter()
                    .filter(|&&at| at < message && line(at).is_some() && line(at) == line(message));
                next.extend(earlier.map(|&at| Need::End(at)));
            }
            Need::End(message) => {
                next.push(Need::Start(message));
                let of = |(_, links): &(usize, &Vec<i64>)| links.contains(&message);
                next.extend(tasks.iter().enumerate().filter(of).map(|(task, _)| Need::Task(task)));
            }
            Need::Task(task) => next.extend(tasks[task].iter().map(|&at| Need::Start(at))),
        }
        for need in next {
            self.follow_needs(need, window, tasks, seen);
        }
    }

    /// Whether the model lets this message start.
    fn may_start(&self, offset: i64) -> bool {
        let message = &self.messages[&offset];
        let over = |(&earlier, before): (&i64, &Message)| match before.state {
            _ if before.line != message.line || self.circles.contains(&(earlier, offset)) => true,
            State::Settled => true,
            State::Ended => before.window == message.window,
            State::Open | State::Dropped => false,
        };
        message.line.is_none() || self.messages.range(..offset).all(over)
    }

    fn ask(&mut self, key: TaskKey, links: Vec<i64>, closing: bool) -> Checked {
        let may_start = self.order.may_start(key, &offsets(&links));
        let expected = links.iter().all(|&offset| self.may_start(offset));
        prop_assert_eq!(may_start, expected, "{:?} of {:?}", key, links);
        self.tasks.insert(key, Task { links, may_start, closing });
        Ok(())
    }

    fn one_that_may_start(&self, pick: Index) -> Option<TaskKey> {
        let may_start = self.tasks.iter().filter(|(_, task)| task.may_start);
        let keys: Vec<TaskKey> = may_start.map(|(&key, _)| key).collect();
        (!keys.is_empty()).then(|| *pick.get(&keys))
    }

    fn finish(&mut self, key: TaskKey) -> Checked {
        self.tasks.remove(&key);
        let freed = self.ledger.finish(key);
        self.follow(freed)
    }

    fn replace(&mut self, key: TaskKey, count: usize) -> Checked {
        if self.tasks[&key].closing {
            return Ok(());
        }
        let Some((keys, freed)) = self.ledger.replace(key, count) else {
            return Err(TestCaseError::fail("a task that is open is not known"));
        };
        let links = self.tasks.remove(&key).map(|task| task.links).unwrap_or_default();
        for key in keys {
            self.ask(key, links.clone(), false)?;
            prop_assert!(self.tasks[&key].may_start, "a replacement goes on where its parent was");
        }
        self.follow(freed)
    }

    fn follow(&mut self, freed: Freed<i64>) -> Checked {
        let Freed { settled, ready, ended } = freed;
        let ended = if self.aggregates.windows { offsets_of(&ended) } else { Vec::new() };
        let states = ended.iter().map(|&offset| (offset, State::Ended));
        for (offset, state) in states.chain(settled.iter().map(|&offset| (offset, State::Settled)))
        {
            if let Some(message) = self.messages.get_mut(&offset) {
                message.state = state;
            }
        }
        let mut turn = Vec::new();
        for offset in ended {
            turn.extend(self.order.ended(Offset(offset)));
        }
        for offset in settled {
            turn.extend(self.order.settled(Offset(offset)));
        }
        for key in turn {
            let task = self.tasks.get_mut(&key).filter(|task| !task.may_start);
            let Some(task) = task else {
                return Err(TestCaseError::fail(format!("{key:?} was told twice or was dropped")));
            };
            task.may_start = true;
        }
        for key in ready {
            let links: Vec<i64> = self.ledger.messages_of(key).copied().collect();
            self.ask(key, links, true)?;
        }
        Ok(())
    }

    pub(crate) fn hand_over(&mut self) -> Checked {
        self.handed_over = true;
        let dropped = self.ledger.drop_unstarted(|offset| self.order.before(offset));
        for key in dropped.tasks {
            self.order.withdraw(key);
            self.tasks.remove(&key);
        }
        for offset in dropped.messages {
            if let Some(message) = self.messages.get_mut(&offset) {
                message.state = State::Dropped;
            }
        }
        self.check()
    }

    /// Whatever may start ends, until nothing may. Then nothing waits.
    pub(crate) fn end_everything(&mut self) -> Checked {
        while let Some((&key, _)) = self.tasks.iter().find(|(_, task)| task.may_start) {
            self.finish(key)?;
            self.check()?;
        }
        prop_assert!(self.tasks.is_empty(), "these never start: {:?}", self.tasks);
        prop_assert_eq!((self.ledger.open_messages(), self.order.waiting()), (0, 0));
        if self.messages.values().all(|message| message.state == State::Settled) {
            prop_assert!(self.order.is_empty(), "something is remembered for ever");
        }
        Ok(())
    }

    /// Whoever waits must, and whoever was told to go might.
    fn check(&self) -> Checked {
        let waiting = self.tasks.values().filter(|task| !task.may_start);
        prop_assert_eq!(self.order.waiting(), waiting.count());
        for (key, task) in &self.tasks {
            let expected = task.links.iter().all(|&offset| self.may_start(offset));
            prop_assert_eq!(task.may_start, expected, "{:?}: {:?}", key, task);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Start(i64),
    End(i64),
    Task(usize),
}

fn offsets(at: &[i64]) -> Vec<Offset> {
    at.iter().copied().map(Offset).collect()
}

fn offsets_of(at: &[Offset]) -> Vec<i64> {
    at.iter().map(|offset| offset.0).collect()
}
