//! What happens to logs under a worker: topics are deleted and made anew, transactions leave markers, a
//! group has no offsets.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by panicking.

use drakkar_integration::{Act, Order, SOON, World, until};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::json;

#[test]
fn a_topic_that_is_deleted_and_made_anew_under_a_worker_is_read_from_its_start() {
    // The client is not to notice before it asks for an offset that is not there.
    let patient = json!({
        "topic.metadata.refresh.interval.ms": "-1",
        "metadata.max.age.ms": "3600000",
    });
    let world = World::new(1).with("kafka.client_config", patient);
    let mut worker = world.start();
    world.order_many("old", 100, Act::Echo);
    world.drained();

    // While it looks away: else it may see in between that there is no such topic.
    worker.signal("STOP");
    world.kafka.delete_topic(&world.source);
    world.kafka.create_topic(&world.source, 1);
    world.order_many("new", 30, Act::Echo);
    worker.signal("CONT");
    world.drained();
    assert_eq!(world.committed(), 30, "the offset of the old topic is not left behind");
    world.wait_delivered(130);
    assert_eq!(worker.metric("drakkar_log_rewinds_total"), 1);
    assert_eq!(worker.metric("drakkar_rebalance_events_total{type=\"assign\"}"), 1);
    worker.assert_runs();
    worker.stop();
}

/// Writes `count` orders to the only partition in one transaction.
fn produce_in_transaction(world: &World, count: usize) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.kafka.servers)
        .set("transactional.id", &world.group)
        .create()
        .unwrap();
    producer.init_transactions(SOON).unwrap();
    producer.begin_transaction().unwrap();
    for number in 0..count {
        let order = Order::new(number.to_string(), Act::Precomputed);
        let (key, value) = (order.id.clone(), serde_json::to_vec(&order).unwrap());
        producer.send(BaseRecord::to(&world.source).key(&key).payload(&value)).unwrap();
    }
    producer.commit_transaction(SOON).unwrap();
}

#[test]
fn behind_the_marker_of_a_transaction_the_lag_is_0() {
    let often = json!({"statistics.interval.ms": "200"});
    let world = World::new(1).with("kafka.client_config", often);
    let worker = world.start();
    produce_in_transaction(&world, 3);
    world.wait_delivered(3);
    until("three of four offsets to be committed", SOON, || match world.commits()[&0] {
        3 => Ok(()),
        other => Err(other),
    });
    let series = format!("drakkar_offset_lag{{partition=\"0\",topic=\"{}\"}}", world.source);
    until("no lag", SOON, || {
        let (_, metrics) = worker.get("/metrics").map_err(|error| error.to_string())?;
        let line = metrics.lines().find(|line| line.starts_with(&series)).map(str::to_owned);
        if line == Some(format!("{series} 0")) { Ok(()) } else { Err(format!("{line:?}")) }
    });
}

#[test]
fn a_worker_that_must_not_choose_where_to_begin_ends_and_says_what_to_do() {
    let unsure = json!({"auto.offset.reset": "error"});
    let ended = World::new(1).with("kafka.client_config", unsure).start().wait(SOON);
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("kafka.client_config.auto.offset.reset"), "{}", ended.log);
    assert!(ended.log.contains("set the offsets of the group"), "{}", ended.log);
}
