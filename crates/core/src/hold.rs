//! Which deliveries of a partition are held: waiting for a sink that is down.
//!
//! A hand-over must not wait for what is held. The sink says when it begins and ceases to hold a
//! payload; the partition sees how many of its tasks that concerns.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// How many tasks of one partition have a payload that is held.
#[derive(Debug, Default)]
pub struct HoldBoard {
    tasks: AtomicUsize,
    changed: Notify,
}

impl HoldBoard {
    /// Tasks with at least one held payload.
    #[must_use]
    pub fn held_tasks(&self) -> usize {
        self.tasks.load(Ordering::SeqCst)
    }

    /// Waits until the number changes. Changes before the call are reported at once.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The hold of one more task of the partition.
    #[must_use]
    pub fn task(self: &Arc<Self>) -> Arc<Hold> {
        Arc::new(Hold { board: Arc::clone(self), payloads: AtomicUsize::new(0) })
    }

    fn change(&self, by: impl FnOnce(&AtomicUsize)) {
        by(&self.tasks);
        self.changed.notify_one();
    }
}

/// How many payloads of one task are held.
#[derive(Debug)]
pub struct Hold {
    board: Arc<HoldBoard>,
    payloads: AtomicUsize,
}

impl Hold {
    /// A payload of this task is held from now on.
    pub fn begin(&self) {
        if self.payloads.fetch_add(1, Ordering::SeqCst) == 0 {
            self.board.change(|tasks| {
                tasks.fetch_add(1, Ordering::SeqCst);
            });
        }
    }

    /// A payload of this task is no longer held.
    pub fn end(&self) {
        if self.payloads.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.board.change(|tasks| {
                tasks.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

/// One payload that is held, until this is dropped.
#[derive(Debug)]
pub struct Held {
    hold: Arc<Hold>,
}

impl Held {
    /// A payload of the task of `hold` is held from now on.
    #[must_use]
    pub fn begin(hold: &Arc<Hold>) -> Self {
        hold.begin();
        Self { hold: Arc::clone(hold) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hold.end();
    }
}

/// A task that is dropped while held (fenced, cancelled) is held no longer.
impl Drop for Hold {
    fn drop(&mut self) {
        if 0 < self.payloads.load(Ordering::SeqCst) {
            self.board.change(|tasks| {
                tasks.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_dropped_while_held_is_held_no_longer() {
        let board = Arc::new(HoldBoard::default());
        let task = board.task();
        task.begin();
        drop(task);
        assert_eq!(board.held_tasks(), 0);
    }

    #[test]
    fn a_task_counts_once_however_many_of_its_payloads_are_held() {
        let board = Arc::new(HoldBoard::default());
        let task = board.task();
        task.begin();
        task.begin();
        assert_eq!(board.held_tasks(), 1);
        task.end();
        assert_eq!(board.held_tasks(), 1);
        task.end();
        assert_eq!(board.held_tasks(), 0);
    }
}
