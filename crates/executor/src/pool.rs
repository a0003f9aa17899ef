//! The slots: one long-lived runner each, fed from one queue.
//!
//! A queued job is data, not a future; a hundred thousand of them cost what they hold. The queue is
//! bounded by whoever submits. A runner takes the next job, starts it, stays with the process until its
//! group is gone, and only then reports and takes another.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use drakkar_core::{Failure, Output, Task};
use futures_util::FutureExt;
use rustix::fs::{Access, access};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::{
    Ended, ExecutorConfig, Job, LimitRefused, ProgramStats, Run, Ticket, Watched,
    env::Environment,
    guard::Guard,
    job::Watcher,
    memory_guard,
    persistent::Programs,
    programs::{self, Lanes},
    runner::{Experience, Runner},
    slots::{Control, Held, Queued, Shared},
    spawn::{self, Common, Spawner},
    spool::{Spool, SpoolWatch},
    stand_in::StandIn,
    threads,
    ticket::Claim,
};

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Processes that may run at once.
    pub slots: usize,
    /// Slots taken.
    pub active: usize,
    /// Jobs that wait for one.
    pub queued: usize,
    /// Whether memory is too short to start another task.
    pub paused: bool,
    /// How often that has begun so far.
    pub pauses: u64,
    /// Tasks so far that were ended and put back in line because memory was short.
    pub taken_back: u64,
    /// Processes so far that had left the group of their task and were ended.
    pub escaped: u64,
}

/// Why a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no tokio runtime here.
    #[error("the process pool needs a tokio runtime")]
    NoRuntime(#[from] tokio::runtime::TryCurrentError),
    /// A name pattern is not one.
    #[error("executor.env_inherit_deny holds what is not a pattern")]
    Pattern(#[from] glob::PatternError),
    /// A program of the configuration is not there.
    #[error("executor.programs.{name}: cannot run {}", path.display())]
    Program {
        /// What tasks call it.
        name: String,
        /// What it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system does not grant a limit.
    #[error(transparent)]
    Limit(#[from] LimitRefused),
    /// The system refuses a thread.
    #[error("cannot start the threads of the pool")]
    Thread(#[source] io::Error),
    /// The directory for output in files cannot be used.
    #[error("cannot use executor.spool.dir")]
    Spool(#[source] io::Error),
    /// The system refuses what it takes to leave no process behind.
    #[error("cannot guard processes")]
    Guard(#[source] io::Error),
}

/// A handle to the pool; cheap to clone. With the last one the pool ends: nothing more is started,
/// what runs is terminated. [`Pool::close`] waits for that.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    programs: Programs,
    lanes: Lanes,
    /// Program of the tasks that name none.
    default: Option<PathBuf>,
    runners: TaskTracker,
    guard: Arc<Guard>,
    spool: Option<SpoolWatch>,
    stand_in: Option<Arc<dyn StandIn>>,
    slots: usize,
    /// How long what runs may take to be gone, but for steps of its own.
    patience: Duration,
    /// How long the steps of a task may last at the end of the pool.
    most_steps: Duration,
    /// Ended with the pool.
    _memory_guard: JoinSet<()>,
}

impl Owner {
    fn program_of<'a>(&'a self, task: &'a Task) -> Option<&'a Path> {
        task.program_path().or(self.default.as_ref()).map(PathBuf::as_path)
    }

    fn shut(&self) {
        self.shared.shut();
        self.programs.shut();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Pool {
    /// Starts the slots on threads of their own, and what else there is on the current runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the configuration is [not valid](ExecutorConfig::validate), or the system
    /// refuses.
    pub fn start(config: &ExecutorConfig) -> Result<Self, StartError> {
        Self::start_with(config, None)
    }

    /// The same for a test: `stand_in` watches every run and may play the process.
    ///
    /// # Errors
    ///
    /// As [`Pool::start`].
    pub fn start_with(
        config: &ExecutorConfig,
        stand_in: Option<&Arc<dyn StandIn>>,
    ) -> Result<Self, StartError> {
        let runtime = Handle::try_current()?;
        let common = Arc::new(Common {
            binary_path: config.binary_path.clone(),
            environment: Environment::new(config, std::env::vars_os())?,
            limits: config.limits,
            guard: Guard::start(&runtime).map_err(StartError::Guard)?,
            presets: programs::presets(&config.programs),
            nothing: OnceLock::new(),
        });
        let guard = Arc::clone(&common.guard);
        let are_played = stand_in.is_some_and(|stand_in| stand_in.plays());
        if !are_played {
            find_programs(config, &common)?;
            config.limits.try_out()?;
        }
        let spool = Spool::open(&config.spool).map_err(StartError::Spool)?;
        let spool_watch = spool.as_ref().map(|spool| spool.watch());
        let runners = TaskTracker::new();
        let experience = Arc::new(Experience::new());
        let (lanes, granted) = programs::lanes(&config.programs);
        let shared = Arc::new(Shared::new(config.priority_ageing, granted));
        let spawner = Spawner::start(config, &common, &runtime).map_err(StartError::Thread)?;
        for number in 0..config.slots() {
            let (experience, spool) = (Arc::clone(&experience), spool.clone());
            let slot = |spawner| {
                let runner = Runner::new(config, spawner, experience, spool, stand_in.cloned());
                runners.track_future(serve(Arc::clone(&shared), runner))
            };
            match stand_in {
                // What plays processes does so in the time of whoever tests.
                Some(_) => drop(runtime.spawn(slot(spawner.clone()))),
                None => {
                    let slot = slot(Spawner::Here(Arc::clone(&common)));
                    threads::start(number, slot).map_err(|error| {
                        shared.shut(); // Those that were started end.
                        StartError::Thread(error)
                    })?;
                }
            }
        }
        let programs = if are_played {
            Programs::default()
        } else {
            Programs::start(config, &spawner, &runners, &runtime)
        };
        runners.close();
        let mut memory_guard = JoinSet::new();
        if config.memory_guard.is_on() {
            let held = Held(Arc::clone(&shared), programs.clone());
            let stand_in = stand_in.cloned();
            let free = move || {
                let played = stand_in.as_ref().and_then(|stand_in| stand_in.free_memory_percent());
                played.or_else(memory_guard::free_percent)
            };
            memory_guard.spawn_on(memory_guard::watch(config.memory_guard, held, free), &runtime);
        }
        let patience = config.ending();
        let owner = Owner {
            shared,
            programs,
            lanes,
            default: config.binary_path.clone(),
            runners,
            guard,
            spool: spool_watch,
            stand_in: stand_in.cloned(),
            slots: config.slots(),
            patience,
            most_steps: config.drain_timeout_seconds,
            _memory_guard: memory_guard,
        };
        Ok(Self { inner: Arc::new(owner) })
    }

    /// Puts a job in line. In a pool that is closed it is dropped, and `done` with it.
    #[must_use = "only the ticket can take the job back"]
    pub fn submit(&self, job: Job) -> Ticket {
        self.admit(job, Watcher::default())
    }

    /// The same; `watcher` is told when the first run begins, and what became of every run that was begun,
    /// also of those that are cut off, in the same way as `done` and before it.
    #[must_use = "only the ticket can take the job back"]
    pub fn submit_watched(
        &self,
        job: Job,
        watcher: impl Fn(Watched<'_>) + Send + Sync + 'static,
    ) -> Ticket {
        self.admit(job, Watcher::new(watcher))
    }

    fn admit(&self, job: Job, watcher: Watcher) -> Ticket {
        let named = self.inner.program_of(&job.task);
        if let Some(program) = self.inner.programs.get(named) {
            let watcher = watcher.beside(self.inner.stand_in.clone());
            return Ticket(Claim::Program(program.submit(job, watcher)));
        }
        let lane = self.inner.lanes.of(named);
        let shared = Arc::clone(&self.inner.shared);
        let control = Arc::new(Control::new(&job.task, watcher));
        let queued = Queued { job, since: Instant::now(), control: Arc::clone(&control) };
        let spot = shared.admit(lane, queued);
        shared.work.notify_one();
        Ticket(Claim::Slot { spot, control, shared })
    }

    /// How many lines tasks wait in: one for each program of the configuration, and one for all others.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.inner.lanes.count()
    }

    /// The number of the line that `task` would wait in.
    #[must_use]
    pub fn line_of(&self, task: &Task) -> usize {
        self.inner.lanes.of(self.inner.program_of(task))
    }

    /// How full the pool is now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let state = self.inner.shared.lock();
        PoolStats {
            slots: self.inner.slots,
            active: state.running.len(),
            queued: state.queue.len(),
            paused: state.paused,
            pauses: state.pauses,
            taken_back: state.taken_back,
            escaped: self.inner.guard.escaped(),
        }
    }

    /// How the persistent programs are now, by name.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<String, ProgramStats> {
        self.inner.programs.stats()
    }

    /// A look at the persistent programs that does not keep the pool open.
    #[must_use]
    pub fn watch(&self) -> PoolWatch {
        PoolWatch(self.inner.programs.clone())
    }

    /// Sees when the directory of files with output is gone: some time after the pool and the last of
    /// them. `None` where there is none.
    #[must_use]
    pub fn spool(&self) -> Option<SpoolWatch> {
        self.inner.spool.clone()
    }

    /// Drops what is queued, terminates what runs (TERM, grace, KILL) and waits until it is gone.
    ///
    /// A task that [asks for other steps](drakkar_core::Task::stop_with) gets the time they take, but no
    /// more than `executor.drain_timeout_seconds`: a stop has an end. A process that the kernel cannot end
    /// (stuck in a device) is waited for a few seconds longer than all that, and then left with a warning.
    pub async fn close(&self) {
        let steps = self.inner.shared.longest_steps().min(self.inner.most_steps);
        self.close_within(self.inner.patience.saturating_add(steps)).await;
    }

    /// The same for who is in a hurry: steps that a task asks for are not waited for.
    pub async fn close_soon(&self) {
        self.close_within(self.inner.patience).await;
    }

    async fn close_within(&self, patience: Duration) {
        self.inner.shut();
        if timeout(patience, self.inner.runners.wait()).await.is_err() {
            let left = self.stats().active;
            warn!(category = "executor", left, "killed processes do not disappear");
        }
    }
}

/// Shows the persistent programs of a pool, also after its end.
#[derive(Clone)]
pub struct PoolWatch(Programs);

impl PoolWatch {
    /// How the persistent programs are now, by name.
    #[must_use]
    pub fn programs(&self) -> BTreeMap<String, ProgramStats> {
        self.0.stats()
    }
}

/// A program that is not there shall keep the worker from starting, not fail every task.
fn find_programs(config: &ExecutorConfig, common: &Common) -> Result<(), StartError> {
    for (name, program) in &config.programs {
        let (path, start) = (program.path(name), programs::start_task(name, program));
        let found = spawn::locate(path, common, &start, None);
        let runnable = found.and_then(|path| Ok(access(&path, Access::EXEC_OK)?));
        if let Err(source) = runnable {
            return Err(StartError::Program { name: name.clone(), path: path.to_owned(), source });
        }
    }
    Ok(())
}

/// One slot, for as long as the pool is open.
async fn serve(shared: Arc<Shared>, mut runner: Runner) {
    while let Some((spot, queued)) = shared.next().await {
        let waited = queued.since.elapsed();
        queued.control.watcher.begins(&queued.job.task);
        let run = {
            // Pinned where it is: it is large.
            let running = pin!(runner.run(&queued.job.task, waited, &queued.control.kill));
            // A fault of ours: neither the slot nor the task may be lost by it.
            AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|_| {
                Some(Run::Failed {
                    failure: Failure::Io("the process pool panicked; please report it".to_owned()),
                    output: Output::default(),
                })
            })
        };
        let Queued { job, control, .. } = &queued;
        if let Some(run) = &run {
            control.watcher.ended(&job.task, Ended::Ran(run));
        } else {
            let output = runner.cut.take().unwrap_or(Output { waited, ..Output::default() });
            let ended = Ended::Cancelled { reason: control.reason(), output: &output };
            control.watcher.ended(&job.task, ended);
        }
        let Some((Queued { job, .. }, run)) = shared.ended(spot, queued, run) else { continue };
        if catch_unwind(AssertUnwindSafe(|| (job.done)(run))).is_err() {
            error!(category = "executor", task = %job.task.id(), "the receiver of a result panicked");
        }
    }
}
