//! One librdkafka producer: made, asked for its topic, given records.
//!
//! The client's thread hears the delivery reports and files each with the write of its record. What
//! the client says by itself is kept for error texts and logged at `debug`: whether it matters is
//! decided by the reports.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use drakkar_core::Timestamp;
use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    metadata::MetadataTopic,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::time::Instant;
use tracing::debug;

use super::{producer::Record, reports::Report};

pub(super) type Client = ThreadedProducer<Context>;

/// Whether a topic can be written to, as far as the brokers say.
pub(super) enum Topic {
    Present,
    Absent(String),
}

/// Makes a client; the error says what is refused, without its value, which may be a secret.
pub(super) fn make(settings: &ClientConfig) -> Result<Client, String> {
    Client::from_config_and_context(settings, Context::default()).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, key, _) => format!("{key}: {}", reason.trim()),
        other => other.to_string(),
    })
}

/// Asks the brokers for `topic`, or just for an answer where it is empty; blocks, for `within` at
/// the longest.
pub(super) fn ask(client: &Client, topic: &str, within: Duration) -> KafkaResult<Topic> {
    let begun = Instant::now();
    let named = (!topic.is_empty()).then_some(topic);
    let mut absent = None;
    loop {
        let left = within.saturating_sub(begun.elapsed());
        let answer = client.client().fetch_metadata(named, left).map(|metadata| {
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            found.and_then(MetadataTopic::error).map(Code::from)
        });
        match answer {
            Ok(None) => return Ok(Topic::Present),
            // One that the brokers are about to make exists a moment later.
            Ok(Some(error)) if begun.elapsed() < TOPIC_PATIENCE.min(within) => absent = Some(error),
            Ok(Some(error)) => return Ok(Topic::Absent(error.to_string())),
            Err(_) if begun.elapsed() < within => {}
            // Out of time while asking again: that there is no such topic is known all the same.
            Err(error) => {
                return absent.map_or(Err(error), |absent| Ok(Topic::Absent(absent.to_string())));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// How many partitions `topic` has now; blocks. The client takes note of it.
pub(super) fn partitions(client: &Client, topic: &str) -> KafkaResult<i32> {
    let metadata = client.client().fetch_metadata(Some(topic), QUESTION)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    // One that is not there has no partitions yet.
    let count = found.map_or(0, |found| found.partitions().len());
    match found.and_then(MetadataTopic::error) {
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        None if count == 0 => Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)),
        None => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
    }
}

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(5);

/// How long a topic that does not exist is asked for again.
const TOPIC_PATIENCE: Duration = Duration::from_secs(3);

/// Gives `record` to the client, which copies it; `report` comes back if it is not taken.
pub(super) fn enqueue(
    client: &Client,
    record: &Record<'_>,
    report: Box<Report>,
) -> Result<(), (Code, Box<Report>)> {
    let mut native: BaseRecord<'_, [u8], [u8], _> =
        BaseRecord::with_opaque_to(&record.topic, report);
    native.partition = record.partition;
    native.timestamp = record.timestamp.map(Timestamp::millis);
    native.key = record.key.map(AsRef::as_ref);
    native.payload = record.value.map(AsRef::as_ref);
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        native.headers = Some(record.headers.iter().fold(headers, |headers, header| {
            headers.insert(Header { key: &header.name, value: header.value.as_deref() })
        }));
    }
    client.send(native).map_err(|(error, back)| (code_of(&error), back.delivery_opaque))
}

fn code_of(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Fail)
}

/// Hears what the client has to say.
#[derive(Default)]
pub(super) struct Context {
    last_error: Mutex<Option<String>>,
}

impl Context {
    /// What the client complained of last.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "kafka client");
        if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
            return; // Why each of them is was said before.
        }
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        report.file(match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(code_of(error)),
        });
    }
}
