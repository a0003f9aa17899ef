//! The `sinks:` and `dlq:` sections of the configuration.
//!
//! Owns the keys, their defaults and their checks. How a section reads as librdkafka properties is
//! said in `client.rs`; nothing here opens anything.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use drakkar_core::{
    flood::FloodLimits,
    kafka_client::{SaslMechanism, Security},
    lenient,
    retry::Backoff,
};
use serde::{Deserialize, Serialize};

pub(crate) mod client; // as librdkafka properties
pub(crate) mod delivery; // how payloads are joined, and when a sink is left alone

pub use delivery::{BatchConfig, CircuitBreakerConfig};

use crate::lane::Patience;

/// Where results go: the `sinks:` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinksConfig {
    /// Kafka topics, by the name payloads call them. Default none.
    pub kafka: BTreeMap<String, KafkaSinkConfig>,
    /// Directories, by the name payloads call them. Default none.
    pub filesystem: BTreeMap<String, FileSinkConfig>,
    /// Sinks that the worker's own code registers, by the name it registers them by. Only needed to
    /// change how they are written to. Default none.
    pub custom: BTreeMap<String, CustomSinkConfig>,
    /// Upper bound of the first wait before a payload is tried again. Default 100 ms.
    #[serde(with = "lenient::duration")]
    pub retry_backoff_initial: Duration,
    /// Upper bound of every wait before a payload is tried again. Default 30 s.
    #[serde(with = "lenient::duration")]
    pub retry_backoff_max: Duration,
    /// How long one write may take, where the sink has no limit of its own (Kafka has, a file has
    /// none). Default 30 s.
    #[serde(with = "lenient::duration")]
    pub delivery_timeout_seconds: Duration,
    /// How long a payload is tried before it counts as refused for good, in seconds. Default none: for
    /// as long as it lasts.
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
            custom: BTreeMap::new(),
            retry_backoff_initial: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(30),
            delivery_timeout_seconds: Duration::from_secs(30),
            give_up_after: None,
            circuit_breaker: CircuitBreakerConfig::default(),
        }
    }
}

/// One Kafka topic: `sinks.kafka.<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSinkConfig {
    /// Topic that records are written to unless they name another. Required.
    #[serde(deserialize_with = "lenient::text")]
    pub topic: String,
    /// Bootstrap servers, comma-separated. Default empty: the cluster that is consumed, with its
    /// security.
    #[serde(deserialize_with = "lenient::text")]
    pub brokers: String,
    /// Encryption and authentication; only together with `brokers`. Default plaintext.
    pub security: Security,
    /// Any other librdkafka property. Default none.
    #[serde(deserialize_with = "lenient::map")]
    pub client_config: BTreeMap<String, String>,
    /// How long the client waits for more records before it sends a batch. Default 5 ms.
    #[serde(with = "lenient::duration")]
    pub linger: Duration,
    /// How batches are compressed. Default `none`.
    pub compression: Compression,
    /// How long the client tries to deliver a record before the worker hears of it; the record is
    /// then held and tried again. Default 30 s.
    #[serde(with = "lenient::duration")]
    pub delivery_timeout: Duration,
    /// How records are given to the client together: 1 000 items, 4 MiB, 64 in flight, unless said.
    pub batch: BatchConfig,
}

impl Default for KafkaSinkConfig {
    fn default() -> Self {
        Self {
            topic: String::new(),
            brokers: String::new(),
            security: Security::default(),
            client_config: BTreeMap::new(),
            linger: Duration::from_millis(5),
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(30),
            batch: BatchConfig::default(),
        }
    }
}

/// How batches to Kafka are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Smaller and slower.
    Gzip,
    /// Fast.
    Snappy,
    /// Fast.
    Lz4,
    /// Small and fast; needs the cargo feature `zstd`.
    Zstd,
}

/// One directory: `sinks.filesystem.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSinkConfig {
    /// Directory below which every file is; it is made if it does not exist. Required.
    pub base_path: PathBuf,
    /// When a line counts as written. Default `batch`.
    pub fsync: Fsync,
    /// How lines are written together: 4 096 items, 8 MiB, one in flight, unless said.
    pub batch: BatchConfig,
}

/// A sink that the worker's own code registers: `sinks.custom.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CustomSinkConfig {
    /// How payloads are written together: 500 items, 4 MiB, 4 in flight, unless said.
    pub batch: BatchConfig,
}

/// When a line counts as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When it is on the disk: one `fdatasync` per file for all lines that were waiting.
    #[default]
    Batch,
    /// When the kernel has it; a power failure may lose it.
    Never,
}

/// Where messages go that could not be processed: the `dlq:` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DlqConfig {
    /// Topic for all of them. Default empty: `{topic of the message}_dlq`.
    #[serde(deserialize_with = "lenient::text")]
    pub topic: String,
    /// Bootstrap servers, comma-separated. Default empty: the cluster that is consumed, with its
    /// security.
    #[serde(deserialize_with = "lenient::text")]
    pub brokers: String,
    /// Encryption and authentication; only together with `brokers`. Default plaintext.
    pub security: Security,
    /// Any other librdkafka property. Default none.
    #[serde(deserialize_with = "lenient::map")]
    pub client_config: BTreeMap<String, String>,
    /// Dead-lettered messages in a row at which their partition is held. Default 100; 0 is off.
    pub max_consecutive: u32,
    /// Part of the last 1 000 messages of a partition at which it is held, if they were
    /// dead-lettered. Default 0.5; 0 is off.
    pub max_ratio: f64,
    /// How long after a message of a held partition was tried and failed the next one is tried.
    /// Default 30 s.
    #[serde(with = "lenient::duration")]
    pub probe_interval: Duration,
}

impl Default for DlqConfig {
    fn default() -> Self {
        Self {
            topic: String::new(),
            brokers: String::new(),
            security: Security::default(),
            client_config: BTreeMap::new(),
            max_consecutive: 100,
            max_ratio: 0.5,
            probe_interval: Duration::from_secs(30),
        }
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
        for (name, sink) in &self.custom {
            sink.batch.validate(&format!("sinks.custom.{name}"), &mut wrong);
        }
        for (name, sink) in &self.kafka {
            sink.validate(&format!("sinks.kafka.{name}"), &mut wrong);
        }
        if self.delivery_timeout_seconds.is_zero() {
            wrong.push("sinks.delivery_timeout_seconds: must not be zero".to_owned());
        }
        for (name, sink) in &self.filesystem {
            let at = format!("sinks.filesystem.{name}");
            sink.batch.validate(&at, &mut wrong);
            if sink.batch.in_flight.is_some_and(|many| 1 < many.get()) {
                wrong.push(format!("{at}.batch.in_flight: must be 1: lines keep their order"));
            }
            if sink.base_path.as_os_str().is_empty() {
                wrong.push(format!(
                    "sinks.filesystem.{name}.base_path: is required; name a directory"
                ));
            }
        }
        wrong
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

impl KafkaSinkConfig {
    fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        if cfg!(not(feature = "kafka")) {
            wrong.push(format!(
                "{at}: Kafka is not compiled in; build with the cargo feature `kafka`"
            ));
        }
        if self.topic.is_empty() {
            wrong.push(format!("{at}.topic: is required; name a topic"));
        } else if !is_topic(&self.topic) {
            wrong.push(format!("{at}.topic: {NOT_A_TOPIC}"));
        }
        if self.compression == Compression::Zstd && cfg!(not(feature = "zstd")) {
            wrong.push(format!(
                "{at}.compression: zstd is not compiled in; build with the cargo feature `zstd`, or \
                 choose lz4"
            ));
        }
        if self.delivery_timeout <= self.linger {
            wrong.push(format!("{at}.delivery_timeout: must be longer than {at}.linger"));
        }
        if Duration::from_mins(15) < self.linger {
            wrong.push(format!("{at}.linger: must not be longer than 15 min"));
        }
        if Duration::from_hours(24) < self.delivery_timeout {
            wrong.push(format!("{at}.delivery_timeout: must not be longer than a day"));
        }
        self.batch.validate(at, wrong);
        validate_cluster(at, &self.brokers, &self.security, wrong);
        client::validate(at, &self.client_config, wrong);
    }
}

impl DlqConfig {
    /// What is wrong with the section; every text begins with the key it is about.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if !self.topic.is_empty() && !is_topic(&self.topic) {
            wrong.push(format!("dlq.topic: {NOT_A_TOPIC}"));
        }
        if !(0.0..=1.0).contains(&self.max_ratio) {
            wrong.push("dlq.max_ratio: must be between 0 (off) and 1".to_owned());
        }
        if self.probe_interval.is_zero() || Duration::from_hours(24) < self.probe_interval {
            wrong.push("dlq.probe_interval: must not be zero or longer than a day".to_owned());
        }
        validate_cluster("dlq", &self.brokers, &self.security, &mut wrong);
        client::validate("dlq", &self.client_config, &mut wrong);
        wrong
    }

    /// How many messages of a partition may be dead-lettered.
    #[must_use]
    pub fn flood(&self) -> FloodLimits {
        FloodLimits {
            max_consecutive: self.max_consecutive,
            max_ratio: self.max_ratio,
            probe_interval: self.probe_interval,
        }
    }
}

/// What is wrong with a topic that is none.
pub(crate) const NOT_A_TOPIC: &str =
    "is not the name of a topic: up to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`";

/// Whether a broker would accept this as the name of a topic.
pub(crate) fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".."
}

fn validate_cluster(at: &str, brokers: &str, security: &Security, wrong: &mut Vec<String>) {
    if brokers.is_empty() && *security != Security::default() {
        wrong.push(format!(
            "{at}.security: without {at}.brokers, cluster and security are those of kafka:; set \
             {at}.brokers as well"
        ));
    }
    let mut lacks = |key: &str, what: &str, feature: &str| {
        wrong.push(format!(
            "{at}.security.{key}: {what} is not compiled in; build with the cargo feature \
             `{feature}`"
        ));
    };
    if security.protocol.needs_tls() && cfg!(not(feature = "ssl")) {
        lacks("protocol", "encryption", "ssl");
    }
    match security.sasl_mechanism {
        Some(SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512)
            if cfg!(not(feature = "ssl")) =>
        {
            lacks("sasl_mechanism", "SCRAM", "ssl");
        }
        Some(SaslMechanism::Gssapi) if cfg!(not(feature = "gssapi")) => {
            lacks("sasl_mechanism", "Kerberos", "gssapi");
        }
        _ => {}
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
        refused(r#"{"retry_backoff_initial": 0}"#, "sinks.retry_backoff_initial:");
        refused(r#"{"retry_backoff_max": "1ms"}"#, "sinks.retry_backoff_max:");
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
