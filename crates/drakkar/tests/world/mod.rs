//! A worker as users run it, and a broker inside the process (librdkafka's own).
#![allow(dead_code)] // Each test uses a part.

use std::{
    cell::Cell,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use drakkar::{
    Bytes, Config, Handler, HookResult, Message, Pending, Ready, RunError, Task, Worker,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::Instant,
};

pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) type Does = Box<dyn Fn(&Ready) -> HookResult<()> + Send + Sync>;

/// Does as told when it is asked whether it is ready; blocks in `arrange` until `gate` goes.
pub(crate) struct Told {
    pub(crate) ready: Does,
    pub(crate) hangs: bool,
    /// Where it blocks: in `arrange` of this partition or of all.
    pub(crate) gate: Option<(Option<i32>, Mutex<Receiver<()>>)>,
}

impl Told {
    pub(crate) fn when_ready(
        ready: impl Fn(&Ready) -> HookResult<()> + Send + Sync + 'static,
    ) -> Self {
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
pub(crate) static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    log
});

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
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
pub(crate) struct World {
    cluster: drakkar_mock::Cluster,
    runtime: Runtime,
    pub(crate) before: usize,
    _alone: Alone, // The last to go: by then the worker says no more.
}

thread_local! {
    /// Whether a world of this thread, which is a test, is there.
    static HAS_WORLD: Cell<bool> = const { Cell::new(false) };
}

/// No other test has a world meanwhile.
struct Alone(#[expect(dead_code, reason = "held, not looked at")] MutexGuard<'static, ()>);

impl Alone {
    fn wait() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        assert!(!HAS_WORLD.replace(true), "a test has one world at a time: drop the one before");
        Self(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        HAS_WORLD.set(false);
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let alone = Alone::wait();
        let before = LOG.text().len(); // Listens before anything can be logged.
        let cluster = drakkar_mock::cluster(1).unwrap();
        cluster.create_topic("orders", 2, 1).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { cluster, runtime, before, _alone: alone }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.kafka.brokers = self.cluster.bootstrap_servers();
        config.kafka.source_topic = String::from("orders");
        config.kafka.startup_align_enabled = false;
        config.kafka.heartbeat_interval_ms = 100;
        config.kafka.client_config.insert("fetch.wait.max.ms".to_owned(), "10".to_owned());
        config.metrics.host = String::from("127.0.0.1");
        config.metrics.port = 0;
        config
    }

    /// Runs `worker` until the returned sender goes; its outcome comes by the receiver.
    pub(crate) fn run<H: Handler>(
        &self,
        worker: Worker<H>,
    ) -> (oneshot::Sender<()>, Receiver<Result<(), RunError>>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = mpsc::channel();
        self.runtime.spawn(async move {
            let outcome = worker.run_until(async { drop(stopped.await) }).await;
            drop(end.send(outcome)); // A test that has seen enough does not listen.
        });
        (stop, ended)
    }

    /// Runs `worker` until this process gets a signal.
    pub(crate) fn run_to_signals<H: Handler>(
        &self,
        worker: Worker<H>,
    ) -> Receiver<Result<(), RunError>> {
        let (end, ended) = mpsc::channel();
        self.runtime.spawn(async move {
            let outcome = worker.run().await;
            drop(end.send(outcome)); // As above.
        });
        ended
    }

    /// Blocks every thread of the runtime, as hooks may, until what it returns is dropped.
    pub(crate) fn block(&self) -> mpsc::Sender<()> {
        let (release, gate) = mpsc::channel();
        let gate = Arc::new(Mutex::new(gate));
        let (tell, blocked) = mpsc::channel();
        for _ in 0..self.runtime.metrics().num_workers() {
            let (gate, tell) = (Arc::clone(&gate), tell.clone());
            self.runtime.spawn(async move {
                tell.send(()).unwrap();
                let ended = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
                assert!(ended.is_err(), "nothing is ever sent");
            });
            blocked.recv_timeout(SOON).unwrap();
        }
        release
    }

    /// Why `worker` does not start.
    pub(crate) fn refused(&self, worker: Worker<Told>) -> RunError {
        let (_stop, ended) = self.run(worker);
        ended.recv_timeout(SOON).unwrap().unwrap_err()
    }

    pub(crate) fn produce(&self, partition: i32) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .create()
            .unwrap();
        let record = BaseRecord::<(), _>::to("orders").partition(partition).payload("a");
        producer.send(record).unwrap();
        producer.flush(SOON).unwrap();
    }

    /// Has the broker refuse the next fetches for a reason that no client knows.
    pub(crate) fn refuse_fetches(&self, count: usize) {
        let errors = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; count];
        self.cluster.request_errors(RDKafkaApiKey::Fetch, &errors);
    }

    /// Has the group coordinator refuse the next commits, as it does while it waits for members.
    pub(crate) fn refuse_commits(&self, count: usize) {
        let errors = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; count];
        self.cluster.request_errors(RDKafkaApiKey::OffsetCommit, &errors);
    }

    /// What the group has committed.
    pub(crate) fn committed(&self, partition: i32) -> Offset {
        let group = Config::default().kafka.consumer_group;
        let servers = self.cluster.bootstrap_servers();
        let observer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", group)
            .create()
            .unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition("orders", partition);
        observer.committed_offsets(asked, SOON).unwrap().elements()[0].offset()
    }

    /// Waits until the group has committed `next`.
    pub(crate) fn until_committed(&self, partition: i32, next: i64) {
        let deadline = Instant::now() + SOON;
        loop {
            let committed = self.committed(partition);
            if committed == Offset::Offset(next) {
                return;
            }
            assert!(Instant::now() < deadline, "{committed:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks until the answer is as `wanted`.
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
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

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut answer = String::new();
        self.ask(path)?.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Asks, and reads no answer.
    pub(crate) fn ask(&self, path: &str) -> Option<TcpStream> {
        let log = LOG.text();
        let line = log[self.before..].lines().find(|line| line.contains("serving probes"))?;
        let address = line.split("address=").nth(1)?.split(' ').next()?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n").ok()?;
        Some(stream)
    }
}

pub(crate) fn ready() -> Told {
    Told::when_ready(|_| Ok(()))
}
