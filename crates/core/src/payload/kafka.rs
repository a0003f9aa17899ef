//! A record for a Kafka topic.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{PayloadError, json, wire};
use crate::{Header, Timestamp};

/// One record for a Kafka sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaPayload {
    /// Which `sinks.kafka` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// Topic instead of the one the sink is configured with.
    pub topic: Option<String>,
    /// Partition instead of the one its key leads to.
    pub partition: Option<i32>,
    /// When the record was made; `None` is when it is written. A topic that keeps the brokers' time
    /// (`LogAppendTime`) ignores it.
    pub timestamp: Option<Timestamp>,
    /// Key of the record.
    #[serde(with = "wire::option")]
    pub key: Option<Bytes>,
    /// Value of the record; `None` is a tombstone.
    #[serde(with = "wire::option")]
    pub value: Option<Bytes>,
    /// Headers of the record.
    pub headers: Vec<Header>,
}

impl KafkaPayload {
    /// A record whose value is `value` as JSON.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn json(value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::raw(json::bytes(value)?))
    }

    /// A record whose value is these bytes.
    #[must_use]
    pub fn raw(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record without a value, which deletes its key in a compacted topic.
    #[must_use]
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Writes to `topic` instead of the topic the sink is configured with.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Writes to this partition instead of the one the key leads to. One that the topic does not have
    /// is refused for good.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Says when the record was made, for example as the source message has it. It must be later than
    /// the Unix epoch.
    #[must_use]
    pub fn timestamp(mut self, timestamp: impl Into<Option<Timestamp>>) -> Self {
        self.timestamp = timestamp.into();
        self
    }

    /// Bytes of key, value and headers.
    #[must_use]
    pub fn size(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|h| h.name.len() + of(&h.value)).sum();
        of(&self.key) + of(&self.value) + headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_survives_being_written_and_read_as_json() {
        let mut payload = KafkaPayload::raw(&b"\xff"[..])
            .key("k")
            .partition(3)
            .timestamp(Timestamp::Created(1_700))
            .header("h", &b"\xfe"[..]);
        payload.headers.push(Header { name: "none".into(), value: None });
        for payload in [payload, KafkaPayload::tombstone("gone")] {
            let json = serde_json::to_string(&payload).unwrap();
            assert_eq!(serde_json::from_str::<KafkaPayload>(&json).unwrap(), payload, "{json}");
        }
    }
}
