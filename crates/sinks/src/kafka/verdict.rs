//! What an answer of the brokers, or of the client, means for a payload.
//!
//! A payload is refused only where the record itself is at fault. Everything else is held: a topic
//! that does not exist may be created, rights may be granted, brokers come back.

use drakkar_core::{Delivery, SinkError};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::producer::Record;

/// Whether the answer may be about a neighbour: brokers refuse a whole batch for one bad record, or
/// for the size of all of them together.
pub(super) fn is_shared(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord
    )
}

/// What became of `record`, sent on its own where it mattered, its topic's partitions asked for where
/// that mattered.
pub(super) fn delivery(answer: Result<(), Code>, record: &Record<'_>) -> Delivery {
    let Err(code) = answer else {
        return Delivery::Confirmed;
    };
    let topic = &record.topic;
    let names_none = code == Code::UnknownPartition && record.partition.is_some();
    let advice = match code {
        Code::UnknownPartition if names_none => "; the payload names a partition it does not have",
        Code::InvalidTimestamp => "; it must be after 1970 and within the limits of the topic",
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "; create the topic"
        }
        Code::TopicAuthorizationFailed => "; grant this user the right to write to it",
        Code::ClusterAuthorizationFailed => {
            "; grant this user the right to write idempotently (IdempotentWrite on the cluster)"
        }
        Code::UnsupportedCompressionType => "; choose another compression",
        _ => "",
    };
    let error = SinkError::new(format!("{code:?}"), format!("topic {topic}: {code}{advice}"));
    match code {
        Code::MessageSizeTooLarge
        // Alone it was a batch of one.
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidTopic
        // The client cannot even encode it.
        | Code::InvalidArgument => Delivery::Permanent(error),
        // A record that names none goes to one that is there.
        _ if names_none => Delivery::Permanent(error),
        _ => Delivery::Transient(error),
    }
}
