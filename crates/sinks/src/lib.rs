//! Where results go: batching, retry and one file per kind of sink.
//!
//! [`Sinks`] routes a payload to the lane of its sink. A lane joins what is waiting into batches,
//! holds what the far side cannot take now, and answers each payload with its own outcome. A sink
//! tries once and reports; everything about waiting and retrying is the lane's.
//!
//! Nothing here drops a payload that somebody still waits for, and nothing here knows what an offset
//! is.

mod config; // the `sinks:` and `dlq:` sections
mod connect; // configuration -> sinks that answered
mod sinks; // payload -> the lane of its sink
mod outcome; // what became of a payload
mod lane; // many payloads -> one write -> one outcome each
mod custom; // a sink that somebody else wrote
#[cfg(any(feature = "postgres", feature = "mongo"))]
mod most; // how many payloads are sent at once
mod file; // lines, rows, bytes -> files below a directory
#[cfg(feature = "postgres")]
mod postgres; // rows -> a table
#[cfg(feature = "mongo")]
mod mongo; // documents -> a collection
#[cfg(feature = "redis")]
mod redis; // commands -> a server
#[cfg(feature = "http")]
mod http; // requests -> an endpoint
#[cfg(feature = "kafka")]
mod kafka; // records -> a topic
#[cfg(feature = "kafka")]
mod dead_letter; // messages that were given up -> their topic

pub use config::{
    BatchConfig, CircuitBreakerConfig, Compress, Compression, CustomSinkConfig, DlqConfig,
    FileSinkConfig, Fsync, HttpEncoding, HttpSinkConfig, KafkaSinkConfig, MissingSink, MongoOp,
    MongoSinkConfig, MongoStatementConfig, OnTooLarge, PostgresSinkConfig, RedisSinkConfig,
    RotateConfig, SinksConfig, TlsConfig,
};
pub use connect::{ConnectError, Connected, CustomSinks, Identity};
pub use file::FileSink;
#[cfg(feature = "http")]
pub use http::HttpSink;
pub use lane::OnOpen;
#[cfg(feature = "mongo")]
pub use mongo::MongoSink;
pub use outcome::{Receipt, Refused, Settled};
#[cfg(feature = "postgres")]
pub use postgres::PostgresSink;
#[cfg(feature = "redis")]
pub use redis::RedisSink;
pub use sinks::{RouteError, Sinks, SinksBuilder};
/// The driver, in the version whose pool a handler is given.
#[cfg(feature = "postgres")]
pub use sqlx;
#[cfg(feature = "kafka")]
pub use {dead_letter::DeadLetterSink, kafka::KafkaSink};
