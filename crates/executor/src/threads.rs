//! The threads of the slots: each drives a runtime of its own, on which a slot starts its processes,
//! reads what they print and waits for their ends.
//!
//! Nothing of a task crosses threads between its start and its end. A start blocks its thread until the
//! program is loaded, which may take long where files are on another machine: so a slot shares its
//! thread with no other. Where there are too many slots for that, they share threads and start
//! nothing there; see [`Spawner`](crate::spawn::Spawner).

use std::{io, thread};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::TaskTracker;

/// More than this is more descriptors and stacks than it is worth.
const MOST: usize = 32;

/// Starts the threads for so many slots; they end when all of `runners` have.
pub(crate) fn start(slots: usize, runners: &TaskTracker) -> io::Result<Vec<Handle>> {
    let start = |number| {
        let own = Own(Some(Builder::new_current_thread().enable_all().build()?));
        let handle = own.0.as_ref().map(|runtime| runtime.handle().clone());
        let runners = runners.clone();
        thread::Builder::new().name(format!("drakkar-slot-{number}")).spawn(move || {
            let own = own; // The whole of it, so that it is dropped as a whole.
            if let Some(runtime) = &own.0 {
                runtime.block_on(runners.wait());
            }
        })?;
        Ok(handle)
    };
    let threads: io::Result<Vec<Option<Handle>>> = (0..slots.min(MOST)).map(start).collect();
    if threads.is_err() {
        runners.close(); // There are none: those that were started end.
    }
    Ok(threads?.into_iter().flatten().collect())
}

/// The runtime of a thread. Where the system refuses the thread, it is dropped by whoever starts the
/// pool, who must not wait for it.
struct Own(Option<Runtime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
