//! Records → a Kafka topic.
//!
//! One record per payload: its own topic or the sink's, its partition and timestamp where it names
//! them, its key, its value (none is a tombstone) and its headers, nulls included. How a record is sent
//! and what an answer means is the producer's.

use std::borrow::Cow;

use drakkar_core::{Delivery, KafkaPayload, Sink, SinkError};

pub(crate) mod producer; // records -> brokers -> one answer each
mod client; // one librdkafka producer
mod reports; // what it said about each record
mod verdict; // what an answer means for the payload

use producer::{Producer, Record};

/// A Kafka topic as a destination.
pub struct KafkaSink {
    producer: Producer,
}

impl KafkaSink {
    pub(crate) fn new(producer: Producer) -> Self {
        Self { producer }
    }
}

impl Sink for KafkaSink {
    type Payload = KafkaPayload;

    async fn deliver(&self, batch: &[KafkaPayload]) -> Vec<Delivery> {
        let topic = self.producer.topic();
        let records: Vec<Record<'_>> = batch
            .iter()
            .map(|payload| Record {
                topic: Cow::Borrowed(payload.topic.as_deref().unwrap_or(topic)),
                partition: payload.partition,
                timestamp: payload.timestamp,
                key: payload.key.as_ref(),
                value: payload.value.as_ref(),
                headers: Cow::Borrowed(&payload.headers),
            })
            .collect();
        self.producer.deliver(&records).await
    }

    async fn probe(&self) -> Result<(), SinkError> {
        self.producer.probe().await
    }

    async fn close(&self) {
        self.producer.close().await;
    }
}
