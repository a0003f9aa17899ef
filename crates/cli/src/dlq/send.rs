//! Records to brokers; a record counts when every replica in sync has it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use drakkar::sections::Cluster;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

use super::{
    connect::{refused, settings},
    fate::{Outgoing, Parcel},
    pass::Answer,
};

/// How long the client may take to notice that a record is out of time.
const GRACE: Duration = Duration::from_secs(5);

/// An idempotent producer.
pub(super) struct Sender {
    producer: BaseProducer<Reports>,
    timeout: Duration,
}

impl Sender {
    /// Writes sets of records, or each by itself.
    pub(super) fn new(
        cluster: &Cluster,
        timeout: Duration,
        is_single: bool,
    ) -> anyhow::Result<Self> {
        let mut settings = settings(cluster, timeout);
        settings
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("batch.num.messages", if is_single { "1" } else { "10000" })
            // Where a message has no partition to go back to: that of Java's clients.
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", timeout.as_millis().max(1_000).to_string())
            // What is too large is the broker's to say: its limit differs per topic.
            .set("message.max.bytes", "1000000000");
        let producer = settings.create_with_context(Reports::default()).map_err(refused)?;
        Ok(Self { producer, timeout })
    }

    /// Gives `record` to the client as number `index`.
    pub(super) fn send(&self, index: usize, record: &Outgoing) {
        let mut native = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&record.topic, index);
        native.partition = record.partition;
        native.timestamp = record.timestamp;
        native.key = record.key.as_deref();
        native.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            let all = OwnedHeaders::new_with_capacity(record.headers.len());
            native.headers = Some(record.headers.iter().fold(all, |all, header| {
                all.insert(Header { key: &header.name, value: header.value.as_deref() })
            }));
        }
        while let Err((error, back)) = self.producer.send(native) {
            let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
            if code != Code::QueueFull {
                self.producer.context().failed(index, code);
                return;
            }
            native = back;
            self.producer.poll(Duration::from_millis(10));
        }
        // Serves delivery reports.
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until every record was answered for; the numbers of those that were not written.
    pub(super) fn settle(&self) -> anyhow::Result<Vec<(usize, Code)>> {
        self.producer
            .flush(self.timeout.max(Duration::from_secs(1)) + GRACE)
            .context("the brokers answer neither yes nor no to what was sent")?;
        let reports = self.producer.context();
        Ok(std::mem::take(&mut *reports.failed.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Whether the answer may be about a neighbour: brokers refuse a whole set for one bad record, or for the
/// size of all of them together.
pub(super) fn is_shared(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord
    )
}

/// What it means that its topic has not taken `parcel`. Which timestamps it takes is its own setting: that
/// is no fault of one record, but of all that are as old.
pub(super) fn answer(parcel: &Parcel, code: Code) -> Answer {
    let topic = &parcel.record().topic;
    let advice = match parcel {
        Parcel::Replay(_) => "; --now gives it a new one",
        Parcel::Park(_) => "",
    };
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidArgument => Answer::Refused(format!("{topic} does not take it: {code}")),
        Code::InvalidTimestamp => Answer::Unsettled(format!(
            "{topic} does not take its timestamp (message.timestamp.before.max.ms and \
             message.timestamp.after.max.ms of the topic say which it takes{advice})"
        )),
        code => Answer::Unsettled(format!("{topic} did not confirm it: {code}")),
    }
}

/// What was not written.
#[derive(Default)]
struct Reports {
    failed: Mutex<Vec<(usize, Code)>>,
}

impl Reports {
    fn failed(&self, index: usize, code: Code) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, code));
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, index: usize) {
        if let Err((error, _)) = report {
            self.failed(index, KafkaError::rdkafka_error_code(error).unwrap_or(Code::Fail));
        }
    }
}
