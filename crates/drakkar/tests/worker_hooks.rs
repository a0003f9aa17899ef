//! The hooks of a start, and what probes say of one that is stuck, in a worker as users run it. The
//! broker is librdkafka's own, inside this process.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use drakkar::{
    Bytes, Config, Delivery, Handler, HookResult, Message, Pending, Ready, RunError, Sink,
    SinkError, Task, Worker,
    prometheus::{IntCounter, Registry},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::Instant,
};

const SOON: Duration = Duration::from_mins(1);

type Does = Box<dyn Fn(&Ready) -> HookResult<()> + Send + Sync>;

/// Does as told when it is asked whether it is ready; blocks in `arrange` until `gate` goes.
struct Told {
    ready: Does,
    hangs: bool,
    /// Where it blocks: in `arrange` of this partition or of all.
    gate: Option<(Option<i32>, Mutex<Receiver<()>>)>,
}

impl Told {
    fn when_ready(ready: impl Fn(&Ready) -> HookResult<()> + Send + Sync + 'static) -> Self {
        Self { ready: Box::new(ready), hangs: false, gate: None }
    }
}

impl Handler for Told {
    type Input = Bytes;

    async fn on_ready(&self, ready: &Ready) -> HookResult<()> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        (self.ready)(ready)
    }

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        if let Some((only, gate)) = &self.gate
            && only.is_none_or(|only| only == window[0].partition.partition)
        {
            // The lock makes the second one wait as well.
            assert!(gate.lock().unwrap_or_else(PoisonError::into_inner).recv().is_err());
        }
        Ok(Vec::new())
    }
}

/// What is logged, by all workers of this process.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One worker at a time, so that what is logged is about that one.
struct World {
    _alone: MutexGuard<'static, ()>,
    cluster: MockCluster<'static, DefaultProducerContext>,
    runtime: Runtime,
    before: usize,
}

impl World {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 2, 1).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { _alone: alone, cluster, runtime, before: LOG.text().len() }
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.kafka.brokers = self.cluster.bootstrap_servers();
        config.kafka.source_topic = String::from("orders");
        config.kafka.startup_align_enabled = false;
        config.kafka.session_timeout_ms = 4_000;
        config.kafka.heartbeat_interval_ms = 100;
        config.kafka.client_config.insert("fetch.wait.max.ms".to_owned(), "10".to_owned());
        config.metrics.host = String::from("127.0.0.1");
        config.metrics.port = 0;
        config
    }

    /// Runs `worker` until the returned sender goes; its outcome comes by the receiver.
    fn run(&self, worker: Worker<Told>) -> (oneshot::Sender<()>, Receiver<Result<(), RunError>>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = mpsc::channel();
        self.runtime.spawn(async move {
            let outcome = worker.run_until(async { drop(stopped.await) }).await;
            drop(end.send(outcome)); // A test that has seen enough does not listen.
        });
        (stop, ended)
    }

    /// Why `worker` does not start.
    fn refused(&self, worker: Worker<Told>) -> RunError {
        let (_stop, ended) = self.run(worker);
        ended.recv_timeout(SOON).unwrap().unwrap_err()
    }

    fn produce(&self, partition: i32) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .create()
            .unwrap();
        let record = BaseRecord::<(), _>::to("orders").partition(partition).payload("a");
        producer.send(record).unwrap();
        producer.flush(SOON).unwrap();
    }

    /// Waits until the group has committed `next`.
    fn until_committed(&self, partition: i32, next: i64) {
        let group = Config::default().kafka.consumer_group;
        let servers = self.cluster.bootstrap_servers();
        let observer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", group)
            .create()
            .unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition("orders", partition);
        let deadline = Instant::now() + SOON;
        loop {
            let answer = observer.committed_offsets(asked.clone(), SOON).unwrap();
            let committed = answer.elements()[0].offset();
            if committed == Offset::Offset(next) {
                return;
            }
            assert!(Instant::now() < deadline, "{committed:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks until the answer is as `wanted`.
    fn until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.get(path).unwrap_or_default();
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path}: {answer}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn get(&self, path: &str) -> Option<String> {
        let log = LOG.text();
        let line = log[self.before..].lines().find(|line| line.contains("serving probes"))?;
        let address = line.split("address=").nth(1)?.split(' ').next()?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

fn ready() -> Told {
    Told::when_ready(|_| Ok(()))
}

#[track_caller]
fn assert_says(error: &RunError, hook: &str, reason: &str) {
    let text = format!("{error:?}");
    assert!(text.starts_with(&format!("the hook {hook} failed")), "{text}");
    assert!(text.contains(reason), "{text}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn on_startup_sees_the_configuration_and_what_it_changes_is_what_is_built() {
    let world = World::new();
    let mut config = world.config();
    config.kafka.source_topic = "not-there".to_owned();
    config.kafka.start_timeout = Duration::from_secs(10);
    let worker = Worker::new(ready()).config(config).unwrap().on_startup(
        |handler: &mut Told, config: &mut Config| {
            Box::pin(async move {
                tokio::task::yield_now().await;
                assert_eq!(config.kafka.source_topic, "not-there");
                config.kafka.source_topic = "orders".to_owned();
                handler.ready = Box::new(|_| Err("a changed handler".into()));
                Ok(())
            })
        },
    );
    // The topic is there, so the start comes as far as the handler.
    assert_says(&world.refused(worker), "on_ready", "a changed handler");
}

#[test]
fn what_on_startup_changes_is_checked_again_and_the_error_says_who_did_it() {
    let world = World::new();
    let worker = Worker::new(ready()).config(world.config()).unwrap().on_startup(
        |_: &mut Told, config: &mut Config| {
            config.metrics.host = String::new();
            Box::pin(async { Ok(()) })
        },
    );
    let error = world.refused(worker);
    let text = format!("{error:?}");
    assert!(text.contains("on_startup: metrics.host: must not be empty"), "{text}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_on_startup_that_errs_panics_hangs_or_blocks_stops_the_start() {
    let world = World::new();
    let worker = || {
        let mut config = world.config();
        config.executor.hook_timeout_seconds = Duration::from_millis(200);
        Worker::new(ready()).config(config).unwrap()
    };
    let errs = worker().on_startup(|_, _| Box::pin(async { Err("no such table".into()) }));
    assert_says(&world.refused(errs), "on_startup", "no such table");
    let panics = worker().on_startup(|_, _| Box::pin(async { panic!("as told") }));
    assert_says(&world.refused(panics), "on_startup", "panicked: as told");
    let hangs = worker().on_startup(|_, _| Box::pin(std::future::pending()));
    assert_says(&world.refused(hangs), "on_startup", "did not return within 200ms");
    let (release, gate) = mpsc::channel::<()>();
    let blocks = worker().on_startup(|_, _| {
        Box::pin(async move {
            assert!(gate.recv().is_err());
            Ok(())
        })
    });
    assert_says(&world.refused(blocks), "on_startup", "did not return within 200ms");
    drop(release);
    assert!(!LOG.text()[world.before..].contains("worker starts"), "nothing was built");
}

#[test]
fn an_on_ready_that_errs_panics_hangs_or_blocks_stops_the_start_before_the_group_is_joined() {
    let world = World::new();
    let refused = |told: Told| {
        let mut config = world.config();
        config.executor.hook_timeout_seconds = Duration::from_millis(200);
        world.refused(Worker::new(told).config(config).unwrap())
    };
    let errs = Told::when_ready(|_| Err("no such table".into()));
    assert_says(&refused(errs), "on_ready", "no such table");
    let panics = Told::when_ready(|_| panic!("as told"));
    assert_says(&refused(panics), "on_ready", "panicked: as told");
    let hangs = Told { hangs: true, ..ready() };
    assert_says(&refused(hangs), "on_ready", "did not return within 200ms");
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let blocks = Told::when_ready(move |_| {
        assert!(gate.lock().unwrap().recv().is_err());
        Ok(())
    });
    assert_says(&refused(blocks), "on_ready", "did not return within 200ms");
    drop(release);
    assert!(!LOG.text()[world.before..].contains("joining the group"));
}

#[test]
fn what_a_handler_registers_in_on_ready_is_scraped_with_the_worker_s_own_series() {
    let world = World::new();
    let mut config = world.config();
    let results = drakkar::sections::KafkaSinkConfig {
        topic: "results".to_owned(),
        ..drakkar::sections::KafkaSinkConfig::default()
    };
    config.sinks.kafka.insert("results".to_owned(), results);
    let handler = Told::when_ready(|ready| {
        let sinks: Vec<String> = ready.sinks().iter().map(ToString::to_string).collect();
        assert_eq!(sinks, ["kafka/results"]);
        let seen = IntCounter::new("search_seen_total", "Patterns that were seen")?;
        ready.get::<Registry>().ok_or("no registry")?.register(Box::new(seen.clone()))?;
        seen.inc_by(7);
        Ok(())
    });
    let (stop, ended) = world.run(Worker::new(handler).config(config).unwrap());
    let scrape = world.until("/metrics", |answer| answer.contains("search_seen_total 7"));
    assert!(scrape.contains("drakkar_worker_info"), "{scrape}");
    drop(stop);
    ended.recv_timeout(SOON).unwrap().unwrap();
}

/// A worker that is blocked in `arrange` of one partition, or of both, until the first sender goes.
fn blocked(
    world: &World,
    only: Option<i32>,
    health: Duration,
) -> (Sender<()>, oneshot::Sender<()>) {
    let (release, gate) = mpsc::channel();
    let mut config = world.config();
    config.health.hook_stuck = health;
    let handler = Told { gate: Some((only, Mutex::new(gate))), ..ready() };
    let (stop, _) = world.run(Worker::new(handler).config(config).unwrap());
    world.produce(0);
    world.produce(1);
    (release, stop)
}

#[test]
fn hooks_that_block_every_thread_for_ever_fail_the_liveness_probe_which_names_one() {
    let world = World::new();
    let (release, _stop) = blocked(&world, None, Duration::from_millis(300));
    let answer = world.until("/healthz", |answer| answer.contains(" 503 "));
    assert!(answer.contains("the hook arrange of partition orders:"), "{answer}");
    assert!(world.get("/readyz").unwrap().contains(" 503 "), "and it is not ready");
    drop(release);
    world.until("/healthz", |answer| answer.contains(" 200 "));
}

#[test]
fn a_hook_that_blocks_shorter_than_allowed_fails_no_probe() {
    let world = World::new();
    let (release, _stop) = blocked(&world, None, Duration::from_hours(1));
    world.until("/readyz", |answer| answer.contains("\"assigned_partitions\":2"));
    assert!(world.get("/healthz").unwrap().contains(" 200 "));
    drop(release);
}

#[test]
fn while_a_hook_blocks_one_thread_the_other_partitions_are_worked_on_and_committed() {
    let world = World::new();
    let (release, _stop) = blocked(&world, Some(0), Duration::from_millis(300));
    let answer = world.until("/healthz", |answer| answer.contains(" 503 "));
    assert!(answer.contains("the hook arrange of partition orders:0"), "{answer}");
    world.produce(1);
    // The second message of that partition; the first came together with the one that blocks.
    world.until("/metrics", |answer| {
        answer.contains(r#"drakkar_messages_consumed_total{partition="1",topic="orders"} 2"#)
    });
    world.until_committed(1, 2);
    drop(release);
}

/// A sink that is there or not.
#[derive(Clone, Default)]
struct Far(Arc<AtomicBool>);

impl Sink for Far {
    type Payload = ();

    async fn deliver(&self, batch: &[()]) -> Vec<Delivery> {
        vec![Delivery::Confirmed; batch.len()]
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let is_gone = self.0.load(Ordering::SeqCst);
        if is_gone { Err(SinkError::new("gone", "nobody answers")) } else { Ok(()) }
    }
}

#[test]
fn a_sink_that_goes_away_while_nothing_is_meant_for_it_makes_the_worker_unready_until_it_is_back() {
    let (world, far) = (World::new(), Far::default());
    let mut config = world.config();
    config.health.sink_window = Duration::from_millis(100);
    let worker = Worker::new(ready()).sink("far", far.clone()).config(config).unwrap();
    let (_stop, _) = world.run(worker);
    world.until("/readyz", |answer| answer.contains(" 200 "));
    far.0.store(true, Ordering::SeqCst);
    let unready = world.until("/readyz", |answer| answer.contains(" 503 "));
    assert!(unready.contains("sink custom/far has accepted nothing for"), "{unready}");
    assert!(world.get("/healthz").unwrap().contains(" 200 "), "a restart cures nothing");
    far.0.store(false, Ordering::SeqCst);
    world.until("/readyz", |answer| answer.contains(" 200 "));
}
