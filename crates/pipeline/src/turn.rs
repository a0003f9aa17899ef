//! Tasks → those whose turn has come.
//!
//! What becomes of a plan, and what follows from something that ended. Which message may start when
//! (`executor.ordering`) is decided by [`drakkar_core::order`]; here it is asked about everything that
//! stands for messages: tasks, the hooks for messages and windows as a whole, and the dead letters of
//! messages that were not arranged.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use drakkar_core::{
    Cause, Handler, Offset, SourceMessage, Task, TopicPartition,
    ledger::{Freed, TaskKey},
};
use drakkar_executor::Rank;
use drakkar_telemetry::Hook;
use tokio::time::Instant;

use crate::{
    arrange::Plan,
    deliver::dead_letter,
    hook::panic_text,
    partition::{Active, Flow, Held, Partition, Shared, TaskStage},
};

/// Messages that were not arranged, and why.
#[derive(Debug, Default)]
pub(crate) struct Rejected {
    waiting: HashMap<TaskKey, (Arc<SourceMessage>, Cause)>,
    /// Those whose turn has come.
    ready: Vec<(TaskKey, Arc<SourceMessage>, Cause)>,
}

impl Rejected {
    pub(crate) fn forget(&mut self, key: TaskKey) {
        self.waiting.remove(&key);
    }
}

/// Gives `tasks` the priorities that the handler says.
pub(crate) fn prioritized<H: Handler>(
    shared: &Shared<H>,
    partition: &TopicPartition,
    tasks: impl IntoIterator<Item = Task>,
) -> Vec<Task> {
    let _attended = shared.attend(Hook::Priority, partition);
    tasks.into_iter().map(|task| prioritize(shared, task)).collect()
}

/// User code: a panic leaves the task as it is.
fn prioritize<H: Handler>(shared: &Shared<H>, task: Task) -> Task {
    match catch_unwind(AssertUnwindSafe(|| shared.handler.priority(&task))) {
        Ok(priority) => task.with_priority(priority),
        Err(panic) => {
            shared.metrics.priority_failed(&task, &panic_text(&*panic));
            task
        }
    }
}

impl<H: Handler> Partition<H> {
    /// `arrange` has answered: its tasks join the backlog, what it rejected is dead-lettered.
    pub(crate) fn arranged(&mut self, window: u64, plan: Plan<H::Input>) {
        self.arranging = None;
        if self.drain.is_some() {
            return; // Its messages were dropped: the next owner arranges them.
        }
        self.line_up(&plan);
        let since = Instant::now();
        for task in plan.tasks {
            // `arrange` saw to it that links are in the window, and the window is open.
            if let Ok(key) = self.ledger.add_task(task.source_offsets().to_vec()) {
                self.enlist(key, task, 0, since);
            }
        }
        self.gather(plan.messages, window);
        let rejected: Vec<Offset> = plan.rejected.iter().map(|(it, _)| it.offset).collect();
        for (message, cause) in plan.rejected {
            // A task without a program: a hand-over treats it as one.
            let links = [message.offset];
            if let Ok(key) = self.ledger.add_task(links.to_vec()) {
                self.rejected.waiting.insert(key, (message, cause));
                if self.order.may_start(key, &links) {
                    self.turn_came(key);
                }
            }
        }
        let answered = plan.arranged.into_iter().chain(plan.skipped).chain(rejected);
        let freed = self.ledger.arranged(answered);
        self.freed(freed);
        self.fatal = plan.fatal;
    }

    /// The messages of a window get in line.
    fn line_up(&mut self, plan: &Plan<H::Input>) {
        if !self.order.is_kept() {
            return;
        }
        let rejected = plan.rejected.iter().map(|(message, _)| &message.offset);
        let all = plan.arranged.iter().chain(&plan.skipped).chain(rejected);
        let mut window: Vec<(Offset, Arc<SourceMessage>)> = all
            .filter_map(|&offset| Some((offset, Arc::clone(&self.ledger.message(offset)?.message))))
            .collect();
        window.sort_unstable_by_key(|(offset, _)| *offset);
        self.order.enter(
            window.iter().map(|(offset, message)| (*offset, message.key.as_ref())),
            plan.tasks.iter().map(Task::source_offsets),
        );
    }

    /// Adds a task to the backlog, or to those that wait for their turn.
    pub(crate) fn enlist(&mut self, key: TaskKey, task: Task, chain: u32, since: Instant) {
        let rank = Rank { priority: task.priority(), since, sequence: key.0 };
        let may_start = self.order.may_start(key, task.source_offsets());
        let stage = if may_start {
            TaskStage::Backlog(self.backlog.push(rank, key))
        } else {
            TaskStage::Waiting
        };
        let active = Active { task: Arc::new(task), attempt: 1, counted: 0, chain, rank, stage };
        self.tasks.insert(key, active);
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
            active.stage = TaskStage::Backlog(self.backlog.push(active.rank, key));
        } else if let Some((message, cause)) = self.rejected.waiting.remove(&key) {
            self.ledger.mark_started(key);
            self.rejected.ready.push((key, message, cause));
        } else {
            self.groups.complete(key);
        }
    }

    /// Dead-letters the messages whose turn it is, beside the loop.
    pub(crate) fn give_up_rejected(&mut self) {
        for (key, message, cause) in std::mem::take(&mut self.rejected.ready) {
            let (shared, hold) = (Arc::clone(&self.shared), self.board.task());
            self.flows.spawn(async move {
                dead_letter(&shared, &[message], &cause, &hold).await;
                Flow::Rejected(key)
            });
        }
    }
}
