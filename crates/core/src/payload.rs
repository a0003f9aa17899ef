//! What a handler wants delivered, one struct per kind of sink.
//!
//! Constructors serialise at once: an error surfaces in the hook that made it, and what travels to
//! the sinks is bytes.

use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;

use crate::{Header, SinkKind};

mod custom; // for a sink of your own

pub use custom::CustomPayload;

/// A value that does not serialise.
#[derive(Debug, thiserror::Error)]
#[error("cannot serialise the payload as JSON")]
pub struct PayloadError(#[from] serde_json::Error);

/// One record for a Kafka sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KafkaPayload {
    /// Which `sinks.kafka` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// Topic instead of the one the sink is configured with.
    pub topic: Option<String>,
    /// Key of the record.
    pub key: Option<Bytes>,
    /// Value of the record; `None` is a tombstone.
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
        Ok(Self::raw(serde_json::to_vec(value)?))
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

    /// Names the `sinks.kafka` instance.
    #[must_use]
    pub fn sink(mut self, name: impl Into<String>) -> Self {
        self.sink = Some(name.into());
        self
    }

    /// Writes to `topic` instead of the topic the sink is configured with.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
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

/// One line for a file sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePayload {
    /// Which `sinks.filesystem` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// File below the sink's `base_path`; missing directories are made.
    pub path: PathBuf,
    /// What is appended; the line feed is added by the sink.
    pub line: Bytes,
}

impl FilePayload {
    /// Appends `value` as one line of JSON to `path`.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn json(path: impl Into<PathBuf>, value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self { sink: None, path: path.into(), line: serde_json::to_vec(value)?.into() })
    }

    /// Names the `sinks.filesystem` instance.
    #[must_use]
    pub fn sink(mut self, name: impl Into<String>) -> Self {
        self.sink = Some(name.into());
        self
    }
}

/// A payload of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// For a Kafka sink.
    Kafka(KafkaPayload),
    /// For a file sink.
    File(FilePayload),
    /// For a sink of your own.
    Custom(CustomPayload),
}

impl Payload {
    /// Which kind of sink it is for.
    #[must_use]
    pub fn kind(&self) -> SinkKind {
        match self {
            Self::Kafka(_) => SinkKind::Kafka,
            Self::File(_) => SinkKind::Filesystem,
            Self::Custom(_) => SinkKind::Custom,
        }
    }

    /// The sink instance it names, if any.
    #[must_use]
    pub fn sink(&self) -> Option<&str> {
        match self {
            Self::Kafka(payload) => payload.sink.as_deref(),
            Self::File(payload) => payload.sink.as_deref(),
            Self::Custom(payload) => payload.sink.as_deref(),
        }
    }

    /// Bytes it occupies.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Kafka(payload) => payload.size(),
            Self::File(payload) => payload.line.len() + payload.path.as_os_str().len(),
            Self::Custom(payload) => payload.size(),
        }
    }
}

/// What a hook wants delivered. All of it is confirmed before the messages behind it settle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collect {
    payloads: Vec<Payload>,
}

impl Collect {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record for a Kafka sink.
    #[must_use]
    pub fn kafka(mut self, payload: KafkaPayload) -> Self {
        self.payloads.push(Payload::Kafka(payload));
        self
    }

    /// Adds a line for a file sink.
    #[must_use]
    pub fn file(mut self, payload: FilePayload) -> Self {
        self.payloads.push(Payload::File(payload));
        self
    }

    /// Adds a value for a sink of your own.
    #[must_use]
    pub fn custom(mut self, payload: CustomPayload) -> Self {
        self.payloads.push(Payload::Custom(payload));
        self
    }

    /// Adds a payload of any kind.
    pub fn push(&mut self, payload: Payload) {
        self.payloads.push(payload);
    }

    /// What was added, in order.
    #[must_use]
    pub fn into_payloads(self) -> Vec<Payload> {
        self.payloads
    }

    /// Whether there is nothing to deliver.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }
}
