//! A Kafka broker inside this process (librdkafka's mock cluster), filled before anybody measures.
//!
//! It keeps 5 MiB per partition and drops the oldest batches beyond that without a word: a topic that
//! lost one is refused.

use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::time::Instant;

/// Partitions of a topic.
pub(crate) const PARTITIONS: i32 = 8;

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 200;

/// How long a question to the broker may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a group may take to commit everything.
const COMMITTED_WITHIN: Duration = Duration::from_mins(2);

/// How often an observer asks what is committed.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running broker; it ends when this is dropped.
pub(crate) struct Broker(drakkar_mock::Cluster);

/// A topic that holds what is to be processed.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) address: String,
    pub(crate) name: &'static str,
    /// In all partitions together.
    pub(crate) messages: usize,
}

impl Broker {
    pub(crate) fn start() -> anyhow::Result<Self> {
        drakkar_mock::cluster(1).context("cannot start the broker").map(Self)
    }

    /// A topic without messages, and the topic for its dead letters.
    pub(crate) fn empty(&self, name: &'static str) -> anyhow::Result<Topic> {
        self.0.create_topic(name, PARTITIONS, 1)?;
        self.0.create_topic(&format!("{name}_dlq"), PARTITIONS, 1)?;
        Ok(Topic { address: self.0.bootstrap_servers(), name, messages: 0 })
    }

    /// A topic with at least `messages`, the same number in every partition, and the topic for its
    /// dead letters.
    pub(crate) fn filled(&self, name: &'static str, messages: usize) -> anyhow::Result<Topic> {
        let each = messages.div_ceil(PARTITIONS.unsigned_abs() as usize);
        let messages = each * PARTITIONS.unsigned_abs() as usize;
        let topic = Topic { messages, ..self.empty(name)? };
        topic.fill(each)?;
        let observer = topic.consumer("bench-observer").create::<BaseConsumer>()?;
        for partition in 0..PARTITIONS {
            let (low, high) = observer.fetch_watermarks(name, partition, ANSWER_WITHIN)?;
            ensure!(
                low == 0 && usize::try_from(high)? == each,
                "the broker keeps offsets {low} to {high} of {each}: ask for fewer messages"
            );
        }
        Ok(topic)
    }
}

impl Topic {
    /// All of it, from the beginning.
    pub(crate) fn beginning(&self) -> TopicPartitionList {
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            // The only error is an offset that is no offset.
            drop(all.add_partition_offset(self.name, partition, Offset::Beginning));
        }
        all
    }

    fn fill(&self, each: usize) -> anyhow::Result<()> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("linger.ms", "20")
            .set("batch.num.messages", "1000")
            // What is kept is counted compressed: enough messages fit for a run of seconds.
            .set("compression.type", "lz4")
            .create()?;
        for number in 0..each {
            let value = value(number);
            for partition in 0..PARTITIONS {
                let record = BaseRecord::<(), _>::to(self.name).payload(&value);
                let mut record = record.partition(partition);
                while let Err((error, again)) = producer.send(record) {
                    let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                    ensure!(error == full, error);
                    producer.poll(LOOK_EVERY);
                    record = again;
                }
            }
            producer.poll(Duration::ZERO);
        }
        Ok(producer.flush(ANSWER_WITHIN)?)
    }

    /// A consumer of `group`, as everybody here is configured who consumes.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.address)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            // As the worker: with the client's own second it stands still whenever its queue was full.
            .set("fetch.queue.backoff.ms", "10")
            // The broker does not wake a waiting fetch.
            .set("fetch.wait.max.ms", "10");
        config
    }

    /// Returns at the moment at which `group` has committed everything, as anybody can see.
    pub(crate) fn wait_committed(&self, group: &str) -> anyhow::Result<Instant> {
        let observer = self.consumer(group).create::<BaseConsumer>()?;
        let deadline = Instant::now() + COMMITTED_WITHIN;
        loop {
            let committed = self.committed(&observer)?;
            if committed == self.messages {
                return Ok(Instant::now());
            }
            ensure!(
                Instant::now() < deadline,
                "{group} has committed {committed} of {} messages of {}",
                self.messages,
                self.name
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn committed(&self, observer: &BaseConsumer) -> anyhow::Result<usize> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(self.name, 0, PARTITIONS - 1);
        let committed = observer.committed_offsets(asked, ANSWER_WITHIN)?;
        let next = committed.elements().into_iter().filter_map(|of| match of.offset() {
            Offset::Offset(next) => usize::try_from(next).ok(),
            _ => None,
        });
        Ok(next.sum())
    }
}

/// A value of [`VALUE_BYTES`] that begins with `number`.
fn value(number: usize) -> String {
    format!("{number:x<VALUE_BYTES$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_promised_size() {
        assert_eq!(value(0).len(), VALUE_BYTES);
        assert_eq!(value(123_456).len(), VALUE_BYTES);
    }

    #[test]
    fn a_topic_is_filled_evenly_and_nothing_of_it_is_committed() {
        let broker = Broker::start().unwrap();
        let topic = broker.filled("even", 10).unwrap();
        assert_eq!(topic.messages, 16);
        let observer = topic.consumer("nobody").create::<BaseConsumer>().unwrap();
        assert_eq!(topic.committed(&observer).unwrap(), 0);
    }
}
