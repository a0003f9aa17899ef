//! What is left of a world when its worker has crashed, and what it takes to start one.

use std::sync::{Arc, Mutex};

use drakkar_core::{DeadLetter, Handler, Ready, backpressure::Limits};
use drakkar_executor::{ExecutorConfig, Mode, Pool, StandIn};
use drakkar_pipeline::{Periodic, Pipeline, Settings, Status, Stop};
use drakkar_sinks::{BatchConfig, Sinks, SinksBuilder, SinksConfig};
use drakkar_telemetry::Metrics;
use tokio::sync::watch;

use crate::{
    Runs, Script, World,
    kinds::Kinds,
    patience::is_paused,
    place::{Opened, Place},
    processes::{Play, REAL_IN_PAUSED_TIME, Stage},
    running::Running,
    state::{Log, State},
};

/// What a world needs to begin again after a crash.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) executor: ExecutorConfig,
    pub(crate) patience: SinksConfig,
    /// How payloads are joined for them.
    pub(crate) batch: BatchConfig,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) partitions: i32,
    pub(crate) kinds: Kinds,
    /// What adds the sinks of the user's own.
    pub(crate) others: Vec<Arc<AddSink>>,
    /// What `on_ready` is given besides.
    pub(crate) offers: Vec<Arc<Offer>>,
    pub(crate) dead_letters: Script<DeadLetter>,
    pub(crate) play: Option<Arc<Play>>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) runs: Runs,
}

/// Adds a sink.
pub(crate) type AddSink = dyn Fn(SinksBuilder) -> SinksBuilder + Send + Sync;

/// Gives something to `on_ready`.
pub(crate) type Offer = dyn Fn(&mut Ready) + Send + Sync;

impl Setup {
    /// Starts a pipeline around `handler` that reads from `place`.
    #[track_caller]
    pub(crate) fn start<H: Handler>(
        self,
        handler: H,
        periodics: Vec<Periodic<H>>,
        place: Place,
    ) -> World {
        let is_paused = is_paused();
        let programs = self.executor.programs.values();
        assert!(
            self.play.is_some()
                || !is_paused
                || programs.into_iter().all(|program| program.mode == Mode::OneShot),
            "a persistent program would be started: {REAL_IN_PAUSED_TIME}"
        );
        let fault = watch::Sender::new(None);
        #[allow(clippy::expect_used)] // A test cannot go on without these.
        let metrics = Arc::new(Metrics::new().expect("metric names are unique"));
        let stand_in: Arc<dyn StandIn> = Arc::new(Stage {
            runs: self.runs.clone(),
            play: self.play.clone(),
            is_paused,
            fault: fault.clone(),
        });
        #[allow(clippy::expect_used)]
        let pool = Pool::start_with(&self.executor, Some(&stand_in)).expect("the pool starts");
        let sinks = self.sinks(&metrics);
        let Opened { origin, commits, events, control } = place.open(Arc::clone(&metrics) as _);
        let state = Arc::new(State {
            topic: place.topic(),
            log: Arc::clone(&self.log),
            commits,
            runs: self.runs.clone(),
            pool: pool.clone(),
            sinks: sinks.clone(),
            accepted: self.kinds.accepted(),
            dead_letters: self.dead_letters.recorded(),
            fault,
        });
        self.belongs_to(&state);
        let (stop, status) = (Stop::default(), Arc::new(Status::default()));
        let ready = self.ready(&metrics, &sinks);
        let mut pipeline = Pipeline::new(
            handler,
            pool.clone(),
            sinks,
            Arc::clone(&metrics),
            self.settings,
            events,
            control,
            Arc::clone(&status),
        );
        for periodic in periodics {
            pipeline.every(periodic);
        }
        let drain = self.executor.drain_timeout_seconds;
        let running = Running::start(pipeline, ready, stop.clone(), drain, state.fault.clone());
        let mut world = World {
            results: self.kinds.kafka.first(),
            files: self.kinds.files.first(),
            postgres: self.kinds.postgres.first(),
            mongo: self.kinds.mongo.first(),
            redis: self.kinds.redis.first(),
            http: self.kinds.http.first(),
            dead_letters: self.dead_letters.recorded(),
            runs: self.runs.clone(),
            metrics,
            pool,
            status,
            state,
            origin,
            stop,
            running: Some(running),
            place,
            setup: self,
        };
        world.assign_all();
        world
    }

    /// What `on_ready` is told.
    fn ready(&self, metrics: &Metrics, sinks: &Sinks) -> Ready {
        let mut ready = Ready::default();
        ready.provide(metrics.registry().clone());
        self.offers.iter().for_each(|offer| offer(&mut ready));
        let offered = ready.sinks().to_vec();
        let others = sinks.names().into_iter().filter(|name| !offered.contains(name));
        others.for_each(|name| ready.connected(name));
        ready
    }

    fn sinks(&self, metrics: &Arc<Metrics>) -> Sinks {
        let sinks = Sinks::builder(Arc::clone(metrics) as _);
        let sinks = sinks.config(&self.patience).batch(&self.batch);
        let sinks = self.others.iter().fold(self.kinds.add_to(sinks), |sinks, add| add(sinks));
        sinks.dead_letter(self.dead_letters.clone()).build()
    }

    /// What is waited for in vain shows this world.
    fn belongs_to(&self, state: &Arc<State>) {
        self.runs.belongs_to(Arc::downgrade(state));
        self.dead_letters.recorded().belongs_to(Arc::downgrade(state));
        self.kinds.belongs_to(state);
    }
}
