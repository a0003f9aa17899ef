//! A Kafka broker inside of this process, and what it says about a group.
//!
//! It is librdkafka's mock cluster: it speaks the protocol over loopback, for this process only. It
//! keeps 5 MiB per partition and drops the oldest batches beyond that without a word, which is why
//! the feed is paced by what was read back.

use std::time::Duration;

use anyhow::Context;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use super::books::Position;

/// Topic the worker reads.
pub(crate) const REQUESTS: &str = "demo-requests";

/// Topic of the Kafka sink.
pub(crate) const RESULTS: &str = "demo-results";

/// Topic of the dead letters.
pub(crate) const DEAD_LETTERS: &str = "demo-requests_dlq";

/// Group of the worker.
pub(crate) const GROUP: &str = "demo-workers";

/// Partitions of each topic.
pub(crate) const PARTITIONS: i32 = 4;

/// How long a question to the broker may take.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A running broker; it ends when this is dropped.
pub(crate) struct Broker {
    cluster: drakkar_mock::Cluster,
}

impl Broker {
    /// Starts a broker that has the three topics.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let cluster = drakkar_mock::cluster(1).context("cannot start the embedded broker")?;
        for topic in [REQUESTS, RESULTS, DEAD_LETTERS] {
            cluster
                .create_topic(topic, PARTITIONS, 1)
                .with_context(|| format!("cannot create the topic {topic}"))?;
        }
        Ok(Self { cluster })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// What the group has committed, as anybody who is not in it can ask.
    pub(crate) fn positions(&self) -> anyhow::Result<Vec<Position>> {
        let observer = observer(&self.address(), GROUP)?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(REQUESTS, 0, PARTITIONS - 1);
        let committed = observer
            .committed_offsets(asked, ANSWER_WITHIN)
            .context("cannot read what was committed")?;
        let position = |partition| {
            let (_, end) = observer.fetch_watermarks(REQUESTS, partition, ANSWER_WITHIN)?;
            let committed = match committed.find_partition(REQUESTS, partition).map(|p| p.offset())
            {
                Some(Offset::Offset(next)) => next,
                _ => 0,
            };
            Ok(Position { partition, committed, end })
        };
        (0..PARTITIONS).map(position).collect()
    }
}

/// A consumer that is in no group; `group` is whose commits it can ask for.
pub(crate) fn observer(address: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        // The broker does not wake a waiting fetch, so this is how old a record gets.
        .set("fetch.wait.max.ms", "10")
        // A record that the broker dropped before it was read must not go unnoticed.
        .set("auto.offset.reset", "error")
        .create();
    consumer.context("cannot create a consumer")
}
