//! The threads of the slots: each drives a runtime of its own, on which a slot starts its processes,
//! reads what they print and waits for their ends.
//!
//! Nothing of a task crosses threads between its start and its end. A start blocks its thread until the
//! program is loaded, so there are more threads than processors; with many slots several share one, and
//! one look finds the ends of several.

use std::{io, ops::RangeInclusive, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::task::TaskTracker;

use crate::cpus;

/// Who waits for a program to be loaded needs no processor.
const PER_CPU: usize = 2;

/// More than this is more descriptors and stacks than it is worth.
const THREADS: RangeInclusive<usize> = 4..=32;

/// Starts the threads for so many slots; they end when all of `runners` have.
pub(crate) fn start(slots: usize, runners: &TaskTracker) -> io::Result<Vec<Handle>> {
    let start = |number| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, runners) = (runtime.handle().clone(), runners.clone());
        thread::Builder::new()
            .name(format!("drakkar-slot-{number}"))
            .spawn(move || runtime.block_on(runners.wait()))?;
        Ok(handle)
    };
    let most = cpus::count().get().saturating_mul(PER_CPU);
    let most = most.clamp(*THREADS.start(), *THREADS.end());
    let threads: io::Result<Vec<Handle>> = (0..slots.min(most)).map(start).collect();
    if threads.is_err() {
        runners.close(); // There are none: those that were started end.
    }
    threads
}
