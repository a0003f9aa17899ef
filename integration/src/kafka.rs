//! A cluster as somebody outside of the workers sees it: topics, records, offsets.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication, TopicResult,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
    types::RDKafkaErrorCode as Code,
};

use crate::wait::{SOON, until};

type Admin = AdminClient<DefaultClientContext>;

/// Longest single question to a broker.
const QUESTION: Duration = Duration::from_secs(30);

/// A cluster.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// Its bootstrap servers.
    pub servers: String,
}

/// The next offset of each partition of some topics.
pub type Ends = BTreeMap<(String, i32), i64>;

/// Where the copies of a partition are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// Its number.
    pub partition: i32,
    /// The broker that serves it; -1 when none does.
    pub leader: i32,
    /// The brokers whose copy is complete.
    pub in_sync: Vec<i32>,
    /// How many copies are not.
    pub missing: usize,
}

/// A record to produce.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers; `None` is a null.
    pub headers: Vec<(&'static str, Option<Vec<u8>>)>,
}

impl Given {
    /// A record of this key and value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
    }

    /// A record without a value.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was.
    pub partition: i32,
    /// Its position there.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers in their order; `None` is a null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The key as text; empty where there is none.
    #[must_use]
    pub fn id(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The last header called `name` as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(found, _)| found == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }
}

impl Kafka {
    /// The cluster that all tests share.
    #[must_use]
    pub fn shared() -> Self {
        let servers = std::env::var("DRAKKAR_TEST_KAFKA").unwrap_or_default();
        assert!(
            !servers.is_empty(),
            "DRAKKAR_TEST_KAFKA is not set, and these tests need a real broker: run \
             `integration/test`, or `integration/services up` and then \
             `eval \"$(integration/services env)\"`"
        );
        Self { servers }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers);
        client.set("log_level", "2"); // Brokers of these tests go away on purpose.
        client
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        self.administer(
            "the topic to be made",
            Code::TopicAlreadyExists,
            async |admin, options| admin.create_topics([&topic], options).await,
        );
        let observer = self.observer("none");
        until("the topic to be known", SOON, || observer.ends(name).map(drop));
    }

    /// Changes one setting of a topic, and returns when its leader has heard of it. All others are those of the
    /// broker.
    pub fn configure_topic(&self, name: &str, setting: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
        let admin: Admin = self.client().create().unwrap();
        let options = AdminOptions::new().request_timeout(Some(SOON));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        until("the topic to be changed", SOON, || {
            let answer = runtime.block_on(admin.alter_configs([&change], &options));
            answer
                .map_err(|error| error.to_string())?
                .remove(0)
                .map_err(|error| format!("{error:?}"))?;
            let asked = [ResourceSpecifier::Topic(name)];
            let answer = runtime.block_on(admin.describe_configs(&asked, &options));
            let known = answer.map_err(|error| error.to_string())?.remove(0);
            let known = known.map_err(|error| format!("{error:?}"))?;
            match known.get(setting).and_then(|entry| entry.value.as_deref()) {
                Some(now) if now == value => Ok(()),
                now => Err(format!("it is {now:?}")),
            }
        });
    }

    /// Deletes a topic, and returns when nobody knows it any more.
    pub fn delete_topic(&self, name: &str) {
        let gone = Code::UnknownTopicOrPartition;
        self.administer("the topic to be deleted", gone, async |admin, options| {
            admin.delete_topics(&[name], options).await
        });
        let observer = self.observer("none");
        until("the topic to be gone", SOON, || match observer.ends(name) {
            Ok(ends) if !ends.is_empty() => Err(format!("{ends:?}")),
            _ => Ok(()),
        });
    }

    /// Gives a topic more partitions.
    pub fn grow_topic(&self, name: &str, partitions: usize) {
        let more = NewPartitions::new(name, partitions);
        self.administer("the topic to grow", Code::InvalidPartitions, async |admin, options| {
            admin.create_partitions([&more], options).await
        });
        let observer = self.observer("none");
        until("the partitions to be there", SOON, || match observer.ends(name) {
            Ok(ends) if ends.len() == partitions => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Asks until it is done, which is `then` answered with when it is asked once more. Brokers that stood
    /// still for a while do not count as alive for a moment, and nothing can be made on them.
    fn administer(
        &self,
        what: &str,
        then: Code,
        mut ask: impl AsyncFnMut(&Admin, &AdminOptions) -> KafkaResult<Vec<TopicResult>>,
    ) {
        let admin: Admin = self.client().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(SOON)).request_timeout(Some(SOON));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut asked = false;
        until(what, SOON, || {
            let is_again = std::mem::replace(&mut asked, true);
            let answer = runtime.block_on(ask(&admin, &options)).map_err(|e| e.to_string())?;
            match answer.into_iter().next() {
                Some(Ok(_)) => Ok(()),
                Some(Err((_, code))) if is_again && code == then => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Somebody who asks about offsets of `group` without being a member.
    #[must_use]
    pub fn observer(&self, group: &str) -> Observer {
        Observer { consumer: self.client().set("group.id", group).create().unwrap() }
    }

    /// Writes `records` to the partitions of `topic` in turns, and returns when all are confirmed.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Given>) {
        self.produce_compressed(topic, "none", records);
    }

    /// The same, in batches that are compressed by `codec`.
    pub fn produce_compressed(
        &self,
        topic: &str,
        codec: &str,
        records: impl IntoIterator<Item = Given>,
    ) {
        let observer = self.observer("none");
        let ends = until("the partitions of the topic", SOON, || observer.ends(topic));
        let partitions = i32::try_from(ends.len()).unwrap();
        let failed = Arc::new(AtomicUsize::new(0));
        let producer: BaseProducer<Reports> = self
            .client()
            .set("message.max.bytes", "8000000")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("compression.type", codec)
            .create_with_context(Reports(Arc::clone(&failed)))
            .unwrap();
        for (partition, given) in (0..partitions).cycle().zip(records) {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
            if let Some(key) = &given.key {
                record = record.key(key);
            }
            if let Some(value) = &given.value {
                record = record.payload(value);
            }
            if !given.headers.is_empty() {
                let headers =
                    given.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                        all.insert(Header { key, value: value.as_ref() })
                    });
                record = record.headers(headers);
            }
            while let Err((error, back)) = producer.send(record) {
                assert!(is_full(&error), "cannot produce: {error}");
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(3 * SOON).unwrap();
        assert_eq!(failed.load(Ordering::Relaxed), 0, "records that could not be produced");
    }

    /// Everything that is in `topic` now.
    #[must_use]
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let observer = self.observer("none");
        let ends = until("the ends of the topic", SOON, || observer.ends(topic));
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50")
            .create()
            .unwrap();
        let mut missing: i64 = ends.values().map(|(low, high)| high - low).sum();
        let mut from = TopicPartitionList::new();
        for &partition in ends.keys() {
            from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from).unwrap();
        let mut records = Vec::new();
        until(&format!("all of {topic}"), SOON, || {
            while let Some(polled) = consumer.poll(Duration::from_millis(100)) {
                // Errors of the connection pass; records that do not come are missed below.
                let Ok(message) = polled else { continue };
                if message.offset() < ends[&message.partition()].1 {
                    missing -= 1;
                    records.push(copy(&message));
                }
                if missing == 0 {
                    break;
                }
            }
            if missing == 0 { Ok(()) } else { Err(format!("{missing} records are missing")) }
        });
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }
}

fn is_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(Code::QueueFull))
}

fn copy(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let copied = headers.iter().map(|one| (one.key.to_owned(), one.value.map(<[u8]>::to_vec)));
        copied.collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

/// Counts what the broker did not confirm.
struct Reports(Arc<AtomicUsize>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if report.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks about offsets.
pub struct Observer {
    consumer: BaseConsumer,
}

impl Observer {
    /// First and next offset of every partition of `topic`.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn ends(&self, topic: &str) -> KafkaResult<BTreeMap<i32, (i64, i64)>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), QUESTION)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.filter(|found| found.error().is_none() && !found.partitions().is_empty());
        let missing = Code::UnknownTopicOrPartition;
        let found = found.ok_or(KafkaError::MetadataFetch(missing))?;
        let ask = |partition: i32| {
            Ok((partition, self.consumer.fetch_watermarks(topic, partition, QUESTION)?))
        };
        found.partitions().iter().map(|partition| ask(partition.id())).collect()
    }

    /// The next offset of every partition of every topic, those of the brokers' own left out.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn all_ends(&self) -> KafkaResult<Ends> {
        let metadata = self.consumer.fetch_metadata(None, QUESTION)?;
        let mut all = Ends::new();
        for topic in metadata.topics().iter().filter(|topic| !topic.name().starts_with("__")) {
            let name = topic.name();
            let ends = self.ends(name)?.into_iter();
            all.extend(ends.map(|(partition, (_, end))| ((name.to_owned(), partition), end)));
        }
        Ok(all)
    }

    /// Who leads and who holds every partition of `topic`; without a name, of every topic.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn replicas(&self, topic: Option<&str>) -> KafkaResult<Vec<Replicas>> {
        let metadata = self.consumer.fetch_metadata(topic, QUESTION)?;
        let of = |partition: &rdkafka::metadata::MetadataPartition| Replicas {
            partition: partition.id(),
            leader: partition.leader(),
            in_sync: partition.isr().to_vec(),
            missing: partition.replicas().len() - partition.isr().len(),
        };
        let topics = metadata.topics().iter();
        Ok(topics.flat_map(rdkafka::metadata::MetadataTopic::partitions).map(of).collect())
    }

    /// How many records `topic` holds.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn count(&self, topic: &str) -> KafkaResult<usize> {
        let held: i64 = self.ends(topic)?.values().map(|(low, high)| high - low).sum();
        Ok(usize::try_from(held).unwrap())
    }

    /// What the group has committed of `topic`; nothing counts as the first offset.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub fn committed(&self, topic: &str) -> KafkaResult<BTreeMap<i32, i64>> {
        let ends = self.ends(topic)?;
        let mut asked = TopicPartitionList::new();
        for &partition in ends.keys() {
            asked.add_partition(topic, partition);
        }
        let answer = self.consumer.committed_offsets(asked, QUESTION)?;
        let of = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            let low = ends[&element.partition()].0;
            (element.partition(), element.offset().to_raw().filter(|raw| *raw >= 0).unwrap_or(low))
        };
        Ok(answer.elements().iter().map(of).collect())
    }

    /// How many messages of `topic` the group has not committed.
    ///
    /// # Errors
    ///
    /// When no broker answers, in words.
    pub fn lag(&self, topic: &str) -> Result<i64, String> {
        let text = |error: KafkaError| error.to_string();
        let ends = self.ends(topic).map_err(text)?;
        let committed = self.committed(topic).map_err(text)?;
        Ok(ends.iter().map(|(partition, (_, end))| end - committed[partition]).sum())
    }
}
