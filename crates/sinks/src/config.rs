//! The `sinks:` and `dlq:` sections of the configuration.
//!
//! Owns the keys, their defaults and their checks. How a section reads as librdkafka properties is
//! said in `client.rs`; nothing here opens anything.

use std::{collections::BTreeMap, time::Duration};

use drakkar_core::{lenient, retry::Backoff};
use serde::{Deserialize, Serialize};

pub(crate) mod client; // as librdkafka properties
pub(crate) mod cluster; // what is checked wherever a Kafka cluster is configured
pub(crate) mod delivery; // how payloads are joined, and when a sink is left alone
pub(crate) mod dlq; // the `dlq:` section
mod tls; // what is trusted where connections are encrypted
mod file; // one section per kind of sink
mod http;
mod kafka;
mod mongo;
mod postgres;
mod redis;

pub use delivery::{BatchConfig, CircuitBreakerConfig};
pub use dlq::{DlqConfig, OnTooLarge};
pub use file::{Compress, FileSinkConfig, Fsync, RotateConfig};
pub use http::{HttpEncoding, HttpSinkConfig};
pub use kafka::{Compression, KafkaSinkConfig};
pub use mongo::{MongoOp, MongoSinkConfig, MongoStatementConfig};
pub use postgres::PostgresSinkConfig;
pub use redis::RedisSinkConfig;
pub use tls::TlsConfig;

use crate::lane::Patience;

/// Where results go: the `sinks:` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinksConfig {
    /// Kafka topics, by the name payloads call them. Default none.
    pub kafka: BTreeMap<String, KafkaSinkConfig>,
    /// Directories, by the name payloads call them. Default none.
    pub filesystem: BTreeMap<String, FileSinkConfig>,
    /// PostgreSQL databases, by the name payloads call them. Default none.
    pub postgres: BTreeMap<String, PostgresSinkConfig>,
    /// MongoDB databases, by the name payloads call them. Default none.
    pub mongo: BTreeMap<String, MongoSinkConfig>,
    /// Redis servers, by the name payloads call them. Default none.
    pub redis: BTreeMap<String, RedisSinkConfig>,
    /// HTTP endpoints, by the name payloads call them. Default none.
    pub http: BTreeMap<String, HttpSinkConfig>,
    /// Sinks that the worker's own code registers, by the name it registers them by. Only needed to
    /// change how they are written to. Default none.
    pub custom: BTreeMap<String, CustomSinkConfig>,
    /// Upper bound of the first wait before a held payload is tried again; doubled for each further
    /// one. Default: `100ms`.
    #[serde(with = "lenient::duration")]
    pub retry_backoff_initial: Duration,
    /// Upper bound of every wait before a held payload is tried again. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub retry_backoff_max: Duration,
    /// How long one write may take, where the sink has no limit of its own (Kafka and HTTP have;
    /// files have none). Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub delivery_timeout_seconds: Duration,
    /// How long a payload is tried, from when its sink is given it, before it counts as refused for
    /// good; not zero. Default: none: for as long as it lasts.
    #[serde(with = "lenient::optional_duration")]
    pub give_up_after: Option<Duration>,
    /// When a sink that fails again and again is left alone for a while.
    pub circuit_breaker: CircuitBreakerConfig,
}

impl Default for SinksConfig {
    fn default() -> Self {
        Self {
            kafka: BTreeMap::new(),
            filesystem: BTreeMap::new(),
            postgres: BTreeMap::new(),
            mongo: BTreeMap::new(),
            redis: BTreeMap::new(),
            http: BTreeMap::new(),
            custom: BTreeMap::new(),
            retry_backoff_initial: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(30),
            delivery_timeout_seconds: Duration::from_secs(30),
            give_up_after: None,
            circuit_breaker: CircuitBreakerConfig::default(),
        }
    }
}

/// A sink that the worker's own code registers: `sinks.custom.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CustomSinkConfig {
    /// How payloads are written together: 500 items, 4 MiB, 4 in flight, unless said.
    pub batch: BatchConfig,
}

/// A sink of a kind that this build lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: is not compiled in; build with the cargo feature `{feature}`")]
pub struct MissingSink {
    /// Its section.
    pub key: String,
    /// What brings it.
    pub feature: &'static str,
}

impl CustomSinkConfig {
    fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
    }
}

impl SinksConfig {
    /// What is wrong with the section; every text begins with the key it is about.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.retry_backoff_initial.is_zero() {
            wrong.push("sinks.retry_backoff_initial: must not be zero".to_owned());
        }
        if self.retry_backoff_max < self.retry_backoff_initial {
            wrong.push(
                "sinks.retry_backoff_max: must not be shorter than sinks.retry_backoff_initial"
                    .to_owned(),
            );
        }
        if self.delivery_timeout_seconds.is_zero() {
            wrong.push("sinks.delivery_timeout_seconds: must not be zero".to_owned());
        }
        if self.give_up_after.is_some_and(|limit| limit.is_zero()) {
            wrong.push(
                "sinks.give_up_after: must not be zero; leave it out to try for ever".to_owned(),
            );
        }
        macro_rules! validate {
            ($($kind:ident),*) => {$(
                for (name, sink) in &self.$kind {
                    sink.validate(&format!("sinks.{}.{name}", stringify!($kind)), &mut wrong);
                }
            )*};
        }
        validate!(kafka, filesystem, mongo, redis, http, custom);
        for (name, sink) in &self.postgres {
            let at = format!("sinks.postgres.{name}");
            sink.validate(&at, self.delivery_timeout_seconds, &mut wrong);
        }
        wrong
    }

    /// The sinks that are configured and that this build lacks.
    #[must_use]
    pub fn missing(&self) -> Vec<MissingSink> {
        let mut missing = Vec::new();
        macro_rules! look {
            ($($kind:ident needs $feature:literal),*) => {$(
                if cfg!(not(feature = $feature)) {
                    missing.extend(self.$kind.keys().map(|name| MissingSink {
                        key: format!("sinks.{}.{name}", stringify!($kind)),
                        feature: $feature,
                    }));
                }
            )*};
        }
        look!(postgres needs "postgres", mongo needs "mongo", redis needs "redis", http needs "http");
        missing
    }

    /// How the lane of a sink bears with it, unless the kind of sink says otherwise.
    pub(crate) fn patience(&self) -> Patience {
        Patience {
            backoff: Backoff { initial: self.retry_backoff_initial, max: self.retry_backoff_max },
            linger: Duration::ZERO,
            timeout: Some(self.delivery_timeout_seconds),
            give_up_after: self.give_up_after,
            threshold: self.circuit_breaker.threshold(),
            on_open: self.circuit_breaker.on_open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(json: &str, begins: &str) {
        let config: SinksConfig = serde_json::from_str(json).unwrap();
        let wrong = config.validate();
        assert!(wrong.iter().any(|text| text.starts_with(begins)), "{json}: {wrong:?}");
    }

    #[test]
    fn the_defaults_are_valid_and_survive_being_written_and_read() {
        let config = SinksConfig::default();
        assert_eq!(config.validate(), Vec::<String>::new());
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SinksConfig>(&written).unwrap(), config);
        assert_eq!(DlqConfig::default().validate(), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        refused(r#"{"kafka": {"a": {}}}"#, "sinks.kafka.a.topic: is required");
        refused(r#"{"kafka": {"a": {"topic": "a b"}}}"#, "sinks.kafka.a.topic: is not the name");
        refused(
            r#"{"kafka": {"a": {"topic": "t", "delivery_timeout": 0}}}"#,
            "sinks.kafka.a.delivery_timeout:",
        );
        refused(
            r#"{"kafka": {"a": {"topic": "t", "security": {"sasl_username": "u"}}}}"#,
            "sinks.kafka.a.security: without sinks.kafka.a.brokers",
        );
        refused(r#"{"filesystem": {"f": {}}}"#, "sinks.filesystem.f.base_path: is required");
        for (kind, key) in [("custom", "max_items"), ("http", "in_flight"), ("redis", "max_items")]
        {
            refused(
                &format!(r#"{{"{kind}": {{"a": {{"batch": {{"{key}": 1000001}}}}}}}}"#),
                &format!("sinks.{kind}.a.batch.{key}: must not be larger than 1000000"),
            );
        }
        refused(r#"{"retry_backoff_initial": 0}"#, "sinks.retry_backoff_initial:");
        refused(r#"{"retry_backoff_max": "1ms"}"#, "sinks.retry_backoff_max:");
        refused(r#"{"give_up_after": 0}"#, "sinks.give_up_after: must not be zero");
    }

    #[cfg(not(any(feature = "postgres", feature = "mongo", feature = "redis", feature = "http")))]
    #[test]
    fn a_sink_of_a_kind_that_is_not_compiled_in_is_named_with_its_cargo_feature() {
        let kinds = ["postgres", "mongo", "redis", "http"];
        for kind in kinds {
            let json = format!(r#"{{"{kind}": {{"a": {{}}}}}}"#);
            let config: SinksConfig = serde_json::from_str(&json).unwrap();
            let [missing] = &config.missing()[..] else { panic!("{json}") };
            assert_eq!(
                missing.to_string(),
                format!(
                    "sinks.{kind}.a: is not compiled in; build with the cargo feature `{kind}`"
                )
            );
        }
        assert_eq!(SinksConfig::default().missing(), []);
    }

    #[test]
    fn a_property_the_sink_owns_is_refused_with_the_key_to_use() {
        refused(
            r#"{"kafka": {"a": {"topic": "t", "client_config": {"linger.ms": "1"}}}}"#,
            "sinks.kafka.a.client_config.linger.ms: is not free to choose; set sinks.kafka.a.linger",
        );
        refused(
            r#"{"kafka": {"a": {"topic": "t", "client_config": {"acks": "1"}}}}"#,
            "sinks.kafka.a.client_config.acks: is not free to choose",
        );
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn zstd_without_its_cargo_feature_is_refused() {
        refused(
            r#"{"kafka": {"a": {"topic": "t", "compression": "zstd"}}}"#,
            "sinks.kafka.a.compression: zstd is not compiled in",
        );
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_kafka_sink_without_the_cargo_feature_is_refused() {
        refused(
            r#"{"kafka": {"a": {"topic": "t"}}}"#,
            "sinks.kafka.a: Kafka is not compiled in; build with the cargo feature `kafka`",
        );
    }

    #[test]
    fn a_limit_on_dead_letters_that_makes_no_sense_is_refused_with_its_key() {
        for (json, begins) in [
            (r#"{"max_ratio": 1.5}"#, "dlq.max_ratio:"),
            (r#"{"max_ratio": -0.1}"#, "dlq.max_ratio:"),
            (r#"{"probe_interval": 0}"#, "dlq.probe_interval:"),
        ] {
            let config: DlqConfig = serde_json::from_str(json).unwrap();
            let wrong = config.validate();
            assert!(wrong.iter().any(|text| text.starts_with(begins)), "{json}: {wrong:?}");
        }
        let off: DlqConfig =
            serde_json::from_str(r#"{"max_ratio": 0, "max_consecutive": 0}"#).unwrap();
        assert_eq!(off.validate(), Vec::<String>::new());
    }

    #[cfg(not(feature = "ssl"))]
    #[test]
    fn encryption_without_its_cargo_feature_is_refused() {
        let config = DlqConfig {
            brokers: "b:1".to_owned(),
            security: serde_json::from_str(r#"{"protocol": "SSL"}"#).unwrap(),
            ..DlqConfig::default()
        };
        assert!(config.validate()[0].starts_with("dlq.security.protocol:"));
    }
}
