//! What a world is made of: a handler, the settings of a worker, sinks, and where messages come from.

use std::{num::NonZeroUsize, pin::Pin, sync::Arc, time::Duration};

use drakkar_core::{
    DeadLetter, FilePayload, Handler, HookResult, HttpPayload, KafkaPayload, MongoPayload,
    OnInvalid, PostgresPayload, RedisPayload, Sink, SinkKind, SinkName, backpressure::Limits,
};
use drakkar_executor::{ExecutorConfig, Scripted};
use drakkar_pipeline::{AfterError, CommitPace, Periodic, Settings};
use drakkar_sinks::{BatchConfig, CircuitBreakerConfig, DlqConfig, SinksBuilder, SinksConfig};

use crate::{
    Call, Runs, Script, World, aggregates,
    kinds::Kinds,
    origin::{self, SWITCH},
    own::Own,
    patience::is_paused,
    place::Place,
    setup::Setup,
};

type Change = Box<dyn FnOnce(&mut Settings) + Send>;

/// Sets a [`World`] up; see [`World::of`].
pub struct WorldBuilder<H> {
    handler: H,
    periodics: Vec<Periodic<H>>,
    setup: Setup,
    /// What to change of its settings, once the configuration is known.
    changes: Vec<Change>,
    is_in_memory: bool,
    may_have_unused_hooks: bool,
}

impl<H: Handler> WorldBuilder<H> {
    pub(crate) fn new(handler: H) -> Self {
        let backoff = (Duration::from_millis(10), Duration::from_millis(50));
        let executor = ExecutorConfig {
            max_executors: NonZeroUsize::new(2),
            window_size: non_zero(10),
            max_hooks: non_zero(64),
            max_result_bytes: 16 << 20,
            retry_backoff_initial: backoff.0,
            retry_backoff_max: backoff.1,
            kill_grace: Duration::from_millis(200),
            ..ExecutorConfig::default()
        };
        let breaker = CircuitBreakerConfig {
            cooldown_seconds: Duration::from_millis(100),
            ..CircuitBreakerConfig::default()
        };
        let patience = SinksConfig {
            retry_backoff_initial: Duration::from_millis(10),
            retry_backoff_max: Duration::from_millis(100),
            circuit_breaker: breaker,
            ..SinksConfig::default()
        };
        let setup = Setup {
            settings: settings(&executor),
            executor,
            patience,
            batch: BatchConfig::default(),
            limits: Limits::new(100_000, 64 << 20),
            partitions: 1,
            kinds: Kinds::default(),
            others: Vec::new(),
            offers: Vec::new(),
            dead_letters: Script::confirming(),
            play: None,
            log: Arc::default(),
            runs: Runs::new(),
        };
        Self {
            handler,
            periodics: Vec::new(),
            setup,
            changes: Vec::new(),
            is_in_memory: false,
            may_have_unused_hooks: false,
        }
    }

    /// Does `work` again and again, as `Worker::periodic` does. A worker that is started after a crash
    /// does none.
    #[must_use]
    pub fn periodic(
        self,
        name: impl Into<String>,
        every: Duration,
        after_error: AfterError,
        work: impl for<'a> Fn(&'a H) -> Pin<Box<dyn Future<Output = HookResult<()>> + Send + 'a>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.every(Periodic { name: name.into(), every, after_error, work: Box::new(work) })
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
        change(&mut self.setup.executor);
        self
    }

    /// Changes what the section `sinks` of the configuration would say about waiting and giving up.
    #[must_use]
    pub fn sinks(mut self, change: impl FnOnce(&mut SinksConfig)) -> Self {
        change(&mut self.setup.patience);
        self
    }

    /// Changes how payloads are joined into one write (`sinks.<kind>.<name>.batch`), for every sink.
    #[must_use]
    pub fn batch(mut self, change: impl FnOnce(&mut BatchConfig)) -> Self {
        change(&mut self.setup.batch);
        self
    }

    /// Changes what the pipeline is told by the configuration, whatever that says: also of the sections
    /// `kafka` (`on_invalid`, `commit`) and `dlq` (`flood`).
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings) + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
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
        self.setup.kinds.kafka.push(name, script);
        self
    }

    /// Adds a file sink. Without any there is one, `files`.
    #[must_use]
    pub fn file_sink(mut self, name: &str, script: &Script<FilePayload>) -> Self {
        self.setup.kinds.files.push(name, script);
        self
    }

    /// Adds a PostgreSQL sink. Without any there is one, `postgres`.
    #[must_use]
    pub fn postgres_sink(mut self, name: &str, script: &Script<PostgresPayload>) -> Self {
        self.setup.kinds.postgres.push(name, script);
        self
    }

    /// Adds a MongoDB sink. Without any there is one, `mongo`.
    #[must_use]
    pub fn mongo_sink(mut self, name: &str, script: &Script<MongoPayload>) -> Self {
        self.setup.kinds.mongo.push(name, script);
        self
    }

    /// Adds a Redis sink. Without any there is one, `redis`.
    #[must_use]
    pub fn redis_sink(mut self, name: &str, script: &Script<RedisPayload>) -> Self {
        self.setup.kinds.redis.push(name, script);
        self
    }

    /// Adds an HTTP sink. Without any there is one, `http`.
    #[must_use]
    pub fn http_sink(mut self, name: &str, script: &Script<HttpPayload>) -> Self {
        self.setup.kinds.http.push(name, script);
        self
    }

    /// Adds a sink of the user's own, as `Worker::sink` does; a [`Script`] of its payload is one. A worker
    /// that is started after a crash has the same sink.
    #[must_use]
    pub fn sink<S: Sink<Payload: Clone>>(mut self, name: &str, sink: S) -> Self {
        let (name, sink) = (name.to_owned(), Arc::new(sink));
        let add = move |sinks: SinksBuilder| sinks.custom(&name, Own(Arc::clone(&sink)));
        self.setup.others.push(Arc::new(add));
        self
    }

    /// Gives `handle` to `on_ready` as the connection of a sink: `ready.sink::<PgPool>("warehouse")`.
    /// The sinks of a world have none of their own, for no server plays along.
    #[must_use]
    pub fn offer<T: Clone + Send + Sync + 'static>(
        mut self,
        kind: SinkKind,
        name: &str,
        handle: T,
    ) -> Self {
        let sink = SinkName::new(kind, name);
        self.setup.offers.push(Arc::new(move |ready| ready.offer(sink.clone(), handle.clone())));
        self
    }

    /// Gives `value` to `on_ready` as something that exists once per worker: `ready.get::<Model>()`.
    #[must_use]
    pub fn provide<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.setup.offers.push(Arc::new(move |ready| ready.provide(value.clone())));
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
        let Self { handler, periodics, mut setup, changes, is_in_memory, may_have_unused_hooks } =
            self;
        if let Some(fault) = aggregates::fault_of::<H>().filter(|_| !may_have_unused_hooks) {
            panic!("{fault}");
        }
        let asked = origin::asked_for().filter(|_| !is_in_memory);
        assert!(
            asked.is_none() || !is_paused(),
            "time is paused, and a broker lives in real time: build this world with `.in_memory()`, \
             or do not pause the time of a test that shall run with {SWITCH}"
        );
        setup.settings = settings(&setup.executor);
        for change in changes {
            change(&mut setup.settings);
        }
        let place = Place::find(asked.as_deref(), setup.partitions);
        setup.start(handler, periodics, place)
    }
}

/// What the pipeline of a world is told, where the test does not say anything else.
fn settings(executor: &ExecutorConfig) -> Settings {
    let flood = DlqConfig::default().flood();
    let commit = CommitPace { interval: Duration::from_millis(20), every: 1_000 };
    Settings::new(executor, OnInvalid::DeadLetter, flood, commit)
}

fn non_zero(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use drakkar_core::{Message, Pending, Task};
    use serde_json::{Value, to_value};

    use super::*;

    struct Nothing;

    impl Handler for Nothing {
        type Input = bytes::Bytes;

        async fn arrange(&self, _: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }
    }

    /// The keys at which two sections differ.
    fn differing(at: &str, one: &Value, other: &Value) -> Vec<String> {
        let (Some(keys), Some(others)) = (one.as_object(), other.as_object()) else {
            return if one == other { Vec::new() } else { vec![at.to_owned()] };
        };
        let below = |(key, value)| differing(&format!("{at}.{key}"), value, &others[key]);
        keys.iter().flat_map(below).collect()
    }

    #[test]
    fn the_guide_lists_every_key_that_is_not_as_with_a_worker() {
        let Setup { executor, patience, .. } = WorldBuilder::new(Nothing).setup;
        let worker = to_value(ExecutorConfig::default()).unwrap();
        let mut keys = differing("executor", &to_value(executor).unwrap(), &worker);
        let worker = to_value(SinksConfig::default()).unwrap();
        keys.extend(differing("sinks", &to_value(patience).unwrap(), &worker));
        let guide = include_str!("../../../docs/testing.md");
        let (_, table) = guide.split_once("| key | a world | a worker |").unwrap();
        let (table, _) = table.split_once("\n\n").unwrap();
        let named = table.split('`').skip(1).step_by(2);
        let mut named: Vec<&str> = named.filter(|key| !key.starts_with("kafka.")).collect();
        keys.sort_unstable();
        named.sort_unstable();
        assert_eq!(keys, named);
    }
}
