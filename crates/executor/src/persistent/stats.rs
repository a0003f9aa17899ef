//! How a program is: what is counted, and what is shown of it.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, AtomicUsize},
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
    /// Failures in a row of the process that fails most.
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
    pub(super) in_a_row: Box<[AtomicU32]>,
    pub(super) last_failure: Mutex<Option<String>>,
}
