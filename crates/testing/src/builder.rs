//! What a world is made of: a handler, the settings of a worker, sinks, and where messages come from.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{
    DeadLetter, FilePayload, Handler, KafkaPayload, OnInvalid, Ready, backpressure::Limits,
    order::Ordering, retry::Backoff,
};
use drakkar_executor::{ExecutorConfig, Pool, Scripted, StandIn};
use drakkar_pipeline::{CommitPace, Periodic, Pipeline, Settings, Status, Stop};
use drakkar_sinks::Sinks;
use drakkar_telemetry::Metrics;
use tokio::sync::watch;

use crate::{
    Call, Recorded, Runs, Script, World, aggregates,
    origin::{self, SWITCH},
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
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) partitions: i32,
    kafka: Vec<(String, Script<KafkaPayload>)>,
    files: Vec<(String, Script<FilePayload>)>,
    dead_letters: Script<DeadLetter>,
    play: Option<Arc<Play>>,
    pub(crate) log: Arc<Mutex<Log>>,
    pub(crate) runs: Runs,
}

/// Sets a [`World`] up; see [`World::of`].
pub struct WorldBuilder<H> {
    handler: H,
    periodics: Vec<Periodic<H>>,
    setup: Setup,
    is_in_memory: bool,
    may_have_unused_hooks: bool,
}

impl<H: Handler> WorldBuilder<H> {
    pub(crate) fn new(handler: H) -> Self {
        let executor = ExecutorConfig {
            max_executors: NonZeroUsize::new(2),
            kill_grace: Duration::from_millis(200),
            ..ExecutorConfig::default()
        };
        let settings = Settings {
            window_size: 10,
            max_in_flight: 40,
            max_in_pool: 64,
            max_hooks: 64,
            max_result_bytes: 16 << 20,
            ordering: Ordering::Unordered,
            priority_ageing: Duration::from_mins(1),
            max_retries: 3,
            max_replacements: 3,
            backoff: Backoff { initial: Duration::from_millis(10), max: Duration::from_millis(50) },
            hook_timeout: Duration::from_secs(10),
            on_invalid: OnInvalid::DeadLetter,
            commit: CommitPace { interval: Duration::from_millis(20), every: 1_000 },
        };
        let setup = Setup {
            executor,
            settings,
            limits: Limits::new(100_000, 64 << 20),
            partitions: 1,
            kafka: Vec::new(),
            files: Vec::new(),
            dead_letters: Script::confirming(),
            play: None,
            log: Arc::default(),
            runs: Runs::new(),
        };
        Self {
            handler,
            periodics: Vec::new(),
            setup,
            is_in_memory: false,
            may_have_unused_hooks: false,
        }
    }

    /// Does `periodic` while the pipeline runs.
    #[must_use]
    pub fn every(mut self, periodic: Periodic<H>) -> Self {
        self.periodics.push(periodic);
        self
    }

    /// Changes what the section `executor` of the configuration would say.
    #[must_use]
    pub fn executor(mut self, change: impl FnOnce(&mut ExecutorConfig)) -> Self {
        let before = self.setup.executor.clone();
        change(&mut self.setup.executor);
        follow(&mut self.setup.settings, &before, &self.setup.executor);
        self
    }

    /// Changes what the pipeline is told by the configuration, whatever that says.
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.setup.settings);
        self
    }

    /// Programs are not run: `play` says what each would have done. Slots, time limits, retries and
    /// kills are the real ones, and time is tokio's, which a test may pause.
    #[must_use]
    pub fn processes(mut self, play: impl Fn(&Call) -> Scripted + Send + Sync + 'static) -> Self {
        self.setup.play = Some(Arc::new(play));
        self
    }

    /// How many partitions the topic has; all are assigned. The default is 1.
    #[must_use]
    pub fn partitions(mut self, count: i32) -> Self {
        self.setup.partitions = count;
        self
    }

    /// The Kafka sink `results` answers as `script` says.
    #[must_use]
    pub fn results(self, script: &Script<KafkaPayload>) -> Self {
        self.kafka_sink("results", script)
    }

    /// Adds a Kafka sink, for a handler that names its sinks. Without any there is one, `results`.
    #[must_use]
    pub fn kafka_sink(mut self, name: &str, script: &Script<KafkaPayload>) -> Self {
        self.setup.kafka.push((name.to_owned(), script.clone()));
        self
    }

    /// Adds a file sink. Without any there is one, `files`.
    #[must_use]
    pub fn file_sink(mut self, name: &str, script: &Script<FilePayload>) -> Self {
        self.setup.files.push((name.to_owned(), script.clone()));
        self
    }

    /// The dead-letter topic answers as `script` says.
    #[must_use]
    pub fn dead_letters(mut self, script: &Script<DeadLetter>) -> Self {
        self.setup.dead_letters = script.clone();
        self
    }

    /// When a partition pauses, and when it goes on.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.limits = limits;
        self
    }

    /// This test needs what no broker offers (paused time, chosen offsets): the variable
    /// `DRAKKAR_TEST_BROKER` does not concern it.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.is_in_memory = true;
        self
    }

    /// The handler overrides hooks that aggregate without saying so, on purpose: it passes them on to
    /// another handler.
    #[must_use]
    pub fn allow_unused_hooks(mut self) -> Self {
        self.may_have_unused_hooks = true;
        self
    }

    /// Starts the pipeline; must be called inside a tokio runtime.
    ///
    /// # Panics
    ///
    /// When the handler overrides a hook that would never be called, or a part does not start.
    #[track_caller]
    pub fn start(self) -> World {
        let Self { handler, periodics, mut setup, is_in_memory, may_have_unused_hooks } = self;
        if let Some(fault) = aggregates::fault_of::<H>().filter(|_| !may_have_unused_hooks) {
            panic!("{fault}");
        }
        if setup.kafka.is_empty() {
            setup.kafka.push(("results".to_owned(), Script::confirming()));
        }
        if setup.files.is_empty() {
            setup.files.push(("files".to_owned(), Script::confirming()));
        }
        let asked = origin::asked_for().filter(|_| !is_in_memory);
        assert!(
            asked.is_none() || !is_paused(),
            "time is paused, and a broker lives in real time: build this world with `.in_memory()`, \
             or do not pause the time of a test that shall run with {SWITCH}"
        );
        let place = Place::find(asked.as_deref(), setup.partitions);
        setup.start(handler, periodics, place)
    }
}

/// Tells the pipeline what has changed of the keys that concern it.
fn follow(settings: &mut Settings, old: &ExecutorConfig, new: &ExecutorConfig) {
    fn take<T: PartialEq>(into: &mut T, [old, new]: [T; 2]) {
        if old != new {
            *into = new;
        }
    }
    let both = [old, new];
    take(&mut settings.window_size, both.map(|of| of.window_size.get()));
    take(
        &mut settings.max_in_flight,
        both.map(|of| of.window_size.get().saturating_mul(of.max_windows.get())),
    );
    take(
        &mut settings.max_in_pool,
        both.map(|of| of.slots().saturating_mul(of.backpressure_high_multiplier.get())),
    );
    take(&mut settings.max_hooks, both.map(|of| of.max_hooks.get()));
    take(&mut settings.max_result_bytes, both.map(|of| of.max_result_bytes));
    take(&mut settings.ordering, both.map(|of| of.ordering));
    take(&mut settings.priority_ageing, both.map(|of| of.priority_ageing));
    take(&mut settings.max_retries, both.map(|of| of.max_retries));
    take(&mut settings.max_replacements, both.map(|of| of.max_replacements));
    take(&mut settings.backoff.initial, both.map(|of| of.retry_backoff_initial));
    take(&mut settings.backoff.max, both.map(|of| of.retry_backoff_max));
    take(&mut settings.hook_timeout, both.map(|of| of.hook_timeout_seconds));
}

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
        let mut sinks = Sinks::builder(Arc::clone(metrics) as _).backoff(Backoff {
            initial: Duration::from_millis(10),
            max: Duration::from_millis(100),
        });
        for (name, script) in &self.kafka {
            sinks = sinks.kafka(name, script.clone());
        }
        for (name, script) in &self.files {
            sinks = sinks.filesystem(name, script.clone());
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
