//! A broker in this process, with the topics of one test, and the command that is run against it.

use std::{
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use drakkar_mock::{Broker, SOON};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::Instant;

/// Partitions of each topic.
const PARTITIONS: i32 = 2;

/// Names and values; `None` is a null.
pub(crate) type Pairs = Vec<(String, Option<Vec<u8>>)>;

/// A record, written or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub partition: i32,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Pairs,
}

/// A dead letter as a worker writes it.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// The message.
    pub record: Record,
    class: &'static str,
    number: usize,
    is_foreign: bool,
    /// What a worker wrote behind its other headers of a payload that a sink refused.
    payload: Option<Pairs>,
}

impl Letter {
    /// Given up because a sink refused what these headers are about.
    pub(crate) fn refused(mut self, headers: &[(&str, &str)]) -> Self {
        let pair = |(name, value): &(&str, &str)| {
            (format!("drakkar-{name}"), Some(value.as_bytes().to_vec()))
        };
        self.payload = Some(headers.iter().map(pair).collect());
        self
    }

    pub(crate) fn class(mut self, class: &'static str) -> Self {
        self.class = class;
        self
    }

    /// Given up so many milliseconds after 1970.
    pub(crate) fn at(mut self, millis: i64) -> Self {
        self.record.timestamp = Some(millis);
        self
    }

    /// In partition 1 of the dead-letter topic.
    pub(crate) fn elsewhere(mut self) -> Self {
        self.record.partition = 1;
        self
    }

    /// Not written by a worker.
    pub(crate) fn foreign(mut self) -> Self {
        self.is_foreign = true;
        self
    }

    /// All headers, where a worker read the message from `source`.
    pub(crate) fn headers(&self, source: &str) -> Pairs {
        let number = self.number.to_string();
        let ours = [
            ("drakkar-stage", if self.payload.is_some() { "deliver" } else { "execute" }),
            ("drakkar-error-class", self.class),
            ("drakkar-error-message", "why"),
            ("drakkar-attempt", "4"),
            ("drakkar-original-topic", source),
            ("drakkar-original-partition", "1"),
            ("drakkar-original-offset", &number),
            ("drakkar-original-timestamp", "1700000000000"),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec())));
        let ours = ours.into_iter().filter(|_| !self.is_foreign);
        let payload = self.payload.iter().flatten().cloned();
        self.record.headers.iter().cloned().chain(ours).chain(payload).collect()
    }
}

/// The letter of message `number` with these headers.
pub(crate) fn letter(number: usize, headers: &[(&str, Option<&[u8]>)]) -> Letter {
    let own =
        |(name, value): &(&str, Option<&[u8]>)| ((*name).to_owned(), value.map(<[u8]>::to_vec));
    let record = Record {
        partition: 0,
        timestamp: Some(1_795_000_000_000),
        key: Some([b"\xffk-", number.to_string().as_bytes()].concat()),
        value: Some(format!("{{\"n\": {number}}}").into_bytes()),
        headers: headers.iter().map(own).collect(),
    };
    Letter { record, class: "exit_code", number, is_foreign: false, payload: None }
}

/// How the command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// The command while it runs.
pub(crate) struct Running(Child);

impl Running {
    fn begin(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drakkar"));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end.
    pub(crate) fn ended(self) -> Ended {
        let Output { status, stdout, stderr } = self.0.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// Runs the command.
pub(crate) fn drakkar(arguments: &[&str]) -> Ended {
    Running::begin(arguments).ended()
}

/// A broker of its own and four topics.
pub(crate) struct World {
    pub address: String,
    pub source: String,
    pub letters: String,
    pub parked: String,
    pub other: String,
    broker: Broker,
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let source = format!("orders-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let broker = Broker::start();
        let world = Self {
            address: broker.address.clone(),
            letters: format!("{source}_dlq"),
            parked: format!("{source}_dlq_parked"),
            other: format!("{source}-other"),
            source,
            broker,
        };
        for topic in [&world.source, &world.letters, &world.parked, &world.other] {
            world.broker.create_topic(topic, PARTITIONS);
        }
        world
    }

    /// Has the broker answer the next requests of this kind so.
    pub(crate) fn refuse(&self, request: RDKafkaApiKey, answers: &[RDKafkaRespErr]) {
        let answers = answers.to_vec();
        self.broker.with(move |cluster| cluster.request_errors(request, &answers));
    }

    /// Takes back what it was told to answer.
    pub(crate) fn refuse_no_more(&self, request: RDKafkaApiKey) {
        self.broker.with(move |cluster| cluster.clear_request_errors(request));
    }

    /// Runs `drakkar dlq` about the letters of this world.
    pub(crate) fn dlq(&self, arguments: &[&str]) -> Ended {
        self.dlq_of(&self.letters, arguments)
    }

    /// Runs `drakkar dlq` about the letters of `topic`.
    pub(crate) fn dlq_of(&self, topic: &str, arguments: &[&str]) -> Ended {
        drakkar(&[&["dlq"], arguments, &["--brokers", &self.address, "--topic", topic]].concat())
    }

    /// Starts `drakkar dlq` about the letters of this world.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        Running::begin(&self.words(arguments))
    }

    /// What is said to run `drakkar dlq` about the letters of this world.
    pub(crate) fn words<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let place = ["--brokers", &self.address, "--topic", &self.letters];
        [&["dlq"], arguments, &place].concat()
    }

    /// The same where everything it says goes to a pipe that nobody reads.
    pub(crate) fn begin_unheard(&self, arguments: &[&str]) -> Running {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_drakkar"));
        command.arg("dlq").args(arguments);
        command.args(["--brokers", &self.address, "--topic", &self.letters]);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        Running(command.spawn().unwrap())
    }

    /// Waits until `topic` holds so many records.
    pub(crate) fn wait_for(&self, topic: &str, count: usize) {
        let until = Instant::now() + SOON;
        while self.read(topic).len() < count {
            assert!(Instant::now() < until, "{topic} does not come to hold {count}");
        }
    }

    /// Writes letters to the dead-letter topic.
    pub(crate) fn letters(&self, letters: impl IntoIterator<Item = Letter>) {
        self.letters_to(&self.letters, letters);
    }

    /// Writes letters to `topic`.
    pub(crate) fn letters_to(&self, topic: &str, letters: impl IntoIterator<Item = Letter>) {
        let producer: BaseProducer =
            self.broker.client().set("enable.idempotence", "true").create().unwrap();
        for letter in letters {
            let headers = letter.headers(&self.source);
            let Record { partition, timestamp, key, value, .. } = letter.record;
            let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: value.as_ref() })
            });
            let mut record =
                BaseRecord::<[u8], [u8]>::to(topic).partition(partition).headers(headers);
            record.timestamp = timestamp;
            record.key = key.as_deref();
            record.payload = value.as_deref();
            producer.send(record).unwrap();
        }
        producer.flush(SOON).unwrap();
    }

    /// Everything that is in `topic`, in the order of partitions.
    pub(crate) fn read(&self, topic: &str) -> Vec<Record> {
        let all = (0..PARTITIONS).flat_map(|partition| {
            self.broker.read(topic, partition, self.broker.count(topic, partition))
        });
        all.map(|message| detached(&message)).collect()
    }

    /// Commits these offsets of the dead-letter topic for `group`, as Kafka's own tools do.
    pub(crate) fn commit(&self, group: &str, next: &[i64]) {
        let consumer: BaseConsumer = self.broker.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, next) in (0..).zip(next) {
            list.add_partition_offset(&self.letters, partition, Offset::Offset(*next)).unwrap();
        }
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    /// What `group` has committed of each partition of the dead-letter topic.
    pub(crate) fn committed(&self, group: &str) -> Vec<Option<i64>> {
        let consumer: BaseConsumer = self.broker.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.letters, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(list, SOON).unwrap();
        let next = |partition| committed.find_partition(&self.letters, partition).unwrap().offset();
        (0..PARTITIONS).map(|one| next(one).to_raw().filter(|raw| 0 <= *raw)).collect()
    }
}

fn detached(message: &impl Message) -> Record {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        partition: message.partition(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|one| (one.key.to_owned(), one.value.map(<[u8]>::to_vec))).collect(),
    }
}
