//! The other side of the switch: a real poll thread, a real group, a broker in this process or elsewhere.
//!
//! Each world has a topic and a group of its own. What blocks here blocks the thread of the test for
//! some milliseconds; the pipeline is asked nothing meanwhile.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drakkar_core::{
    Offset, SourceMessage, TopicPartition,
    observe::SourceObserver,
    source::{Position, SourceCommand, SourceControl, SourceEvent},
};
use drakkar_kafka::{KafkaConfig, PollThread, Source};
use drakkar_mock::SOON;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// A broker in this process, shared by all worlds of it.
static MOCK: LazyLock<drakkar_mock::Broker> = LazyLock::new(drakkar_mock::Broker::start);

#[track_caller]
fn must<T, E: std::fmt::Display>(what: &str, outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("DRAKKAR_TEST_BROKER: {what}: {error}"))
}

/// Waits for `work` where a runtime may be running already.
fn block<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        must("a runtime", runtime).block_on(work)
    };
    match thread::scope(|scope| scope.spawn(run).join()) {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A topic and a group of a world's own.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    address: String,
}

impl Topic {
    /// Makes a topic at `broker`: `mock`, or the address of a real one.
    pub(crate) fn make(broker: &str, partitions: i32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}-{number}", crate::TOPIC, since.as_micros());
        let is_mock = broker == "mock";
        let address = if is_mock { MOCK.address.clone() } else { broker.to_owned() };
        if is_mock {
            MOCK.create_topic(&name, partitions);
        } else {
            create(&address, &name, partitions);
        }
        Self { name: name.into(), address }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address).set("group.id", &*self.name);
        client.set("enable.auto.commit", "false").set("log_level", "2");
        client
    }

    fn config(&self) -> KafkaConfig {
        let mut config = KafkaConfig {
            brokers: self.address.clone(),
            consumer_group: self.name.to_string(),
            source_topic: self.name.to_string(),
            startup_align_enabled: false,
            // The mock paces rebalances by this; below its first delay of 3 s nobody ever joins.
            session_timeout_ms: 6_000,
            heartbeat_interval_ms: 100,
            commit_interval: Duration::from_millis(20),
            ..KafkaConfig::default()
        };
        // A waiting fetch of the mock does not wake for new data.
        config.client_config.insert("fetch.wait.max.ms".to_owned(), "10".to_owned());
        config
    }

    /// Joins the group.
    pub(crate) fn open(
        &self,
        observer: Arc<dyn SourceObserver>,
    ) -> (Broker, mpsc::UnboundedReceiver<SourceEvent>, SourceControl) {
        let config = self.config();
        let source = must("the source", block(Source::start(&config, "kit", observer)));
        source.control.send(SourceCommand::Join);
        let producer = self.client().set("linger.ms", "0").create();
        let broker = Broker {
            topic: self.clone(),
            producer: must("a producer", producer),
            control: Some(source.control.clone()),
            thread: Some(source.thread),
        };
        (broker, source.events, source.control)
    }

    /// Somebody who asks what is committed.
    pub(crate) fn observer(&self) -> Observer {
        Observer { consumer: must("an observer", self.client().create()) }
    }
}

fn create(address: &str, name: &str, partitions: i32) {
    let client: AdminClient<DefaultClientContext> =
        must("a client", ClientConfig::new().set("bootstrap.servers", address).create());
    let wanted = [NewTopic::new(name, partitions, TopicReplication::Fixed(1))];
    let options = AdminOptions::new().request_timeout(Some(SOON));
    for created in must("a topic", block(client.create_topics(&wanted, &options))) {
        must("a topic", created.map_err(|(_, code)| code));
    }
}

/// A worker's place in the group, and the way into its topic.
pub(crate) struct Broker {
    topic: Topic,
    producer: BaseProducer,
    control: Option<SourceControl>,
    thread: Option<PollThread>,
}

impl Broker {
    /// Writes `message` to its partition; returns when the broker has it.
    pub(crate) fn produce(&self, message: &SourceMessage) {
        let mut record =
            BaseRecord::<[u8], [u8]>::to(&self.topic.name).partition(message.partition.partition);
        if let Some(key) = &message.key {
            record = record.key(key);
        }
        if let Some(value) = &message.value {
            record = record.payload(value);
        }
        if let Some(timestamp) = message.timestamp {
            record = record.timestamp(timestamp.millis());
        }
        let headers = message.headers.iter().fold(OwnedHeaders::new(), |all, header| {
            all.insert(Header { key: &header.name, value: header.value.as_deref() })
        });
        must("a record", self.producer.send(record.headers(headers)).map_err(|(error, _)| error));
        must("a record", self.producer.flush(SOON));
    }

    /// Another worker joins the group, gets partitions, does nothing with them and leaves.
    pub(crate) async fn visit(&self) {
        let topic = self.topic.clone();
        let (tell, left) = oneshot::channel();
        thread::spawn(move || {
            visit(&topic);
            // Whoever no longer waits has failed already.
            tell.send(()).ok();
        });
        must("another worker", left.await);
    }

    /// Commits what was handed over, and leaves the group.
    pub(crate) async fn close(&mut self) {
        if let Some(control) = self.control.take() {
            control.send(SourceCommand::Close { within: SOON });
        }
        self.gone().await;
    }

    /// Leaves the group without another word, once the pipeline is gone.
    pub(crate) async fn gone(&mut self) {
        self.control = None;
        if let Some(thread) = self.thread.take() {
            thread.join(SOON).await;
        }
    }
}

/// Joins the group of `topic`, waits for partitions, and leaves.
fn visit(topic: &Topic) {
    let mut client = topic.client();
    client.set("partition.assignment.strategy", "cooperative-sticky");
    client.set("session.timeout.ms", topic.config().session_timeout_ms.to_string());
    client.set("heartbeat.interval.ms", "100");
    let other: BaseConsumer = must("another worker", client.create());
    must("another worker", other.subscribe(&[&topic.name]));
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        drop(other.poll(Duration::from_millis(20)));
        if other.assignment().is_ok_and(|assigned| assigned.count() > 0) {
            return;
        }
    }
    panic!("the group gave another worker no partition within {SOON:?}");
}

/// Asks what the group has committed, without being a member.
pub(crate) struct Observer {
    consumer: BaseConsumer,
}

impl Observer {
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Position> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&partition.topic, partition.partition);
        // While the group is busy with itself the broker does not say: then it is asked again.
        let answer = self.consumer.committed_offsets(asked, SOON).ok()?;
        let found = answer.find_partition(&partition.topic, partition.partition)?;
        let next = found.offset().to_raw().filter(|next| *next >= 0)?;
        Some(Position { next: Offset(next), metadata: found.metadata().to_owned() })
    }
}
