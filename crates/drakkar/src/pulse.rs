//! Keeps the timers of the runtime going while a hook blocks one of its threads.
//!
//! Of tokio's worker threads, one at a time waits for timers and sockets on behalf of all; the others
//! sleep until they are woken. Where that one picks up a task that blocks, nobody takes its place:
//! time-outs, commits and the rest of the worker stand still although threads are free. Work that
//! comes from outside wakes one of them, so a thread brings a task that does nothing.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use tokio::runtime::Handle;

/// The longest that timers may stand still.
const EVERY: Duration = Duration::from_millis(100);

/// The pulse of a runtime, until dropped.
pub(crate) struct Pulse {
    _alive: mpsc::Sender<()>,
}

impl Pulse {
    pub(crate) fn start(runtime: Handle) -> io::Result<Self> {
        let (alive, owner) = mpsc::channel::<()>();
        thread::Builder::new().name("drakkar-pulse".to_owned()).spawn(move || {
            // Nothing is ever sent: anything but a time-out is the end of the owner.
            while owner.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                drop(runtime.spawn(async {}));
            }
        })?;
        Ok(Self { _alive: alive })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[test]
    fn timers_go_on_while_a_task_blocks_the_thread_that_waited_for_them() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        runtime.block_on(async {
            let _pulse = Pulse::start(Handle::current()).unwrap();
            // A timer wakes it: so it runs on the thread that waits for timers, and keeps it.
            tokio::spawn(async move {
                sleep(Duration::from_millis(50)).await;
                assert!(blocked.recv().is_err());
            });
            tokio::spawn(async move {
                sleep(Duration::from_millis(500)).await;
                tell.send(()).unwrap();
            });
            let rung = told.recv_timeout(Duration::from_mins(1));
            drop(release);
            assert_eq!(rung, Ok(()), "the timer of another task never rang");
        });
    }
}
