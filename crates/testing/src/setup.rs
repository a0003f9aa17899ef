//! What is left of a world when its worker has crashed, and what it takes to start one.

use std::sync::{Arc, Mutex};

use drakkar_core::{DeadLetter, FilePayload, Handler, KafkaPayload, Ready, backpressure::Limits};
use drakkar_executor::{ExecutorConfig, Pool, StandIn};
use drakkar_pipeline::{Periodic, Pipeline, Settings, Status, Stop};
use drakkar_sinks::{Sinks, SinksBuilder, SinksConfig};
use drakkar_telemetry::Metrics;
use tokio::sync::watch;

use crate::{
    Recorded, Runs, Script, World,
    patience::is_paused,
    place::{Opened, Place},
    processes::{Play, Stage},
    running::Running,
    state::{Accepted, Log, State},
};

/// What a world needs to begin again after a crash.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) executor: ExecutorConfig,
    pub(crate) patience: SinksConfig,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) partitions: i32,
    pub(crate) kafka: Vec<(String, Script<KafkaPayload>)>,
    pub(crate) files: Vec<(String, Script<FilePayload>)>,
    /// What adds the sinks of the user's own.
    pub(crate) others: Vec<Arc<AddSink>>,
    pub(crate) dead_letters: Script<DeadLetter>,
    pub(crate) play: Option<Arc<Play>>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) runs: Runs,
}

/// Adds a sink.
pub(crate) type AddSink = dyn Fn(SinksBuilder) -> SinksBuilder + Send + Sync;

impl Setup {
    /// Starts a pipeline around `handler` that reads from `place`.
    #[track_caller]
    pub(crate) fn start<H: Handler>(
        self,
        handler: H,
        periodics: Vec<Periodic<H>>,
        place: Place,
    ) -> World {
        let fault = watch::Sender::new(None);
        #[allow(clippy::expect_used)] // A test cannot go on without these.
        let metrics = Arc::new(Metrics::new().expect("metric names are unique"));
        let stand_in: Arc<dyn StandIn> = Arc::new(Stage {
            runs: self.runs.clone(),
            play: self.play.clone(),
            is_paused: is_paused(),
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
            accepted: self.accepted(),
            dead_letters: self.dead_letters.recorded(),
            fault,
        });
        self.belongs_to(&state);
        let (stop, status) = (Stop::default(), Arc::new(Status::default()));
        let mut ready = Ready::default();
        ready.provide(metrics.registry().clone());
        sinks.names().into_iter().for_each(|name| ready.connected(name));
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
            results: self.kafka[0].1.recorded(),
            files: self.files[0].1.recorded(),
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

    fn sinks(&self, metrics: &Arc<Metrics>) -> Sinks {
        let mut sinks = Sinks::builder(Arc::clone(metrics) as _).config(&self.patience);
        for (name, script) in &self.kafka {
            sinks = sinks.kafka(name, script.clone());
        }
        for (name, script) in &self.files {
            sinks = sinks.filesystem(name, script.clone());
        }
        for add in &self.others {
            sinks = add(sinks);
        }
        sinks.dead_letter(self.dead_letters.clone()).build()
    }

    fn accepted(&self) -> Vec<Accepted> {
        fn of<P: Send + Sync + 'static>(name: &str, recorded: Recorded<P>) -> Accepted {
            (name.to_owned(), Box::new(move || recorded.len()))
        }
        let kafka = self.kafka.iter().map(|(name, script)| of(name, script.recorded()));
        let files = self.files.iter().map(|(name, script)| of(name, script.recorded()));
        kafka.chain(files).collect()
    }

    /// What is waited for in vain shows this world.
    fn belongs_to(&self, state: &Arc<State>) {
        self.runs.belongs_to(Arc::downgrade(state));
        self.dead_letters.recorded().belongs_to(Arc::downgrade(state));
        let kafka = self.kafka.iter().map(|(_, script)| script.recorded());
        kafka.for_each(|recorded| recorded.belongs_to(Arc::downgrade(state)));
        let files = self.files.iter().map(|(_, script)| script.recorded());
        files.for_each(|recorded| recorded.belongs_to(Arc::downgrade(state)));
    }
}
