//! One Kafka topic: `sinks.kafka.<name>`.

use std::{collections::BTreeMap, time::Duration};

use drakkar_core::{kafka_client::Security, lenient};
use serde::{Deserialize, Serialize};

use super::{
    BatchConfig, client,
    cluster::{self, NOT_A_TOPIC, is_topic},
};

/// One Kafka topic: `sinks.kafka.<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSinkConfig {
    /// Topic that records are written to unless they name another. Default: none, required.
    #[serde(deserialize_with = "lenient::text")]
    pub topic: String,
    /// Bootstrap servers, comma-separated. Default: the cluster that is consumed, with its
    /// security.
    #[serde(deserialize_with = "lenient::text")]
    pub brokers: String,
    /// Encryption and authentication; only together with `brokers`. Default plaintext.
    pub security: Security,
    /// Any other librdkafka property; those the sink relies on are refused. Default: none.
    #[serde(deserialize_with = "lenient::map")]
    pub client_config: BTreeMap<String, String>,
    /// How long the client waits for more records before it sends a batch. Default: `5ms`.
    #[serde(with = "lenient::duration")]
    pub linger: Duration,
    /// How batches are compressed: `none`, `gzip`, `snappy`, `lz4` or `zstd`. Default: `none`.
    pub compression: Compression,
    /// How long the client tries to deliver a record before the worker hears of it; the record is
    /// then held and tried again. Default: `30s`.
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

impl KafkaSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
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
        if Duration::from_secs(1) < self.linger {
            wrong.push(format!(
                "{at}.linger: must not be longer than 1 s, for a hand-over waits as long; \
                 {at}.batch.linger may be longer"
            ));
        }
        if Duration::from_hours(24) < self.delivery_timeout {
            wrong.push(format!("{at}.delivery_timeout: must not be longer than a day"));
        }
        self.batch.validate(at, wrong);
        cluster::validate(at, &self.brokers, &self.security, wrong);
        client::validate(at, &self.client_config, wrong);
    }
}
