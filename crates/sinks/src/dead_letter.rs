//! Messages that were given up → their dead-letter topic.
//!
//! The record is the message byte for byte, with why it was given up in headers behind its own. Its
//! lane holds whatever is not accepted: there is nowhere else for it to go. So a letter that the topic
//! does not take with the payloads it carries is written without them, and of one that it does not take
//! at all the error names the message.

use std::borrow::Cow;

use drakkar_core::{DeadLetter, Delivery, Sink, SinkError};

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

impl DeadLetterSink {
    async fn write<'a>(&self, letters: impl Iterator<Item = &'a DeadLetter>) -> Vec<Delivery> {
        let Identity { group, worker } = &self.identity;
        let records: Vec<Record<'_>> = letters
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
}

/// `error` with the message it holds, and what helps: it goes to the log and to the probes.
fn told(error: &SinkError, letter: &DeadLetter) -> SinkError {
    let (message, at) = (&error.message, letter.message.coordinates());
    let advice = match &*error.class {
        "MessageSizeTooLarge" => "; raise max.message.bytes of the topic",
        _ => "",
    };
    SinkError { message: format!("message {at}: {message}{advice}"), ..error.clone() }
}

impl Sink for DeadLetterSink {
    type Payload = DeadLetter;

    async fn deliver(&self, batch: &[DeadLetter]) -> Vec<Delivery> {
        let mut outcomes = self.write(batch.iter()).await;
        let lighter = |index: usize| Some((index, batch[index].without_payloads()?));
        let is_refused = |index: &usize| matches!(outcomes[*index], Delivery::Permanent(_));
        let lighter: Vec<(usize, DeadLetter)> =
            (0..batch.len()).filter(is_refused).filter_map(lighter).collect();
        if !lighter.is_empty() {
            let again = self.write(lighter.iter().map(|(_, letter)| letter)).await;
            for ((index, _), outcome) in lighter.into_iter().zip(again) {
                outcomes[index] = outcome;
            }
        }
        for (letter, outcome) in batch.iter().zip(&mut outcomes) {
            if let Delivery::Permanent(error) = outcome {
                *error = told(error, letter);
            }
        }
        outcomes
    }

    async fn probe(&self) -> Result<(), SinkError> {
        self.producer.probe().await
    }

    async fn close(&self) {
        self.producer.close().await;
    }
}
