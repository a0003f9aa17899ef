//! A pipeline with its two ends in the hands of a test.

use std::{panic::Location, sync::Arc, time::Duration};

use bytes::Bytes;
use drakkar_core::{
    DeadLetter, FilePayload, Handler, HttpPayload, KafkaPayload, MongoPayload, Offset,
    PostgresPayload, RedisPayload, SourceMessage, TopicPartition, source::Position,
};
use drakkar_executor::Pool;
use drakkar_pipeline::{PipelineError, Status, Stop};
use drakkar_telemetry::Metrics;
use tokio::time::timeout;

use crate::{
    Record, Recorded, Runs, WorldBuilder, lock,
    origin::{Origin, REBALANCE_GRACE},
    patience::{PATIENCE, wait},
    place::Place,
    running::{Ended, Running},
    setup::Setup,
    state::State,
};

/// The topic that [`World`] plays. (At a broker, each world has one of its own: [`World::topic`].)
pub const TOPIC: &str = "orders";

/// A message of the topic that [`World`] plays.
#[must_use]
pub fn message(partition: i32, offset: i64, value: impl Into<Bytes>) -> SourceMessage {
    Record::from(value).at(TopicPartition::new(TOPIC, partition), offset)
}

/// A running pipeline. All partitions are assigned at the start; there is one, unless
/// [`WorldBuilder::partitions`] says otherwise.
pub struct World {
    /// What the (first) Kafka sink accepted.
    pub results: Recorded<KafkaPayload>,
    /// What the (first) file sink accepted.
    pub files: Recorded<FilePayload>,
    /// What the (first) PostgreSQL sink accepted.
    pub postgres: Recorded<PostgresPayload>,
    /// What the (first) MongoDB sink accepted.
    pub mongo: Recorded<MongoPayload>,
    /// What the (first) Redis sink accepted.
    pub redis: Recorded<RedisPayload>,
    /// What the (first) HTTP sink accepted.
    pub http: Recorded<HttpPayload>,
    /// What the dead-letter topic accepted.
    pub dead_letters: Recorded<DeadLetter>,
    /// The runs of programs, real or played.
    pub runs: Runs,
    /// The metrics of the pipeline.
    pub metrics: Arc<Metrics>,
    /// The pool tasks run in.
    pub pool: Pool,
    /// What the probes would see.
    pub status: Arc<Status>,
    pub(crate) state: Arc<State>,
    pub(crate) origin: Origin,
    pub(crate) stop: Stop,
    pub(crate) running: Option<Running>,
    pub(crate) place: Place,
    pub(crate) setup: Setup,
}

/// What a worker leaves behind that was killed; see [`World::crash`].
pub struct Wreck {
    place: Place,
    setup: Setup,
}

impl Wreck {
    /// Starts another worker in its place: it reads from what was committed. Sinks, runs and dead
    /// letters are recorded where they were before.
    #[must_use]
    #[track_caller]
    pub fn restart<H: Handler>(self, handler: H) -> World {
        self.setup.start(handler, Vec::new(), self.place)
    }
}

impl World {
    /// A pipeline around `handler`: two slots, windows of 10, short waits.
    pub fn of<H: Handler>(handler: H) -> WorldBuilder<H> {
        WorldBuilder::new(handler)
    }

    /// Name of the topic that the handler reads.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.state.topic
    }

    /// Writes a record; returns its offset.
    ///
    /// # Panics
    ///
    /// When the topic has no such partition: nobody would read it, or wait for it. When the broker does
    /// not take it.
    #[track_caller]
    pub fn produce(&mut self, partition: i32, record: impl Into<Record>) -> Offset {
        self.must_be_there(&self.state.id(partition));
        let offset = lock(&self.state.log).end(partition);
        let message = record.into().at(self.state.id(partition), offset);
        lock(&self.state.log).append(message.clone());
        match &self.origin {
            Origin::Played(source) => source.send(message),
            #[cfg(feature = "kafka")]
            Origin::Broker(broker) => broker.produce(&message),
        }
        Offset(offset)
    }

    /// Checks that the partition is one of the topic, or was assigned besides.
    #[track_caller]
    pub(crate) fn must_be_there(&self, id: &TopicPartition) {
        let is_there = match &self.origin {
            Origin::Played(source) => source.load(id).is_some(),
            #[cfg(feature = "kafka")]
            Origin::Broker(_) => (0..self.setup.partitions).contains(&id.partition),
        };
        let wanted = id.partition.saturating_add(1);
        assert!(is_there, "{id} is not there: World::of(..).partitions({wanted})");
    }

    /// Waits until everything that was produced is settled and committed, of all partitions that the
    /// worker has.
    ///
    /// # Panics
    ///
    /// When that does not happen in time: within a minute, or an hour of paused time. The text shows
    /// what is open, what runs, and which sink holds something.
    #[track_caller]
    pub fn settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let wanted = |state: &State| state.is_settled();
        self.commits("everything to be committed".to_owned(), PATIENCE, wanted)
    }

    /// Waits until everything below `next` of a partition is committed.
    ///
    /// # Panics
    ///
    /// As [`World::settled`].
    #[track_caller]
    pub fn committed(
        &mut self,
        partition: i32,
        next: i64,
    ) -> impl Future<Output = ()> + Send + use<> {
        let what = format!("{} to be committed up to {next}", self.state.id(partition));
        self.commits(what, PATIENCE, move |state| state.is_committed(partition, next))
    }

    #[track_caller]
    fn commits<F: Fn(&State) -> bool + Send + Sync>(
        &self,
        what: String,
        patience: Duration,
        wanted: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let (state, at) = (Arc::clone(&self.state), Location::caller());
        async move {
            let happened = state.commits.until(|| wanted(&state));
            wait(what, &Arc::downgrade(&state), patience, at, happened).await;
        }
    }

    /// Checks that the message at `offset` is not committed for this long, in tokio's time.
    ///
    /// # Panics
    ///
    /// When it is; the text shows the world.
    #[track_caller]
    pub fn not_committed(
        &self,
        partition: i32,
        offset: i64,
        during: Duration,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (state, at) = (Arc::clone(&self.state), Location::caller());
        async move {
            let committed = state.commits.until(|| state.is_committed(partition, offset + 1));
            let is_committed = timeout(during, committed).await.is_ok();
            let id = state.id(partition);
            assert!(!is_committed, "{at}: {id}:{offset} was committed within {during:?}\n{state}");
        }
    }

    /// What is committed of a partition: the offset a new worker would begin with.
    #[must_use]
    pub fn committed_offset(&self, partition: i32) -> i64 {
        self.state.position(partition).map_or(0, |position| position.next.0)
    }

    /// What is committed of a partition, with the done map.
    #[must_use]
    pub fn position(&self, partition: i32) -> Option<Position> {
        self.state.position(partition)
    }

    /// Checks that no message was given up.
    ///
    /// # Panics
    ///
    /// When one was; the text says which, and why.
    #[track_caller]
    pub fn assert_no_dead_letters(&self) {
        assert!(self.dead_letters.is_empty(), "messages were given up\n{}", self.state);
    }

    /// Another worker joins the group, gets half of the partitions, and leaves again; then all are back.
    ///
    /// # Panics
    ///
    /// Where there is only one partition; and when they do not come back in time.
    #[track_caller]
    pub fn rebalance(&mut self) -> impl Future<Output = ()> + Send {
        let at = Location::caller();
        let count = self.setup.partitions;
        assert!(count > 1, "of one partition no half can move: World::of(..).partitions(2)");
        async move {
            match &self.origin {
                Origin::Played(_) => self.take_half_and_give_it_back(count).await,
                #[cfg(feature = "kafka")]
                Origin::Broker(broker) => broker.visit().await,
            }
            let all_are_back = async {
                while self.status.view().assigned < usize::try_from(count).unwrap_or(0) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let (what, world) = ("all partitions to come back", Arc::downgrade(&self.state));
            wait(what, &world, PATIENCE, at, all_are_back).await;
        }
    }

    async fn take_half_and_give_it_back(&mut self, count: i32) {
        for partition in count / 2..count {
            self.revoke(partition, REBALANCE_GRACE).await;
        }
        for partition in count / 2..count {
            self.give_back(partition);
        }
    }

    /// Kills the worker: nothing more is committed, what ran is gone.
    pub async fn crash(mut self) -> Wreck {
        if let Some(running) = self.running.take() {
            running.abort().await;
        }
        self.pool.close().await;
        self.runs.end_all();
        let Self { mut origin, place, setup, .. } = self;
        origin.gone().await;
        Wreck { place, setup }
    }

    /// Asks the worker to stop, as SIGTERM does, and waits until it has: what was started is finished and
    /// committed. The world stays, to be looked at.
    ///
    /// # Errors
    ///
    /// What the pipeline ended with.
    ///
    /// # Panics
    ///
    /// When the pipeline itself panicked, or goes on for a minute.
    pub async fn shutdown(&mut self) -> Result<(), PipelineError> {
        self.begin_stop();
        self.join().await
    }

    /// Asks the pipeline to finish; see [`World::ended`].
    pub fn begin_stop(&self) {
        self.stop.drain.cancel();
    }

    /// Asks the pipeline to drop what is left now; see [`World::ended`].
    pub fn stop_now(&self) {
        self.stop.now.cancel();
    }

    /// Asks the pipeline to finish, and waits for it.
    ///
    /// # Errors
    ///
    /// As [`World::shutdown`].
    ///
    /// # Panics
    ///
    /// As [`World::shutdown`].
    pub async fn stop(mut self) -> Result<(), PipelineError> {
        self.shutdown().await
    }

    /// Waits for the pipeline to end by itself.
    ///
    /// # Errors
    ///
    /// As [`World::shutdown`].
    ///
    /// # Panics
    ///
    /// As [`World::shutdown`].
    pub async fn ended(mut self) -> Result<(), PipelineError> {
        self.join().await
    }

    async fn join(&mut self) -> Result<(), PipelineError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let Ended { outcome, closing } = running.join(&self.state).await;
        self.pool.close().await;
        self.origin.close().await;
        closing.await;
        outcome
    }
}
