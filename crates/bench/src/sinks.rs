//! A worker that writes one row per message beside a loop that writes the same rows as its best user would.
//!
//! Ours is timed from the first message that is seen to the committed offset of the last one: reading,
//! arranging, batching, writing, settling. The reference has its rows in memory. The servers are those
//! of `integration/services up`; the broker that is consumed is in this process. Printed beside: the same
//! loop when it has to poll its rows as well.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use drakkar::{
    Bytes, Collect, Config, Handler, HookResult, Message, Payload, PayloadError, Pending,
    Precomputed, Task, TaskResult,
};
use tokio::{
    runtime::Runtime,
    sync::Notify,
    time::{Duration, Instant},
};

use feed::{Feed, Polled};

use crate::{
    broker::{Broker, Topic, VALUE_BYTES},
    ours::{self, Ours},
    report::{Figure, Goal, Round},
    usage,
};

mod feed; // where a loop by hand gets its rows
mod file; // lines of a file
mod kafka; // records of a topic
mod postgres; // rows of a table
mod mongo; // documents of a collection
mod redis; // values by their key
mod linger; // how long a payload waits for others

/// Rows that the references write at once, as our sinks do at most.
const TOGETHER: usize = 1_000;

/// Processes at once; no task here starts one.
const SLOTS: usize = 2;

/// What of the suite is measured, and how much of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rows {
    /// Only this kind of sink.
    #[arg(long)]
    only: Option<Kind>,
    /// Rows that are written in each lap.
    #[arg(long, default_value = "400000")]
    rows: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Kafka,
    File,
    Postgres,
    Redis,
    Mongo,
    /// How long a payload waits for others.
    Linger,
}

/// One row; its value is [`VALUE_BYTES`] of text.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Row<'a> {
    pub(crate) id: u64,
    pub(crate) value: &'a str,
}

/// Where rows go.
trait Far: Sync {
    /// What the row of the table says.
    const NAME: &'static str;
    /// The ratio that is wanted.
    const GOAL: f64;

    /// An empty place for the rows of this lap.
    fn prepare(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<()>;

    /// Has a worker write there.
    fn configure(&self, lap: &str, config: &mut Config) -> anyhow::Result<()>;

    /// One row as the worker's handler sends it.
    fn payload(lap: &str, row: Row<'_>) -> Result<Payload, PayloadError>;

    /// The same rows, written by hand.
    fn by_hand(&self, runtime: &Runtime, lap: &str, rows: &mut Feed<'_>) -> anyhow::Result<()>;

    /// How many rows are there.
    fn count(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<usize>;
}

/// Runs the suite: the figures, and notes that are neither passed nor failed.
pub(crate) fn measure(
    rounds: NonZeroUsize,
    rows: &Rows,
) -> anyhow::Result<(Vec<Figure>, Vec<String>)> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let broker = Broker::start()?;
    let wanted = |kind: Kind| rows.only.is_none_or(|only| only == kind);
    let topic = broker.filled("bench-rows", rows.rows.get())?;
    let (mut figures, mut notes) = (Vec::new(), Vec::new());
    if wanted(Kind::Kafka) {
        figures.push(laps(&runtime, &topic, rounds, &kafka::Topics::at_hand()?, &mut notes)?);
    }
    if wanted(Kind::File) {
        figures.push(laps(&runtime, &topic, rounds, &file::Files::new()?, &mut notes)?);
    }
    if wanted(Kind::Postgres) {
        let tables = postgres::Tables::at_hand(&runtime)?;
        figures.push(laps(&runtime, &topic, rounds, &tables, &mut notes)?);
    }
    if wanted(Kind::Redis) {
        figures.push(laps(&runtime, &topic, rounds, &redis::Keys::at_hand(&runtime)?, &mut notes)?);
    }
    if wanted(Kind::Mongo) {
        let collections = mongo::Collections::at_hand(&runtime)?;
        figures.push(laps(&runtime, &topic, rounds, &collections, &mut notes)?);
    }
    if wanted(Kind::Linger) {
        figures.push(linger::measure(&runtime, rounds)?);
    }
    Ok((figures, notes))
}

/// The address that `integration/services env` says.
fn server(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| {
        format!(
            "{variable} is not set: run `integration/services up`, then \
             `eval \"$(integration/services env)\"`"
        )
    })
}

fn laps<F: Far + 'static>(
    runtime: &Runtime,
    topic: &Topic,
    rounds: NonZeroUsize,
    far: &F,
    notes: &mut Vec<String>,
) -> anyhow::Result<Figure> {
    let name = format!("{}, {} x {VALUE_BYTES} B", F::NAME, topic.messages);
    let mut figure = Figure::new(name, "rows/s", Goal::AtLeast(F::GOAL));
    let values: Vec<String> =
        (0..topic.messages).map(|id| format!("{id:x<VALUE_BYTES$}")).collect();
    let rows: Vec<Row<'_>> =
        (0..).zip(&values).map(|(id, value)| Row { id, value: value.as_str() }).collect();
    let mut cpu = Vec::new();
    for round in 0..rounds.get() {
        let by_hand = || hand_lap(runtime, far, &format!("hand-{round}"), &rows);
        let before = round.is_multiple_of(2).then(by_hand).transpose()?;
        let ours = worker_lap(runtime, topic, far, &format!("ours-{round}"))?;
        let reference = before.map_or_else(by_hand, Ok)?;
        cpu.push(format!("{:.1} ({:.1})", ours.cpu_micros, reference.cpu_micros));
        figure.add(Round { ours: ours.rate, reference: reference.rate });
    }
    notes.push(format!("note: {}: own CPU per row (reference) {} µs", F::NAME, cpu.join(", ")));
    let Lap { rate, cpu_micros } = polled_lap(runtime, topic, far)?;
    notes.push(format!(
        "note: {}: the reference, where it polls its rows as well, writes {rate:.0} rows/s, own CPU {cpu_micros:.1} µs",
        F::NAME
    ));
    Ok(figure)
}

/// How fast one side wrote its rows, and what each took of the processors.
struct Lap {
    rate: f64,
    cpu_micros: f64,
}

impl Lap {
    fn of(rows: usize, took: Duration, cpu: Duration) -> Self {
        let rows = f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
        Self { rate: rows / took.as_secs_f64(), cpu_micros: cpu.as_secs_f64() * 1e6 / rows }
    }
}

fn hand_lap<F: Far>(
    runtime: &Runtime,
    far: &F,
    lap: &str,
    rows: &[Row<'_>],
) -> anyhow::Result<Lap> {
    far.prepare(runtime, lap)?;
    let (start, cpu) = (Instant::now(), usage::own_cpu()?);
    far.by_hand(runtime, lap, &mut Feed::of(rows))?;
    let (took, cpu) = (start.elapsed(), usage::own_cpu()?.saturating_sub(cpu));
    check(far.count(runtime, lap)?, rows.len(), lap)?;
    Ok(Lap::of(rows.len(), took, cpu))
}

/// All that a loop by hand can do of what ours does.
fn polled_lap<F: Far>(runtime: &Runtime, topic: &Topic, far: &F) -> anyhow::Result<Lap> {
    let lap = "polled";
    far.prepare(runtime, lap)?;
    let group = format!("{}-{lap}", F::NAME.replace(' ', "-"));
    let mut polled = Polled::new(topic, &group)?;
    far.by_hand(runtime, lap, &mut Feed::Topic(&mut polled))?;
    let took = polled.end()?;
    check(far.count(runtime, lap)?, topic.messages, lap)?;
    Ok(took)
}

fn check(found: usize, expected: usize, lap: &str) -> anyhow::Result<()> {
    ensure!(found == expected, "lap {lap}: {found} of {expected} rows are there");
    Ok(())
}

fn worker_lap<F: Far + 'static>(
    runtime: &Runtime,
    topic: &Topic,
    far: &F,
    lap: &str,
) -> anyhow::Result<Lap> {
    far.prepare(runtime, lap)?;
    let group = format!("{}-{lap}", F::NAME.replace(' ', "-"));
    let mut config = ours::config(topic, &group, SLOTS);
    far.configure(lap, &mut config)?;
    let progress = Arc::new(Progress::default());
    let handler = Writer {
        payload: F::payload,
        lap: lap.to_owned(),
        rows: topic.messages as u64,
        progress: Arc::clone(&progress),
    };
    let mut worker = Ours::start(runtime, handler, config)?;
    worker.until(runtime, progress.all_seen.notified())?;
    let committed = topic.wait_committed(&group)?;
    let (start, cpu) = progress.start.get().copied().context("no message was seen")?;
    let cpu = usage::own_cpu()?.saturating_sub(cpu);
    worker.stop(runtime)?;
    check(far.count(runtime, lap)?, topic.messages, lap)?;
    Ok(Lap::of(topic.messages, committed.saturating_duration_since(start), cpu))
}

/// What the handler and the one who measures share.
#[derive(Default)]
struct Progress {
    /// When the first message was seen, and the processor time until then.
    start: OnceLock<(Instant, Duration)>,
    seen: AtomicU64,
    all_seen: Notify,
}

/// Answers each message with one row.
struct Writer {
    payload: fn(&str, Row<'_>) -> Result<Payload, PayloadError>,
    lap: String,
    rows: u64,
    progress: Arc<Progress>,
}

impl Handler for Writer {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        // Not to know the processor time spoils a note, not the figure.
        self.progress.start.get_or_init(|| (Instant::now(), usage::own_cpu().unwrap_or_default()));
        let task = |message: &Message<Bytes>| {
            let value = Precomputed { stdout: message.input.clone(), ..Precomputed::default() };
            Task::for_message(message).precomputed(value)
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let id = self.progress.seen.fetch_add(1, Ordering::Relaxed);
        if id + 1 == self.rows {
            self.progress.all_seen.notify_one();
        }
        let value = str::from_utf8(&done.output.stdout)?;
        let mut collect = Collect::new();
        collect.push((self.payload)(&self.lap, Row { id, value })?);
        Ok(collect)
    }
}
