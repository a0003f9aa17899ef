//! Which sink a payload goes to.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

use std::sync::Arc;

use drakkar_core::{Delivery, FilePayload, KafkaPayload, Payload, Sink, hold::HoldBoard};
use drakkar_sinks::{Refused, Settled, Sinks, SinksBuilder};

struct Confirming;

impl Sink for Confirming {
    type Payload = KafkaPayload;

    async fn deliver(&self, batch: &[KafkaPayload]) -> Vec<Delivery> {
        vec![Delivery::Confirmed; batch.len()]
    }
}

fn kafka(sink: &str) -> Payload {
    let payload = KafkaPayload::raw("v");
    Payload::Kafka(if sink.is_empty() { payload } else { payload.sink(sink) })
}

fn file() -> Payload {
    Payload::File(FilePayload::json("f", &1).unwrap())
}

fn builder() -> SinksBuilder {
    Sinks::builder(Arc::new(()))
}

#[track_caller]
fn check(sinks: &Sinks, payload: &Payload, expected: Result<&str, &str>) {
    let routed = sinks.route(payload);
    let shown = routed.map(|name| name.to_string()).map_err(|error| error.to_string());
    assert_eq!(shown.as_deref().map_err(String::as_str), expected);
}

#[tokio::test]
async fn a_payload_goes_to_the_sink_it_names_or_to_the_only_one_of_its_kind() {
    let one = builder().kafka("a", Confirming).build();
    check(&one, &kafka(""), Ok("kafka/a"));
    check(&one, &kafka("a"), Ok("kafka/a"));
    check(&one, &file(), Err("no sinks.filesystem is configured"));
    check(&one, &kafka("x"), Err("there is no sink sinks.kafka.x; configured: a"));
    let two = builder().kafka("a", Confirming).kafka("b", Confirming).build();
    check(&two, &kafka("b"), Ok("kafka/b"));
    check(&two, &kafka(""), Err("the payload must name one of several sinks.kafka: a, b"));
    check(&builder().build(), &kafka("x"), Err("there is no sink sinks.kafka.x; configured: none"));
}

#[tokio::test]
async fn a_payload_without_a_sink_is_refused_and_says_which_exist() {
    let sinks = builder().kafka("a", Confirming).build();
    let settled = sinks.deliver(kafka("x"), &Arc::new(HoldBoard::default()).task()).await;
    let Settled::Refused(refused) = settled else {
        panic!("a sink that does not exist confirmed");
    };
    let Refused { payload, sink, error, attempts, .. } = *refused;
    assert_eq!((sink.to_string().as_str(), attempts), ("kafka/x", 0));
    assert_eq!(payload, kafka("x"), "it comes back");
    assert_eq!(error.class, "unknown_sink");
    assert!(error.message.contains("configured: a"), "{error}");
}
