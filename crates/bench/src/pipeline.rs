//! A worker beside bare consumer loops: from the first message that is seen to the moment at which
//! somebody outside reads every offset as committed.
//!
//! Joining the group is left out on both sides. The worker has its defaults, metrics included; each lap has
//! a group of its own. The broker is in this process and takes its share of the same processors.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow};
use drakkar::{
    Bytes, Collect, Config, Handler, HookResult, Message, Pending, Precomputed, Task, TaskResult,
    Worker, sections::LogLevel,
};
use tokio::{
    runtime::Runtime,
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    bare,
    broker::{Broker, PARTITIONS, Topic, VALUE_BYTES},
    report::{Figure, Goal, Round},
    usage,
};

const PROGRAM: &str = "/bin/true";

/// Processes at once.
const SLOTS: usize = 4;

/// How long a worker may take for one lap.
const LAP_WITHIN: Duration = Duration::from_mins(2);

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

/// What is done with each message.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// It is answered without a process.
    Precomputed,
    /// It starts [`PROGRAM`].
    Process,
}

/// Runs the suite: the figures, and notes that are neither passed nor failed.
pub(crate) fn measure(
    rounds: NonZeroUsize,
    messages: NonZeroUsize,
    processes: NonZeroUsize,
) -> anyhow::Result<(Vec<Figure>, Vec<String>)> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let broker = Broker::start()?;
    let precomputed = broker.filled("bench-precomputed", messages.get())?;
    let process = broker.filled("bench-process", processes.get())?;
    let mut notes = Vec::new();
    let mut figures = Vec::new();
    for (work, topic, goal) in
        [(Work::Precomputed, &precomputed, 0.5), (Work::Process, &process, 0.9)]
    {
        let name = work.title(topic);
        let mut figure = Figure::new(name.clone(), "msgs/s", Goal::AtLeast(goal));
        for round in 0..rounds.get() {
            let bare_first = round % 2 == 0;
            let before = bare_first.then(|| bare_lap(&runtime, work, topic, round)).transpose()?;
            let ours = worker_lap(&runtime, work, topic, &format!("ours-{round}"))?;
            let bare = before.map_or_else(|| bare_lap(&runtime, work, topic, round), Ok)?;
            figure.add(Round { ours: ours.rate(topic), reference: bare.rate(topic) });
            notes.push(format!(
                "note: {name}, round {}: own CPU per message {:.1} µs (reference {:.1} µs)",
                round + 1,
                ours.cpu_micros(topic),
                bare.cpu_micros(topic),
            ));
        }
        figures.push(figure);
    }
    notes.push(format!(
        "note: peak resident memory {:.0} MiB, of both sides with the broker and what it holds",
        usage::memory("VmHWM")?
    ));
    Ok((figures, notes))
}

fn bare_lap(runtime: &Runtime, work: Work, topic: &Topic, round: usize) -> anyhow::Result<Lap> {
    let group = format!("bare-{round}");
    match work {
        Work::Precomputed => bare::count(topic, &group),
        Work::Process => bare::spawn(topic, &group, runtime, PROGRAM, SLOTS),
    }
}

impl Work {
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
    let worker = Worker::new(handler).config(config(topic, group))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = runtime.spawn(worker.run_until(async move {
        // Dropped or sent, it is time to stop.
        drop(stopped.await);
    }));
    // Asking for commits begins when there is nothing else left: it would take time from the worker.
    runtime.block_on(async {
        tokio::select! {
            () = progress.all_done.notified() => Ok(()),
            ended = &mut running => Err(anyhow!("the worker has ended: {ended:?}")),
            () = tokio::time::sleep(LAP_WITHIN) => Err(anyhow!("the worker is not done")),
        }
    })?;
    let committed = topic.wait_committed(group)?;
    let lap = progress.lap.get().copied().context("no message was seen")?.end(committed);
    drop(stop);
    runtime.block_on(running)??;
    lap
}

fn config(topic: &Topic, group: &str) -> Config {
    let mut config = Config::default();
    config.kafka.brokers.clone_from(&topic.address);
    config.kafka.source_topic = topic.name.into();
    config.kafka.consumer_group = group.into();
    config.kafka.startup_align_enabled = false; // There is nobody to wait for.
    // The broker does not wake a waiting fetch.
    config.kafka.client_config =
        BTreeMap::from([("fetch.wait.max.ms".to_owned(), "10".to_owned())]);
    config.executor.max_executors = NonZeroUsize::new(SLOTS);
    config.metrics.host = "127.0.0.1".into();
    config.metrics.port = 0;
    config.logging.level = LogLevel::Warning;
    config
}
