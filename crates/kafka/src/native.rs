//! The one call of librdkafka that the safe client lacks: a commit whose answer is heard.
//!
//! `Consumer::commit` offers two: one that blocks until the broker answered, which the poll thread
//! must never do, and one whose outcome nobody learns (rdkafka 0.39 reports it to `commit_callback`
//! only for commits that librdkafka makes by itself). `rd_kafka_commit_queue` posts the answer to a
//! queue of our choice. We choose the consumer's own, which `poll` serves already: the answer arrives
//! as `ConsumerContext::commit_callback`. This is the only `unsafe` code of the crate.

#![allow(unsafe_code)]

use std::ptr;

use rdkafka::{
    TopicPartitionList,
    bindings::{rd_kafka_commit_queue, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

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
