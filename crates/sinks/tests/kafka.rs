//! Kafka sinks and dead letters against a broker in this process.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.
#![cfg(feature = "kafka")]

mod broker;

use std::{sync::Arc, time::Duration};

use broker::{BROKER, Broker, Read, SOON, identity, send, sink, until_held};
use bytes::Bytes;
use drakkar_core::{
    Carried, Cause, DeadLetter, Header, KafkaPayload, Offset, SourceMessage, Stage, Timestamp,
    TopicPartition, hold::HoldBoard,
};
use drakkar_sinks::{
    ConnectError, CustomSinks, DlqConfig, OnTooLarge, Settled, Sinks, SinksConfig,
};
use futures_util::future::join_all;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::timeout;

fn null_header(name: &str) -> Header {
    Header { name: name.into(), value: None }
}

#[tokio::test]
async fn key_value_and_headers_arrive_byte_for_byte_nulls_and_a_megabyte_included() {
    BROKER.topic("bytes");
    let sinks = BROKER.sinks("bytes").await;
    let hold = HoldBoard::default();
    let hold = Arc::new(hold).task();
    let big = Bytes::from(vec![7_u8; 1_000_000]);
    let mut full = KafkaPayload::raw(Bytes::from_static(b"v\x00\xff"))
        .key(Bytes::from_static(b"k\xfe"))
        .header("a", Bytes::from_static(b"\xff\x00"));
    full.headers.push(null_header("none"));
    let full = full.header("a", Bytes::new());
    let payloads = [
        full.clone(),
        KafkaPayload::tombstone("deleted"),
        KafkaPayload::raw(Bytes::new()),
        KafkaPayload::raw(big.clone()),
    ];
    for payload in payloads.clone() {
        let settled = sinks.deliver(drakkar_core::Payload::Kafka(payload), &hold).await;
        assert_eq!(settled, Settled::Confirmed);
    }
    let expected = payloads.map(|payload| Read {
        key: payload.key,
        value: payload.value,
        headers: payload.headers,
    });
    assert_eq!(BROKER.read("bytes", 4), expected);
    sinks.close(SOON).await;
}

#[tokio::test]
async fn a_payload_may_name_its_topic_and_a_name_that_is_none_is_refused() {
    BROKER.topic("usual");
    BROKER.topic("other");
    let sinks = BROKER.sinks("usual").await;
    let board = Arc::default();
    let other = send(&sinks, KafkaPayload::raw("o").topic("other"), &board);
    let wrong = send(&sinks, KafkaPayload::raw("w").topic("no topic"), &board);
    assert_eq!(other.await.unwrap(), Settled::Confirmed);
    assert_eq!(BROKER.read("other", 1)[0].value.as_deref(), Some(&b"o"[..]));
    let Settled::Refused(refused) = wrong.await.unwrap() else {
        panic!("a topic that cannot exist was accepted");
    };
    assert_eq!(refused.error.class, "InvalidTopic");
    sinks.close(SOON).await;
}

fn class(settled: Settled) -> String {
    match settled {
        Settled::Refused(refused) => refused.error.class,
        Settled::Confirmed => "confirmed".to_owned(),
    }
}

#[tokio::test]
async fn a_payload_may_name_its_partition_and_say_when_it_was_made() {
    BROKER.topic_of("placed", 3);
    let sinks = BROKER.sinks("placed").await;
    let board = Arc::default();
    let made = [Timestamp::Created(1_700_000_000_123), Timestamp::Appended(1)];
    for (partition, timestamp) in [(2, made[0]), (1, made[1])] {
        let payload = KafkaPayload::raw("v").key("k").partition(partition).timestamp(timestamp);
        assert_eq!(send(&sinks, payload, &board).await.unwrap(), Settled::Confirmed);
        let read = BROKER.read_partition("placed", partition, 1);
        assert_eq!(read[0].0, Some(timestamp.millis()));
        assert_eq!(read[0].1.key.as_deref(), Some(&b"k"[..]));
    }
    sinks.close(SOON).await;
}

#[tokio::test]
async fn a_partition_or_a_time_that_cannot_be_is_refused_and_its_neighbours_are_not() {
    BROKER.topic_of("misplaced", 2);
    let sinks = BROKER.sinks_with(&sink("misplaced")).await;
    let board = Arc::default();
    let payload = || KafkaPayload::raw("v").partition(1);
    let sent = [
        payload(),
        payload().partition(2),
        payload().partition(-1),
        // The client would write the time of writing instead.
        payload().timestamp(Timestamp::Created(0)),
        payload().timestamp(Timestamp::Created(-5)),
        payload().timestamp(None),
    ]
    .map(|payload| send(&sinks, payload, &board));
    let mut classes = Vec::new();
    for settled in join_all(sent).await {
        classes.push(class(settled.unwrap()));
    }
    let expected = [
        "confirmed",
        "UnknownPartition",
        "UnknownPartition",
        "InvalidTimestamp",
        "InvalidTimestamp",
        "confirmed",
    ];
    assert_eq!(classes, expected);
    assert_eq!(BROKER.read_partition("misplaced", 1, 2).len(), 2);
    sinks.close(SOON).await;
}

#[tokio::test]
async fn while_nobody_can_say_how_many_partitions_there_are_a_missing_one_is_held() {
    let broker = Broker::start();
    broker.topic("few");
    let sinks = broker.sinks_with(&sink("few")).await;
    let board = Arc::default();
    assert_eq!(send(&sinks, KafkaPayload::raw("0"), &board).await.unwrap(), Settled::Confirmed);
    broker.with(|cluster| cluster.broker_down(1).unwrap());
    let waits = send(&sinks, KafkaPayload::raw("1").partition(1), &board);
    until_held(&board, 1).await;
    assert!(!waits.is_finished());
    broker.with(|cluster| cluster.broker_up(1).unwrap());
    let settled = timeout(SOON, waits).await.unwrap().unwrap();
    assert_eq!(class(settled), "UnknownPartition");
    sinks.close(SOON).await;
}

#[tokio::test]
async fn many_payloads_of_many_tasks_are_confirmed_one_by_one() {
    BROKER.topic("many");
    let sinks = BROKER.sinks("many").await;
    let board = Arc::default();
    let sent = (0..5_000).map(|n: u32| send(&sinks, KafkaPayload::raw(n.to_string()), &board));
    for settled in join_all(sent).await {
        assert_eq!(settled.unwrap(), Settled::Confirmed);
    }
    let mut read: Vec<u32> = BROKER
        .read("many", 5_000)
        .iter()
        .map(|read| std::str::from_utf8(read.value.as_ref().unwrap()).unwrap().parse().unwrap())
        .collect();
    read.sort_unstable();
    assert_eq!(read, (0..5_000).collect::<Vec<_>>());
    sinks.close(SOON).await;
}

#[tokio::test]
async fn what_is_for_a_topic_that_does_not_exist_is_held_until_it_does() {
    let broker = Broker::start();
    broker.topic("present");
    broker.with(|cluster| {
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.create_topic("absent", 1, 1).unwrap();
        cluster.topic_error("absent", unknown).unwrap();
    });
    let sinks = broker.sinks_with(&sink("present")).await;
    let board = Arc::default();
    let waits = send(&sinks, KafkaPayload::raw("w").topic("absent"), &board);
    until_held(&board, 1).await;
    let other = send(&sinks, KafkaPayload::raw("p"), &board);
    assert_eq!(other.await.unwrap(), Settled::Confirmed, "its neighbours are not held up");
    assert_eq!(sinks.held().len(), 1);
    assert!(!waits.is_finished());

    broker.with(|cluster| {
        cluster.topic_error("absent", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    });
    let settled = timeout(SOON, waits).await.unwrap().unwrap();
    assert_eq!(settled, Settled::Confirmed);
    assert_eq!(board.held_tasks(), 0);
    assert_eq!(broker.read("absent", 1)[0].value.as_deref(), Some(&b"w"[..]));
    sinks.close(SOON).await;
}

#[tokio::test]
async fn while_the_brokers_are_down_payloads_are_held_and_confirmed_when_they_are_back() {
    let broker = Broker::start();
    broker.topic("outage");
    let sinks = broker.sinks_with(&sink("outage")).await;
    let board = Arc::default();
    broker.with(|cluster| cluster.broker_down(1).unwrap());
    let sent: Vec<_> =
        (0..10).map(|n: u32| send(&sinks, KafkaPayload::raw(n.to_string()), &board)).collect();
    until_held(&board, 10).await;
    broker.with(|cluster| cluster.broker_up(1).unwrap());
    for settled in join_all(sent).await {
        assert_eq!(settled.unwrap(), Settled::Confirmed);
    }
    assert_eq!(board.held_tasks(), 0);
    assert!(sinks.held().is_empty());
    assert!(broker.read("outage", 10).len() >= 10);
    sinks.close(SOON).await;
}

#[tokio::test]
async fn a_record_the_brokers_find_too_large_is_refused_alone() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as RECORD, RD_KAFKA_RESP_ERR_NO_ERROR as FINE,
        RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE as RECORDS,
    };
    let broker = Broker::start();
    for (topic, too_large, expected) in
        [("sizes", RECORD, "MessageSizeTooLarge"), ("segments", RECORDS, "MessageBatchTooLarge")]
    {
        broker.topic(topic);
        let mut config = sink(topic);
        // All three in one batch, which leaves when it is full and is refused as a whole; then each by
        // itself, the first again.
        config.linger = Duration::from_secs(1);
        config.delivery_timeout = SOON;
        config.client_config.insert("batch.num.messages".to_owned(), "3".to_owned());
        let sinks = broker.sinks_with(&config).await;
        broker.with(move |cluster| {
            cluster.request_errors(RDKafkaApiKey::Produce, &[too_large, too_large, FINE, FINE]);
        });
        let board = Arc::default();
        let sent = ["a", "b", "c"].map(|value| send(&sinks, KafkaPayload::raw(value), &board));
        let mut classes: Vec<String> =
            join_all(sent).await.into_iter().map(|settled| class(settled.unwrap())).collect();
        classes.sort();
        assert_eq!(classes, [expected, "confirmed", "confirmed"]);
        assert_eq!(broker.read(topic, 2).len(), 2);
        sinks.close(SOON).await;
    }
}

#[tokio::test]
async fn missing_rights_are_held_for_and_a_client_that_broke_down_is_replaced() {
    let broker = Broker::start();
    broker.topic("rights");
    let sinks = broker.sinks_with(&sink("rights")).await;
    broker.with(|cluster| {
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[denied; 4]);
    });
    let board = Arc::default();
    let sent = send(&sinks, KafkaPayload::raw("r"), &board);
    let settled = timeout(SOON, sent).await.unwrap().unwrap();
    assert_eq!(settled, Settled::Confirmed);
    assert_eq!(broker.read("rights", 1)[0].value.as_deref(), Some(&b"r"[..]));
    sinks.close(SOON).await;
}

fn letter(topic: &str) -> DeadLetter {
    DeadLetter {
        message: Arc::new(SourceMessage {
            partition: TopicPartition::new(topic, 3),
            offset: Offset(42),
            timestamp: Some(Timestamp::Created(1_700)),
            key: Some(Bytes::from_static(b"\xff\x00k")),
            value: Some(Bytes::from_static(b"\x00v\xfe")),
            headers: vec![Header::new("a", "1"), null_header("a")],
        }),
        cause: Cause::new(Stage::Execute, "exit_code", "exit code 3"),
    }
}

#[tokio::test]
async fn a_dead_letter_is_the_message_byte_for_byte_in_the_topic_of_its_source() {
    BROKER.topic("orders");
    BROKER.topic("orders_dlq");
    let sinks = BROKER.sinks("orders").await;
    let hold = Arc::new(HoldBoard::default()).task();
    let letter = letter("orders");
    sinks.dead_letter(letter.clone(), &hold).await;
    let expected = Read {
        key: letter.message.key.clone(),
        value: letter.message.value.clone(),
        headers: letter.headers("group", "worker-1"),
    };
    assert_eq!(BROKER.read("orders_dlq", 1), [expected]);
    sinks.close(SOON).await;
}

#[tokio::test]
async fn a_dead_letter_that_is_too_large_with_its_payload_is_written_without() {
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    let broker = Broker::start();
    broker.topic("out");
    broker.topic("orders_dlq");
    let sinks = broker.sinks_with(&sink("out")).await;
    // With its payload, then the same alone.
    broker.with(move |cluster| {
        cluster.request_errors(RDKafkaApiKey::Produce, &[too_large, too_large]);
    });
    let mut letter = letter("orders");
    let payload = Carried::of(&KafkaPayload::raw("refused").into());
    letter.cause = letter.cause.carrying(payload);
    let hold = Arc::new(HoldBoard::default()).task();
    timeout(SOON, sinks.dead_letter(letter.clone(), &hold)).await.unwrap();
    let written = &broker.read("orders_dlq", 1)[0];
    let without = letter.without_payloads().unwrap();
    assert_eq!(written.headers, without.headers("group", "worker-1"));
    sinks.dead_letter(letter.clone(), &hold).await;
    assert_eq!(broker.read("orders_dlq", 2)[1].headers, letter.headers("group", "worker-1"));
    sinks.close(SOON).await;
}

#[tokio::test]
async fn a_dead_letter_that_is_too_large_is_written_without_its_value_where_that_is_asked_for() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as RECORD,
        RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE as RECORDS,
    };
    let broker = Broker::start();
    broker.topic("out");
    broker.topic("orders_dlq");
    let dlq = DlqConfig { on_too_large: OnTooLarge::SkipValue, ..DlqConfig::default() };
    let sinks = broker.connect(&sink("out"), &dlq).await;
    let hold = Arc::new(HoldBoard::default()).task();
    let mut letter = letter("orders");
    let message = Arc::make_mut(&mut letter.message);
    message.value = Some(Bytes::from_static(b"a long value"));
    let headers = letter.headers("group", "worker-1");
    for too_large in [RECORD, RECORDS] {
        broker.with(move |cluster| cluster.request_errors(RDKafkaApiKey::Produce, &[too_large; 2]));
        timeout(SOON, sinks.dead_letter(letter.clone(), &hold)).await.unwrap();
    }
    sinks.dead_letter(letter.clone(), &hold).await; // This one is not too large.
    let written = broker.read("orders_dlq", 3);
    for light in &written[..2] {
        let (omitted, before) = light.headers.split_last().unwrap();
        assert_eq!((before, omitted), (&headers[..], &Header::new("drakkar-value-omitted", "12")));
        assert_eq!((&light.key, light.value.as_deref()), (&letter.message.key, Some(&b""[..])));
    }
    assert_eq!((&written[2].headers, &written[2].value), (&headers, &letter.message.value));
    sinks.close(SOON).await;
}

#[tokio::test]
async fn a_dead_letter_that_is_refused_for_good_is_held_until_it_is_accepted() {
    let broker = Broker::start();
    broker.topic("out");
    broker.topic("orders_dlq");
    let sinks = broker.sinks_with(&sink("out")).await;
    broker.with(|cluster| {
        let invalid = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD;
        cluster.request_errors(RDKafkaApiKey::Produce, &[invalid; 6]);
    });
    let board = Arc::new(HoldBoard::default());
    let (delivered, hold) = (sinks.clone(), board.task());
    let sent = tokio::spawn(async move { delivered.dead_letter(letter("orders"), &hold).await });
    until_held(&board, 1).await;
    let (told, _) = sinks.refused_dead_letter().unwrap();
    assert_eq!(told.class, "InvalidRecord");
    assert!(told.message.contains("message orders:"), "which one is held: {told}");
    timeout(SOON, sent).await.unwrap().unwrap();
    assert_eq!(broker.read("orders_dlq", 1).len(), 1);
    assert_eq!(sinks.refused_dead_letter(), None);
    sinks.close(SOON).await;
}

#[tokio::test]
async fn settings_the_client_does_not_know_are_refused_with_their_section() {
    let dlq = DlqConfig {
        client_config: [("no.such.property".to_owned(), "1".to_owned())].into(),
        ..DlqConfig::default()
    };
    let source = BROKER.source();
    let refused = Sinks::connect(
        &SinksConfig::default(),
        CustomSinks::default(),
        &dlq,
        &source,
        &identity(),
        SOON,
        Arc::new(()),
    )
    .await;
    let Err(error @ ConnectError::Client { .. }) = refused else {
        panic!("accepted");
    };
    let text = error.to_string();
    assert!(text.starts_with("dlq: ") && text.contains("no.such.property"), "{text}");
}
