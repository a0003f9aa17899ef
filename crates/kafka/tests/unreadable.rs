//! Batches that were written as this client would not: put into the log byte for byte.

#![allow(clippy::unwrap_used)] // It is test code without being a test.

mod world;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use drakkar_core::source::SourceEvent;
use world::{Broker, Heard, Member};

/// One record whose value is `zebra`.
const RECORD: &[u8] = b"\x16\0\0\0\x01\x0azebra\0";

/// The same behind a header of zstd.
const IN_ZSTD: &[u8] = b"\x28\xb5\x2f\xfd\x20\x0c\x61\0\0\x16\0\0\0\x01\x0azebra\0";

const GZIP: i16 = 1;
const ZSTD: i16 = 4;
/// Nobody has defined it yet.
const FUTURE: i16 = 5;

/// Produces a batch of one record to partition 0 of `topic`, the record in `body` by `codec`.
fn produce(broker: &Broker, topic: &str, codec: i16, body: &[u8]) {
    let attributes_on = [
        &codec.to_be_bytes()[..],
        &[0; 4], // last offset delta
        &[0; 8], // first and last timestamp
        &[0; 8],
        &[0xff; 8], // producer id, epoch, sequence: none
        &[0xff; 2],
        &[0xff; 4],
        &1_i32.to_be_bytes(), // records
        body,
    ]
    .concat();
    let after_length = [&[0; 4][..], &[2], &[0; 4], &attributes_on].concat(); // epoch, magic, checksum
    let batch = [&[0; 8][..], &length(&after_length), &after_length].concat();
    let request = [
        &0_i16.to_be_bytes()[..], // Produce
        &3_i16.to_be_bytes(),     // its version
        &[0; 4],                  // correlation
        &[0xff; 2],               // client id: none
        &[0xff; 2],               // transactional id: none
        &(-1_i16).to_be_bytes(),  // acks: all
        &5_000_i32.to_be_bytes(), // time-out
        &1_i32.to_be_bytes(),     // topics
        &i16::try_from(topic.len()).unwrap().to_be_bytes(),
        topic.as_bytes(),
        &1_i32.to_be_bytes(), // partitions
        &[0; 4],
        &length(&batch),
        &batch,
    ]
    .concat();
    let mut broker = TcpStream::connect(&broker.address).unwrap();
    broker.write_all(&[&length(&request)[..], &request].concat()).unwrap();
    // Length, correlation, topics, name, partitions, partition: then the error code.
    let mut answer = vec![0; 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 2];
    broker.read_exact(&mut answer).unwrap();
    assert_eq!(answer[answer.len() - 2..], [0, 0], "not accepted");
}

fn length(bytes: &[u8]) -> [u8; 4] {
    i32::try_from(bytes.len()).unwrap().to_be_bytes()
}

/// Why the source ended.
async fn failure(member: &mut Member) -> String {
    loop {
        if let SourceEvent::Failed(failure) = member.event().await {
            return failure.to_string();
        }
    }
}

#[tokio::test]
async fn what_was_compressed_with_zstd_is_read_or_ends_the_worker_with_the_name_of_the_feature() {
    let broker = Broker::start();
    let config = broker.topic("zstd", 1);
    produce(&broker, "zstd", ZSTD, IN_ZSTD);
    let mut member = Member::start(&config).await;
    if cfg!(feature = "zstd") {
        let mut assigned = member.assigned().await;
        let message = member.take(&mut assigned[0]).await;
        assert_eq!(message.value.as_deref(), Some(&b"zebra"[..]));
    } else {
        let failure = failure(&mut member).await;
        for part in ["zstd:0", "cargo feature `zstd`", "codec 0x4"] {
            assert!(failure.contains(part), "{failure}");
        }
    }
    member.close().await;
}

#[tokio::test]
async fn a_compression_that_the_client_does_not_know_ends_the_worker_before_anything_behind_it_is_read()
 {
    let broker = Broker::start();
    let config = broker.topic("future", 1);
    produce(&broker, "future", 0, RECORD);
    produce(&broker, "future", FUTURE, RECORD);
    produce(&broker, "future", 0, RECORD);
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    assert_eq!(member.take(&mut assigned[0]).await.offset.0, 0);
    let failure = failure(&mut member).await;
    for part in ["future:0", "cannot be read by this client", "codec 0x5", "message at 1 "] {
        assert!(failure.contains(part), "{failure}");
    }
    assert!(assigned[0].inbox.recv().await.is_none(), "something behind it was delivered");
    member.close().await;
}

#[tokio::test]
async fn a_wrong_checksum_ends_the_worker_where_checksums_are_asked_for() {
    let broker = Broker::start();
    let mut config = broker.topic("checksum", 1);
    config.client_config.insert("check.crcs".to_owned(), "true".to_owned());
    produce(&broker, "checksum", 0, RECORD);
    broker.produce("checksum", 0, ["good".to_owned()]);
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    let failure = failure(&mut member).await;
    assert!(failure.contains("checksum:0") && failure.contains("CRC32C"), "{failure}");
    assert!(assigned[0].inbox.recv().await.is_none(), "it was passed over");
    member.close().await;
}

#[tokio::test]
async fn a_damaged_batch_holds_its_partition_alone_and_the_lag_of_it_is_known() {
    let broker = Broker::start();
    let config = broker.topic("damaged", 2);
    produce(&broker, "damaged", GZIP, b"this is no gzip");
    broker.produce("damaged", 1, ["good".to_owned()]);
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    assert_eq!(member.take(&mut assigned[1]).await.offset.0, 0);
    let told = |heard: &Heard| match heard {
        Heard::Trouble(reason) if reason.contains("Decompression") => Some(reason.clone()),
        _ => None,
    };
    let told = member.hears(told).await;
    assert!(told.contains("codec 0x1") && told.contains("message at 0 "), "{told}");
    let lag = |heard: &Heard| matches!(heard, Heard::Lag(of, 1) if of.partition == 0).then_some(());
    member.hears(lag).await;
    member.close().await;
}
