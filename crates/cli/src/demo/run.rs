//! One run of the demo: start everything, watch it, stop it in order, close the books.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead},
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context;
use drakkar::{
    Config, RunError, Worker,
    sections::{FileSinkConfig, KafkaSinkConfig, LogOutput},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};

use super::{
    books::{Balance, Books},
    broker::{Broker, GROUP, REQUESTS, RESULTS},
    feed::Feed,
    handler::{RESULTS_FILE, WordCount},
    input::Plan,
    number,
    progress::Progress,
    reader::Reader,
    summary::Summary,
};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Without an outcome for so long, with messages on their way, something is wrong.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every message is where it should be.
    Balanced,
    /// Some are not, or the worker failed.
    Unbalanced,
    /// A second signal came.
    Aborted,
}

/// Why watching ended.
#[derive(Debug)]
enum Reason {
    /// Every message has an outcome.
    Done,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// Nothing moves any more.
    Stuck(&'static str),
    /// The worker ended by itself.
    WorkerEnded(anyhow::Result<()>),
}

/// Runs `plan` in `directory`.
pub(crate) async fn run(plan: Plan, rate: Option<f64>, directory: &Path) -> anyhow::Result<Ending> {
    let begin = Instant::now();
    let mut signals = Signals::new()?;
    let broker = Broker::start()?;
    let books = Arc::new(Mutex::new(Books::new(plan.clone())));
    let mut progress = Progress::new(plan.messages());
    progress.say(&format!(
        "{} messages through a worker with an embedded broker; wc -w for each, a few made to fail",
        number(plan.messages())
    ));

    let reader = Reader::start(&broker.address(), &books)?;
    let mut worker = RunningWorker::start(&broker, directory)?;
    let feed = Feed::start(&broker.address(), plan, rate, &books)?;

    let mut watch = Watch { books: &books, progress: &mut progress, first: None, last: begin };
    let reason = watch.until_done(&mut worker, &reader, &mut signals).await;
    let (first, last) = (watch.first.unwrap_or(begin), watch.last);
    progress.clear();
    progress.say(reason.text());

    feed.finish()?;
    // Only who interrupts it does not expect everything.
    let is_complete = !matches!(reason, Reason::Interrupted);
    let outcome = match reason {
        Reason::WorkerEnded(outcome) => outcome,
        _ => match worker.stop(&mut signals).await {
            Some(outcome) => outcome,
            None => return Ok(Ending::Aborted),
        },
    };
    reader.finish()?;
    let peak = peak_memory();

    let balance = close(&books, &broker, directory, is_complete)?;
    let seconds = last.saturating_duration_since(first).as_secs_f64().max(0.001);
    let done = books.lock().unwrap_or_else(PoisonError::into_inner).standing().done;
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    let rate = done as f64 / seconds;
    let summary = Summary { balance: &balance, rate, took: begin.elapsed(), peak };
    println!("\n{summary}");
    if let Err(error) = &outcome {
        println!("{error:#}");
    }
    let is_well = balance.is_balanced() && outcome.is_ok();
    Ok(if is_well { Ending::Balanced } else { Ending::Unbalanced })
}

impl Reason {
    fn text(&self) -> &'static str {
        match self {
            Self::Done => "every message has an outcome; stopping the worker and closing the books",
            Self::Interrupted => {
                "interrupted; the worker finishes what it started (again: at once)"
            }
            Self::Stuck(text) => text,
            Self::WorkerEnded(_) => "the worker ended by itself; closing the books",
        }
    }
}

/// Looks at the books until there is a reason to stop.
struct Watch<'a> {
    books: &'a Mutex<Books>,
    progress: &'a mut Progress,
    /// When the first outcome was seen.
    first: Option<Instant>,
    /// When something moved.
    last: Instant,
}

impl Watch<'_> {
    async fn until_done(
        &mut self,
        worker: &mut RunningWorker,
        reader: &Reader,
        signals: &mut Signals,
    ) -> Reason {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut before = 0;
        loop {
            tokio::select! {
                () = signals.next() => return Reason::Interrupted,
                outcome = worker.ended() => return Reason::WorkerEnded(outcome),
                _ = tick.tick() => {}
            }
            let (standing, total) = {
                let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
                (books.standing(), books.planned())
            };
            self.progress.show(standing);
            if standing.done > before || standing.done == standing.sent {
                before = standing.done;
                self.last = Instant::now();
            }
            if standing.done > 0 && self.first.is_none() {
                self.first = Some(Instant::now());
            }
            if standing.done == total {
                return Reason::Done;
            }
            if reader.has_ended() {
                return Reason::Stuck("the sinks cannot be read back; closing the books");
            }
            if PATIENCE < self.last.elapsed() {
                return Reason::Stuck("nothing has moved for a minute; closing the books");
            }
        }
    }
}

/// The worker, and how to stop it.
struct RunningWorker {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl RunningWorker {
    fn start(broker: &Broker, directory: &Path) -> anyhow::Result<Self> {
        let marks = directory.join("marks");
        fs::create_dir(&marks).context("cannot use the working directory")?;
        let worker = Worker::new(WordCount { marks }).config(config(broker, directory))?;
        let (stop, stopped) = oneshot::channel::<()>();
        // Told to stop, or nobody is left to tell: the same.
        let task = tokio::spawn(worker.run_until(async { drop(stopped.await) }));
        Ok(Self { stop: Some(stop), task })
    }

    async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.task).await.context("the worker panicked")?.context("the worker failed")
    }

    /// Lets it finish what it started; `None` if a signal came first.
    async fn stop(mut self, signals: &mut Signals) -> Option<anyhow::Result<()>> {
        drop(self.stop.take());
        tokio::select! {
            outcome = self.ended() => return Some(outcome),
            () = signals.next() => {}
        }
        self.task.abort();
        None
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a user would write, but for what the embedded broker asks for.
fn config(broker: &Broker, directory: &Path) -> Config {
    let mut config = Config::default();
    config.kafka.brokers = broker.address();
    config.kafka.source_topic = REQUESTS.into();
    config.kafka.consumer_group = GROUP.into();
    config.kafka.startup_align_enabled = false; // There is nobody to wait for.
    // The broker does not wake a waiting fetch.
    config.kafka.client_config =
        BTreeMap::from([("fetch.wait.max.ms".to_owned(), "10".to_owned())]);

    config.executor.binary_path = Some("wc".into());
    // Two more than the tasks that hang at the same time could occupy on a small machine.
    config.executor.max_executors = thread::available_parallelism().ok().max(NonZeroUsize::new(4));
    config.executor.max_retries = 2;
    config.executor.retry_backoff_initial = Duration::from_millis(50);
    config.executor.kill_grace = Duration::from_millis(500);
    config.executor.drain_timeout_seconds = Duration::from_secs(10);
    config.executor.max_stdout_bytes = 64 << 10;

    let results = KafkaSinkConfig { topic: RESULTS.to_owned(), ..KafkaSinkConfig::default() };
    config.sinks.kafka.insert("results".to_owned(), results);
    let files = FileSinkConfig { base_path: directory.to_owned(), ..FileSinkConfig::default() };
    config.sinks.filesystem.insert("files".to_owned(), files);

    config.metrics.enabled = false;
    config.metrics.host = "127.0.0.1".into();
    config.metrics.port = 0;
    config.logging.output = LogOutput::File(directory.join("worker.log").display().to_string());
    config
}

/// Reads what has not been read yet, and closes the books.
fn close(
    books: &Mutex<Books>,
    broker: &Broker,
    directory: &Path,
    is_complete: bool,
) -> anyhow::Result<Balance> {
    let positions = broker.positions()?;
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    let unreadable = "cannot read the result file back";
    match fs::File::open(directory.join(RESULTS_FILE)) {
        Ok(file) => {
            for line in io::BufReader::new(file).split(b'\n') {
                books.line(&line.context(unreadable)?);
            }
        }
        // An interrupted run may have written none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(unreadable),
    }
    Ok(books.balance(&positions, is_complete))
}

/// Most memory this process had resident, in bytes.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
