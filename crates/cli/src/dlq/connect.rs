//! The configuration of a worker, as clients that look at its dead letters.
//!
//! Letters are read from, and parked at, the cluster of `dlq:`; they go back to that of `kafka:`. An
//! error names what is refused, never its value.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{anyhow, bail};
use drakkar::{Config, Loaded, sections::Cluster};
use drakkar_core::kafka_client::Security;
use rdkafka::{
    ClientConfig, ClientContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    metadata::{MetadataPartition, MetadataTopic},
};
use tokio::time::Instant;

use super::{Usage, args::Place};

/// The group of those who read and keep no progress. Nobody ever joins it.
pub(super) const READER: &str = "drakkar-dlq";

/// Bytes that the client fetches ahead of us, in KiB.
const AHEAD: &str = "16384";

/// Longest answer to one question; a broker that is slower is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// Where everything is.
pub(super) struct Kafka {
    /// Where messages come from.
    pub source: Cluster,
    /// Where letters are.
    pub letters: Cluster,
    /// The dead-letter topic.
    pub topic: String,
    /// How long brokers may be silent.
    pub timeout: Duration,
}

impl Kafka {
    /// What the options and the configuration say together.
    pub(super) fn of(place: &Place) -> anyhow::Result<Self> {
        if place.config.is_none() && place.topic.is_none() {
            bail!(Usage("say which letters: --config FILE, or --brokers and --topic".to_owned()));
        }
        Self::read(place, &configuration(place)?)
    }

    /// The same where the configuration is at hand.
    pub(super) fn read(place: &Place, config: &Config) -> anyhow::Result<Self> {
        let named = place.topic.clone();
        let named = named.or_else(|| Some(config.dlq.topic.clone()).filter(|it| !it.is_empty()));
        let topic = match (named, config.kafka.topics().as_slice()) {
            (Some(topic), _) => topic,
            (None, [source]) => format!("{source}_dlq"),
            (None, several) => {
                let topics: Vec<_> = several.iter().map(|topic| format!("{topic}_dlq")).collect();
                bail!(Usage(format!("say which with --topic: {}", topics.join(", "))));
            }
        };
        let consumed = config.kafka.cluster();
        let letters = config.dlq.cluster(&consumed);
        Ok(Self { source: consumed.connection(), letters, topic, timeout: place.timeout })
    }

    /// A consumer of letters; `group` is whose progress it may ask for and commit.
    pub(super) fn consumer(&self, group: &str) -> anyhow::Result<Client> {
        Client::new(&self.letters.clone().connection(), group, self.timeout)
    }

    /// Somebody who knows the topics of the cluster that messages come from.
    pub(super) fn source_consumer(&self) -> anyhow::Result<Client> {
        Client::new(&self.source, READER, self.timeout)
    }
}

/// The configuration, as the options change it.
pub(super) fn configuration(place: &Place) -> anyhow::Result<Config> {
    let mut config = Loaded::read(place.config.as_deref())?.config;
    if let Some(brokers) = &place.brokers {
        config.kafka.brokers.clone_from(brokers);
        if !config.dlq.brokers.is_empty() {
            // What was said of that cluster alone.
            config.dlq.brokers.clear();
            config.dlq.security = Security::default();
            config.dlq.client_config.clear();
        }
    }
    Ok(config)
}

/// A consumer that is in no group.
pub(super) struct Client {
    pub consumer: BaseConsumer<Context>,
    pub timeout: Duration,
    brokers: String,
}

impl Client {
    fn new(cluster: &Cluster, group: &str, timeout: Duration) -> anyhow::Result<Self> {
        let mut settings = settings(cluster, timeout);
        settings
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("queued.max.messages.kbytes", AHEAD)
            .set("fetch.wait.max.ms", "50");
        let consumer = settings.create_with_context(Context::default()).map_err(refused)?;
        Ok(Self { consumer, timeout, brokers: cluster.brokers.clone() })
    }

    /// The partitions of `topic`; `None` when there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> anyhow::Result<Option<Vec<i32>>> {
        let metadata = self.ask(
            |within| self.consumer.fetch_metadata(Some(topic), within),
            |metadata| {
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                // A topic that was just made has no leaders for a moment.
                found.and_then(MetadataTopic::error).map(Code::from)
                    != Some(Code::LeaderNotAvailable)
            },
        )?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else { return Ok(None) };
        match found.error().map(Code::from) {
            None => Ok(Some(found.partitions().iter().map(MetadataPartition::id).collect())),
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => Ok(None),
            Some(error) => bail!("the topic {topic}: {error}"),
        }
    }

    /// Asks the brokers until they give a good answer, or have been silent for too long.
    pub(super) fn ask<T>(
        &self,
        question: impl Fn(Duration) -> Result<T, KafkaError>,
        is_good: impl Fn(&T) -> bool,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + self.timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match question(left.clamp(Duration::from_millis(100), ANSWER)) {
                Ok(answer) if is_good(&answer) || until <= Instant::now() => return Ok(answer),
                Err(error) if until <= Instant::now() || !is_passing(&error) => {
                    return Err(self.silent(&error.to_string()));
                }
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// That the brokers do not answer, with what the client knows of it.
    pub(super) fn silent(&self, error: &str) -> anyhow::Error {
        let said = self.consumer.context().last();
        let said = said.unwrap_or_else(|| error.to_owned());
        let within = humantime::format_duration(self.timeout);
        anyhow!("the brokers {} did not answer within {within} ({said})", self.brokers)
    }
}

/// Whether to ask again may help.
fn is_passing(error: &KafkaError) -> bool {
    !matches!(
        error.rdkafka_error_code(),
        Some(
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::InvalidArgument
        )
    )
}

/// What every client of `cluster` is told.
pub(super) fn settings(cluster: &Cluster, timeout: Duration) -> ClientConfig {
    let mut settings = ClientConfig::new();
    // The longest that a request may be under way, in what librdkafka accepts.
    let socket = timeout.as_millis().clamp(1_000, 300_000);
    settings.set("socket.timeout.ms", socket.to_string());
    for (name, value) in cluster.security.properties() {
        settings.set(name, value);
    }
    for (name, value) in &cluster.client_config {
        settings.set(name, value);
    }
    settings.set("bootstrap.servers", &cluster.brokers).set("client.id", READER);
    settings
}

/// Why a client cannot be made, without the value, which may be a secret.
pub(super) fn refused(error: KafkaError) -> anyhow::Error {
    match error {
        KafkaError::ClientConfig(_, reason, key, _) => {
            anyhow!(Usage(format!("{key}: {}", reason.trim())))
        }
        other => anyhow!("cannot make a Kafka client: {other}"),
    }
}

/// Keeps what the client complained of last.
#[derive(Default)]
pub(super) struct Context {
    last: Mutex<Option<String>>,
}

impl Context {
    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn error(&self, _: KafkaError, reason: &str) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Context {}
