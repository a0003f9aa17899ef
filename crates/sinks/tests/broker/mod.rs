//! A broker in this process, written to by sinks and read back by tests.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{
    Header, KafkaPayload, Payload, hold::HoldBoard, kafka_client::Cluster as Source,
    observe::SinkObserver,
};
pub(crate) use drakkar_mock::{Cluster, SOON};
use drakkar_sinks::{
    CustomSinks, DlqConfig, Identity, KafkaSinkConfig, Settled, Sinks, SinksConfig,
};
use rdkafka::{Message, message::Headers};
use tokio::task::JoinHandle;

/// One broker.
pub(crate) struct Broker(drakkar_mock::Broker);

/// The broker that tests share which do not make it fail.
pub(crate) static BROKER: LazyLock<Broker> = LazyLock::new(Broker::start);

/// What was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self(drakkar_mock::Broker::start())
    }

    /// Does `work` with the cluster, and returns when it is done.
    pub(crate) fn with(&self, work: impl FnOnce(&Cluster) + Send + 'static) {
        self.0.with(work);
    }

    pub(crate) fn topic(&self, name: &str) {
        self.topic_of(name, 1);
    }

    /// Makes a topic of so many partitions.
    pub(crate) fn topic_of(&self, name: &str, partitions: i32) {
        self.0.create_topic(name, partitions);
    }

    /// The cluster as a consumer would name it.
    pub(crate) fn source(&self) -> Source {
        Source { brokers: self.0.address.clone(), ..Source::default() }
    }

    /// One Kafka sink `out` for `topic`, and dead letters, at a broker that is always there.
    pub(crate) async fn sinks(&self, topic: &str) -> Sinks {
        // Nothing is sent twice because the machine stalls.
        self.sinks_with(&KafkaSinkConfig { delivery_timeout: SOON, ..sink(topic) }).await
    }

    /// One Kafka sink `out`, and dead letters.
    pub(crate) async fn sinks_with(&self, out: &KafkaSinkConfig) -> Sinks {
        self.connect(out, &DlqConfig::default()).await
    }

    /// The same, with dead letters as `dlq` says.
    pub(crate) async fn connect(&self, out: &KafkaSinkConfig, dlq: &DlqConfig) -> Sinks {
        let config = SinksConfig {
            kafka: [("out".to_owned(), out.clone())].into(),
            retry_backoff_max: Duration::from_millis(200),
            ..SinksConfig::default()
        };
        let observer: Arc<dyn SinkObserver> = Arc::new(());
        Sinks::connect(
            &config,
            CustomSinks::default(),
            dlq,
            &self.source(),
            &identity(),
            SOON,
            observer,
        )
        .await
        .unwrap()
        .sinks
    }

    /// Reads partition 0 of `topic` until it holds `count` records.
    pub(crate) fn read(&self, topic: &str, count: usize) -> Vec<Read> {
        self.read_partition(topic, 0, count).into_iter().map(|(_, read)| read).collect()
    }

    /// Reads a partition until it holds `count` records; each with its timestamp.
    pub(crate) fn read_partition(
        &self,
        topic: &str,
        partition: i32,
        count: usize,
    ) -> Vec<(Option<i64>, Read)> {
        let read = self.0.read(topic, partition, count).into_iter();
        read.map(|message| (message.timestamp().to_millis(), detached(&message))).collect()
    }
}

/// Settings that notice an outage soon.
pub(crate) fn sink(topic: &str) -> KafkaSinkConfig {
    KafkaSinkConfig {
        topic: topic.to_owned(),
        delivery_timeout: Duration::from_millis(800),
        client_config: [
            ("topic.metadata.propagation.max.ms", "300"),
            ("topic.metadata.refresh.fast.interval.ms", "50"),
            ("reconnect.backoff.max.ms", "200"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..KafkaSinkConfig::default()
    }
}

pub(crate) fn identity() -> Identity {
    Identity { group: "group".to_owned(), worker: "worker-1".to_owned() }
}

/// Delivers on a task of its own, under a hold of `board`.
pub(crate) fn send(
    sinks: &Sinks,
    payload: KafkaPayload,
    board: &Arc<HoldBoard>,
) -> JoinHandle<Settled> {
    let (sinks, payload, hold) = (sinks.clone(), Payload::Kafka(payload), board.task());
    tokio::spawn(async move { sinks.deliver(payload, &hold).await })
}

/// Waits until so many tasks of `board` are held.
pub(crate) async fn until_held(board: &HoldBoard, tasks: usize) {
    let held = async {
        while board.held_tasks() != tasks {
            board.changed().await;
        }
    };
    tokio::time::timeout(SOON, held).await.unwrap();
}

fn detached(message: &impl Message) -> Read {
    let copy = Bytes::copy_from_slice;
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Read {
        key: message.key().map(copy),
        value: message.payload().map(copy),
        headers: headers
            .map(|header| Header { name: header.key.into(), value: header.value.map(copy) })
            .collect(),
    }
}
