//! One slot: a task from its start to its end, as often as the system lacks the means to start it.
//!
//! A shortage (processes, memory, descriptors) is the system's fault and not the task's: it is tried
//! again here a few times, uncharged, while the slot is held. Everything else is the caller's
//! business.

mod played; // the same without a process

use std::{
    collections::HashMap,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    pin::pin,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, SystemTime},
};

use drakkar_core::{Failure, Keep, Output, Task, Usage, retry::Backoff};
use tokio::{sync::Notify, time::Instant};
use tracing::warn;

use crate::{
    ExecutorConfig, Protocol, Run,
    capture::Capture,
    median::Medians,
    memory::MemoryKills,
    process::{End, Patience, Process},
    reactor::{sleep, timeout},
    spawn::{SpawnError, Spawner},
    spool::{Spool, SpoolWriter},
    stand_in::StandIn,
};

/// Starts that are tried again when the system is short of something.
const SPAWN_RETRIES: u32 = 5;
const SPAWN_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(500) };

/// What a disk gets to take the end of the output, even of a program that has used up its time.
const FLUSH_GRACE: Duration = Duration::from_secs(1);

/// What the slots of a pool know together.
pub(crate) struct Experience {
    medians: Medians,
    memory_kills: MemoryKills,
}

impl Experience {
    pub(crate) fn new() -> Self {
        Self { medians: Medians::default(), memory_kills: MemoryKills::watch() }
    }
}

/// What runs the tasks of one slot.
pub(crate) struct Runner {
    spawner: Spawner,
    experience: Arc<Experience>,
    patience: Patience<'static>,
    binary_path: PathBuf,
    keep: (Keep, Keep),
    stdout: Capture,
    stderr: Capture,
    spool: Option<Arc<Spool>>,
    /// Whether anybody wants to know what programs use.
    measures: bool,
    stand_in: Option<Arc<dyn StandIn>>,
    /// The persistent programs, where they are played.
    persistent: HashMap<PathBuf, Protocol>,
    /// What is known of the last process that was killed by request.
    pub(crate) cut: Option<Output>,
}

impl Runner {
    pub(crate) fn new(
        config: &ExecutorConfig,
        spawner: Spawner,
        experience: Arc<Experience>,
        spool: Option<Arc<Spool>>,
        stand_in: Option<Arc<dyn StandIn>>,
    ) -> Self {
        let head = |head| Keep { head, tail: 0 };
        let keep = (head(config.max_stdout_bytes), head(config.max_stderr_bytes));
        let are_played = stand_in.as_ref().is_some_and(|stand_in| stand_in.plays());
        let persistent = if are_played { played::persistent(config) } else { HashMap::new() };
        Self {
            spawner,
            experience,
            spool,
            measures: config.job_log.path.is_some(),
            stand_in,
            persistent,
            cut: None,
            binary_path: config.binary_path.clone().unwrap_or_default(),
            keep,
            patience: Patience {
                limit: config.task_timeout_seconds,
                kill: config.kill_grace,
                steps: None,
                pipe: config.pipe_grace,
            },
            stdout: Capture::new(keep.0),
            stderr: Capture::new(keep.1),
        }
    }

    /// Runs `task`, which waited for `waited`, unless `kill` comes first: then `None`.
    pub(crate) async fn run(
        &mut self,
        task: &Arc<Task>,
        waited: Duration,
        kill: &Notify,
    ) -> Option<Run> {
        let Some(stand_in) = self.stand_in.clone() else {
            return self.run_process(task, waited, kill).await;
        };
        let run = match stand_in.begins(task) {
            Some(scripted) => self.play(scripted, task, waited, kill).await,
            None => self.run_process(task, waited, kill).await,
        };
        stand_in.ended(task, run.as_ref());
        run
    }

    /// A file for what the task prints, if it asks for one; `None` if `kill` comes first.
    async fn open_spool(
        &self,
        task: &Task,
        kill: &Notify,
    ) -> Option<Result<Option<SpoolWriter>, Failure>> {
        tokio::select! {
            opened = self.try_open_spool(task) => Some(opened),
            () = kill.notified() => None,
        }
    }

    async fn try_open_spool(&self, task: &Task) -> Result<Option<SpoolWriter>, Failure> {
        if !task.spools_stdout() {
            return Ok(None);
        }
        let spool = self.spool.as_ref().ok_or_else(|| Failure::Unstartable {
            program: self.program(task).display().to_string(),
            reason: "the task spools its output and executor.spool.dir is not set".to_owned(),
            permanent: true,
        })?;
        let limit = self.limit(task);
        let late = || Err(io::Error::from(io::ErrorKind::TimedOut));
        let file = timeout(limit, spool.create()).await.unwrap_or_else(late);
        file.map(Some).map_err(|e| Failure::Io(format!("cannot spool standard output: {e}")))
    }

    async fn run_process(
        &mut self,
        task: &Arc<Task>,
        waited: Duration,
        kill: &Notify,
    ) -> Option<Run> {
        self.stdout.spool = match self.open_spool(task, kill).await? {
            Ok(spool) => spool,
            Err(failure) => return Some(not_started(failure, waited)),
        };
        self.run_opened(task, waited, kill).await
    }

    async fn run_opened(
        &mut self,
        task: &Arc<Task>,
        waited: Duration,
        kill: &Notify,
    ) -> Option<Run> {
        let began = Instant::now();
        let run = self.run_started(task, waited, kill).await;
        match (run, self.stdout.spool.take()) {
            (Some(run), Some(spool)) => self.attach(spool, run, (task, began), kill).await,
            (run, _) => run,
        }
    }

    /// Puts the file into the run when the disk has taken it, or the time of the task is up.
    async fn attach(
        &self,
        mut spool: SpoolWriter,
        run: Run,
        (task, began): (&Task, Instant),
        kill: &Notify,
    ) -> Option<Run> {
        let time_left = self.limit(task).saturating_sub(began.elapsed());
        tokio::select! {
            biased; // What is taken is taken.
            () = spool.finish() => {}
            () = kill.notified() => return None,
            () = sleep(time_left.max(FLUSH_GRACE)) => {}
        }
        Some(spool.attach(run))
    }

    async fn run_started(
        &mut self,
        task: &Arc<Task>,
        waited: Duration,
        kill: &Notify,
    ) -> Option<Run> {
        let mut process = match self.start(task, kill).await? {
            Ok(process) => process,
            Err(error) => {
                let permanent = error.is_permanent();
                let SpawnError { program, reason, .. } = error;
                let failure = Failure::Unstartable { program, reason, permanent };
                return Some(not_started(failure, waited));
            }
        };
        let started_at = SystemTime::now().checked_sub(process.started.elapsed());
        let mut meter = self.measures.then(|| process.measure());
        let limit = self.limit(task);
        let patience = Patience { limit, steps: task.stop_steps(), ..self.patience };
        self.stdout.keep(task.kept_stdout().unwrap_or(self.keep.0));
        self.stderr.keep(task.kept_stderr().unwrap_or(self.keep.1));
        let outputs = (&mut self.stdout, &mut self.stderr);
        let stdin = task.stdin_bytes().cloned();
        let end = {
            let running = pin!(process.run(stdin, outputs, patience, kill.notified()));
            match &mut meter {
                Some(meter) => meter.beside(running).await,
                None => running.await,
            }
        };
        let usage = Usage {
            max_rss: meter.and_then(|meter| meter.max_rss),
            user: process.times.map(|(user, _)| user),
            system: process.times.map(|(_, system)| system),
        };
        let output = Output { waited, started_at, usage, ..self.output(&process) };
        let failure = match end {
            End::Exited(status) if status.success() => {
                self.learn(task, output.took);
                return Some(Run::Finished(output));
            }
            End::Exited(status) => self.failure(status),
            End::TimedOut => Failure::TimedOut(limit),
            End::Lost(error) => Failure::Io(error.to_string()),
            End::Killed => {
                self.cut = Some(output);
                return None;
            }
        };
        Some(Run::Failed { failure, output })
    }

    fn program<'a>(&'a self, task: &'a Task) -> &'a PathBuf {
        task.program_path().unwrap_or(&self.binary_path)
    }

    /// The shorter one of the limit in time and the limit in percent.
    fn limit(&self, task: &Task) -> Duration {
        let limit = task.time_limit().unwrap_or(self.patience.limit);
        let usual = |percent| self.experience.medians.limit(self.program(task), percent);
        task.limit_percent().and_then(usual).map_or(limit, |usual| usual.min(limit))
    }

    /// What is usual, for those that ask.
    fn learn(&self, task: &Task, took: Duration) {
        if task.limit_percent().is_some() {
            self.experience.medians.add(self.program(task), took);
        }
    }

    /// A program whose child was killed usually ends with the code that a shell gives it.
    fn failure(&self, status: ExitStatus) -> Failure {
        const KILLED: i32 = 9;
        let is_kill = status.signal() == Some(KILLED) || status.code() == Some(128 + KILLED);
        match (status.code(), status.signal()) {
            _ if is_kill && self.experience.memory_kills.explains_one() => Failure::OutOfMemory,
            (Some(code), _) => Failure::Exit(code),
            (None, Some(signal)) => Failure::Signal(signal),
            (None, None) => Failure::Io(format!("neither exit code nor signal: {status}")),
        }
    }

    async fn start(&self, task: &Arc<Task>, kill: &Notify) -> Option<Result<Process, SpawnError>> {
        let mut retry = 0;
        loop {
            let error = match self.spawner.spawn(task).await {
                Err(error) if error.is_shortage() && retry < SPAWN_RETRIES => error,
                settled => return Some(settled),
            };
            retry += 1;
            warn!(category = "executor", task = %task.id(), %error, retry, "cannot start a process");
            tokio::select! {
                () = sleep(SPAWN_BACKOFF.delay(retry, fastrand::f64())) => {}
                () = kill.notified() => return None,
            }
        }
    }

    fn output(&mut self, process: &Process) -> Output {
        let (stdout, stdout_dropped) = self.stdout.take();
        let (stderr, stderr_dropped) = self.stderr.take();
        Output {
            stdout,
            stderr,
            stdout_dropped,
            stderr_dropped,
            pid: Some(process.id()),
            spawned_in: process.spawned_in,
            took: process.started.elapsed(),
            ..Output::default()
        }
    }
}

fn not_started(failure: Failure, waited: Duration) -> Run {
    Run::Failed { failure, output: Output { waited, ..Output::default() } }
}

#[cfg(test)]
mod tests;
