//! Records → brokers → one answer each.
//!
//! Owns the librdkafka producer: idempotent, confirmed by every replica in sync, batching by itself.
//! An answer is the delivery report of that one record. Retries within `message.timeout.ms` are the
//! client's and keep their order; what it gives up is the lane's to try again. A client that declares
//! itself broken is replaced; what it had under way is tried again by the new one.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{Delivery, Header, SinkError, Timestamp};
use rdkafka::{error::RDKafkaErrorCode as Code, producer::Producer as _};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tracing::{error, warn};

use super::{
    client::{self, Client, Topic},
    reports::{Answer, Report, Reports},
    verdict,
};
use crate::{
    ConnectError,
    config::{client::ProducerSettings, cluster::is_topic},
};

/// How long to wait for room in the client's own queue before looking again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// How long the brokers may take to say whether they are there.
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// How long a client may take to end.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What is sent.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub topic: Cow<'a, str>,
    /// `None` where its key, or the client, decides.
    pub partition: Option<i32>,
    /// `None` is when it is sent.
    pub timestamp: Option<Timestamp>,
    pub key: Option<&'a Bytes>,
    pub value: Option<&'a Bytes>,
    pub headers: Cow<'a, [Header]>,
}

/// One Kafka cluster that is written to.
pub(crate) struct Producer {
    /// The section it was configured by.
    key: String,
    settings: ProducerSettings,
    client: Mutex<Arc<Client>>,
    /// Sends every record in a batch of its own; made when it is first needed.
    alone: Mutex<Option<Arc<Client>>>,
}

impl Producer {
    /// Makes the producer of the section `key` and waits until its brokers answer, for `within`.
    pub(crate) async fn connect(
        key: String,
        settings: ProducerSettings,
        within: Duration,
    ) -> Result<Self, ConnectError> {
        let client = client::make(&settings.client)
            .map_err(|reason| ConnectError::Client { key: key.clone(), reason })?;
        let client = Arc::new(client);
        let topic = settings.topic.clone();
        let asked = Arc::clone(&client);
        let answer = on_thread(move || client::ask(&asked, &topic, within)).await;
        match answer {
            Some(Ok(Topic::Present)) => {}
            Some(Ok(Topic::Absent(reason))) => warn!(
                section = key,
                topic = settings.topic,
                reason,
                "the topic does not answer; what is for it will be held until it does"
            ),
            Some(Err(error)) => {
                let said = client.context().last_error();
                return Err(ConnectError::Unreachable {
                    key,
                    brokers: settings.brokers,
                    within,
                    last: format!(" ({})", said.unwrap_or_else(|| error.to_string())),
                });
            }
            None => {
                let reason = "cannot start a thread".to_owned();
                return Err(ConnectError::Client { key, reason });
            }
        }
        Ok(Self { key, settings, client: Mutex::new(client), alone: Mutex::new(None) })
    }

    /// The topic records go to unless they name another; empty where each names its own.
    pub(crate) fn topic(&self) -> &str {
        &self.settings.topic
    }

    /// Sends `records` and waits for the answer to each.
    pub(crate) async fn deliver(&self, records: &[Record<'_>]) -> Vec<Delivery> {
        let all: Vec<&Record<'_>> = records.iter().collect();
        let mut answers = self.send(&current(&self.client), &all).await;
        self.send_suspects_alone(records, &mut answers).await;
        self.ask_for_partitions(records, &mut answers).await;
        answers
            .into_iter()
            .zip(records)
            .map(|(answer, record)| verdict::delivery(answer, record))
            .collect()
    }

    /// Whether the brokers answer, and know the topic. Where each record names its own nothing is asked:
    /// the alternative is to ask about every topic of the cluster.
    pub(crate) async fn probe(&self) -> Result<(), SinkError> {
        let topic = self.settings.topic.clone();
        if topic.is_empty() {
            return Ok(());
        }
        let client = current(&self.client);
        let asked = Arc::clone(&client);
        let answer = on_thread(move || client::ask(&asked, &topic, PROBE_WITHIN)).await;
        match answer {
            // Without a thread nothing is known.
            Some(Ok(Topic::Present)) | None => Ok(()),
            Some(Ok(Topic::Absent(reason))) => {
                let text = format!("topic {}: {reason}", self.settings.topic);
                Err(SinkError::new("NoTopic", text))
            }
            Some(Err(error)) => {
                let said = client.context().last_error().unwrap_or_else(|| error.to_string());
                Err(SinkError::new("NoAnswer", said))
            }
        }
    }

    /// Waits until the client has ended.
    pub(crate) async fn close(&self) {
        let client = current(&self.client);
        let flushed = on_thread(move || client.flush(CLOSE_WITHIN)).await;
        if let Some(Err(error)) = flushed {
            warn!(section = self.key, %error, "the Kafka client did not flush");
        }
    }

    /// Where the answer may be about a neighbour, the record is judged by itself.
    async fn send_suspects_alone(&self, records: &[Record<'_>], answers: &mut [Answer]) {
        let is_suspect = |&index: &usize| {
            answers[index].is_err_and(verdict::is_shared) && fault(&records[index]).is_none()
        };
        let suspects: Vec<usize> = (0..answers.len()).filter(is_suspect).collect();
        if suspects.is_empty() {
            return;
        }
        let Some(client) = self.alone() else {
            // Undecided: no record may be refused for another's sake.
            for index in suspects {
                answers[index] = Err(Code::Retry);
            }
            return;
        };
        let alone: Vec<&Record<'_>> = suspects.iter().map(|&index| &records[index]).collect();
        let judged = self.send(&client, &alone).await;
        for (index, answer) in suspects.into_iter().zip(judged) {
            answers[index] = answer;
        }
    }

    /// What the client knows of a topic may be minutes old: a partition that a record names is only
    /// missing when the brokers say so now.
    async fn ask_for_partitions(&self, records: &[Record<'_>], answers: &mut [Answer]) {
        let mut topics = BTreeMap::new();
        for (answer, record) in answers.iter_mut().zip(records) {
            let (Err(Code::UnknownPartition), Some(partition)) = (*answer, record.partition) else {
                continue;
            };
            let topic: &str = &record.topic;
            if !topics.contains_key(topic) {
                let (client, asked) = (current(&self.client), topic.to_owned());
                let count = on_thread(move || client::partitions(&client, &asked)).await;
                topics.insert(topic, count.and_then(Result::ok));
            }
            if partition >= 0 && topics[topic].is_none_or(|count| partition < count) {
                // It is there by now, or nobody could say: tried again.
                *answer = Err(Code::UnknownTopicOrPartition);
            }
        }
    }

    fn alone(&self) -> Option<Arc<Client>> {
        let mut alone = lock(&self.alone);
        if alone.is_none() {
            let mut settings = self.settings.client.clone();
            settings.set("batch.num.messages", "1").set("linger.ms", "0");
            match client::make(&settings) {
                Ok(client) => *alone = Some(Arc::new(client)),
                Err(error) => error!(section = self.key, %error, "cannot make a Kafka client"),
            }
        }
        alone.clone()
    }

    async fn send(&self, client: &Arc<Client>, records: &[&Record<'_>]) -> Vec<Answer> {
        let reports = Reports::new(records.len());
        for (index, record) in records.iter().enumerate() {
            self.enqueue(client, record, Box::new(reports.report(index))).await;
        }
        let answers = reports.answers().await;
        if answers.iter().any(Result::is_err) {
            self.replace_if_broken(client);
        }
        answers
    }

    /// Gives `record` to the client; waits while the client's own queue is full.
    async fn enqueue(&self, client: &Client, record: &Record<'_>, mut report: Box<Report>) {
        if let Some(fault) = fault(record) {
            return report.file(Err(fault));
        }
        let mut until = None;
        while let Err((code, back)) = client::enqueue(client, record, report) {
            let now = Instant::now();
            let until = *until.get_or_insert(now + self.settings.delivery_timeout);
            if code != Code::QueueFull || until <= now {
                return back.file(Err(code));
            }
            report = back;
            sleep(QUEUE_FULL_PAUSE).await;
        }
    }

    /// An idempotent client that cannot keep its promise any more refuses everything from then on.
    fn replace_if_broken(&self, client: &Arc<Client>) {
        let Some((code, reason)) = client.client().fatal_error() else {
            return;
        };
        let mut alone = lock(&self.alone);
        if alone.as_ref().is_some_and(|alone| Arc::ptr_eq(alone, client)) {
            *alone = None;
        }
        drop(alone);
        let mut current = lock(&self.client);
        if !Arc::ptr_eq(&current, client) {
            return; // Somebody else has seen to it.
        }
        error!(
            section = self.key,
            ?code,
            reason,
            "the Kafka client has broken down and is replaced; records under way are sent again and \
             may be written twice"
        );
        match client::make(&self.settings.client) {
            Ok(fresh) => {
                let broken = std::mem::replace(&mut *current, Arc::new(fresh));
                // Ending it blocks for a moment; without a thread it ends here.
                drop(thread::Builder::new().spawn(move || drop(broken)));
            }
            // The next failure comes here again.
            Err(error) => error!(section = self.key, %error, "cannot make a Kafka client"),
        }
    }
}

/// What no broker needs to be asked about.
fn fault(record: &Record<'_>) -> Option<Code> {
    if !is_topic(&record.topic) {
        return Some(Code::InvalidTopic);
    }
    if record.partition.is_some_and(|partition| partition < 0) {
        return Some(Code::UnknownPartition); // To the client it is "any".
    }
    if record.timestamp.is_some_and(|timestamp| timestamp.millis() <= 0) {
        return Some(Code::InvalidTimestamp); // To the client 0 is "now".
    }
    None
}

fn current(client: &Mutex<Arc<Client>>) -> Arc<Client> {
    Arc::clone(&lock(client))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work`, which blocks, on a thread of its own. `None` when there can be no thread.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let started = thread::Builder::new()
        .name("kafka-client".to_owned())
        // Whoever gave up waiting does not want to know.
        .spawn(move || drop(reply.send(work())));
    started.ok()?;
    answer.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KafkaSinkConfig;

    #[tokio::test]
    async fn brokers_that_do_not_answer_are_an_error_in_bounded_time_that_names_the_section() {
        let free = "127.0.0.1:1"; // Nobody listens there.
        let sink = KafkaSinkConfig {
            topic: "t".to_owned(),
            brokers: free.to_string(),
            ..KafkaSinkConfig::default()
        };
        let settings =
            ProducerSettings::of_sink(&sink, &drakkar_core::kafka_client::Cluster::default(), "w");
        let within = Duration::from_millis(700);
        let connecting = Producer::connect("sinks.kafka.a".to_owned(), settings, within);
        let Ok(connected) = tokio::time::timeout(Duration::from_mins(1), connecting).await else {
            panic!("it waits for ever");
        };
        let Err(error) = connected else { panic!("connected to nothing") };
        let text = error.to_string();
        let begins = format!("sinks.kafka.a: the brokers {free} did not answer within 700ms (");
        assert!(text.starts_with(&begins), "{text}");
    }

    #[tokio::test]
    async fn a_property_that_is_refused_is_named_but_its_value_is_not() {
        let sink = KafkaSinkConfig {
            topic: "t".to_owned(),
            client_config: [("sasl.pasword".to_owned(), "hunter2".to_owned())].into(),
            ..KafkaSinkConfig::default()
        };
        let settings =
            ProducerSettings::of_sink(&sink, &drakkar_core::kafka_client::Cluster::default(), "w");
        let within = Duration::from_secs(1);
        let connected = Producer::connect("sinks.kafka.a".to_owned(), settings, within).await;
        let Err(error) = connected else { panic!("made a client of nonsense") };
        let text = error.to_string();
        assert!(text.contains("sasl.pasword") && !text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn a_probe_says_whether_the_brokers_and_the_topic_are_there() {
        let cluster = drakkar_mock::cluster(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let producer = async |topic: &str| {
            let sink = KafkaSinkConfig {
                topic: topic.to_owned(),
                brokers: cluster.bootstrap_servers(),
                client_config: [("reconnect.backoff.max.ms".to_owned(), "200".to_owned())].into(),
                ..KafkaSinkConfig::default()
            };
            let source = drakkar_core::kafka_client::Cluster::default();
            let settings = ProducerSettings::of_sink(&sink, &source, "w");
            let within = Duration::from_secs(30);
            Producer::connect("sinks.kafka.a".to_owned(), settings, within).await.unwrap()
        };
        let (there, nameless) = (producer("t").await, producer("").await);
        assert_eq!(there.probe().await, Ok(()));
        cluster.broker_down(1).unwrap();
        assert_eq!(there.probe().await.unwrap_err().class, "NoAnswer");
        assert_eq!(nameless.probe().await, Ok(()), "it has no topic to ask for");
        cluster.broker_up(1).unwrap();
        let back = async { while there.probe().await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(40), back).await.unwrap();
    }
}
