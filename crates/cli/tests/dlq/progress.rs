//! How far a replay came, over several runs: what is kept, and what a run begins with.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Refusal};

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
