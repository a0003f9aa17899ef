//! What takes the place of processes in a test.
//!
//! Everything around a process stays as it is: queue, slots, time limits, cancelling, killing, and the
//! limits of what is captured. Only the process is played, in tokio's time. Nothing here is used by a
//! worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{Failure, Keep, Output, Task};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::Run;

/// Watches the runs of a pool, and plays those it wants to play.
pub trait StandIn: Send + Sync + 'static {
    /// Whether it plays processes at all. Then it plays those of persistent programs too, one per task,
    /// and none of them is started.
    fn plays(&self) -> bool;

    /// A slot, or a real persistent process, has taken `task`. `None`: a real process works on it, as it
    /// does in any case where [none is played](Self::plays).
    fn begins(&self, task: &Arc<Task>) -> Option<Scripted>;

    /// That has ended; `None`: the run was cut off.
    fn ended(&self, task: &Arc<Task>, run: Option<&Run>);

    /// How much memory is free, as the memory guard shall see it; `None`: as it is.
    fn free_memory_percent(&self) -> Option<u64> {
        None
    }
}

/// Real processes, on a machine of which the test says how much memory is free.
#[derive(Debug)]
pub struct FreeMemory(AtomicU64);

impl FreeMemory {
    /// So many percent are free until somebody says otherwise.
    #[must_use]
    pub fn percent(percent: u64) -> Arc<Self> {
        Arc::new(Self(percent.into()))
    }

    /// So many percent are free from now on.
    pub fn set(&self, percent: u64) {
        self.0.store(percent, Ordering::Relaxed);
    }
}

impl StandIn for FreeMemory {
    fn plays(&self) -> bool {
        false
    }

    fn begins(&self, _: &Arc<Task>) -> Option<Scripted> {
        None
    }

    fn ended(&self, _: &Arc<Task>, _: Option<&Run>) {}

    fn free_memory_percent(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed))
    }
}

/// What a played process does.
///
/// ```
/// use std::time::Duration;
/// use drakkar_executor::Scripted;
///
/// let slow = Scripted::prints("done").takes(Duration::from_secs(5));
/// let failing = Scripted::exits(3).with_stderr("no such file");
/// assert_ne!(slow, failing);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Scripted {
    ending: Ending,
    /// `None`: it never ends by itself.
    takes: Option<Duration>,
    stdout: Bytes,
    stderr: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    Exit(i32),
    Signal(i32),
    Unstartable { reason: String, permanent: bool },
}

/// What the slot has to say about a played process.
pub(crate) struct Bounds {
    pub(crate) limit: Duration,
    pub(crate) stdout: Keep,
    pub(crate) stderr: Keep,
    pub(crate) waited: Duration,
}

impl Scripted {
    fn ending(ending: Ending) -> Self {
        let nothing = Bytes::new;
        Self { ending, takes: Some(Duration::ZERO), stdout: nothing(), stderr: nothing() }
    }

    /// It prints this and ends with exit code 0.
    pub fn prints(stdout: impl Into<Bytes>) -> Self {
        Self::exits(0).with_stdout(stdout)
    }

    /// It ends with this exit code.
    pub fn exits(code: i32) -> Self {
        Self::ending(Ending::Exit(code))
    }

    /// A signal that is not ours ends it.
    pub fn signalled(signal: i32) -> Self {
        Self::ending(Ending::Signal(signal))
    }

    /// It never ends by itself: its time limit ends it, or whoever kills it.
    pub fn hangs() -> Self {
        Self { takes: None, ..Self::exits(0) }
    }

    /// There is no such program: it can never be started.
    pub fn missing() -> Self {
        let reason = "No such file or directory (os error 2)".to_owned();
        Self::ending(Ending::Unstartable { reason, permanent: true })
    }

    /// The operating system cannot start it now, for this reason.
    pub fn unstartable(reason: impl Into<String>) -> Self {
        Self::ending(Ending::Unstartable { reason: reason.into(), permanent: false })
    }

    /// Sets what it prints.
    pub fn with_stdout(self, stdout: impl Into<Bytes>) -> Self {
        Self { stdout: stdout.into(), ..self }
    }

    /// Sets what it prints to standard error.
    pub fn with_stderr(self, stderr: impl Into<Bytes>) -> Self {
        Self { stderr: stderr.into(), ..self }
    }

    /// Sets how long it runs, in tokio's time; the default is no time at all.
    pub fn takes(self, time: Duration) -> Self {
        Self { takes: Some(time), ..self }
    }

    /// Plays the process until it ends, its time is up, or `kill` comes: then `None`.
    pub(crate) async fn play(self, task: &Task, bounds: Bounds, kill: &Notify) -> Option<Run> {
        let Self { ending, takes, stdout, stderr } = self;
        let started = Instant::now();
        let end = async {
            match takes {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        };
        let is_in_time = tokio::select! {
            biased; // As with a process: one that ended in time ended in time.
            () = end => true,
            () = kill.notified() => return None,
            () = sleep(bounds.limit) => false,
        };
        let (stdout, stdout_dropped) = kept(&stdout, bounds.stdout);
        let (stderr, stderr_dropped) = kept(&stderr, bounds.stderr);
        let (waited, took) = (bounds.waited, started.elapsed());
        let captured =
            Output { stdout, stderr, stdout_dropped, stderr_dropped, ..Output::default() };
        let output = Output { waited, took, ..captured };
        let failure = match ending {
            _ if !is_in_time => Failure::TimedOut(bounds.limit),
            Ending::Exit(0) => return Some(Run::Finished(output)),
            Ending::Exit(code) => Failure::Exit(code),
            Ending::Signal(signal) => Failure::Signal(signal),
            Ending::Unstartable { reason, permanent } => {
                let program = task.program_path().map(|path| path.display().to_string());
                let program = program.unwrap_or_else(|| "the program".to_owned());
                Failure::Unstartable { program, reason, permanent }
            }
        };
        Some(Run::Failed { failure, output })
    }
}

/// The beginning and the end of what was printed, and how much was between them.
fn kept(printed: &Bytes, Keep { head, tail }: Keep) -> (Bytes, u64) {
    let dropped = printed.len().saturating_sub(head).saturating_sub(tail);
    if dropped == 0 {
        return (printed.clone(), 0);
    }
    let kept = [&printed[..head], &printed[printed.len() - tail..]].concat();
    (kept.into(), dropped as u64)
}
