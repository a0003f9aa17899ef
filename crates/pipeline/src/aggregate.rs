//! What is kept for the hooks that see a message or a window as a whole, and when they are called.
//!
//! Only for handlers that say they aggregate; for others nothing is kept here. *When* a group is
//! complete is decided by the ledger: a group is one of its closings. This file keeps what the group
//! will show, within a budget, and has the hook called beside the loop.
//!
//! The budget (`executor.max_result_bytes`) is kept in three steps. Below it, everything runs. Above
//! it, one task at a time, so that the oldest group gets complete. Above twice the budget, output is
//! not kept any more, and the group says so.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use drakkar_core::{
    Handler, Message, MessageGroup, Offset, Output, TaskFailure, TaskResult, WindowGroup,
    contain::{Each, let_go},
    ledger::TaskKey,
};
use tokio::time::Instant;

use crate::{
    collect::{Collecting, What, Whole},
    execute::Weight,
    partition::Partition,
};

/// How a task ended, as the groups of its messages show it.
#[derive(Debug)]
pub(crate) enum Outcome {
    Result(TaskResult),
    Error(TaskFailure),
}

impl Outcome {
    /// Bytes of output it holds.
    pub(crate) fn weight(&self) -> Weight {
        let (Self::Result(TaskResult { output, .. }) | Self::Error(TaskFailure { output, .. })) =
            self;
        Weight::of(output)
    }

    /// Lets go of what the budget does not know: a group shows what came of a task.
    fn let_go_of_content(&mut self) {
        let (Self::Result(TaskResult { task, .. }) | Self::Error(TaskFailure { task, .. })) = self;
        Arc::make_mut(task).let_go_of_content();
    }

    fn output(&mut self) -> &mut Output {
        match self {
            Self::Result(done) => &mut done.output,
            Self::Error(failed) => &mut failed.output,
        }
    }
}

/// What has ended in one group so far.
#[derive(Debug)]
struct Gathered {
    since: Instant,
    results: Vec<Arc<TaskResult>>,
    errors: Vec<Arc<TaskFailure>>,
    replaced: usize,
    /// Tasks whose output is kept for this group, and perhaps for others.
    kept: Vec<TaskKey>,
}

impl Gathered {
    fn begun(since: Instant) -> Self {
        Self { since, results: Vec::new(), errors: Vec::new(), replaced: 0, kept: Vec::new() }
    }
}

#[derive(Debug)]
struct MessageSoFar<I> {
    message: Arc<Message<I>>,
    gathered: Gathered,
}

#[derive(Debug)]
struct WindowSoFar<I> {
    messages: Vec<Arc<Message<I>>>,
    gathered: Gathered,
}

/// What a closing of the ledger stands for.
#[derive(Debug, Clone, Copy)]
enum Closing {
    Message(Offset),
    Window(u64),
}

/// Output that is kept until the last group that shows it is done.
#[derive(Debug)]
struct Kept {
    groups: usize,
    bytes: Weight,
}

/// What one partition keeps for its groups.
#[derive(Debug)]
pub(crate) struct Groups<I> {
    /// Empty unless the handler aggregates messages.
    messages: HashMap<Offset, MessageSoFar<I>>,
    /// Empty unless the handler aggregates windows.
    windows: HashMap<u64, WindowSoFar<I>>,
    closings: HashMap<TaskKey, Closing>,
    /// Groups that are complete and wait for room among the hooks.
    ready: VecDeque<TaskKey>,
    kept: HashMap<TaskKey, Kept>,
    kept_bytes: Weight,
}

impl<I> Default for Groups<I> {
    fn default() -> Self {
        Self {
            messages: HashMap::new(),
            windows: HashMap::new(),
            closings: HashMap::new(),
            ready: VecDeque::new(),
            kept: HashMap::new(),
            kept_bytes: Weight::default(),
        }
    }
}

impl<I> Groups<I> {
    /// Bytes of output that are kept.
    pub(crate) fn kept_bytes(&self) -> Weight {
        self.kept_bytes
    }

    /// Groups that are complete and wait for room among the hooks.
    pub(crate) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// The group of this closing is complete.
    pub(crate) fn complete(&mut self, key: TaskKey) {
        self.ready.push_back(key);
    }

    /// A closing that was dropped: its group will never be complete.
    pub(crate) fn forget(&mut self, key: TaskKey) {
        let gathered = match self.closings.remove(&key) {
            Some(Closing::Message(offset)) => self.messages.remove(&offset).map(|so_far| {
                let_go(so_far.message);
                so_far.gathered
            }),
            Some(Closing::Window(window)) => self.windows.remove(&window).map(|so_far| {
                drop(Each::from(so_far.messages));
                so_far.gathered
            }),
            None => None,
        };
        self.let_go(gathered.map(|gathered| gathered.kept).unwrap_or_default());
    }

    /// The groups of a task: those of its messages and that of their window.
    fn each(&mut self, links: &[Offset], window: u64, mut change: impl FnMut(&mut Gathered)) {
        for offset in links {
            if let Some(so_far) = self.messages.get_mut(offset) {
                change(&mut so_far.gathered);
            }
        }
        if let Some(so_far) = self.windows.get_mut(&window) {
            change(&mut so_far.gathered);
        }
    }

    /// Adds how the task `key` ended to its groups. Answers how many bytes of it did not fit.
    fn add(
        &mut self,
        key: TaskKey,
        links: &[Offset],
        window: u64,
        mut outcome: Outcome,
        limit: usize,
    ) -> usize {
        outcome.let_go_of_content();
        let output = outcome.output();
        let fits = self.kept_bytes.memory.saturating_add(output.size()) <= limit;
        let dropped = if fits { 0 } else { output.discard() };
        let bytes = Weight::of(output);
        let mut groups = 0;
        let mut enter = |gathered: &mut Gathered| {
            gathered.kept.push(key);
            groups += 1;
        };
        match outcome {
            Outcome::Result(done) => {
                let done = Arc::new(done);
                self.each(links, window, |gathered| {
                    gathered.results.push(Arc::clone(&done));
                    enter(gathered);
                });
            }
            Outcome::Error(failed) => {
                let failed = Arc::new(failed);
                self.each(links, window, |gathered| {
                    gathered.errors.push(Arc::clone(&failed));
                    enter(gathered);
                });
            }
        }
        if 0 < groups {
            self.kept_bytes += bytes;
            self.kept.insert(key, Kept { groups, bytes });
        }
        dropped
    }

    /// A group is done: what was kept only for it is kept no longer.
    fn let_go(&mut self, keys: Vec<TaskKey>) {
        for key in keys {
            let Some(kept) = self.kept.get_mut(&key) else { continue };
            kept.groups -= 1;
            if kept.groups == 0 {
                self.kept_bytes -= kept.bytes;
                self.kept.remove(&key);
            }
        }
    }
}

impl<H: Handler> Partition<H> {
    const AGGREGATES: bool = H::AGGREGATES_MESSAGES || H::AGGREGATES_WINDOWS;

    /// Begins the groups of a window that was arranged.
    pub(crate) fn gather(&mut self, mut messages: Each<Message<H::Input>>, window: u64) {
        if !Self::AGGREGATES || messages.is_empty() {
            return;
        }
        let since = Instant::now();
        let messages: Vec<_> = messages.drain(..).map(Arc::new).collect();
        if H::AGGREGATES_MESSAGES {
            for message in &messages {
                let offset = message.offset;
                // `arrange` has just answered for it, so it is open.
                let Ok(key) = self.ledger.close_with([offset]) else { continue };
                self.groups.closings.insert(key, Closing::Message(offset));
                let message = Arc::clone(message);
                let so_far = MessageSoFar { message, gathered: Gathered::begun(since) };
                self.groups.messages.insert(offset, so_far);
            }
        }
        if H::AGGREGATES_WINDOWS {
            let links = messages.iter().map(|message| message.offset);
            if let Ok(key) = self.ledger.close_with(links) {
                self.groups.closings.insert(key, Closing::Window(window));
                let so_far = WindowSoFar { messages, gathered: Gathered::begun(since) };
                self.groups.windows.insert(window, so_far);
            }
        }
    }

    /// A task has ended: its groups will show how.
    pub(crate) fn keep(&mut self, key: TaskKey, outcome: Option<Outcome>) {
        let Some(outcome) = outcome.filter(|_| Self::AGGREGATES) else { return };
        let Some((links, window)) = self.groups_of(key) else { return };
        let limit = self.shared.settings.max_result_bytes.saturating_mul(2);
        let dropped = self.groups.add(key, &links, window, outcome, limit);
        if 0 < dropped {
            self.shared.metrics.kept_output_dropped(&self.id, dropped);
        }
    }

    /// A task was replaced: its groups count it.
    pub(crate) fn count_replaced(&mut self, key: TaskKey) {
        if !Self::AGGREGATES {
            return;
        }
        if let Some((links, window)) = self.groups_of(key) {
            self.groups.each(&links, window, |gathered| gathered.replaced += 1);
        }
    }

    /// The messages of a task, and the window all of them were arranged in.
    fn groups_of(&self, key: TaskKey) -> Option<(Vec<Offset>, u64)> {
        let window = self.ledger.messages_of(key).next()?.window;
        Some((self.ledger.messages_of(key).map(|held| held.message.offset).collect(), window))
    }

    /// Has the hooks of complete groups called, beside the loop, as far as there is room.
    pub(crate) fn close_what_is_ready(&mut self) {
        while self.collecting < self.shared.settings.max_hooks {
            let Some(key) = self.groups.ready.pop_front() else { break };
            match self.groups.closings.remove(&key) {
                Some(Closing::Message(offset)) => self.close_message(key, offset),
                Some(Closing::Window(window)) => self.close_window(key, window),
                None => {}
            }
        }
    }

    fn close_message(&mut self, key: TaskKey, offset: Offset) {
        if let Some(MessageSoFar { message, gathered }) = self.groups.messages.remove(&offset) {
            let Gathered { since, results, errors, replaced, kept } = gathered;
            let group = MessageGroup { message, results, errors, replaced, took: since.elapsed() };
            self.close(key, kept, Whole::Message(group));
        }
    }

    fn close_window(&mut self, key: TaskKey, window: u64) {
        if let Some(WindowSoFar { messages, gathered }) = self.groups.windows.remove(&window) {
            let Gathered { since, results, errors, replaced, kept } = gathered;
            let group = WindowGroup { messages, results, errors, replaced, took: since.elapsed() };
            self.close(key, kept, Whole::Window(group));
        }
    }

    /// Has the hook of a complete group called, beside the loop.
    pub(crate) fn close(&mut self, key: TaskKey, kept: Vec<TaskKey>, whole: Whole<H::Input>) {
        self.ledger.mark_started(key);
        self.collecting += 1;
        let here = Arc::clone(&self.here);
        self.flows.add(Collecting { here, key, what: What::Whole { kept, whole } });
    }

    /// All that a group led to is settled.
    pub(crate) fn closed(&mut self, key: TaskKey, kept: Vec<TaskKey>) {
        self.collecting -= 1;
        self.groups.let_go(kept);
        let freed = self.ledger.finish(key);
        self.freed(freed);
    }
}
