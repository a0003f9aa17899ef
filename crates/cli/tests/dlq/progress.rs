//! How far a replay came, over several runs: what is kept, and what a run begins with.

use std::time::{SystemTime, UNIX_EPOCH};

use drakkar_mock::SOON;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Refusal};
use tokio::time::Instant;

use crate::world::{World, letter};

#[test]
fn a_restart_that_stopped_goes_on_with_all_of_it_also_where_it_did_not_come_to() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[]), letter(2, &[]).elsewhere()]);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stderr.contains("no progress under this name"), "{}", ended.stderr);
    world.dlq(&["replay", "--restart", "--limit", "1"]).succeeds();
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(!ended.stderr.contains("no progress"), "{}", ended.stderr);
    assert_eq!(world.read(&world.source).len(), 2 * 3);
}

#[test]
fn a_run_with_nothing_new_renews_the_progress_before_brokers_forget_it() {
    let world = World::new();
    world.letters([letter(0, &[])]);
    world.dlq(&["replay"]).succeeds();
    world.dlq(&["replay"]).succeeds();
    let refused = Refusal::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    world.refuse(RDKafkaApiKey::OffsetCommit, &[refused]);
    let ended = world.dlq(&["replay"]);
    assert_eq!(ended.code, Some(1), "it did not commit: {ended:?}");
    assert!(ended.stderr.contains("cannot keep how far this came"), "{}", ended.stderr);
}

#[test]
fn a_partition_that_is_left_out_keeps_its_place() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[]).elsewhere()]);
    for (partition, count) in [("0", 1), ("0", 1), ("1", 2), ("0", 2)] {
        world.dlq(&["replay", "--partition", partition]).succeeds();
        assert_eq!(world.read(&world.source).len(), count);
    }
    let none = world.dlq(&["replay", "--partition", "7"]);
    assert!(none.stderr.contains("has no partition 7"), "{}", none.stderr);
}

#[test]
fn a_letter_that_was_too_young_is_replayed_when_it_is_old_enough() {
    let world = World::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    // Given up in a moment, so that the first runs come early enough, however slow they are.
    let young = letter(1, &[]).at(i64::try_from(now).unwrap() + 10_000);
    world.letters([letter(0, &[]), young, letter(2, &[]), letter(3, &[]).elsewhere()]);
    let dry = world.dlq(&["replay", "--until", "1s", "--dry-run"]).succeeds();
    assert!(dry.stdout.contains("2 would be replayed"), "{}", dry.stdout);
    let first = world.dlq(&["replay", "--until", "1s"]).succeeds();
    assert!(first.stdout.contains("2 replayed"), "{}", first.stdout);
    assert!(
        first.stdout.contains("1 partitions with letters that are younger"),
        "{}",
        first.stdout
    );
    assert!(!first.stdout.contains("This was not all"), "{}", first.stdout);
    assert_eq!(world.committed(&format!("drakkar-replay.{}", world.letters)), [Some(1), Some(1)]);
    let until = Instant::now() + SOON;
    while world.read(&world.source).len() < 4 {
        assert!(Instant::now() < until, "it is never replayed");
        world.dlq(&["replay", "--until", "1s"]).succeeds();
    }
    let last = world.dlq(&["replay", "--until", "1s"]).succeeds();
    assert!(last.stdout.contains(" 0 replayed"), "{}", last.stdout);
    assert_eq!(world.read(&world.source).len(), 4, "each of them once");
}
