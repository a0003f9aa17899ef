//! Kafka sinks against Apache Kafka: what is written is what was given, what cannot be written is
//! refused alone, and what cannot be written now is held.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

mod cut; // connections that end while answers are on their way

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drakkar_core::{Header, KafkaPayload, Payload, Timestamp, hold::HoldBoard};
use drakkar_integration::{
    Kafka, OwnBroker, Record, SOON,
    sinks::{connect, connect_within, deliver_all},
    until,
};
use drakkar_sinks::{Settled, Sinks};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A topic of the shared cluster, and a sink for it.
struct Desk {
    kafka: Kafka,
    topic: String,
    runtime: Runtime,
    sinks: Sinks,
}

impl Desk {
    fn open(topic: &str, partitions: i32) -> Self {
        Self::open_with(topic, partitions, &json!({}))
    }

    /// With further keys of the section.
    fn open_with(topic: &str, partitions: i32, keys: &Value) -> Self {
        let kafka = Kafka::shared();
        let topic = unique(topic);
        kafka.create_topic(&topic, partitions);
        let runtime = Runtime::new().unwrap();
        let connected = runtime.block_on(connect(section(&topic, keys)));
        let sinks = connected.unwrap_or_else(|error| panic!("{error}")).sinks;
        Self { kafka, topic, runtime, sinks }
    }

    fn deliver(&self, payloads: impl IntoIterator<Item = KafkaPayload>) -> Vec<Settled> {
        self.runtime.block_on(deliver_all(&self.sinks, payloads))
    }

    fn read(&self) -> Vec<Record> {
        self.kafka.read(&self.topic)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.runtime.block_on(self.sinks.close(SOON));
    }
}

/// A name that no other run has.
fn unique(topic: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("sinks-{topic}-{}-{:x}", std::process::id(), now.as_nanos())
}

fn section(topic: &str, keys: &Value) -> Value {
    let mut sink = json!({ "topic": topic });
    let object = sink.as_object_mut().unwrap();
    object.extend(keys.as_object().unwrap().clone());
    let soon = json!({ "cooldown_seconds": 1 });
    json!({ "kafka": { "out": sink }, "retry_backoff_max": "1s", "circuit_breaker": soon })
}

fn class(settled: &Settled) -> &str {
    match settled {
        Settled::Refused(refused) => &refused.error.class,
        Settled::Confirmed => "confirmed",
    }
}

#[test]
fn a_record_arrives_as_it_was_given_nulls_partition_and_time_included() {
    let desk = Desk::open("bytes", 3);
    let mut full = KafkaPayload::raw(&b"v\x00\xff"[..])
        .key(&b"k\xfe"[..])
        .partition(2)
        .timestamp(Timestamp::Created(1_700_000_000_123))
        .header("a", &b"\xff\x00"[..]);
    full.headers.push(Header { name: "none".into(), value: None });
    let full = full.header("a", "");
    let tombstone = KafkaPayload::tombstone("gone").partition(1);
    let empty = KafkaPayload::raw("").partition(0);
    for settled in desk.deliver([full, tombstone, empty]) {
        assert_eq!(settled, Settled::Confirmed);
    }
    let records = desk.read();
    let [empty, tombstone, full] = &records[..] else {
        panic!("three records are there: {records:?}");
    };
    assert_eq!(full.partition, 2);
    assert_eq!(full.timestamp, Some(1_700_000_000_123));
    assert_eq!(full.key.as_deref(), Some(&b"k\xfe"[..]));
    assert_eq!(full.value.as_deref(), Some(&b"v\x00\xff"[..]));
    let headers = [("a", Some(vec![255, 0])), ("none", None), ("a", Some(vec![]))];
    assert_eq!(full.headers, headers.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!((tombstone.partition, &tombstone.value), (1, &None));
    assert_eq!(tombstone.id(), "gone");
    assert_eq!((empty.partition, empty.value.as_deref()), (0, Some(&b""[..])));
    assert_eq!(empty.key, None);
}

#[test]
fn a_payload_may_name_another_topic() {
    let desk = Desk::open("usual", 1);
    let other = unique("other");
    desk.kafka.create_topic(&other, 1);
    let payloads = [KafkaPayload::raw("u"), KafkaPayload::raw("o").topic(other.as_str())];
    for settled in desk.deliver(payloads) {
        assert_eq!(settled, Settled::Confirmed);
    }
    assert_eq!(desk.read()[0].value.as_deref(), Some(&b"u"[..]));
    assert_eq!(desk.kafka.read(&other)[0].value.as_deref(), Some(&b"o"[..]));
}

#[test]
fn compressed_records_read_back_as_they_were() {
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        let keys = json!({ "compression": compression });
        let desk = Desk::open_with(compression, 1, &keys);
        let values: Vec<String> = (0..500).map(|n| format!("{n}-{}", "x".repeat(n))).collect();
        let payloads = values.iter().map(|value| KafkaPayload::raw(value.clone()));
        for settled in desk.deliver(payloads) {
            assert_eq!(settled, Settled::Confirmed, "{compression}");
        }
        let mut read: Vec<String> = desk
            .read()
            .into_iter()
            .map(|record| String::from_utf8(record.value.unwrap()).unwrap())
            .collect();
        read.sort_unstable_by_key(String::len);
        let mut expected = values;
        expected.sort_unstable_by_key(String::len);
        assert_eq!(read, expected, "{compression}");
    }
}

#[test]
fn in_the_middle_of_a_batch_only_what_can_never_be_written_is_refused() {
    let desk = Desk::open("refused", 2);
    let far = Timestamp::Created(32_503_680_000_000); // The year 3000: the broker allows an hour.
    let bad = [
        KafkaPayload::raw(vec![b'x'; 2_000_000]),
        KafkaPayload::raw("far").timestamp(far),
        KafkaPayload::raw("nowhere").partition(2),
    ];
    let mut payloads: Vec<KafkaPayload> =
        (0..30).map(|n: u32| KafkaPayload::raw(n.to_string())).collect();
    for (n, payload) in bad.into_iter().enumerate() {
        payloads.insert(5 + 10 * n, payload);
    }
    let settled = desk.deliver(payloads);
    let classes: Vec<&str> =
        settled.iter().map(class).filter(|class| *class != "confirmed").collect();
    assert_eq!(classes, ["MessageSizeTooLarge", "InvalidTimestamp", "UnknownPartition"]);
    let mut values: Vec<u32> = desk
        .read()
        .into_iter()
        .map(|record| String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap())
        .collect();
    values.sort_unstable();
    assert_eq!(values, (0..30).collect::<Vec<_>>(), "each neighbour is there once");
}

#[test]
fn records_that_are_sent_one_by_one_keep_their_order_also_around_one_that_is_refused() {
    let keys = json!({
        "batch": {"in_flight": 1, "max_items": 2_000, "linger": "1s"},
        "client_config": {"batch.num.messages": "1"},
    });
    let desk = Desk::open_with("ordered", 1, &keys);
    let far = Timestamp::Created(32_503_680_000_000);
    let is_refused = |n: u32| n % 500 == 250;
    let settled = desk.deliver((0..2_000).map(|n| {
        let payload = KafkaPayload::raw(n.to_string()).key("k");
        if is_refused(n) { payload.timestamp(far) } else { payload }
    }));
    let refused: Vec<&str> =
        settled.iter().map(class).filter(|class| *class != "confirmed").collect();
    assert_eq!(refused, ["InvalidTimestamp"; 4]);
    let values = desk.read().into_iter().map(|record| record.value.unwrap());
    let values: Vec<String> = values.map(|value| String::from_utf8(value).unwrap()).collect();
    let others = (0..2_000).filter(|n| !is_refused(*n));
    assert_eq!(values, others.map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_partition_that_was_added_meanwhile_is_written_to() {
    let desk = Desk::open("grows", 1);
    assert_eq!(desk.deliver([KafkaPayload::raw("0").partition(0)]), [Settled::Confirmed]);
    desk.kafka.grow_topic(&desk.topic, 2);
    // The client's own idea of the topic is five minutes old at most, and now it is wrong.
    assert_eq!(desk.deliver([KafkaPayload::raw("1").partition(1)]), [Settled::Confirmed]);
    assert_eq!(desk.read().len(), 2);
}

#[test]
fn a_sink_whose_broker_is_down_at_the_start_is_named_and_starts_when_it_is_up() {
    let broker = OwnBroker::start();
    broker.kafka().create_topic("late", 1);
    broker.stop();
    let runtime = Runtime::new().unwrap();
    let servers = broker.kafka().servers;
    let section = section("late", &json!({ "brokers": servers }));
    let refused = connect_within(section.clone(), Duration::from_secs(2));
    let Err(error) = runtime.block_on(refused) else { panic!("connected to nothing") };
    let text = error.to_string();
    assert!(text.starts_with(&format!("sinks.kafka.out: the brokers {servers} did not")), "{text}");

    broker.restart();
    let connected = runtime.block_on(connect(section));
    let sinks = connected.unwrap_or_else(|error| panic!("{error}")).sinks;
    let settled = runtime.block_on(deliver_all(&sinks, [KafkaPayload::raw("v")]));
    assert_eq!(settled, [Settled::Confirmed]);
    runtime.block_on(sinks.close(SOON));
}

/// What is delivered before, while and after a broker is troubled is held and then written.
fn survives(trouble: impl FnOnce(&OwnBroker), cure: impl FnOnce(&OwnBroker)) {
    let broker = OwnBroker::start();
    let kafka = broker.kafka();
    kafka.create_topic("load", 2);
    let runtime = Runtime::new().unwrap();
    let section = section("load", &json!({ "brokers": kafka.servers, "delivery_timeout": "2s" }));
    let connected = runtime.block_on(connect(section));
    let sinks = connected.unwrap_or_else(|error| panic!("{error}")).sinks;
    let board = Arc::new(HoldBoard::default());
    let send = |n: u32| {
        let (sinks, hold) = (sinks.clone(), board.task());
        let payload = Payload::Kafka(KafkaPayload::raw(n.to_string()));
        runtime.spawn(async move { sinks.deliver(payload, &hold).await })
    };
    let mut delivered: Vec<_> = (0..1_000).map(&send).collect();
    trouble(&broker);
    delivered.extend((1_000..2_000).map(&send));
    until("payloads to be held", SOON, || match board.held_tasks() {
        many if 1_000 <= many => Ok(()),
        few => Err(few),
    });
    cure(&broker);
    for settled in delivered {
        assert_eq!(runtime.block_on(settled).unwrap(), Settled::Confirmed);
    }
    assert_eq!(board.held_tasks(), 0);
    let mut values: Vec<u32> = kafka
        .read("load")
        .into_iter()
        .map(|record| String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap())
        .collect();
    values.sort_unstable();
    values.dedup(); // At least once: what timed out may have been written.
    assert_eq!(values, (0..2_000).collect::<Vec<_>>());
    runtime.block_on(sinks.close(SOON));
}

#[test]
fn while_the_broker_is_down_under_load_everything_is_held_and_nothing_is_refused() {
    survives(OwnBroker::kill, OwnBroker::restart);
}

#[test]
fn a_broker_that_stands_still_is_waited_for_and_nothing_is_refused() {
    survives(|broker| broker.signal("STOP"), |broker| broker.signal("CONT"));
}
