//! How a program is: what is counted, and what is shown of it.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Failures in a row that make a crash loop.
const LOOP: u32 = 3;

/// How a persistent program is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Processes it shall have.
    pub instances: usize,
    /// Processes that take requests now.
    pub ready: usize,
    /// Tasks that were given to a process and have no answer yet.
    pub in_flight: usize,
    /// Tasks that wait for a process.
    pub queued: usize,
    /// Processes started so far.
    pub starts: u64,
    /// Processes that ended, or had to be ended, unasked; and starts that failed.
    pub failures: u64,
    /// Processes replaced because they had served their time.
    pub recycled: u64,
    /// Tasks that were put back because a process failed for which they are not to blame.
    pub requeued: u64,
    /// Lines on standard error that were not logged, because there were too many.
    pub stderr_suppressed: u64,
    /// Failures in a row of the process that fails most, among those that have not come up since.
    pub failures_in_a_row: u32,
    /// What the last failure was.
    pub last_failure: Option<String>,
}

impl ProgramStats {
    /// Whether one of its processes fails again and again without having answered anything.
    #[must_use]
    pub fn is_crash_looping(&self) -> bool {
        LOOP <= self.failures_in_a_row
    }
}

/// What is counted, for [`ProgramStats`].
#[derive(Default)]
pub(super) struct Books {
    pub(super) in_flight: AtomicUsize,
    pub(super) starts: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) recycled: AtomicU64,
    pub(super) requeued: AtomicU64,
    /// By process.
    pub(super) rows: Box<[Row]>,
    pub(super) last_failure: Mutex<Option<String>>,
}

impl Books {
    pub(super) fn new(instances: usize) -> Self {
        Self { rows: (0..instances).map(|_| Row::default()).collect(), ..Self::default() }
    }

    /// Of the process that fails most.
    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.rows.iter().map(Row::shown).max().unwrap_or(0)
    }
}

/// The failures in a row of one process, and of those that replace it.
#[derive(Default)]
pub(super) struct Row {
    failures: AtomicU32,
    /// Whether it was seen to live since the last one. That ends no row: what answers pings may still fail
    /// at every task, and is not to be started again and again at once.
    is_up: AtomicBool,
}

impl Row {
    /// One more; how many these are.
    pub(super) fn failed(&self) -> u32 {
        self.is_up.store(false, Relaxed);
        self.failures.fetch_add(1, Relaxed) + 1
    }

    /// It has answered a ping.
    pub(super) fn comes_up(&self) {
        self.is_up.store(true, Relaxed);
    }

    /// It has answered a task, or is well for long.
    pub(super) fn ends(&self) {
        self.failures.store(0, Relaxed);
    }

    /// How many are to be waited for.
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// How many to show: none of a process that has come up.
    fn shown(&self) -> u32 {
        if self.is_up.load(Relaxed) { 0 } else { self.failures() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_shows_that_a_process_is_up_and_a_failure_after_it_that_it_is_not() {
        let books = Books::new(2);
        assert_eq!([1, 2, 3].map(|_| books.rows[1].failed()), [1, 2, 3]);
        assert_eq!(books.failures_in_a_row(), 3);
        books.rows[1].comes_up();
        assert_eq!(books.failures_in_a_row(), 0);
        assert_eq!(books.rows[1].failed(), 4, "it fails at every task");
        assert_eq!(books.failures_in_a_row(), 4);
        books.rows[1].ends();
        assert_eq!((books.failures_in_a_row(), books.rows[1].failures()), (0, 0));
    }
}
