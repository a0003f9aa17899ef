//! One slot: a task from its start to its end, as often as the system lacks the means to start it.
//!
//! A shortage (processes, memory, descriptors) is the system's fault and not the task's: it is tried
//! again here a few times, uncharged, while the slot is held. Everything else is the caller's
//! business.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, sync::Arc, time::Duration};

use drakkar_core::{Failure, Output, Task, retry::Backoff};
use tokio::{sync::Notify, time::sleep};
use tracing::warn;

use crate::{
    ExecutorConfig, Run,
    capture::Capture,
    process::{End, Patience, Process},
    spawn::{SpawnError, Spawner},
    stand_in::{Bounds, StandIn},
};

/// Starts that are tried again when the system is short of something.
const SPAWN_RETRIES: u32 = 5;
const SPAWN_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(500) };

/// What runs the tasks of one slot.
pub(crate) struct Runner {
    spawner: Spawner,
    patience: Patience,
    stdout: Capture,
    stderr: Capture,
    stand_in: Option<Arc<dyn StandIn>>,
    max_output: (usize, usize),
}

impl Runner {
    pub(crate) fn new(
        config: &ExecutorConfig,
        spawner: Spawner,
        stand_in: Option<Arc<dyn StandIn>>,
    ) -> Self {
        Self {
            spawner,
            stand_in,
            max_output: (config.max_stdout_bytes, config.max_stderr_bytes),
            patience: Patience {
                limit: config.task_timeout_seconds,
                kill: config.kill_grace,
                pipe: config.pipe_grace,
            },
            stdout: Capture::new(config.max_stdout_bytes),
            stderr: Capture::new(config.max_stderr_bytes),
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
            Some(scripted) => {
                let limit = task.time_limit().unwrap_or(self.patience.limit);
                let (max_stdout, max_stderr) = self.max_output;
                let bounds = Bounds { limit, max_stdout, max_stderr, waited };
                scripted.play(task, bounds, kill).await
            }
            None => self.run_process(task, waited, kill).await,
        };
        stand_in.ended(task, run.as_ref());
        run
    }

    async fn run_process(
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
                return Some(Run::Failed {
                    failure,
                    output: Output { waited, ..Output::default() },
                });
            }
        };
        let limit = task.time_limit().unwrap_or(self.patience.limit);
        let patience = Patience { limit, ..self.patience };
        let outputs = (&mut self.stdout, &mut self.stderr);
        let stdin = task.stdin_bytes().cloned();
        let end = process.run(stdin, outputs, patience, kill.notified()).await;
        let output = self.output(&process, waited);
        let failure = match end {
            End::Exited(status) if status.success() => return Some(Run::Finished(output)),
            End::Exited(status) => failure(status),
            End::TimedOut => Failure::TimedOut(limit),
            End::Lost(error) => Failure::Io(error.to_string()),
            End::Killed => return None,
        };
        Some(Run::Failed { failure, output })
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

    fn output(&mut self, process: &Process, waited: Duration) -> Output {
        let (stdout, stdout_dropped) = self.stdout.take();
        let (stderr, stderr_dropped) = self.stderr.take();
        Output {
            stdout,
            stderr,
            stdout_dropped,
            stderr_dropped,
            pid: Some(process.id()),
            waited,
            spawned_in: process.spawned_in,
            took: process.started.elapsed(),
        }
    }
}

fn failure(status: ExitStatus) -> Failure {
    match (status.code(), status.signal()) {
        (Some(code), _) => Failure::Exit(code),
        (None, Some(signal)) => Failure::Signal(signal),
        (None, None) => Failure::Io(format!("neither exit code nor signal: {status}")),
    }
}
