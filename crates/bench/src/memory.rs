//! Resident memory of a worker with much lag beside one with little, after the same time under load.
//!
//! The worker runs in a process of its own (this program again), so that the broker and what it holds
//! are not counted. Its hooks are slow enough for the lag to last until it is measured.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use drakkar::{
    Bytes, Collect, Handler, HookResult, Message, Pending, Precomputed, Task, TaskResult,
};
use tokio::{runtime::Runtime, sync::Notify, time::sleep};

use crate::{
    broker::{Broker, Topic},
    ours::{self, Ours},
    report::Round,
    usage,
};

/// How long every hook takes: with 256 of them in each of 8 partitions some 20 000 messages/s.
const HOOK: Duration = Duration::from_millis(100);

/// How long under load, from the first message on.
const LOAD: Duration = Duration::from_secs(5);

const SLOTS: usize = 4;

/// What the process that is measured is told.
#[derive(Args)]
pub(crate) struct Measured {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    group: String,
}

struct Slow(Arc<Notify>);

impl Handler for Slow {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        self.0.notify_one();
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        sleep(HOOK).await;
        Ok(Collect::new())
    }
}

/// The process that is measured: prints its resident memory in MiB.
pub(crate) fn run(measured: Measured) -> anyhow::Result<()> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let topic = Topic { address: measured.brokers, name: measured.topic.leak(), messages: 0 };
    let first = Arc::new(Notify::new());
    let mut config = ours::config(&topic, &measured.group, SLOTS);
    config.executor.drain_timeout_seconds = Duration::from_secs(1);
    let mut worker = Ours::start(&runtime, Slow(Arc::clone(&first)), config)?;
    worker.until(&runtime, first.notified())?;
    worker.until(&runtime, async { sleep(LOAD).await })?;
    println!("{}", usage::memory("VmRSS")?);
    worker.stop(&runtime)
}

/// A topic with much lag and one with little.
pub(crate) struct Lags {
    pub(crate) much: Topic,
    pub(crate) little: Topic,
}

impl Lags {
    pub(crate) fn filled(broker: &Broker, much: usize) -> anyhow::Result<Self> {
        Ok(Self {
            much: broker.filled("bench-much", much)?,
            little: broker.filled("bench-little", much / 5)?,
        })
    }

    /// MiB with much lag beside MiB with little.
    pub(crate) fn round(&self, round: usize) -> anyhow::Result<Round> {
        Ok(Round { ours: resident(&self.much, round)?, reference: resident(&self.little, round)? })
    }
}

fn resident(topic: &Topic, round: usize) -> anyhow::Result<f64> {
    let child = Command::new(std::env::current_exe()?)
        .args(["lag-worker", "--brokers", &topic.address, "--topic", topic.name])
        .args(["--group", &format!("memory-{round}")])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(child.status.success(), "the worker that is measured failed: {}", child.status);
    Ok(String::from_utf8(child.stdout)?.trim().parse()?)
}
