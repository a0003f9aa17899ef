//! Messages that were given up → their dead-letter topic.
//!
//! The record is the message byte for byte, with why it was given up in headers behind its own. Its
//! lane holds whatever is not accepted: there is nowhere else for it to go.

use std::borrow::Cow;

use drakkar_core::{DeadLetter, Delivery, Sink};

use crate::{
    Identity,
    kafka::producer::{Producer, Record},
};

/// A Kafka cluster as a destination of messages that were given up.
pub struct DeadLetterSink {
    producer: Producer,
    identity: Identity,
}

impl DeadLetterSink {
    pub(crate) fn new(producer: Producer, identity: Identity) -> Self {
        Self { producer, identity }
    }

    fn topic(&self, letter: &DeadLetter) -> Cow<'_, str> {
        match self.producer.topic() {
            "" => Cow::Owned(format!("{}_dlq", letter.message.partition.topic)),
            topic => Cow::Borrowed(topic),
        }
    }
}

impl Sink for DeadLetterSink {
    type Payload = DeadLetter;

    async fn deliver(&self, batch: &[DeadLetter]) -> Vec<Delivery> {
        let Identity { group, worker } = &self.identity;
        let records: Vec<Record<'_>> = batch
            .iter()
            .map(|letter| Record {
                topic: self.topic(letter),
                partition: None,
                timestamp: None,
                key: letter.message.key.as_ref(),
                value: letter.message.value.as_ref(),
                headers: Cow::Owned(letter.headers(group, worker)),
            })
            .collect();
        self.producer.deliver(&records).await
    }

    async fn close(&self) {
        self.producer.close().await;
    }
}
