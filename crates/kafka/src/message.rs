//! A message borrowed from the client becomes one of our own.
//!
//! Key, value and header values are copied once, into one allocation that they share.

use bytes::{Bytes, BytesMut};
use drakkar_core::{Header, Offset, SourceMessage, Timestamp, TopicPartition};
use rdkafka::{Message as _, Timestamp as ClientTimestamp, message::BorrowedMessage};

use crate::native;

/// Copies `message`, which was read from `partition`.
pub(crate) fn own(partition: &TopicPartition, message: &BorrowedMessage<'_>) -> SourceMessage {
    let headers = native::headers(message);
    let parts = [message.key(), message.payload()]
        .into_iter()
        .chain(headers.iter().map(|(_, value)| *value));
    let mut copied = share(parts).into_iter();
    let (key, value) = (copied.next().flatten(), copied.next().flatten());
    let headers = headers
        .iter()
        .zip(copied)
        .map(|((name, _), value)| Header { name: name.as_ref().into(), value })
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
