//! Programs that stay: each has a queue and a fixed number of processes that are fed from it.
//!
//! A process is started, probed, given requests, and replaced when it fails or has served its time.
//! A task is never in two processes at once: when one fails, its requests are charged or put back only
//! after it is gone. A failure is charged to whoever was alone in the process, or overdue; everybody
//! else goes back to the queue. Where nobody knows whose doing it was, each of them then runs alone, so
//! that the next failure is certainly its own.
//!
//! While a program cannot be started its tasks wait; that it fails is said in the log, in
//! [`ProgramStats`] and by the metrics.

mod wire; // requests and answers as bytes
mod flights; // which requests have no answer yet
mod stats; // how it is
mod queued; // a job, and what its ticket knows of it
mod program; // who is next, and which process takes it
mod trouble; // why a process serves no longer
mod service; // one process: requests in, answers out
mod instance; // one process after the other
mod stderr; // what they say on the side
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::Path,
    sync::Arc,
};

use drakkar_core::{Failure, Task};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::{ExecutorConfig, Mode, Protocol, spawn::Spawner};

pub(crate) use program::{Claim, Program};
pub use stats::ProgramStats;

/// Why no process of the persistent program `name` can be given `task`, whichever it is.
pub(crate) fn refusal(name: &Path, protocol: Protocol, task: &Task) -> Option<Failure> {
    let encode = || protocol.encode(0, wire::Request::Task(task), &mut Vec::new());
    let unfit = wire::check(task).and_then(|()| encode()).err()?;
    Some(unfit.failure(&name.display().to_string()))
}

/// The persistent programs of a pool.
#[derive(Clone, Default)]
pub(crate) struct Programs(HashMap<OsString, Arc<Program>>);

impl Programs {
    /// Starts the processes of every persistent program; they run until [`Self::shut`].
    pub(crate) fn start(
        config: &ExecutorConfig,
        spawner: &Spawner,
        tracker: &TaskTracker,
        runtime: &Handle,
    ) -> Self {
        let mut programs = HashMap::new();
        for (name, settings) in &config.programs {
            if settings.mode == Mode::Persistent {
                let program = Arc::new(Program::new(name, settings, config));
                for number in 0..program.instances() {
                    let instance = Arc::clone(&program).run(number, spawner.clone());
                    tracker.spawn_on(instance, runtime);
                }
                programs.insert(OsString::from(name), program);
            }
        }
        Self(programs)
    }

    /// The program that `name` calls, if it is a persistent one.
    pub(crate) fn get(&self, name: Option<&Path>) -> Option<&Arc<Program>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(name.map(Path::as_os_str)?)
    }

    pub(crate) fn stats(&self) -> BTreeMap<String, ProgramStats> {
        self.0.values().map(|program| (program.name().to_owned(), program.stats())).collect()
    }

    /// Gives each program no more than one task at a time, or goes on. To be said again and again: what
    /// waits while nothing runs is looked at with every word.
    pub(crate) fn pause(&self, paused: bool) {
        self.0.values().for_each(|program| program.pause(paused));
    }

    /// Drops what is queued and has every process ended.
    pub(crate) fn shut(&self) {
        self.0.values().for_each(|program| program.shut());
    }
}
