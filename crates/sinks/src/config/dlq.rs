//! Where messages go that could not be processed: the `dlq:` section.

use std::{collections::BTreeMap, time::Duration};

use drakkar_core::{flood::FloodLimits, kafka_client::Security, lenient};
use serde::{Deserialize, Serialize};

use super::{
    client,
    cluster::{self, NOT_A_TOPIC, is_topic},
};

/// Where messages go that could not be processed: the `dlq:` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DlqConfig {
    /// Topic for all of them. Default: the topic of the message with `_dlq` behind it.
    #[serde(deserialize_with = "lenient::text")]
    pub topic: String,
    /// Bootstrap servers, comma-separated. Default: the cluster that is consumed, with its
    /// security.
    #[serde(deserialize_with = "lenient::text")]
    pub brokers: String,
    /// Encryption and authentication; only together with `brokers`. Default plaintext.
    pub security: Security,
    /// Any other librdkafka property; those the worker relies on are refused. Default: none.
    #[serde(deserialize_with = "lenient::map")]
    pub client_config: BTreeMap<String, String>,
    /// What becomes of a letter that is too large for its topic
    /// (`docs/dead-letters.md#a-letter-that-its-topic-refuses`): `hold` (it waits) or `skip_value`
    /// (it is written without the value of its message). Default: `hold`.
    pub on_too_large: OnTooLarge,
    /// Dead-lettered messages in a row at which their partition is held
    /// (`docs/delivery.md#too-many-dead-letters`); 0 is off. Default: `100`.
    pub max_consecutive: u32,
    /// Part of the last 1 000 messages of a partition at which it is held, if they were
    /// dead-lettered; 0 is off. Default: `0.5`.
    pub max_ratio: f64,
    /// How long after a message of a held partition was tried and failed the next one is tried.
    /// Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub probe_interval: Duration,
}

/// What becomes of a letter that is too large for its topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTooLarge {
    /// It waits until the topic takes it.
    #[default]
    Hold,
    /// It is written without the value of its message, and says so in a header.
    SkipValue,
}

impl Default for DlqConfig {
    fn default() -> Self {
        Self {
            topic: String::new(),
            brokers: String::new(),
            security: Security::default(),
            client_config: BTreeMap::new(),
            on_too_large: OnTooLarge::Hold,
            max_consecutive: 100,
            max_ratio: 0.5,
            probe_interval: Duration::from_secs(30),
        }
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
        cluster::validate("dlq", &self.brokers, &self.security, &mut wrong);
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
