//! The `kafka:` section of the configuration: where to read, as whom, and how much to hold.
//!
//! Owns the keys, their defaults, their checks and how they read as librdkafka properties. What the
//! poll thread relies on (manual commits, the assignor, the group) cannot be overridden through
//! `client_config`: such a property is refused with the name of the key to use instead.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use drakkar_core::{
    OnInvalid,
    backpressure::Limits,
    kafka_client::{Built, Cluster, Security},
    lenient,
};
use rdkafka::{ClientConfig, error::KafkaError};
use serde::{Deserialize, Serialize};

use crate::rebalance::OVERTIME;

/// How a worker consumes: the `kafka:` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap servers, comma-separated. Default: `localhost:9092`.
    #[serde(deserialize_with = "lenient::text")]
    pub brokers: String,
    /// Topic to read; excludes `source_topics`. Default: `input-events`.
    #[serde(deserialize_with = "lenient::text")]
    pub source_topic: String,
    /// Topics to read, where there are several; excludes `source_topic`. Default: none:
    /// `source_topic` alone is read.
    #[serde(deserialize_with = "lenient::list")]
    pub source_topics: Vec<String>,
    /// Put before the name of every topic that is read. Default: nothing.
    #[serde(deserialize_with = "lenient::text")]
    pub topic_prefix: String,
    /// Consumer group; its workers share the partitions. Default: `drakkar-workers`.
    #[serde(deserialize_with = "lenient::text")]
    pub consumer_group: String,
    /// Encryption and authentication. Default plaintext.
    pub security: Security,
    /// Any other librdkafka property; those that a worker relies on are refused, and so is what the
    /// client does not know, both by `drakkar check`. Default: none.
    #[serde(deserialize_with = "lenient::map")]
    pub client_config: BTreeMap<String, String>,
    /// How the group shares its partitions: `classic` (cooperative-sticky) or `consumer` (KIP-848,
    /// brokers from 4.0 on; experimental). Default: `classic`.
    pub group_protocol: GroupProtocol,
    /// Name of this worker in the group, for static membership
    /// (`docs/delivery.md#static-membership`): a restart within the session time-out moves no
    /// partition. Must differ between workers; `{worker_id}` stands for the id of the worker.
    /// Default: none.
    #[serde(deserialize_with = "lenient::option")]
    pub group_instance_id: Option<String>,
    /// Messages read between two looks at what the pipeline asks for. Default: `100`.
    pub max_poll_records: NonZeroUsize,
    /// Milliseconds without a poll after which the group gives the partitions of this worker away.
    /// Default: `300000`.
    pub max_poll_interval_ms: u32,
    /// Milliseconds without a heartbeat after which the group gives the partitions of this worker
    /// away. With `group_protocol: consumer` the brokers decide. Default: `45000`.
    pub session_timeout_ms: u32,
    /// Milliseconds between heartbeats. With `group_protocol: consumer` the brokers decide.
    /// Default: `3000`.
    pub heartbeat_interval_ms: u32,
    /// Whether workers that start together wait for a common moment to join the group, so that it
    /// rebalances once. Default: `true`.
    pub startup_align_enabled: bool,
    /// Seconds to wait at least before joining. Default: `4.0`.
    pub startup_min_wait_seconds: f64,
    /// Seconds whose multiples on the wall clock are the common moments. Default: `10`.
    pub startup_align_interval_seconds: u64,
    /// How long a start waits for brokers that do not answer, those of sinks and dead letters too,
    /// and for source topics that do not exist. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub start_timeout: Duration,
    /// What becomes of a message whose value does not decode: `dead_letter`, `skip` (counted and
    /// logged) or `fail` (the worker stops). Default: `dead_letter`.
    pub on_invalid: OnInvalid,
    /// How long partitions that are taken away may work on before they are handed over; no
    /// partition of this worker is read meanwhile. Must be below `max_poll_interval_ms`. Default:
    /// `5s`.
    #[serde(with = "lenient::duration")]
    pub revoke_timeout: Duration,
    /// Time from the first settled message to the commit, at most. Default: `500ms`.
    #[serde(with = "lenient::duration")]
    pub commit_interval: Duration,
    /// Settled messages of a partition after which it is committed at once. Default: `5000`.
    pub commit_every: NonZeroUsize,
    /// Messages of one partition held at once; above, it is paused, and goes on at half of it.
    /// Default: `10000`.
    pub max_held_messages: NonZeroUsize,
    /// Bytes of one partition held at once; above, it is paused, and goes on at half of it. The tasks that
    /// `arrange` made of them may take as many again (`docs/fan-out.md`). Default: `8388608` (8 MiB).
    pub max_held_bytes: NonZeroUsize,
    /// Messages of all partitions held at once: each may hold an equal share of it, and no more
    /// than `max_held_messages`. Default: `50000`.
    pub max_held_messages_total: NonZeroUsize,
    /// Bytes of all partitions held at once: each may hold an equal share of it, and no more than
    /// `max_held_bytes`. Default: `33554432` (32 MiB).
    pub max_held_bytes_total: NonZeroUsize,
}

/// How a group shares its partitions among its members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// Members join and sync; partitions move one rebalance at a time (`cooperative-sticky`).
    #[default]
    Classic,
    /// The brokers assign (KIP-848); needs brokers of version 4.0 or later.
    Consumer,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        const fn count(value: usize) -> NonZeroUsize {
            match NonZeroUsize::new(value) {
                Some(value) => value,
                None => NonZeroUsize::MIN,
            }
        }
        Self {
            brokers: "localhost:9092".to_owned(),
            source_topic: "input-events".to_owned(),
            source_topics: Vec::new(),
            topic_prefix: String::new(),
            consumer_group: "drakkar-workers".to_owned(),
            security: Security::default(),
            client_config: BTreeMap::new(),
            group_protocol: GroupProtocol::Classic,
            group_instance_id: None,
            max_poll_records: count(100),
            max_poll_interval_ms: 300_000,
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 3_000,
            startup_align_enabled: true,
            startup_min_wait_seconds: 4.0,
            startup_align_interval_seconds: 10,
            start_timeout: Duration::from_secs(30),
            on_invalid: OnInvalid::DeadLetter,
            revoke_timeout: Duration::from_secs(5),
            commit_interval: Duration::from_millis(500),
            commit_every: count(5_000),
            max_held_messages: count(10_000),
            max_held_bytes: count(8 << 20),
            max_held_messages_total: count(50_000),
            max_held_bytes_total: count(32 << 20),
        }
    }
}

/// Properties that `client_config` may not set, and what to use instead.
const RESERVED: [(&str, &str); 14] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.consumer_group"),
    ("group.protocol", "set kafka.group_protocol"),
    ("group.instance.id", "set kafka.group_instance_id"),
    ("max.poll.interval.ms", "set kafka.max_poll_interval_ms"),
    ("session.timeout.ms", "set kafka.session_timeout_ms"),
    ("heartbeat.interval.ms", "set kafka.heartbeat_interval_ms"),
    ("client.id", "it is the name of the worker"),
    ("enable.auto.commit", "only settled messages are committed"),
    ("auto.commit.interval.ms", "set kafka.commit_interval"),
    ("enable.auto.offset.store", "only settled messages are committed"),
    ("partition.assignment.strategy", "partitions are handed over one by one, never all at once"),
    ("enable.partition.eof", "the end of a partition means nothing to a worker"),
];

impl KafkaConfig {
    /// The cluster, for those who talk to the same one.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster {
            brokers: self.brokers.clone(),
            security: self.security.clone(),
            client_config: self.client_config.clone(),
        }
    }

    /// Names of the topics to read, with their prefix.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        let named = match self.source_topics.as_slice() {
            [] => std::slice::from_ref(&self.source_topic),
            several => several,
        };
        named.iter().map(|topic| format!("{}{topic}", self.topic_prefix)).collect()
    }

    /// How much of one partition may be held while so many are ours.
    #[must_use]
    pub(crate) fn limits(&self, partitions: usize) -> Limits {
        let total =
            Limits::new(self.max_held_messages_total.get(), self.max_held_bytes_total.get());
        Limits::new(self.max_held_messages.get(), self.max_held_bytes.get())
            .share(total, partitions)
    }

    /// What is wrong with the section; every text begins with the key it is about.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, text: &str| {
            if !right {
                wrong.push(text.to_owned());
            }
        };
        check(!self.brokers.trim().is_empty(), "kafka.brokers: must name at least one broker");
        check(!self.consumer_group.is_empty(), "kafka.consumer_group: must not be empty");
        check(
            self.topics().iter().all(|topic| topic.len() > self.topic_prefix.len()),
            "kafka.source_topic: a topic must have a name",
        );
        check(
            self.source_topics.is_empty() || self.source_topic == Self::default().source_topic,
            "kafka.source_topics: excludes kafka.source_topic; list every topic in one of them",
        );
        let mut topics = self.source_topics.clone();
        topics.sort_unstable();
        topics.dedup();
        check(
            topics.len() == self.source_topics.len(),
            "kafka.source_topics: names a topic more than once",
        );
        check(
            self.group_instance_id.as_deref() != Some(""),
            "kafka.group_instance_id: must not be empty; leave it out for dynamic membership",
        );
        check(
            self.instance_id("").is_none_or(|name| !name.contains(['{', '}'])),
            "kafka.group_instance_id: only {worker_id} can stand between braces",
        );
        self.validate_times(&mut check);
        self.validate_client(&mut wrong);
        if wrong.is_empty()
            && let Err(refused) = self.properties("check").create_native_config()
        {
            wrong.push(self.refusal(&refused));
        }
        wrong
    }

    /// What the client refuses. The value is left out where the client does not show it: it may be a
    /// secret.
    pub(crate) fn refusal(&self, error: &KafkaError) -> String {
        match error {
            KafkaError::ClientConfig(_, reason, property, _) => {
                format!("{}: {}", self.key_of(property), reason.trim())
            }
            KafkaError::ClientCreation(reason) => format!("kafka.client_config: {}", reason.trim()),
            other => format!("kafka.client_config: {other}"),
        }
    }

    /// The key that `property` was set by.
    fn key_of(&self, property: &str) -> String {
        let typed = RESERVED.iter().find(|(reserved, _)| *reserved == property);
        match typed.and_then(|(_, instead)| instead.strip_prefix("set ")) {
            Some(key) => key.to_owned(),
            None if self.client_config.contains_key(property) => {
                format!("kafka.client_config.{property}")
            }
            None => format!("kafka.security: {property}"),
        }
    }

    fn validate_times(&self, check: &mut impl FnMut(bool, &str)) {
        check(
            self.revoke_timeout + OVERTIME
                < Duration::from_millis(self.max_poll_interval_ms.into()),
            "kafka.revoke_timeout: must be at least 4 s shorter than kafka.max_poll_interval_ms, \
             or the group gives every partition away",
        );
        check(!self.commit_interval.is_zero(), "kafka.commit_interval: must not be zero");
        check(!self.start_timeout.is_zero(), "kafka.start_timeout: must not be zero");
        check(
            0.0 <= self.startup_min_wait_seconds && self.startup_min_wait_seconds <= 86_400.0,
            "kafka.startup_min_wait_seconds: must be between 0 and 86400",
        );
        check(
            self.startup_align_interval_seconds >= 1,
            "kafka.startup_align_interval_seconds: must be at least 1; to join at once set \
             kafka.startup_align_enabled to false",
        );
        if self.group_protocol == GroupProtocol::Classic {
            check(
                self.heartbeat_interval_ms >= 1
                    && self.heartbeat_interval_ms < self.session_timeout_ms,
                "kafka.heartbeat_interval_ms: must be at least 1 and less than \
                 kafka.session_timeout_ms",
            );
            check(
                self.session_timeout_ms <= self.max_poll_interval_ms,
                "kafka.session_timeout_ms: must not be longer than kafka.max_poll_interval_ms",
            );
        }
    }

    fn validate_client(&self, wrong: &mut Vec<String>) {
        for name in self.client_config.keys() {
            if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
                wrong.push(format!("kafka.client_config.{name}: is not free to choose; {instead}"));
            }
        }
        let built = Built { ssl: cfg!(feature = "ssl"), gssapi: cfg!(feature = "gssapi") };
        wrong.extend(self.security.lacking("kafka", built));
    }

    /// What the worker `worker_id` is called in the group; nothing for dynamic membership.
    pub(crate) fn instance_id(&self, worker_id: &str) -> Option<String> {
        self.group_instance_id.as_ref().map(|name| name.replace("{worker_id}", worker_id))
    }

    /// The section as librdkafka reads it.
    pub(crate) fn properties(&self, client_id: &str) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("client.id", client_id)
            .set("auto.offset.reset", "earliest")
            // What is fetched ahead comes on top of what is held, and a pause throws it away: keep it
            // small, one answer of a broker with many partitions included.
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.max.bytes", "8388608")
            // A full queue is looked at again after this; the client's own second is a standstill for a
            // queue this small.
            .set("fetch.queue.backoff.ms", "10")
            .set("statistics.interval.ms", "5000");
        for (name, value) in self.security.properties() {
            client.set(name, value);
        }
        for (name, value) in &self.client_config {
            client.set(name, value);
        }
        client
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.consumer_group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("max.poll.interval.ms", self.max_poll_interval_ms.to_string());
        if let Some(name) = self.instance_id(client_id) {
            client.set("group.instance.id", name);
        }
        match self.group_protocol {
            GroupProtocol::Classic => client
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", self.session_timeout_ms.to_string())
                .set("heartbeat.interval.ms", self.heartbeat_interval_ms.to_string()),
            // The brokers own assignor, session and heartbeat: librdkafka refuses them here.
            GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
        };
        client
    }
}

#[cfg(test)]
mod tests;
