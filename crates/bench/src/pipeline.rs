//! A worker beside bare consumer loops: from the first message that is seen to the moment at which
//! somebody outside reads every offset as committed.
//!
//! Joining the group is left out on both sides. The worker has its defaults, metrics included; each lap has
//! a group of its own. The broker is in this process and takes its share of the same processors.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use drakkar::{
    Bytes, Collect, Handler, HookResult, Message, Pending, Precomputed, Task, TaskResult,
};
use tokio::{runtime::Runtime, sync::Notify, time::Instant};

use crate::{
    bare,
    broker::{Broker, PARTITIONS, Topic, VALUE_BYTES},
    latency,
    memory::Lags,
    ours::{self, Ours},
    report::{Figure, Goal, Round},
    stuck, usage,
};

const PROGRAM: &str = "/bin/true";

/// Processes at once.
const SLOTS: usize = 4;

/// What one side took for all messages of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lap {
    start: Instant,
    cpu_at_start: Duration,
    took: Duration,
    cpu: Duration,
}

impl Lap {
    /// The first message was seen.
    pub(crate) fn start() -> Self {
        let zero = Duration::ZERO;
        // Not to know the processor time spoils a note, not the figure.
        let cpu_at_start = usage::own_cpu().unwrap_or_default();
        Self { start: Instant::now(), cpu_at_start, took: zero, cpu: zero }
    }

    /// Everything was committed, `at` this moment.
    pub(crate) fn end(mut self, at: Instant) -> anyhow::Result<Self> {
        self.took = at.saturating_duration_since(self.start);
        self.cpu = usage::own_cpu()?.saturating_sub(self.cpu_at_start);
        Ok(self)
    }

    fn rate(&self, topic: &Topic) -> f64 {
        count(topic) / self.took.as_secs_f64()
    }

    fn cpu_micros(&self, topic: &Topic) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(topic)
    }
}

fn count(topic: &Topic) -> f64 {
    f64::from(u32::try_from(topic.messages).unwrap_or(u32::MAX))
}

/// Messages of each partition that settle behind one that does not.
const ABOVE: usize = 100_000;

/// What is done with each message.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// It is answered without a process.
    Precomputed,
    /// It starts [`PROGRAM`].
    Process,
}

/// What of the suite is measured, and how much of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rows {
    /// Only this row.
    #[arg(long)]
    only: Option<Row>,
    /// Messages that are answered without a process. The broker keeps 5 MiB per partition, compressed.
    #[arg(long, default_value = "2000000")]
    messages: NonZeroUsize,
    /// Messages that start a process each.
    #[arg(long, default_value = "20000")]
    processes: NonZeroUsize,
    /// Messages of lag, beside a fifth of it.
    #[arg(long, default_value = "1000000")]
    lag: NonZeroUsize,
    /// Messages whose way is timed, at 200 per second.
    #[arg(long, default_value = "2000")]
    timed: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    Precomputed,
    Process,
    Stuck,
    Memory,
    Latency,
}

/// Runs the suite: the figures, and notes that are neither passed nor failed.
pub(crate) fn measure(
    rounds: NonZeroUsize,
    rows: &Rows,
) -> anyhow::Result<(Vec<Figure>, Vec<String>)> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let broker = Broker::start()?;
    let wanted = |row: Row| rows.only.is_none_or(|only| only == row);
    let mut notes = Vec::new();
    let mut figures = Vec::new();
    if wanted(Row::Precomputed) {
        let topic = broker.filled("bench-precomputed", rows.messages.get())?;
        figures.push(laps(&runtime, Work::Precomputed, &topic, rounds, &mut notes)?);
    }
    if wanted(Row::Stuck) {
        let topic = broker.filled("bench-stuck", ABOVE * usize::try_from(PARTITIONS)?)?;
        let name = format!("behind one stuck offset per partition, {ABOVE} each");
        let mut figure = Figure::new(name, "msgs/s", Goal::AtLeast(0.95));
        for round in 0..rounds.get() {
            figure.add(stuck::round(&runtime, &topic, round)?);
        }
        figures.push(figure);
    }
    if wanted(Row::Process) {
        let topic = broker.filled("bench-process", rows.processes.get())?;
        figures.push(laps(&runtime, Work::Process, &topic, rounds, &mut notes)?);
    }
    if wanted(Row::Memory) {
        let lags = Lags::filled(&broker, rows.lag.get())?;
        let (much, little) = (lags.much.messages, lags.little.messages);
        let name = format!("resident memory, lag of {much} beside {little}");
        let mut figure = Figure::new(name, "MiB", Goal::AtMost(1.1));
        for round in 0..rounds.get() {
            figure.add(lags.round(round)?);
        }
        figures.push(figure);
    }
    if wanted(Row::Latency) {
        let name = format!("99th percentile, cat to a topic at 200/s, {} messages", rows.timed);
        let mut figure = Figure::new(name, "ms", Goal::TwiceAnd(10.0));
        for round in 0..rounds.get() {
            figure.add(latency::round(&runtime, &broker, rows.timed.get(), round)?);
        }
        figures.push(figure);
    }
    Ok((figures, notes))
}

/// A worker beside the bare loop, all messages of `topic`.
fn laps(
    runtime: &Runtime,
    work: Work,
    topic: &Topic,
    rounds: NonZeroUsize,
    notes: &mut Vec<String>,
) -> anyhow::Result<Figure> {
    let name = work.title(topic);
    let mut figure = Figure::new(name.clone(), "msgs/s", Goal::AtLeast(work.goal()));
    for round in 0..rounds.get() {
        let bare_first = round.is_multiple_of(2);
        let before = bare_first.then(|| bare_lap(runtime, work, topic, round)).transpose()?;
        let ours = worker_lap(runtime, work, topic, &format!("ours-{round}"))?;
        let bare = before.map_or_else(|| bare_lap(runtime, work, topic, round), Ok)?;
        figure.add(Round { ours: ours.rate(topic), reference: bare.rate(topic) });
        notes.push(format!(
            "note: {name}, round {}: own CPU per message {:.1} µs (reference {:.1} µs)",
            round + 1,
            ours.cpu_micros(topic),
            bare.cpu_micros(topic),
        ));
    }
    Ok(figure)
}

fn bare_lap(runtime: &Runtime, work: Work, topic: &Topic, round: usize) -> anyhow::Result<Lap> {
    let group = format!("bare-{round}");
    match work {
        Work::Precomputed => bare::count(topic, &group),
        Work::Process => bare::spawn(topic, &group, runtime, PROGRAM, SLOTS),
    }
}

impl Work {
    fn goal(self) -> f64 {
        match self {
            Self::Precomputed => 0.5,
            Self::Process => 0.9,
        }
    }

    fn title(self, topic: &Topic) -> String {
        let Topic { messages, .. } = topic;
        match self {
            Self::Precomputed => {
                format!("precomputed, {PARTITIONS} partitions, {messages} x {VALUE_BYTES} B")
            }
            Self::Process => format!("{PROGRAM} per message, {SLOTS} slots, {messages} messages"),
        }
    }

    fn task(self, message: &Message<Bytes>) -> Task {
        let task = Task::for_message(message);
        match self {
            Self::Precomputed => task.precomputed(Precomputed::default()),
            Self::Process => task.program(PROGRAM),
        }
    }
}

/// What the handler and the one who measures share.
#[derive(Default)]
struct Progress {
    lap: OnceLock<Lap>,
    done: AtomicUsize,
    all_done: Notify,
}

struct Bench {
    work: Work,
    messages: usize,
    progress: Arc<Progress>,
}

impl Handler for Bench {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        self.progress.lap.get_or_init(Lap::start);
        Ok(window.iter().map(|message| self.work.task(message)).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        if self.progress.done.fetch_add(1, Ordering::Relaxed) + 1 == self.messages {
            self.progress.all_done.notify_one();
        }
        Ok(Collect::new())
    }
}

fn worker_lap(runtime: &Runtime, work: Work, topic: &Topic, group: &str) -> anyhow::Result<Lap> {
    let progress = Arc::new(Progress::default());
    let handler = Bench { work, messages: topic.messages, progress: Arc::clone(&progress) };
    let mut worker = Ours::start(runtime, handler, ours::config(topic, group, SLOTS))?;
    // Asking for commits begins when there is nothing else left: it would take time from the worker.
    worker.until(runtime, progress.all_done.notified())?;
    let committed = topic.wait_committed(group)?;
    let lap = progress.lap.get().copied().context("no message was seen")?.end(committed);
    worker.stop(runtime)?;
    lap
}
