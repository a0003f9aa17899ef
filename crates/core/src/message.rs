//! What Kafka delivered, byte for byte.
//!
//! Keys, values and headers are [`Bytes`]: text is a view that the handler may take. A null value
//! (tombstone) is an ordinary message whose [`SourceMessage::value`] is `None`.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition in the topic.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// Position of a message in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// What to commit so that this message is not read again.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a message was made, in milliseconds since the Unix epoch, and by whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timestamp {
    /// The producer's clock (topic setting `CreateTime`).
    Created(i64),
    /// The broker's clock (topic setting `LogAppendTime`).
    Appended(i64),
}

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> i64 {
        match self {
            Self::Created(millis) | Self::Appended(millis) => millis,
        }
    }
}

/// One header of a message; a name may occur more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the header.
    pub name: Arc<str>,
    /// Its bytes; `None` is Kafka's null, which is not the same as empty.
    #[serde(with = "crate::payload::wire::option")]
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }
}

/// One message as Kafka delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMessage {
    /// Where it was read.
    pub partition: TopicPartition,
    /// Its position there.
    pub offset: Offset,
    /// When it was made; `None` when the broker does not say.
    pub timestamp: Option<Timestamp>,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers in the order of the record.
    pub headers: Vec<Header>,
}

impl SourceMessage {
    /// `topic:partition:offset`, the way logs and dead letters name a message.
    #[must_use]
    pub fn coordinates(&self) -> String {
        format!("{}:{}", self.partition, self.offset)
    }

    /// Bytes that key, value and headers occupy.
    #[must_use]
    pub fn size(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|h| h.name.len() + of(&h.value)).sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// The first header called `name`, if it has a value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|h| &*h.name == name)?.value.as_ref()
    }
}

/// A message whose value was decoded; dereferences to the [`SourceMessage`].
#[derive(Debug, Clone)]
pub struct Message<T> {
    /// The message as Kafka delivered it.
    pub source: Arc<SourceMessage>,
    /// Its value, decoded.
    pub input: T,
}

impl<T> Deref for Message<T> {
    type Target = SourceMessage;

    fn deref(&self) -> &SourceMessage {
        &self.source
    }
}
