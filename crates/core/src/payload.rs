//! What a handler wants delivered, one struct per kind of sink.
//!
//! Constructors serialise at once: an error surfaces in the hook that made it, and what travels to
//! the sinks is bytes or plain values.

use serde::{Deserialize, Serialize};

use crate::SinkKind;

mod kafka; // a record for a topic
mod file; // something for a file
mod csv; // one row of a table in a file
mod object; // a JSON object as text, and where its fields are
mod postgres; // rows for a table
mod mongo; // documents for a collection
mod redis; // a command on a key
mod http; // a request
mod custom; // for a sink of your own
mod json; // values as JSON, in memory of their size
pub(crate) mod wire; // bytes as JSON, for dead letters that carry their payload

pub use custom::CustomPayload;
pub use file::{FileContent, FilePayload};
pub use http::{HttpBody, HttpPart, HttpPayload};
pub use kafka::KafkaPayload;
pub use mongo::{MongoPayload, MongoWrite};
pub use object::JsonObject;
pub use postgres::{PostgresPayload, PostgresWrite};
pub use redis::{RedisCommand, RedisOnlyIf, RedisPayload};

/// A value that does not serialise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Not as JSON.
    #[error("cannot serialise the payload as JSON")]
    Json(#[from] serde_json::Error),
    /// Not as a row of CSV.
    #[error("cannot serialise the payload as a row of CSV")]
    Csv(#[from] ::csv::Error),
}

macro_rules! payloads {
    ($($(#[$attribute:meta])? $variant:ident($payload:ident), $kind:ident, $collect:ident, $what:literal;)*) => {
        /// A payload of any kind.
        ///
        /// As JSON it is an object whose only key is the kind, as in the configuration. A payload for a
        /// sink of your own cannot be written: nobody knows how.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Payload {
            $($(#[$attribute])? #[doc = concat!("For ", $what, ".")] $variant($payload),)*
        }

        impl Payload {
            /// Which kind of sink it is for.
            #[must_use]
            pub fn kind(&self) -> SinkKind {
                match self {
                    $(Self::$variant(_) => SinkKind::$kind,)*
                }
            }

            /// The sink instance it names, if any.
            #[must_use]
            pub fn sink(&self) -> Option<&str> {
                match self {
                    $(Self::$variant(payload) => payload.sink.as_deref(),)*
                }
            }

            /// Has it name `instance`, where it names none.
            pub fn name_sink(&mut self, instance: &str) {
                let named = match self {
                    $(Self::$variant(payload) => &mut payload.sink,)*
                };
                named.get_or_insert_with(|| instance.to_owned());
            }

            /// Tells the payload what it was derived from, the `nth` of its hook: the same words whenever
            /// the same messages are processed again. Only a request without an idempotency key of its
            /// own wants to know.
            pub fn identify(&mut self, nth: usize, origin: impl FnOnce() -> String) {
                if let Self::Http(HttpPayload { idempotency_key: key @ None, .. }) = self {
                    *key = Some(format!("{}:{nth}", origin()));
                }
            }

            /// Bytes it occupies.
            #[must_use]
            pub fn size(&self) -> usize {
                match self {
                    $(Self::$variant(payload) => payload.size(),)*
                }
            }
        }

        $(
            impl $payload {
                /// Names the sink, by what the configuration calls it.
                #[must_use]
                pub fn sink(mut self, name: impl Into<String>) -> Self {
                    self.sink = Some(name.into());
                    self
                }
            }

            impl From<$payload> for Payload {
                fn from(payload: $payload) -> Self {
                    Self::$variant(payload)
                }
            }
        )*

        impl Collect {
            $(
                #[doc = concat!("Adds a payload for ", $what, ".")]
                #[must_use]
                pub fn $collect(mut self, payload: $payload) -> Self {
                    self.push(Payload::$variant(payload));
                    self
                }
            )*
        }
    };
}

payloads! {
    Kafka(KafkaPayload), Kafka, kafka, "a Kafka sink";
    #[serde(rename = "filesystem")]
    File(FilePayload), Filesystem, file, "a file sink";
    Postgres(PostgresPayload), Postgres, postgres, "a PostgreSQL sink";
    Mongo(MongoPayload), Mongo, mongo, "a MongoDB sink";
    Redis(RedisPayload), Redis, redis, "a Redis sink";
    Http(HttpPayload), Http, http, "an HTTP sink";
    #[serde(skip)]
    Custom(CustomPayload), Custom, custom, "a sink of your own";
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

    /// Adds a payload of any kind.
    pub fn push(&mut self, payload: Payload) {
        if self.payloads.is_empty() {
            self.payloads.reserve_exact(1); // Most hooks have one; a `Vec` would begin with four.
        }
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
