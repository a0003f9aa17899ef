//! Messages that were given up → their dead-letter topic.
//!
//! The record is the message byte for byte, with why it was given up in headers behind its own. Its
//! lane holds whatever is not accepted: there is nowhere else for it to go. So a letter that the topic
//! does not take with the payloads it carries is written without them; one that it does not take at all,
//! without its value where an operator wants that, else the error names the message it holds.

use std::borrow::Cow;

use bytes::Bytes;
use drakkar_core::{DeadLetter, Delivery, Header, Sink, SinkError};

use crate::{
    Identity, OnTooLarge,
    kafka::producer::{Producer, Record},
};

/// A Kafka cluster as a destination of messages that were given up.
pub struct DeadLetterSink {
    producer: Producer,
    identity: Identity,
    on_too_large: OnTooLarge,
}

/// What the producer calls it, by the limit of the topic and by the size of its segments.
const TOO_LARGE: [&str; 2] = [LIMIT, SEGMENT];
const LIMIT: &str = "MessageSizeTooLarge";
const SEGMENT: &str = "MessageBatchTooLarge";

/// An empty value.
static NOTHING: Bytes = Bytes::new();

/// How many bytes of the value were left out.
const VALUE_OMITTED: &str = "drakkar-value-omitted";

/// What of a letter is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// An operator asked for that rather than to hold it.
    WithoutValue,
}

impl DeadLetterSink {
    pub(crate) fn new(producer: Producer, identity: Identity, on_too_large: OnTooLarge) -> Self {
        Self { producer, identity, on_too_large }
    }

    fn topic(&self, letter: &DeadLetter) -> Cow<'_, str> {
        match self.producer.topic() {
            "" => Cow::Owned(format!("{}_dlq", letter.message.partition.topic)),
            topic => Cow::Borrowed(topic),
        }
    }
}

impl DeadLetterSink {
    async fn write<'a>(
        &self,
        letters: impl Iterator<Item = &'a DeadLetter>,
        extent: Extent,
    ) -> Vec<Delivery> {
        let records: Vec<Record<'_>> = letters.map(|letter| self.record(letter, extent)).collect();
        self.producer.deliver(&records).await
    }

    fn record<'a>(&'a self, letter: &'a DeadLetter, extent: Extent) -> Record<'a> {
        let mut headers = letter.headers(&self.identity.group, &self.identity.worker);
        let mut value = letter.message.value.as_ref();
        if let (Extent::WithoutValue, Some(bytes)) = (extent, value) {
            headers.push(Header::new(VALUE_OMITTED, bytes.len().to_string()));
            value = Some(&NOTHING); // Null would be a tombstone.
        }
        Record {
            topic: self.topic(letter),
            partition: None,
            timestamp: None,
            key: letter.message.key.as_ref(),
            value,
            headers: Cow::Owned(headers),
        }
    }

    /// Writes those that were refused for good again, as `lighter` makes them.
    async fn again(
        &self,
        batch: &[DeadLetter],
        outcomes: &mut [Delivery],
        extent: Extent,
        lighter: impl Fn(&DeadLetter, &SinkError) -> Option<DeadLetter>,
    ) {
        let refused = outcomes.iter().enumerate().filter_map(|(index, outcome)| match outcome {
            Delivery::Permanent(error) => Some((index, lighter(&batch[index], error)?)),
            Delivery::Confirmed | Delivery::Transient(_) => None,
        });
        let again: Vec<(usize, DeadLetter)> = refused.collect();
        let written = self.write(again.iter().map(|(_, letter)| letter), extent).await;
        for ((index, _), outcome) in again.into_iter().zip(written) {
            outcomes[index] = outcome;
        }
    }
}

/// `error` with the message it holds, and what helps: it goes to the log and to the probes.
fn told(error: &SinkError, letter: &DeadLetter) -> SinkError {
    let (message, at) = (&error.message, letter.message.coordinates());
    let advice = match &*error.class {
        LIMIT => "; raise max.message.bytes of the topic",
        SEGMENT => "; raise segment.bytes of the topic",
        _ => "",
    };
    SinkError { message: format!("message {at}: {message}{advice}"), ..error.clone() }
}

impl Sink for DeadLetterSink {
    type Payload = DeadLetter;

    async fn deliver(&self, batch: &[DeadLetter]) -> Vec<Delivery> {
        let mut outcomes = self.write(batch.iter(), Extent::Whole).await;
        let without_payloads = |letter: &DeadLetter, _: &SinkError| letter.without_payloads();
        self.again(batch, &mut outcomes, Extent::Whole, without_payloads).await;
        if self.on_too_large == OnTooLarge::SkipValue {
            let light = |letter: &DeadLetter, error: &SinkError| {
                let has_value = letter.message.value.is_some();
                let light = || letter.without_payloads().unwrap_or_else(|| letter.clone());
                (TOO_LARGE.contains(&&*error.class) && has_value).then(light)
            };
            self.again(batch, &mut outcomes, Extent::WithoutValue, light).await;
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
