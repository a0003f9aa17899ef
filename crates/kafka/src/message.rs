//! A message borrowed from the client becomes one of our own.
//!
//! Key, value and header values are copied once, into one allocation that they share.

use std::borrow::Cow;

use bytes::Bytes;
use drakkar_core::{Header, Offset, SourceMessage, Timestamp, TopicPartition};
use rdkafka::{Message as _, Timestamp as ClientTimestamp, message::BorrowedMessage};

use crate::native;

/// Copies `message`, which was read from `partition`.
#[must_use]
pub fn own(partition: &TopicPartition, message: &BorrowedMessage<'_>) -> SourceMessage {
    let headers = native::headers(message);
    let (key, value) = (message.key(), message.payload());
    let mut copy =
        Shared::of([key, value].into_iter().chain(headers.iter().map(|header| header.1)));
    let (key, value) = (copy.next(key), copy.next(value));
    let headers = headers
        .iter()
        .map(|(name, value)| Header { name: name.as_ref().into(), value: copy.next(*value) })
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

/// Whether the names of its headers are those that were read: one that is not UTF-8 is told with
/// replacement characters.
#[must_use]
pub fn names_are_exact(message: &BorrowedMessage<'_>) -> bool {
    native::headers(message).iter().all(|(name, _)| matches!(name, Cow::Borrowed(_)))
}

fn timestamp(of: ClientTimestamp) -> Option<Timestamp> {
    match of {
        ClientTimestamp::NotAvailable => None,
        ClientTimestamp::CreateTime(millis) => Some(Timestamp::Created(millis)),
        ClientTimestamp::LogAppendTime(millis) => Some(Timestamp::Appended(millis)),
    }
}

/// Copies of several parts, in one allocation.
struct Shared(Bytes);

impl Shared {
    fn of<'a>(parts: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Self {
        let mut all = Vec::with_capacity(parts.clone().flatten().map(<[u8]>::len).sum());
        parts.flatten().for_each(|part| all.extend_from_slice(part));
        Self(all.into())
    }

    /// The copy of the next part; a null stays a null, empty stays empty.
    fn next(&mut self, part: Option<&[u8]>) -> Option<Bytes> {
        part.map(|part| self.0.split_to(part.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_empty_parts_survive_the_shared_copy() {
        let parts: [Option<&[u8]>; 5] = [Some(b"key"), None, Some(b""), Some(b"value"), None];
        let expected: Vec<Option<Bytes>> =
            parts.iter().map(|part| part.map(Bytes::copy_from_slice)).collect();
        let mut copy = Shared::of(parts.into_iter());
        let copied: Vec<Option<Bytes>> = parts.into_iter().map(|part| copy.next(part)).collect();
        assert_eq!(copied, expected);
    }
}
