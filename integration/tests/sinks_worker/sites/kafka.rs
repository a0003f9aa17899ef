//! Apache Kafka: a topic on a broker that wants a name and a password.

use drakkar_core::{KafkaPayload, Payload};
use drakkar_integration::{OwnBroker, Record};
use serde_json::{Value, json};

use super::{Mortal, PASSWORD, Site, UNLUCKY, USER};

const TOPIC: &str = "site";

pub(crate) struct Broker {
    broker: OwnBroker,
    port: u16,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let broker = OwnBroker::start();
        broker.kafka().create_topic(TOPIC, 1);
        let port = broker.ask_on(None, USER, PASSWORD);
        broker.kill();
        broker.restart();
        Self { broker, port }
    }

    /// All it has.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.broker.kafka().read(TOPIC)
    }
}

fn at(port: u16, password: &str) -> Value {
    json!({
        "topic": TOPIC,
        "brokers": format!("127.0.0.1:{port}"),
        "security": {
            "protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN",
            "sasl_username": USER, "sasl_password": password,
        },
        "delivery_timeout": "2s",
    })
}

impl Site for Broker {
    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn section(&self, password: &str) -> Value {
        at(self.port, password)
    }

    fn away(&self) -> Value {
        at(1, PASSWORD)
    }

    fn payload(&self, number: u32) -> Payload {
        let record = KafkaPayload::raw(number.to_string()).sink("site");
        if number == UNLUCKY { record.partition(9).into() } else { record.into() }
    }

    fn set_password(&self, password: &str) {
        self.broker.ask_on(Some(self.port), USER, password);
        self.broker.kill();
        self.broker.restart();
    }
}

impl Mortal for Broker {
    fn die(&self) {
        self.broker.kill();
    }

    fn rise(&self) {
        self.broker.restart();
    }

    fn kept(&self) -> Vec<u32> {
        let values = self.records().into_iter().map(|record| record.value.unwrap());
        let mut numbers: Vec<u32> =
            values.map(|value| String::from_utf8(value).unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }
}
