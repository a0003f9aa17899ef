//! Drakkar runs programs on Kafka messages and loses none of them.
//!
//! A worker polls a topic, groups messages into windows per partition, asks your [`Handler`] for
//! [`Task`]s, runs each as a subprocess in a bounded pool, hands you the output, delivers what you
//! make of it to the sinks, dead-letters what cannot be processed, and commits an offset only when
//! everything before it is settled. Scale by running replicas in one consumer group.
//!
//! ```no_run
#![doc = include_str!("../examples/search.rs")]
//! ```
//!
//! [`Handler`] says what each hook is for; [`Config`] lists every key of the configuration.

pub mod config; // what is configured, and where each value came from
mod error; // why a worker did not start or stopped, and its exit code
mod health; // what the probes answer
mod probes; // where they are served
mod startup; // the hook that sees the configuration
mod pulse; // timers go on while a hook blocks
mod sink_threads; // sinks are written while hooks block
mod extras; // periodic work, sinks of one's own
mod start; // connects everything, in the order of dependence
mod worker; // the builder, the run, the shutdown

pub use bytes::Bytes;
pub use config::{Config, ConfigError, Line, Loaded, Note, Origin};
pub use drakkar_core::{
    Collect, CustomPayload, Delivery, DeliveryFailure, Failure, FileContent, FilePayload, Handler,
    Header, HookError, HookResult, HttpBody, HttpPart, HttpPayload, Input, Json, JsonObject,
    KafkaPayload, Keep, Message, MessageGroup, MongoPayload, MongoWrite, Offset, OnDeliveryError,
    OnError, Output, Payload, PayloadError, Pending, PostgresPayload, PostgresWrite, Precomputed,
    Ready, RedisCommand, RedisOnlyIf, RedisPayload, Secret, Sink, SinkError, SinkKind, SinkName,
    SourceMessage, SpooledFile, StopSignal, Task, TaskFailure, TaskId, TaskResult, Timestamp,
    TopicPartition, Usage, WindowGroup,
};
pub use drakkar_pipeline::AfterError;
#[cfg(feature = "postgres")]
pub use drakkar_sinks::sqlx;
pub use drakkar_telemetry::prometheus;
pub use error::RunError;
#[cfg(feature = "mongo")]
pub use mongodb;
#[cfg(feature = "redis")]
pub use redis;
pub use startup::HookFuture;
pub use worker::Worker;

/// The configuration sections, as the crates that read them define them.
pub mod sections {
    pub use crate::health::HealthConfig;
    pub use drakkar_core::{
        OnInvalid,
        kafka_client::{Cluster, Security},
        order::Ordering,
    };
    pub use drakkar_debug::MetricsConfig;
    pub use drakkar_executor::{
        ExecutorConfig, JobLogConfig, Mode, ProgramConfig, Protocol, SpoolConfig,
    };
    pub use drakkar_kafka::KafkaConfig;
    pub use drakkar_sinks::{
        BatchConfig, CircuitBreakerConfig, Compress, Compression, CustomSinkConfig, DlqConfig,
        FileSinkConfig, Fsync, HttpEncoding, HttpSinkConfig, KafkaSinkConfig, MongoOp,
        MongoSinkConfig, MongoStatementConfig, OnOpen, OnTooLarge, PostgresSinkConfig,
        RedisSinkConfig, RotateConfig, SinksConfig, TlsConfig,
    };
    pub use drakkar_telemetry::{LogFormat, LogLevel, LogOutput, LoggingConfig};
}

/// Version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The guides: their examples are compiled as documentation tests.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/handler.md")]
    mod handler {}
    #[doc = include_str!("../../../docs/executor.md")]
    mod executor {}
    #[doc = include_str!("../../../docs/fan-out.md")]
    mod fan_out {}
    #[doc = include_str!("../../../docs/sinks/kafka.md")]
    mod kafka_sinks {}
    #[doc = include_str!("../../../docs/sinks/files.md")]
    mod file_sinks {}
    #[doc = include_str!("../../../docs/sinks/http.md")]
    mod http {}
    #[doc = include_str!("../../../docs/sinks/mongo.md")]
    mod sinks_mongo {}
    #[cfg(feature = "postgres")]
    #[doc = include_str!("../../../docs/sinks/postgres.md")]
    mod postgres_sinks {}
    #[cfg(feature = "redis")]
    #[doc = include_str!("../../../docs/sinks/redis.md")]
    mod redis_sinks {}
}
