//! One test's world: topics, a group and a directory of its own, and the workers in it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    books::Books,
    journal,
    kafka::{Given, Kafka, Observer},
    order::{Act, Order},
    proc,
    wait::{SOON, until},
    worker::WorkerProcess,
};

/// For tests that need both cores: one at a time in a test binary.
pub fn heavy() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed while it was heavy does not make the next one wrong.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One test's world.
pub struct World {
    /// The cluster it is on.
    pub kafka: Kafka,
    /// Topic that the workers read.
    pub source: String,
    /// Topic that the Kafka sink `results` writes to.
    pub results: String,
    /// Dead-letter topic, by the name that follows from the source topic.
    pub dead: String,
    /// Group of the workers.
    pub group: String,
    observer: Observer,
    config: Value,
    variables: Vec<(String, String)>,
    started: Cell<usize>,
    mark: String,
    dir: TempDir,
}

impl World {
    /// Topics with this many partitions on the broker that all tests share.
    #[must_use]
    pub fn new(partitions: i32) -> Self {
        Self::on(Kafka::shared(), partitions)
    }

    /// Topics with this many partitions on `kafka`.
    #[must_use]
    pub fn on(kafka: Kafka, partitions: i32) -> Self {
        let world = Self::without_topics(kafka);
        for topic in [&world.source, &world.results, &world.dead] {
            world.kafka.create_topic(topic, partitions);
        }
        world
    }

    /// Names only: no topic exists.
    #[must_use]
    pub fn without_topics(kafka: Kafka) -> Self {
        let name = unique_name();
        let dir = TempDir::with_prefix("drakkar-test-").unwrap();
        let mut world = Self {
            source: format!("{name}-in"),
            results: format!("{name}-out"),
            dead: format!("{name}-in_dlq"),
            group: format!("{name}-group"),
            observer: kafka.observer(&format!("{name}-group")),
            config: json!({}),
            variables: vec![("TEST_DIR".to_owned(), dir.path().to_str().unwrap().to_owned())],
            started: Cell::new(0),
            mark: name,
            kafka,
            dir,
        };
        world.config = world.first_config();
        world
    }

    /// As the framework ships, but for what would only make tests slow, and for what a machine that
    /// stands still for seconds would turn into a hand-over that is not clean.
    fn first_config(&self) -> Value {
        json!({
            "kafka": {
                "brokers": self.kafka.servers,
                "source_topic": self.source,
                "consumer_group": self.group,
                "startup_align_enabled": false,
                "start_timeout": "2m",
                "revoke_timeout": "1m",
                "heartbeat_interval_ms": 500,
            },
            "executor": {
                "max_executors": 4,
                "retry_backoff_initial": "20ms",
                "retry_backoff_max": "100ms",
                "kill_grace": "300ms",
                "drain_timeout_seconds": "1m",
                "env": { proc::MARK: self.mark },
            },
            "sinks": {
                "kafka": { "results": { "topic": self.results } },
                "filesystem": { "lines": { "base_path": self.files() } },
                "retry_backoff_max": "1s",
                "circuit_breaker": { "cooldown_seconds": "1s" },
            },
            "metrics": { "host": "127.0.0.1", "port": 0 },
        })
    }

    /// Sets the configuration key `key` (`kafka.on_invalid`) for workers that are started later.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// Sets a configuration key for workers that are started later.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let mut place = &mut self.config;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = value.into();
    }

    /// The configuration of workers that are started later.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Workers read these topics instead of the one that the books are about.
    #[must_use]
    pub fn reading(mut self, topics: &[&str]) -> Self {
        if let Some(kafka) = self.config["kafka"].as_object_mut() {
            kafka.remove("source_topic");
        }
        self.set("kafka.source_topics", topics.to_vec());
        self
    }

    /// Workers that are started later have this environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Workers answer any bytes with the same bytes, instead of doing what a message says.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.variables.push(("TEST_HANDLER".to_owned(), "raw".to_owned()));
        self
    }

    /// Workers write down when their handler is asked; see [`journal`].
    #[must_use]
    pub fn journalled(mut self) -> Self {
        self.variables.push(("TEST_HANDLER".to_owned(), "journal".to_owned()));
        self
    }

    /// What the handler of the worker `id` wrote down.
    #[must_use]
    pub fn journal(&self, id: &str) -> Vec<journal::Entry> {
        journal::read(&self.dir.path().join(format!("{id}.journal")))
    }

    /// Where the file sink writes.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// From now on there is what [`Act::Licensed`] and [`Act::AwaitLicence`] need.
    pub fn license(&self) {
        fs::write(self.dir.path().join("licence"), "").unwrap();
    }

    /// Starts a worker.
    #[must_use]
    pub fn start(&self) -> WorkerProcess {
        let id = format!("worker-{}", self.started.replace(self.started.get() + 1) + 1);
        fs::create_dir_all(self.files()).unwrap();
        WorkerProcess::spawn(&self.config_file(&id), &id, &self.variables)
    }

    /// Writes the configuration as it is now to a file of this name.
    #[must_use]
    pub fn config_file(&self, name: &str) -> PathBuf {
        let file = self.dir.path().join(format!("{name}.yaml"));
        // JSON is YAML.
        fs::write(&file, serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        file
    }

    /// Produces orders to do each of these.
    pub fn order<'a>(&self, orders: impl IntoIterator<Item = (&'a str, Act)>) {
        self.give(
            orders.into_iter().map(|(id, act)| Given::new(id, Order::new(id, act).to_value())),
        );
    }

    /// Produces `count` orders to do `act`, called `{prefix}-0` and so on.
    pub fn order_many(&self, prefix: &str, count: usize, act: Act) {
        self.give((0..count).map(|number| {
            let id = format!("{prefix}-{number}");
            Given::new(id.clone(), Order::new(id, act).to_value())
        }));
    }

    /// The same from a thread of its own, while workers come and go.
    #[must_use]
    pub fn order_later(&self, prefix: &str, count: usize, act: Act) -> JoinHandle<()> {
        self.order_in_background(prefix, count, move |_| act)
    }

    /// The same; one message in ten needs a program, one in a hundred fails for good.
    #[must_use]
    pub fn order_mixed_later(&self, prefix: &str, count: usize) -> JoinHandle<()> {
        self.order_in_background(prefix, count, |number| match number % 100 {
            0 => Act::Fail,
            tenth if tenth % 10 == 0 => Act::SleepMs(5),
            _ => Act::Precomputed,
        })
    }

    fn order_in_background(
        &self,
        prefix: &str,
        count: usize,
        act: impl Fn(usize) -> Act + Send + 'static,
    ) -> JoinHandle<()> {
        let (kafka, source) = (self.kafka.clone(), self.source.clone());
        let prefix = prefix.to_owned();
        thread::spawn(move || {
            let orders = (0..count).map(|number| {
                let id = format!("{prefix}-{number}");
                Given::new(id.clone(), Order::new(id, act(number)).to_value())
            });
            kafka.produce(&source, orders);
        })
    }

    /// Produces any records.
    pub fn give(&self, records: impl IntoIterator<Item = Given>) {
        self.kafka.produce(&self.source, records);
    }

    /// How many results there are.
    #[must_use]
    pub fn delivered(&self) -> usize {
        until("the number of results", SOON, || self.observer.count(&self.results))
    }

    /// What the group has committed of every partition.
    #[must_use]
    pub fn commits(&self) -> BTreeMap<i32, i64> {
        until("what is committed", SOON, || self.observer.committed(&self.source))
    }

    /// How many messages the group has committed.
    #[must_use]
    pub fn committed(&self) -> usize {
        usize::try_from(self.commits().values().sum::<i64>()).unwrap()
    }

    /// Waits until there are at least `count` results.
    #[track_caller]
    pub fn wait_delivered(&self, count: usize) {
        until(&format!("{count} results"), 3 * SOON, || match self.observer.count(&self.results) {
            Ok(found) if count <= found => Ok(()),
            Ok(found) => Err(format!("{found} are there")),
            Err(error) => Err(error.to_string()),
        });
    }

    /// Waits until everything that was produced is committed.
    #[track_caller]
    pub fn drained(&self) {
        self.drained_within(3 * SOON);
    }

    /// Waits until everything that was produced is committed.
    #[track_caller]
    pub fn drained_within(&self, within: Duration) {
        self.wait_drained(&self.source, within);
    }

    /// Waits until everything that is in `topic` is committed.
    #[track_caller]
    pub fn drained_of(&self, topic: &str) {
        self.wait_drained(topic, 3 * SOON);
    }

    #[track_caller]
    fn wait_drained(&self, topic: &str, within: Duration) {
        until("committed offsets to be end offsets", within, || {
            match self.observer.lag(topic)? {
                0 => Ok(()),
                lag => Err(format!("{lag} messages are not committed")),
            }
        });
    }

    /// How many messages are not committed.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn lag(&self) -> Result<i64, String> {
        self.observer.lag(&self.source)
    }

    /// Reads back what became of every message.
    #[must_use]
    pub fn books(&self) -> Books {
        Books::read(&self.kafka, &self.source, &self.results, Some(&self.dead))
    }

    /// Programs of this world's tasks that run now.
    #[must_use]
    pub fn programs(&self) -> Vec<(u32, String)> {
        proc::marked(&self.mark)
    }

    /// Waits until no program of this world's tasks runs.
    #[track_caller]
    pub fn no_program_survives(&self) {
        until("the programs to be gone", SOON, || match self.programs() {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{some:?} run")),
        });
    }
}

impl Drop for World {
    /// Whatever a test that failed has left.
    fn drop(&mut self) {
        for (pid, _) in self.programs() {
            proc::kill(pid);
        }
    }
}

/// Begins with the name of the test, for whoever looks at the broker.
fn unique_name() -> String {
    let thread = std::thread::current();
    let test = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or_default();
    let test: String = test.chars().take(60).collect();
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{test}-{}-{:x}", std::process::id(), nanos & 0xffff_ffff)
}
