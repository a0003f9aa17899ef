//! Tasks → those whose turn has come.
//!
//! What becomes of a plan, and what follows from something that ended. Which message may start when
//! (`executor.ordering`) is decided by [`drakkar_core::order`]; here it is asked about everything that
//! stands for messages: tasks, the hooks for messages and windows as a whole, and messages that were not
//! arranged and are to be given up.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use drakkar_core::{
    Cause, Handler, Offset, SourceMessage, Task, TopicPartition,
    contain::panic_text,
    ledger::{Freed, TaskKey},
};
use drakkar_executor::Rank;
use drakkar_telemetry::Hook;
use tokio::time::Instant;

use crate::{
    arrange::Plan,
    flood::{Failed, GivenUp},
    held::Held,
    lines::PRECOMPUTED,
    partition::{Active, Partition, Shared, TaskStage},
};

/// Messages that were not arranged and wait for their turn to be given up, and why; without a cause,
/// to be arranged again.
pub(crate) type Rejected = HashMap<TaskKey, (Offset, Option<Cause>)>;

/// Gives `tasks` the priorities that the handler says.
pub(crate) fn prioritize<H: Handler>(
    shared: &Shared<H>,
    partition: &TopicPartition,
    tasks: &mut [Task],
) {
    let _attended = shared.attend(Hook::Priority, partition);
    for task in tasks {
        // User code: a panic leaves the task as it is.
        match catch_unwind(AssertUnwindSafe(|| shared.handler.priority(task))) {
            Ok(priority) => task.set_priority(priority),
            Err(panic) => shared.metrics.priority_failed(task, &panic_text(panic)),
        }
    }
}

impl<H: Handler> Partition<H> {
    /// `arrange` has answered: its tasks join the backlog, what it rejected is given up.
    pub(crate) fn arranged(&mut self, window: u64, plan: Plan<H::Input>) {
        self.arranging = None;
        if self.drain.is_some() {
            return; // Its messages were dropped: the next owner arranges them.
        }
        self.line_up(&plan);
        let bytes: usize = plan.tasks.iter().map(|task| task.size()).sum();
        self.message_task_bytes = bytes / plan.arranged.len().max(1);
        let since = Instant::now();
        for task in plan.tasks {
            // `arrange` saw to it that links are in the window, and the window is open.
            if let Ok(key) = self.ledger.add_task(task.source_offsets().iter().copied()) {
                self.enlist(key, task, 0, Rank { sequence: key.0, ..Rank::at(since) });
            }
        }
        self.mark_idle(&plan.arranged, &plan.skipped);
        self.gather(plan.messages, window);
        for (message, cause) in plan.rejected {
            self.reject(message.offset, cause);
        }
        let freed = self.ledger.arranged(plan.arranged.into_iter().chain(plan.skipped));
        self.freed(freed);
        if let Some(reason) = plan.fatal {
            self.stop_worker(reason);
        }
    }

    /// The worker is to end, for this reason.
    pub(crate) fn stop_worker(&mut self, reason: String) {
        self.inbox_open = false; // The order to hand over follows, and finishes what was started.
        drop(self.shared.fatal.send(reason)); // A pipeline that ends needs no other reason.
    }

    /// A message cannot be arranged: it is given up when its turn comes. It goes on waiting for its
    /// arrangement, which it may get yet.
    fn reject(&mut self, offset: Offset, cause: Cause) {
        // A task without a program, for as long as it waits: a hand-over treats it as one.
        let Ok(key) = self.ledger.add_task([offset]) else { return };
        self.rejected.insert(key, (offset, Some(cause)));
        if self.order.may_start(key, &[offset]) {
            self.turn_came(key);
        }
    }

    /// Marks the messages of a window for which nothing is to be done.
    fn mark_idle(&mut self, arranged: &[Offset], skipped: &[Offset]) {
        let aggregates = H::AGGREGATES_MESSAGES || H::AGGREGATES_WINDOWS;
        for &offset in arranged.iter().filter(|_| !aggregates).chain(skipped) {
            if self.ledger.has_task(offset) {
                continue;
            }
            if let Some(held) = self.ledger.message_mut(offset) {
                held.idle = true;
            }
        }
    }

    /// The messages of a window get in line. Those that are arranged again have a place in it.
    fn line_up(&mut self, plan: &Plan<H::Input>) {
        if !self.order.is_kept() {
            return;
        }
        let rejected = plan.rejected.iter().map(|(message, _)| &message.offset);
        let all = plan.arranged.iter().chain(&plan.skipped).chain(rejected);
        let mut window: Vec<(Offset, Arc<SourceMessage>)> = all
            .filter(|&&offset| !self.order.has_place(offset))
            .filter_map(|&offset| Some((offset, Arc::clone(&self.ledger.message(offset)?.message))))
            .collect();
        window.sort_unstable_by_key(|(offset, _)| *offset);
        self.order.enter(
            window.iter().map(|(offset, message)| (*offset, message.key.as_ref())),
            plan.tasks.iter().map(|task| task.source_offsets()),
        );
    }

    /// Adds a task to the backlog, or to those that wait for their turn, as old as `age` says.
    pub(crate) fn enlist(&mut self, key: TaskKey, task: Arc<Task>, chain: u32, age: Rank) {
        let rank = Rank { priority: task.priority(), ..age };
        let line = match task.known_result() {
            Some(_) => PRECOMPUTED,
            None => PRECOMPUTED + 1 + self.shared.pool.line_of(&task),
        };
        let may_start = self.order.may_start(key, task.source_offsets());
        let stage = if may_start {
            TaskStage::Backlog(self.backlog.push(line, rank, key))
        } else {
            TaskStage::Waiting
        };
        self.set_task_bytes(self.task_bytes + task.size());
        let active = Active { task, attempt: 1, forgiven: 0, chain, rank, line, stage };
        self.tasks.insert(key, active);
    }

    /// A task has ended, or will not be begun.
    pub(crate) fn forget_task(&mut self, key: TaskKey) -> Option<Active> {
        let active = self.tasks.remove(&key)?;
        self.set_task_bytes(self.task_bytes - active.task.size());
        Some(active)
    }

    fn set_task_bytes(&mut self, bytes: usize) {
        self.task_bytes = bytes;
        self.metrics.task_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Something ended: messages settled, groups became complete, and others may have their turn.
    pub(crate) fn freed(&mut self, freed: Freed<Held>) {
        let mut turn = Vec::new();
        if H::AGGREGATES_WINDOWS {
            turn.extend(freed.ended.iter().flat_map(|&offset| self.order.ended(offset)));
        }
        let settled = freed.settled.iter().map(|held| held.message.offset);
        turn.extend(settled.flat_map(|offset| self.order.settled(offset)));
        self.settled(freed.settled);
        for key in freed.ready {
            let links: Vec<Offset> =
                self.ledger.messages_of(key).map(|held| held.message.offset).collect();
            if self.order.may_start(key, &links) {
                turn.push(key);
            }
        }
        for key in turn {
            self.turn_came(key);
        }
    }

    fn turn_came(&mut self, key: TaskKey) {
        if let Some(active) = self.tasks.get_mut(&key) {
            active.stage = TaskStage::Backlog(self.backlog.push(active.line, active.rank, key));
        } else if let Some((offset, cause)) = self.rejected.remove(&key) {
            let freed = self.ledger.withdraw(key);
            self.freed(freed); // Nothing: it waits for its arrangement.
            match cause {
                Some(cause) => self.give_up(GivenUp { what: Failed::Message(offset), cause }),
                None => self.arrange_later(offset),
            }
        } else {
            self.groups.complete(key);
        }
    }
}
