//! Is the cluster there, may we in, do the topics exist: asked once, before the group is joined.
//!
//! A wrong address or a misspelt topic would otherwise look like a topic without messages.

use std::{fmt::Display, thread, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    metadata::Metadata,
};
use tokio::{sync::oneshot, time::Instant};
use tracing::{info, warn};

use crate::{
    KafkaConfig, SourceStartError,
    context::{Context, Notice},
    poll::Outlet,
};

/// Longest single question: between two of them we see whether anybody still waits for the answer.
const QUESTION: Duration = Duration::from_secs(1);

/// Between two questions that were answered with no.
const PAUSE: Duration = Duration::from_millis(200);

/// A consumer whose cluster answers and whose topics exist.
pub(crate) fn connect(
    config: &KafkaConfig,
    client_id: &str,
    outlet: &Outlet,
    started: &oneshot::Sender<Result<(), SourceStartError>>,
) -> Result<BaseConsumer<Context>, SourceStartError> {
    if let Some(wrong) = config.validate().into_iter().next() {
        return Err(SourceStartError::Config(wrong));
    }
    let mut consumer: BaseConsumer<Context> = config
        .properties(client_id)
        .create_with_context(Context::default())
        .map_err(|error| SourceStartError::Config(config.refusal(&error)))?;
    // A poll that waits cannot be woken for a command. So the loop polls without waiting, parks when
    // there is nothing, and both the client and the senders of commands unpark it.
    let poller = thread::current();
    consumer.set_nonempty_callback(move || poller.unpark());

    let begun = Instant::now();
    let mut check = Check { config, consumer: &consumer, outlet, begun, last_error: None };
    for topic in config.topics() {
        while !started.is_closed() {
            if check.find(&topic)? {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
    info!(
        category = "kafka",
        brokers = config.brokers,
        topics = ?config.topics(),
        took = ?begun.elapsed(),
        "brokers and topics are there"
    );
    Ok(consumer)
}

struct Check<'a> {
    config: &'a KafkaConfig,
    consumer: &'a BaseConsumer<Context>,
    outlet: &'a Outlet,
    begun: Instant,
    last_error: Option<String>,
}

impl Check<'_> {
    /// Whether `topic` exists; `false`: ask again.
    fn find(&mut self, topic: &str) -> Result<bool, SourceStartError> {
        let waited = self.begun.elapsed();
        let left = self.config.start_timeout.saturating_sub(waited);
        match self.consumer.fetch_metadata(Some(topic), left.clamp(PAUSE, QUESTION)) {
            Ok(metadata) => match verdict(&metadata, topic) {
                None => Ok(true),
                Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => Err(self.denied(&code)),
                Some(code) if left.is_zero() => Err(SourceStartError::Topic {
                    topic: topic.to_owned(),
                    waited,
                    reason: code.to_string(),
                }),
                Some(code) => {
                    self.warn_once(format!("topic {topic}: {code}"));
                    Ok(false)
                }
            },
            Err(error) => {
                self.listen()?;
                if left.is_zero() {
                    return Err(SourceStartError::Unreachable {
                        brokers: self.config.brokers.clone(),
                        waited,
                        reason: self.last_error.take().unwrap_or_else(|| error.to_string()),
                    });
                }
                Ok(false)
            }
        }
    }

    /// Hears what the client says about the brokers it tried.
    fn listen(&mut self) -> Result<(), SourceStartError> {
        // Not a member of a group yet: no message can arrive, only reports.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        for notice in self.consumer.context().take() {
            let Notice::Error { code, reason } = notice else {
                continue;
            };
            self.outlet.observer.client_error(&reason);
            if code == Some(RDKafkaErrorCode::Authentication) {
                return Err(self.denied(&reason));
            }
            // Follows the errors that say why, and says less.
            if code != Some(RDKafkaErrorCode::AllBrokersDown) {
                self.last_error = Some(reason);
            }
        }
        Ok(())
    }

    fn warn_once(&mut self, text: String) {
        if self.last_error.as_ref() != Some(&text) {
            warn!(category = "kafka", "waiting for the cluster: {text}");
            self.last_error = Some(text);
        }
    }

    fn denied(&self, reason: &dyn Display) -> SourceStartError {
        let brokers = self.config.brokers.clone();
        SourceStartError::Denied { brokers, reason: reason.to_string() }
    }
}

/// What is wrong with `topic`.
fn verdict(metadata: &Metadata, topic: &str) -> Option<RDKafkaErrorCode> {
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Some(RDKafkaErrorCode::UnknownTopicOrPartition);
    };
    match found.error() {
        Some(error) => Some(error.into()),
        None if found.partitions().is_empty() => Some(RDKafkaErrorCode::UnknownTopicOrPartition),
        None => None,
    }
}
