//! Behind a stuck offset: how fast a worker goes on while the first message of every partition never
//! settles, beside the same worker without any that is stuck.
//!
//! The time runs from the first message to the last result. Commits go on as ever, each with the done
//! map of all that is settled above the stuck offset.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use drakkar::{
    Bytes, Collect, Handler, HookResult, Message, Offset, Pending, Precomputed, Task, TaskResult,
};
use tokio::{runtime::Runtime, sync::Notify, time::Instant};

use crate::{
    broker::{PARTITIONS, Topic},
    ours::{self, Ours},
    report::Round,
};

const SLOTS: usize = 4;

#[derive(Default)]
struct Progress {
    begun: OnceLock<Instant>,
    done: AtomicUsize,
    all_done: Notify,
    release: Notify,
}

struct Stuck {
    /// Whether offset 0 of every partition waits for the release.
    waits: bool,
    /// Results after which all others are done.
    all: usize,
    progress: Arc<Progress>,
}

impl Handler for Stuck {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        self.progress.begun.get_or_init(Instant::now);
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        if self.waits && done.task.source_offsets() == [Offset(0)] {
            self.progress.release.notified().await;
            return Ok(Collect::new());
        }
        if self.progress.done.fetch_add(1, Ordering::Relaxed) + 1 == self.all {
            self.progress.all_done.notify_one();
        }
        Ok(Collect::new())
    }
}

/// Messages per second with one stuck offset in every partition, beside none.
pub(crate) fn round(runtime: &Runtime, topic: &Topic, round: usize) -> anyhow::Result<Round> {
    let one = |waits: bool| rate(runtime, topic, waits, &format!("stuck-{waits}-{round}"));
    if round.is_multiple_of(2) {
        let reference = one(false)?;
        return Ok(Round { ours: one(true)?, reference });
    }
    Ok(Round { ours: one(true)?, reference: one(false)? })
}

fn rate(runtime: &Runtime, topic: &Topic, waits: bool, group: &str) -> anyhow::Result<f64> {
    let progress = Arc::new(Progress::default());
    let stuck = usize::try_from(PARTITIONS)?;
    let all = topic.messages - if waits { stuck } else { 0 };
    let mut config = ours::config(topic, group, SLOTS);
    config.executor.hook_timeout_seconds = Duration::from_mins(10);
    let handler = Stuck { waits, all, progress: Arc::clone(&progress) };
    let mut worker = Ours::start(runtime, handler, config)?;
    worker.until(runtime, progress.all_done.notified())?;
    let took = progress.begun.get().context("no message was seen")?.elapsed();
    for _ in 0..stuck {
        progress.release.notify_one();
        progress.release.notify_waiters();
    }
    worker.stop(runtime)?;
    Ok(f64::from(u32::try_from(all)?) / took.as_secs_f64())
}
