//! What the safe client lacks: a commit whose answer is heard, the position of one partition, whether
//! the group knows us, and headers whatever their names.
//!
//! `Consumer::commit` offers two: one that blocks until the broker answered, which the poll thread
//! must never do, and one whose outcome nobody learns (rdkafka 0.39 reports it to `commit_callback`
//! only for commits that librdkafka makes by itself). `rd_kafka_commit_queue` posts the answer to a
//! queue of our choice. We choose the consumer's own, which `poll` serves already: the answer arrives
//! as `ConsumerContext::commit_callback`. `Consumer::position` asks for all partitions, and waits for a
//! thread of the client. `Headers` panics over a name that is not UTF-8. This is the only `unsafe` code
//! of the crate.

#![allow(unsafe_code)]

use std::{borrow::Cow, ffi::CStr, ptr, slice};

use drakkar_core::{Offset, TopicPartition};
use rdkafka::{
    Offset as ClientOffset, TopicPartitionList,
    bindings::{
        rd_kafka_commit_queue, rd_kafka_consumer_group_metadata,
        rd_kafka_consumer_group_metadata_destroy, rd_kafka_consumer_group_metadata_generation_id,
        rd_kafka_header_get_all, rd_kafka_message_headers, rd_kafka_position,
        rd_kafka_queue_destroy, rd_kafka_queue_get_consumer,
    },
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};

use crate::assignment;

/// Sends `offsets`; a later poll calls `commit_callback` with the outcome.
///
/// # Errors
///
/// When nothing was sent; then there will be no callback.
pub(crate) fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    // SAFETY: `client` is a live client as long as `consumer` is borrowed, and librdkafka's clients
    // may be used from any thread.
    let queue = unsafe { rd_kafka_queue_get_consumer(client) };
    if queue.is_null() {
        return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup));
    }
    // SAFETY: `client` as above; `offsets` owns a valid list, which librdkafka copies before it
    // returns (`rd_kafka_commit0`); `queue` was just checked, and is kept by the pending answer with a
    // reference of its own; no callback is given, so the opaque pointer is never used.
    let code =
        unsafe { rd_kafka_commit_queue(client, offsets.ptr(), queue, None, ptr::null_mut()) };
    // SAFETY: `queue` is our reference, made above and not used again. It is not the owner of the
    // consumer's queue, so this only drops the reference.
    unsafe { rd_kafka_queue_destroy(queue) };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        refused => Err(KafkaError::ConsumerCommit(refused.into())),
    }
}

/// What the client gives out next of `partition`; `None` if it has given out nothing since it was
/// assigned or moved.
pub(crate) fn position<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partition: &TopicPartition,
) -> Option<Offset> {
    let list = assignment::list([partition]);
    // SAFETY: the client is live as long as `consumer` is borrowed and may be used from any thread;
    // `list` owns a valid list, whose elements are written while nobody else looks.
    let code = unsafe { rd_kafka_position(consumer.client().native_ptr(), list.ptr()) };
    let known = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    match list.find_partition(&partition.topic, partition.partition)?.offset() {
        ClientOffset::Offset(next) if known => Some(Offset(next)),
        _ => None,
    }
}

/// Whether the group has admitted us. Waits for a thread of the client, not for a broker.
pub(crate) fn is_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is live as long as `consumer` is borrowed and may be used from any thread.
    let group = unsafe { rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) };
    if group.is_null() {
        return false;
    }
    // SAFETY: `group` was just checked; it is ours.
    let generation = unsafe { rd_kafka_consumer_group_metadata_generation_id(group) };
    // SAFETY: `group` is not used again.
    unsafe { rd_kafka_consumer_group_metadata_destroy(group) };
    0 < generation
}

/// A header as it was read.
pub(crate) type RawHeader<'a> = (Cow<'a, str>, Option<&'a [u8]>);

/// The headers of `message` in their order. A name that is not UTF-8, which Kafka forbids and no broker
/// refuses, is told with replacement characters; values are what they are.
pub(crate) fn headers<'a>(message: &'a BorrowedMessage<'_>) -> Vec<RawHeader<'a>> {
    let ok = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut headers = ptr::null_mut();
    // SAFETY: `message` is live while it is borrowed, and only this thread reads it; librdkafka parses
    // its headers once, keeps them with it, and writes where they are.
    if unsafe { rd_kafka_message_headers(message.ptr(), &raw mut headers) } != ok {
        return Vec::new(); // None, or they cannot be parsed.
    }
    let mut all = Vec::new();
    loop {
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `headers` belongs to `message`; an index past the end is answered with an error.
        let code = unsafe {
            rd_kafka_header_get_all(
                headers,
                all.len(),
                &raw mut name,
                &raw mut value,
                &raw mut size,
            )
        };
        if code != ok {
            return all;
        }
        // SAFETY: on success `name` is a string that ends with a zero, and `value`, unless it is null,
        // has `size` bytes. Both live as long as `message`.
        all.push(unsafe {
            let name = CStr::from_ptr(name).to_string_lossy();
            (name, (!value.is_null()).then(|| slice::from_raw_parts(value.cast(), size)))
        });
    }
}
