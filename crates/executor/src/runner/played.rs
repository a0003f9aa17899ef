//! One run that is played: what a worker would make of its task, without the process.
//!
//! Whatever would keep the task from being run, and whatever it says of its time and of its output,
//! counts here as well. A task of a persistent program is played in a slot.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use drakkar_core::{Keep, Task};
use tokio::{sync::Notify, time::Instant};

use super::{Runner, not_started};
use crate::{
    ExecutorConfig, Mode, Protocol, Run, persistent,
    stand_in::{Bounds, Scripted},
};

/// The persistent programs, by name.
pub(super) fn persistent(config: &ExecutorConfig) -> HashMap<PathBuf, Protocol> {
    let programs = config.programs.iter();
    let stay = programs.filter(|(_, program)| program.mode == Mode::Persistent);
    stay.map(|(name, program)| (PathBuf::from(name), program.protocol)).collect()
}

impl Runner {
    pub(super) async fn play(
        &self,
        scripted: Scripted,
        task: &Task,
        waited: Duration,
        kill: &Notify,
    ) -> Option<Run> {
        if let Some(protocol) = self.persistent.get(self.program(task)) {
            return match persistent::refusal(self.program(task), *protocol, task) {
                Some(failure) => Some(not_started(failure, waited)),
                None => scripted.play(task, self.bounds_of_an_answer(task, waited), kill).await,
            };
        }
        let began = Instant::now();
        let spool = match self.open_spool(task, kill).await? {
            Ok(spool) => spool,
            Err(failure) => return Some(not_started(failure, waited)),
        };
        let everything = Keep { head: usize::MAX, tail: 0 };
        let stdout = task.kept_stdout().unwrap_or(self.keep.0);
        let bounds = Bounds {
            limit: self.limit(task),
            stdout: if spool.is_some() { everything } else { stdout },
            stderr: task.kept_stderr().unwrap_or(self.keep.1),
            waited,
        };
        let mut run = scripted.play(task, bounds, kill).await?;
        if let Run::Finished(output) = &run {
            self.learn(task, output.took);
        }
        let Some(mut spool) = spool else { return Some(run) };
        let (Run::Finished(output) | Run::Failed { output, .. }) = &mut run;
        spool.write(&std::mem::take(&mut output.stdout)).await;
        self.attach(spool, run, (task, began), kill).await
    }

    /// What a task says of its output and of usual times is for a process of its own.
    fn bounds_of_an_answer(&self, task: &Task, waited: Duration) -> Bounds {
        let limit = task.time_limit().unwrap_or(self.patience.limit);
        Bounds { limit, stdout: self.keep.0, stderr: self.keep.1, waited }
    }
}
