//! What a sink is: something that takes a batch and answers for each payload of it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use crate::{Payload, SourceMessage, TaskId};

/// The kinds of sink, by the name their section has in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SinkKind {
    /// `sinks.kafka`
    Kafka,
    /// `sinks.filesystem`
    Filesystem,
    /// `sinks.postgres`
    Postgres,
    /// `sinks.mongo`
    Mongo,
    /// `sinks.redis`
    Redis,
    /// `sinks.http`
    Http,
    /// A sink that the worker was given by its own code.
    Custom,
    /// The dead-letter topic.
    DeadLetter,
}

impl SinkKind {
    /// The kind as metrics and configuration name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Filesystem => "filesystem",
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Redis => "redis",
            Self::Http => "http",
            Self::Custom => "custom",
            Self::DeadLetter => "dlq",
        }
    }
}

/// One configured sink.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SinkName {
    /// What kind it is.
    pub kind: SinkKind,
    /// Its name in the configuration.
    pub instance: Arc<str>,
}

impl SinkName {
    /// Names the sink `instance` of `kind`.
    pub fn new(kind: SinkKind, instance: impl Into<Arc<str>>) -> Self {
        Self { kind, instance: instance.into() }
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.instance)
    }
}

/// What the far side said about one payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {message}")]
pub struct SinkError {
    /// Short, stable name of the error, for metrics and filters (`MessageSizeTooLarge`).
    pub class: String,
    /// The far side's words, without secrets.
    pub message: String,
    /// How long the far side asked us to wait before this payload is tried again. At most an hour is
    /// waited.
    pub retry_after: Option<Duration>,
    /// Whether it asked that of everybody: nothing else is written to it meanwhile either.
    pub pauses_sink: bool,
}

impl SinkError {
    /// Class of the error of a payload for a sink that there is not.
    pub const UNKNOWN_SINK: &str = "unknown_sink";

    /// An error of class `class`.
    pub fn new(class: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class: class.into(), message: message.into(), retry_after: None, pauses_sink: false }
    }
}

/// What became of one payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The far side has it.
    Confirmed,
    /// The far side may accept the same payload later; it is held and tried again.
    Transient(SinkError),
    /// The far side will never accept this payload.
    Permanent(SinkError),
}

/// A payload that a sink refused for good; see
/// [`Handler::on_delivery_error`](crate::Handler::on_delivery_error).
#[derive(Debug, Clone)]
pub struct DeliveryFailure {
    /// Who refused it.
    pub sink: SinkName,
    /// What was refused.
    pub payload: Payload,
    /// Why; class [`SinkError::UNKNOWN_SINK`] where there is no such sink.
    pub error: SinkError,
    /// The messages it was made from.
    pub messages: Vec<Arc<SourceMessage>>,
    /// The task it was made from; `None` where it belongs to a message or a window as a whole.
    pub task: Option<TaskId>,
    /// How often it was refused, from 1.
    pub attempt: u32,
    /// How many more attempts `executor.max_retries` leaves.
    pub retries_left: u32,
}

/// A destination that accepts batches of one kind of payload.
///
/// Batching, retries and backoff are not the sink's business: it tries once and reports. A write that
/// takes longer than `sinks.delivery_timeout_seconds` is dropped where it waits and tried again: it
/// should leave nothing running behind.
pub trait Sink: Send + Sync + 'static {
    /// The record this sink knows how to write.
    type Payload: Send + Sync + 'static;

    /// Writes `batch` and answers with exactly one [`Delivery`] per payload, in order.
    fn deliver(&self, batch: &[Self::Payload]) -> impl Future<Output = Vec<Delivery>> + Send;

    /// Asks the far side whether it is there; called now and then while nothing is delivered, so that
    /// `/readyz` knows. It leaves nothing behind there, and may be dropped where it waits.
    ///
    /// # Errors
    ///
    /// When nothing could be delivered now.
    fn probe(&self) -> impl Future<Output = Result<(), SinkError>> + Send {
        async { Ok(()) }
    }

    /// Flushes what `deliver` accepted and releases the connection.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}
