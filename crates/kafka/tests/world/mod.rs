//! A broker, a producer for it, and a stand-in for the pipeline.
//!
//! The broker runs in this process. With `DRAKKAR_TEST_KAFKA=host:port` the tests that injure no broker
//! run against that one instead, and with `DRAKKAR_TEST_GROUP_PROTOCOL=consumer` by KIP-848.

#![allow(dead_code)] // Every test binary uses its own part of it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // It is test code without being a test.

use std::{
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drakkar_core::{
    Offset, SourceMessage, TopicPartition,
    observe::SourceObserver,
    source::{Assignment, Position, SourceCommand, SourceEvent},
};
use drakkar_kafka::{GroupProtocol, KafkaConfig, Source};
pub(crate) use drakkar_mock::{Cluster, SOON};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    message::ToBytes,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

/// One broker.
pub(crate) struct Broker {
    pub(crate) address: String,
    kind: Kind,
}

enum Kind {
    /// In this process.
    Mock(drakkar_mock::Broker),
    /// What it keeps from an earlier run must not disturb.
    Real { suffix: String },
}

/// The broker that the tests of one binary share.
pub(crate) static BROKER: LazyLock<Broker> =
    LazyLock::new(|| match std::env::var("DRAKKAR_TEST_KAFKA") {
        Ok(address) => Broker { address, kind: Kind::Real { suffix: format!("-{}", run()) } },
        Err(_) => Broker::start(),
    });

/// A number that no other run has.
fn run() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

impl Broker {
    /// A broker in this process.
    pub(crate) fn start() -> Self {
        let mock = drakkar_mock::Broker::start();
        Self { address: mock.address.clone(), kind: Kind::Mock(mock) }
    }

    /// Does `work` with the cluster, and returns when it is done.
    pub(crate) fn with(&self, work: impl FnOnce(&Cluster) + Send + 'static) {
        let Kind::Mock(mock) = &self.kind else { panic!("not ours to injure") };
        mock.with(work);
    }

    /// What the topic that a test calls `name` is called here.
    pub(crate) fn name(&self, name: &str) -> String {
        match &self.kind {
            Kind::Mock(_) => name.to_owned(),
            Kind::Real { suffix } => format!("{name}{suffix}"),
        }
    }

    /// A topic of its own for one test; returns how to read it.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> KafkaConfig {
        let topic = self.name(name);
        match &self.kind {
            Kind::Mock(mock) => mock.create_topic(&topic, partitions),
            Kind::Real { .. } => create(&self.address, &topic, partitions),
        }
        let mut config = KafkaConfig {
            brokers: self.address.clone(),
            consumer_group: format!("group-of-{topic}"),
            source_topic: topic,
            startup_align_enabled: false,
            // Longer than any machine stalls: who is late shall not be thrown out.
            session_timeout_ms: 60_000,
            heartbeat_interval_ms: 100,
            ..KafkaConfig::default()
        };
        if let Kind::Real { .. } = self.kind
            && std::env::var("DRAKKAR_TEST_GROUP_PROTOCOL").is_ok_and(|name| name == "consumer")
        {
            config.group_protocol = GroupProtocol::Consumer;
        }
        // A waiting fetch of the mock does not wake for new data.
        config.client_config.insert("fetch.wait.max.ms".to_owned(), "10".to_owned());
        config
    }

    /// As [`topic`](Self::topic), for a group whose members come, go or are forgotten.
    pub(crate) fn shared(&self, name: &str, partitions: i32) -> KafkaConfig {
        // The mock paces rebalances by this; below its first delay of 3 s nobody ever joins.
        let topic = self.topic(name, partitions);
        // Where a stall is longer than a session, it forgets who waits to join, and never answers: the
        // client gives such a request up three seconds after its longest time between polls.
        KafkaConfig { session_timeout_ms: 6_000, max_poll_interval_ms: 10_000, ..topic }
    }

    /// Writes `values` to a partition, in order.
    pub(crate) fn produce(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = String>,
    ) {
        let producer = self.producer();
        let topic = self.name(topic);
        for value in values {
            send(&producer, BaseRecord::<(), _>::to(&topic).partition(partition).payload(&value));
        }
        producer.flush(SOON).unwrap();
    }

    pub(crate) fn producer(&self) -> BaseProducer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("message.max.bytes", "3000000")
            .set("linger.ms", "5")
            .create()
            .unwrap()
    }
}

/// Creates `topic`; blocks the test, which has nothing else to do.
fn create(address: &str, topic: &str, partitions: i32) {
    let client: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    let wanted = [NewTopic::new(topic, partitions, TopicReplication::Fixed(1))];
    let options = AdminOptions::new();
    let runtime = Handle::current();
    let created = thread::scope(|scope| {
        scope.spawn(|| runtime.block_on(client.create_topics(&wanted, &options))).join().unwrap()
    });
    created.unwrap()[0].as_ref().unwrap();
}

/// Sends `record`, waiting for room.
pub(crate) fn send<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(
    producer: &BaseProducer,
    mut record: BaseRecord<'_, K, V>,
) {
    while let Err((_, back)) = producer.send(record) {
        record = back;
        producer.poll(Duration::from_millis(5));
    }
}

/// What the observer heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Rebalanced(&'static str, Vec<TopicPartition>),
    Committed(TopicPartition, i64),
    Refused(String),
    Trouble(String),
    Paused(TopicPartition, bool),
    Lag(TopicPartition, i64),
    Rewound(TopicPartition, i64, i64),
}

pub(crate) struct Ear(mpsc::UnboundedSender<Heard>);

impl Ear {
    fn hear(&self, heard: Heard) {
        drop(self.0.send(heard));
    }
}

impl SourceObserver for Ear {
    fn rebalanced(&self, kind: &'static str, partitions: &[TopicPartition]) {
        self.hear(Heard::Rebalanced(kind, partitions.to_vec()));
    }
    fn committed(&self, partition: &TopicPartition, next: i64) {
        self.hear(Heard::Committed(partition.clone(), next));
    }
    fn commit_refused(&self, error: &str) {
        self.hear(Heard::Refused(error.to_owned()));
    }
    fn client_error(&self, error: &str) {
        self.hear(Heard::Trouble(error.to_owned()));
    }
    fn paused(&self, partition: &TopicPartition, paused: bool) {
        self.hear(Heard::Paused(partition.clone(), paused));
    }
    fn lag(&self, partition: &TopicPartition, messages: i64) {
        self.hear(Heard::Lag(partition.clone(), messages));
    }
    fn rewound(&self, partition: &TopicPartition, next: i64, from: i64) {
        self.hear(Heard::Rewound(partition.clone(), next, from));
    }
}

/// A member of the group whose pipeline is the test.
pub(crate) struct Member {
    pub source: Source,
    pub heard: mpsc::UnboundedReceiver<Heard>,
}

impl Member {
    pub(crate) async fn start(config: &KafkaConfig) -> Self {
        let (ear, heard) = mpsc::unbounded_channel();
        let source = Source::start(config, "member", Arc::new(Ear(ear))).await.unwrap();
        source.control.send(SourceCommand::Join);
        Self { source, heard }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> SourceEvent {
        let event = timeout(SOON, self.source.events.recv()).await.expect("no event");
        event.expect("thread ended")
    }

    /// The next assignment that is not empty.
    pub(crate) async fn assigned(&mut self) -> Vec<Assignment> {
        loop {
            match self.event().await {
                SourceEvent::Assigned(assignments) if assignments.is_empty() => {}
                SourceEvent::Assigned(mut assignments) => {
                    assignments.sort_by_key(|assignment| assignment.partition.partition);
                    return assignments;
                }
                other => panic!("expected an assignment: {other:?}"),
            }
        }
    }

    /// The next revoke that is not empty.
    pub(crate) async fn revoked(&mut self) -> Vec<TopicPartition> {
        loop {
            match self.event().await {
                SourceEvent::Assigned(assignments) if assignments.is_empty() => {}
                SourceEvent::Revoked { partitions, .. } if partitions.is_empty() => {}
                SourceEvent::Revoked { partitions, .. } => return partitions,
                other => panic!("expected a revoke: {other:?}"),
            }
        }
    }

    /// The next partitions whose assignment is over.
    pub(crate) async fn released(&mut self) -> Vec<TopicPartition> {
        loop {
            match self.event().await {
                SourceEvent::Assigned(assignments) if assignments.is_empty() => {}
                SourceEvent::Released { partitions } => return partitions,
                other => panic!("expected the end of an assignment: {other:?}"),
            }
        }
    }

    /// Waits until the observer heard what `wanted` looks for.
    pub(crate) async fn hears<T>(&mut self, wanted: impl Fn(&Heard) -> Option<T>) -> T {
        let found = async {
            loop {
                let heard = self.heard.recv().await.expect("the observer is gone");
                if let Some(found) = wanted(&heard) {
                    return found;
                }
            }
        };
        timeout(SOON, found).await.expect("never heard")
    }

    pub(crate) fn commit(&self, assignment: &Assignment, next: i64, metadata: &str) {
        self.source.control.send(SourceCommand::Commit {
            partition: assignment.partition.clone(),
            epoch: assignment.epoch,
            position: position(next, metadata),
        });
    }

    pub(crate) fn hand_over(&self, assignment: &Assignment, position: Option<Position>) {
        self.source.control.send(SourceCommand::HandOver {
            partition: assignment.partition.clone(),
            epoch: assignment.epoch,
            position,
        });
    }

    /// Leaves. What the observer heard until the end.
    pub(crate) async fn close(mut self) -> Vec<Heard> {
        self.source.control.send(SourceCommand::Close { within: SOON });
        self.source.join(SOON).await;
        let mut rest = Vec::new();
        while let Ok(heard) = self.heard.try_recv() {
            rest.push(heard);
        }
        rest
    }

    /// The next message of `assignment`, settled at once.
    pub(crate) async fn take(&self, assignment: &mut Assignment) -> SourceMessage {
        let message = timeout(SOON, assignment.inbox.recv()).await;
        let message = message.expect("no message").expect("the inbox was closed");
        if assignment.load.remove(message.size()) {
            self.source.control.send(SourceCommand::Resume {
                partition: assignment.partition.clone(),
                epoch: assignment.epoch,
            });
        }
        Arc::unwrap_or_clone(message)
    }
}

pub(crate) fn position(next: i64, metadata: &str) -> Position {
    Position { next: Offset(next), metadata: metadata.to_owned() }
}
