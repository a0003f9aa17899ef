//! A message borrowed from the client becomes one of our own.
//!
//! Key, value and header values are copied once, into one allocation that they share.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use drakkar_core::{Header, Offset, SourceMessage, Timestamp, TopicPartition};
use rdkafka::{
    Message as _, Timestamp as ClientTimestamp,
    message::{BorrowedHeaders, BorrowedMessage, Headers},
};
use tracing::warn;

/// Copies `message`, which was read from `partition`.
pub(crate) fn own(partition: &TopicPartition, message: &BorrowedMessage<'_>) -> SourceMessage {
    let headers = message.headers().map(read_headers).unwrap_or_default();
    let parts = [message.key(), message.payload()]
        .into_iter()
        .chain(headers.iter().map(|(_, value)| *value));
    let mut copied = share(parts).into_iter();
    let (key, value) = (copied.next().flatten(), copied.next().flatten());
    let headers = headers
        .iter()
        .zip(copied)
        .map(|((name, _), value)| Header { name: (*name).into(), value })
        .collect();
    SourceMessage {
        partition: partition.clone(),
        offset: Offset(message.offset()),
        timestamp: timestamp(message.timestamp()),
        key,
        value,
        headers,
    }
}

fn timestamp(of: ClientTimestamp) -> Option<Timestamp> {
    match of {
        ClientTimestamp::NotAvailable => None,
        ClientTimestamp::CreateTime(millis) => Some(Timestamp::Created(millis)),
        ClientTimestamp::LogAppendTime(millis) => Some(Timestamp::Appended(millis)),
    }
}

fn read_headers(headers: &BorrowedHeaders) -> Vec<(&str, Option<&[u8]>)> {
    (0..headers.count())
        .map(|index| {
            // The client panics over a name that is not UTF-8. Kafka forbids such names, but no
            // broker refuses them; one message must not end the consumer.
            let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten();
            let Some(header) = header else {
                warn!(category = "kafka", index, "a header with an unreadable name was left out");
                return ("\u{fffd}", None);
            };
            (header.key, header.value)
        })
        .collect()
}

/// Copies `parts` into one allocation; nulls stay nulls, empty stays empty.
fn share<'a>(parts: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Vec<Option<Bytes>> {
    let total = parts.clone().flatten().map(<[u8]>::len).sum();
    let mut buffer = BytesMut::with_capacity(total);
    parts.clone().flatten().for_each(|part| buffer.extend_from_slice(part));
    let mut rest = buffer.freeze();
    parts.map(|part| part.map(|part| rest.split_to(part.len()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_empty_parts_survive_the_shared_copy() {
        let parts: [Option<&[u8]>; 5] = [Some(b"key"), None, Some(b""), Some(b"value"), None];
        let expected: Vec<Option<Bytes>> =
            parts.iter().map(|part| part.map(Bytes::copy_from_slice)).collect();
        assert_eq!(share(parts.into_iter()), expected);
    }
}
