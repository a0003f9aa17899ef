//! Sections as librdkafka properties: which are ours, which are inherited, which are free.

use std::collections::BTreeMap;

#[cfg(feature = "kafka")]
use {
    super::{Compression, DlqConfig, KafkaSinkConfig},
    drakkar_core::kafka_client::Cluster,
    rdkafka::ClientConfig,
    std::time::Duration,
};

/// Properties that `client_config` may not set, and what to use instead (`{at}` is the section).
const RESERVED: [(&str, &str); 15] = [
    ("bootstrap.servers", "set {at}.brokers"),
    ("metadata.broker.list", "set {at}.brokers"),
    ("client.id", "it is the name of the worker"),
    ("linger.ms", "set {at}.linger"),
    ("queue.buffering.max.ms", "set {at}.linger"),
    ("compression.type", "set {at}.compression"),
    ("compression.codec", "set {at}.compression"),
    ("message.timeout.ms", "set {at}.delivery_timeout"),
    ("delivery.timeout.ms", "set {at}.delivery_timeout"),
    ("enable.idempotence", WRITTEN_ONCE),
    ("acks", CONFIRMED_BY_ALL),
    ("request.required.acks", CONFIRMED_BY_ALL),
    ("transactional.id", "transactions are not what this sink does"),
    ("enable.gapless.guarantee", "a record that fails is tried again"),
    ("delivery.report.only.error", "every record is confirmed"),
];
const WRITTEN_ONCE: &str = "the client writes a record once however often it sends it";
const CONFIRMED_BY_ALL: &str = "a record counts when every replica in sync has it";

/// Checks the names in `client_config` of the section `at`.
pub(super) fn validate(at: &str, properties: &BTreeMap<String, String>, wrong: &mut Vec<String>) {
    for name in properties.keys() {
        let reserved = RESERVED.iter().find(|(reserved, _)| reserved == name);
        let Some((_, instead)) = reserved else {
            continue;
        };
        // The dead-letter section lacks some of the keys: what it cannot set is fixed.
        let absent = at == "dlq" && instead.starts_with("set") && !instead.ends_with("brokers");
        let instead = if absent {
            "dead letters are written as fast and as safely as they can be".to_owned()
        } else {
            instead.replace("{at}", at)
        };
        wrong.push(format!("{at}.client_config.{name}: is not free to choose; {instead}"));
    }
}

/// The properties of one producer, before its own are added.
#[cfg(feature = "kafka")]
#[derive(Debug)]
pub(crate) struct ProducerSettings {
    /// The topic records go to unless they name another; empty where each names its own.
    pub topic: String,
    /// Who is asked.
    pub brokers: String,
    /// How long a record may take.
    pub delivery_timeout: Duration,
    /// Everything librdkafka is told.
    pub client: ClientConfig,
}

#[cfg(feature = "kafka")]
impl ProducerSettings {
    /// A Kafka sink of the worker `client_id`, which consumes from `source`.
    pub(crate) fn of_sink(sink: &KafkaSinkConfig, source: &Cluster, client_id: &str) -> Self {
        let cluster = cluster(&sink.brokers, source, || Cluster {
            brokers: sink.brokers.clone(),
            security: sink.security.clone(),
            client_config: BTreeMap::new(),
        });
        let mut client = base(&cluster, &sink.client_config, client_id, sink.delivery_timeout);
        client
            .set("linger.ms", sink.linger.as_millis().to_string())
            .set("compression.type", name(sink.compression));
        Self {
            topic: sink.topic.clone(),
            brokers: cluster.brokers,
            delivery_timeout: sink.delivery_timeout,
            client,
        }
    }

    /// The dead-letter topic of the worker `client_id`, which consumes from `source`.
    pub(crate) fn of_dead_letters(dlq: &DlqConfig, source: &Cluster, client_id: &str) -> Self {
        let cluster = dlq.cluster(source);
        let delivery_timeout = Duration::from_secs(30);
        let mut client = base(&cluster, &BTreeMap::new(), client_id, delivery_timeout);
        client.set("linger.ms", "5");
        Self { topic: dlq.topic.clone(), brokers: cluster.brokers, delivery_timeout, client }
    }
}

#[cfg(feature = "kafka")]
fn cluster(brokers: &str, source: &Cluster, own: impl FnOnce() -> Cluster) -> Cluster {
    if !brokers.is_empty() {
        return own();
    }
    source.clone().connection()
}

#[cfg(feature = "kafka")]
impl DlqConfig {
    /// The cluster of the dead-letter topic, as a producer is to be told of it; `source` is the one
    /// that is consumed.
    #[must_use]
    pub fn cluster(&self, source: &Cluster) -> Cluster {
        let mut cluster = cluster(&self.brokers, source, || Cluster {
            brokers: self.brokers.clone(),
            security: self.security.clone(),
            client_config: BTreeMap::new(),
        });
        cluster.client_config.extend(self.client_config.clone());
        cluster
    }
}

#[cfg(feature = "kafka")]
fn base(
    cluster: &Cluster,
    free: &BTreeMap<String, String>,
    client_id: &str,
    delivery_timeout: Duration,
) -> ClientConfig {
    let mut client = ClientConfig::new();
    // What is too large is the broker's to say: its limit differs per topic.
    client.set("message.max.bytes", "1000000000");
    for (name, value) in cluster.security.properties() {
        client.set(name, value);
    }
    for (name, value) in cluster.client_config.iter().chain(free) {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &cluster.brokers)
        .set("client.id", client_id)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Finite, so that an outage is heard of; what times out is held and tried again.
        .set("message.timeout.ms", delivery_timeout.as_millis().to_string());
    client
}

#[cfg(feature = "kafka")]
fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

#[cfg(feature = "kafka")]
#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Cluster {
        Cluster {
            brokers: "source:9092".to_owned(),
            security: serde_json::from_str(r#"{"sasl_username": "u"}"#).unwrap(),
            client_config: [("socket.keepalive.enable", "true"), ("fetch.min.bytes", "9")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn without_brokers_of_its_own_a_sink_takes_cluster_security_and_connection_of_the_consumer() {
        let client = ProducerSettings::of_sink(&KafkaSinkConfig::default(), &source(), "w").client;
        assert_eq!(client.get("bootstrap.servers"), Some("source:9092"));
        assert_eq!(client.get("sasl.username"), Some("u"));
        assert_eq!(client.get("socket.keepalive.enable"), Some("true"));
        assert_eq!(client.get("fetch.min.bytes"), None, "that is about consuming");
    }

    #[test]
    fn with_brokers_of_its_own_a_sink_takes_nothing_of_the_consumer() {
        let sink = KafkaSinkConfig {
            brokers: "other:1".to_owned(),
            client_config: [("batch.size".to_owned(), "7".to_owned())].into(),
            ..KafkaSinkConfig::default()
        };
        let client = ProducerSettings::of_sink(&sink, &source(), "w").client;
        assert_eq!(client.get("bootstrap.servers"), Some("other:1"));
        assert_eq!(client.get("sasl.username"), None);
        assert_eq!(client.get("batch.size"), Some("7"));
    }
}
