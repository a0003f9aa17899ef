//! A pipeline with its two ends in the hands of a test.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{
    DeadLetter, FilePayload, Handler, KafkaPayload, Offset, OnInvalid, SourceMessage,
    TopicPartition,
    backpressure::Limits,
    flood::FloodLimits,
    retry::Backoff,
    source::{Position, SourceEvent, SourceFailure},
};
use drakkar_executor::{ExecutorConfig, Pool};
use drakkar_pipeline::{CommitPace, Pipeline, PipelineError, Settings, Status, Stop};
use drakkar_sinks::Sinks;
use drakkar_telemetry::Metrics;
use tokio::{task::JoinHandle, time::timeout};

use crate::{Book, HandedOver, Recorded, Script, script::lock, source::TestSource};

/// The topic that [`World`] plays.
pub const TOPIC: &str = "orders";

/// How long a test waits for what it expects before it fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A message of the topic that [`World`] plays.
#[must_use]
pub fn message(partition: i32, offset: i64, value: impl Into<Bytes>) -> SourceMessage {
    SourceMessage {
        partition: TopicPartition::new(TOPIC, partition),
        offset: Offset(offset),
        timestamp: None,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

/// Sets a [`World`] up.
pub struct WorldBuilder<H> {
    handler: H,
    executor: ExecutorConfig,
    settings: Settings,
    limits: Limits,
    results: Script<KafkaPayload>,
    files: Script<FilePayload>,
    dead_letters: Script<DeadLetter>,
}

impl<H: Handler> WorldBuilder<H> {
    /// Changes what the configuration would say about the pool.
    #[must_use]
    pub fn executor(mut self, change: impl FnOnce(&mut ExecutorConfig)) -> Self {
        change(&mut self.executor);
        self
    }

    /// Changes what the configuration would say about the pipeline.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The Kafka sink `results` answers as `script` says.
    #[must_use]
    pub fn results(mut self, script: &Script<KafkaPayload>) -> Self {
        self.results = script.clone();
        self
    }

    /// The dead-letter topic answers as `script` says.
    #[must_use]
    pub fn dead_letters(mut self, script: &Script<DeadLetter>) -> Self {
        self.dead_letters = script.clone();
        self
    }

    /// When a partition pauses, and when it goes on.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the pipeline with partition 0 assigned.
    ///
    /// # Panics
    ///
    /// When the pool does not start.
    pub fn start(self) -> World {
        let (mut source, events, control) = TestSource::new();
        #[allow(clippy::expect_used)] // A test cannot go on without these.
        let metrics = Arc::new(Metrics::new().expect("metric names are unique"));
        #[allow(clippy::expect_used)]
        let pool = Pool::start(&self.executor).expect("the pool starts");
        let sinks = Sinks::builder(Arc::clone(&metrics) as _)
            .backoff(Backoff {
                initial: Duration::from_millis(10),
                max: Duration::from_millis(100),
            })
            .kafka("results", self.results.clone())
            .filesystem("files", self.files.clone())
            .dead_letter(self.dead_letters.clone())
            .build();
        let status = Arc::new(Status::default());
        let pipeline = Pipeline::new(
            self.handler,
            pool.clone(),
            sinks,
            Arc::clone(&metrics),
            self.settings,
            events,
            control,
            Arc::clone(&status),
        );
        let stop = Stop::default();
        let drain = self.executor.drain_timeout_seconds;
        let running = tokio::spawn(pipeline.run(stop.clone(), drain));
        source.assign(&TopicPartition::new(TOPIC, 0), self.limits, None);
        World {
            source,
            limits: self.limits,
            next: HashMap::new(),
            results: self.results.recorded(),
            files: self.files.recorded(),
            dead_letters: self.dead_letters.recorded(),
            metrics,
            pool,
            status,
            stop,
            running,
        }
    }
}

/// A running pipeline. The topic is called [`TOPIC`]; partition 0 is assigned at the start.
pub struct World {
    source: TestSource,
    limits: Limits,
    next: HashMap<i32, i64>,
    /// What the Kafka sink `results` accepted.
    pub results: Recorded<KafkaPayload>,
    /// What the file sink `files` accepted.
    pub files: Recorded<FilePayload>,
    /// What the dead-letter topic accepted.
    pub dead_letters: Recorded<DeadLetter>,
    /// The metrics of the pipeline.
    pub metrics: Arc<Metrics>,
    /// The pool tasks run in.
    pub pool: Pool,
    /// What the probes would see.
    pub status: Arc<Status>,
    stop: Stop,
    running: JoinHandle<Result<(), PipelineError>>,
}

impl World {
    /// A pipeline around `handler`: two slots, windows of 10, short waits.
    pub fn of<H: Handler>(handler: H) -> WorldBuilder<H> {
        let executor = ExecutorConfig {
            max_executors: std::num::NonZeroUsize::new(2),
            kill_grace: Duration::from_millis(200),
            ..ExecutorConfig::default()
        };
        let settings = Settings {
            window_size: 10,
            max_in_flight: 40,
            max_in_pool: 64,
            max_hooks: 64,
            max_result_bytes: 16 << 20,
            max_retries: 3,
            max_replacements: 3,
            backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(50) },
            hook_timeout: Duration::from_secs(10),
            on_invalid: OnInvalid::DeadLetter,
            flood: FloodLimits {
                max_consecutive: 0,
                max_ratio: 0.0,
                probe_interval: Duration::from_secs(30),
            },
            commit: CommitPace { interval: Duration::from_millis(20), every: 1_000 },
        };
        WorldBuilder {
            handler,
            executor,
            settings,
            limits: Limits::new(100_000, 64 << 20),
            results: Script::confirming(),
            files: Script::confirming(),
            dead_letters: Script::confirming(),
        }
    }

    /// Assigns another partition.
    pub fn assign(&mut self, partition: i32, committed: Option<Position>) {
        let id = TopicPartition::new(TOPIC, partition);
        if let Some(committed) = &committed {
            self.next.insert(partition, committed.next.0);
        }
        self.source.assign(&id, self.limits, committed);
    }

    /// Sends a message with this value; returns its offset.
    pub fn produce(&mut self, partition: i32, value: impl Into<Bytes>) -> Offset {
        let next = self.next.entry(partition).or_default();
        let offset = *next;
        *next += 1;
        self.source.send(message(partition, offset, value));
        Offset(offset)
    }

    /// Sends this very message.
    pub fn send(&mut self, message: SourceMessage) {
        self.next.insert(message.partition.partition, message.offset.0 + 1);
        self.source.send(message);
    }

    /// Waits until everything below `next` of a partition is committed.
    ///
    /// # Panics
    ///
    /// When that does not happen within a minute; the text says what was committed instead.
    pub async fn committed(&mut self, partition: i32, next: i64) {
        self.committed_within(partition, next, PATIENCE).await;
    }

    /// The same for a test that knows it takes longer (or, with paused time, seems to).
    ///
    /// # Panics
    ///
    /// When that does not happen in time; the text says what was committed instead.
    pub async fn committed_within(&mut self, partition: i32, next: i64, patience: Duration) {
        let id = TopicPartition::new(TOPIC, partition);
        let wanted =
            |book: &Book| book.position(&id).is_some_and(|position| next <= position.next.0);
        self.until_within("a commit", patience, wanted).await;
    }

    /// Takes a partition away in order; returns its last word.
    ///
    /// # Panics
    ///
    /// When it is not handed over within a minute.
    pub async fn revoke(&mut self, partition: i32, grace: Duration) -> HandedOver {
        self.begin_revoke(partition, grace);
        self.handed_over(partition).await
    }

    /// Begins to take a partition away in order.
    pub fn begin_revoke(&self, partition: i32, grace: Duration) {
        let id = TopicPartition::new(TOPIC, partition);
        self.source.tell(SourceEvent::Revoked { partitions: vec![id], grace });
    }

    /// Waits until a partition takes no more messages because it is being handed over.
    pub async fn draining(&self, partition: i32) {
        self.source.closed(&TopicPartition::new(TOPIC, partition)).await;
    }

    /// Waits for the last word of a partition.
    ///
    /// # Panics
    ///
    /// When it is not handed over within a minute.
    pub async fn handed_over(&mut self, partition: i32) -> HandedOver {
        let id = TopicPartition::new(TOPIC, partition);
        self.until("a hand-over", |book| book.handed_over.iter().any(|(tp, _)| *tp == id)).await;
        self.book(|book| book.handed_over.iter().rev().find(|(tp, _)| *tp == id).cloned())
            .map_or(HandedOver { epoch: 0, position: None }, |(_, over)| over)
    }

    /// Takes a partition away without a hand-over.
    pub fn lose(&mut self, partition: i32) {
        let id = TopicPartition::new(TOPIC, partition);
        self.source.tell(SourceEvent::Lost { partitions: vec![id] });
    }

    /// The poll thread cannot go on.
    pub fn fail_source(&self, message: &str) {
        let failure = SourceFailure { message: message.to_owned() };
        self.source.tell(SourceEvent::Failed(failure));
    }

    /// Asks the pipeline to finish; see [`World::ended`].
    pub fn begin_stop(&self) {
        self.stop.drain.cancel();
    }

    /// Asks the pipeline to drop what is left now; see [`World::ended`].
    pub fn stop_now(&self) {
        self.stop.now.cancel();
    }

    /// What the pipeline asked of the source so far.
    pub fn book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&lock(&self.source.book))
    }

    /// The book itself, for a look after the world has ended.
    #[must_use]
    pub fn book_handle(&self) -> Arc<Mutex<Book>> {
        Arc::clone(&self.source.book)
    }

    /// Messages of a partition that are polled and not settled.
    #[must_use]
    pub fn held(&self, partition: i32) -> usize {
        let id = TopicPartition::new(TOPIC, partition);
        self.source.load(&id).map_or(0, drakkar_core::backpressure::Load::messages)
    }

    /// Waits until the book looks like this.
    ///
    /// # Panics
    ///
    /// When it does not within a minute.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Book) -> bool) {
        self.until_within(what, PATIENCE, wanted).await;
    }

    async fn until_within(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Book) -> bool,
    ) {
        let waiting = async {
            while !wanted(&lock(&self.source.book)) {
                if self.source.changed.changed().await.is_err() {
                    break;
                }
            }
        };
        let in_time = timeout(patience, waiting).await.is_ok();
        let seen = wanted(&lock(&self.source.book));
        assert!(in_time && seen, "no {what} in time: {:?}", lock(&self.source.book));
    }

    /// Asks the pipeline to finish, and waits for it.
    ///
    /// # Errors
    ///
    /// What the pipeline ended with.
    ///
    /// # Panics
    ///
    /// When the pipeline itself panicked.
    pub async fn stop(self) -> Result<(), PipelineError> {
        self.begin_stop();
        self.ended().await
    }

    /// Waits for the pipeline to end by itself.
    ///
    /// # Errors
    ///
    /// What the pipeline ended with.
    ///
    /// # Panics
    ///
    /// When the pipeline itself panicked, or goes on for a minute.
    pub async fn ended(self) -> Result<(), PipelineError> {
        #[allow(clippy::expect_used)] // The test has failed, and says how.
        let outcome = timeout(PATIENCE, self.running)
            .await
            .expect("the pipeline ends in time")
            .expect("the pipeline does not panic");
        self.pool.close().await;
        outcome
    }
}
