//! The threads of the slots: each drives a runtime of its own, on which a slot starts its processes,
//! reads what they print and waits for their ends.
//!
//! Nothing of a task crosses threads between its start and its end, and a start, which blocks its
//! thread until the program is loaded, blocks nobody else. A thread per slot, up to a number; beyond
//! that slots share them.

use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::task::TaskTracker;

/// More than this is more descriptors and stacks than it is worth.
const MAX_THREADS: usize = 32;

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
    let threads: io::Result<Vec<Handle>> = (0..slots.min(MAX_THREADS)).map(start).collect();
    if threads.is_err() {
        runners.close(); // There are none: those that were started end.
    }
    threads
}
