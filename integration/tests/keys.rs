//! The order of messages of one key, as somebody outside sees it: in a topic with one partition, while
//! workers come and go.

#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

use std::collections::BTreeMap;

use drakkar_integration::{Act, Feed, Given, Kafka, Order, SOON, World, heavy, until};

/// Partitions of the source topic.
const PARTITIONS: usize = 8;

/// Keys; each is always in the same partition, because records are produced to partitions in turns.
const KEYS: usize = 2 * PARTITIONS;

/// Results between one change and the next.
const SOME: usize = 300;

/// A world whose results are all in one partition, in the order in which they were delivered.
fn world() -> World {
    let world = World::without_topics(Kafka::shared()).with("executor.ordering", "key");
    world.kafka.create_topic(&world.source, i32::try_from(PARTITIONS).unwrap());
    world.kafka.create_topic(&world.results, 1);
    world.kafka.create_topic(&world.dead, 1);
    world
}

/// Keeps producing messages whose id is their number, while workers come and go. Some fail at first.
fn feed(world: &World) -> Feed {
    world.feed_with(500, |number| {
        let act = match number % 10 {
            3 => Act::FailOnce,
            7 => Act::Precomputed,
            _ => Act::SleepMs(2),
        };
        let value = Order::new(number.to_string(), act).to_value();
        Given::new(format!("key-{}", number % KEYS), value)
    })
}

/// The numbers of the messages in the order of their results, without repetitions, by key.
fn by_key(world: &World) -> BTreeMap<usize, Vec<usize>> {
    let mut keys: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for result in world.books().results {
        let number: usize = result.id().parse().unwrap();
        let seen = keys.entry(number % KEYS).or_default();
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    keys
}

#[track_caller]
fn in_order(world: &World) {
    for (key, numbers) in by_key(world) {
        let wrong = numbers.windows(2).find(|pair| pair[1] < pair[0]);
        assert_eq!(wrong, None, "of key {key}: {numbers:?}");
    }
}

fn wait_assigned(worker: &drakkar_integration::WorkerProcess) {
    until(&format!("{} to own partitions", worker.id), SOON, || {
        match worker.metric("drakkar_assigned_partitions") {
            0 => Err("it owns none"),
            _ => Ok(()),
        }
    });
}

#[test]
fn messages_of_a_key_are_delivered_in_order_while_a_second_worker_joins_and_leaves() {
    let _one = heavy();
    let world = world();
    let mut first = world.start();
    let feed = feed(&world);
    world.wait_delivered(SOME);
    let mut second = world.start();
    wait_assigned(&second);
    world.wait_delivered(world.delivered() + SOME);
    second.stop();
    world.wait_delivered(world.delivered() + SOME);
    let mut third = world.start();
    wait_assigned(&third);
    world.wait_delivered(world.delivered() + SOME);
    feed.end();
    world.drained();
    first.stop();
    third.stop();
    world.books().balance_with(0, "every change was in order");
    in_order(&world);
}

#[test]
fn messages_of_a_key_are_delivered_in_order_by_those_who_go_on_after_a_worker_was_killed() {
    let _one = heavy();
    let world = world().with("kafka.session_timeout_ms", 6_000);
    let mut first = world.start();
    let mut second = world.start();
    let feed = feed(&world);
    wait_assigned(&second);
    world.wait_delivered(world.delivered() + SOME);
    second.kill();
    world.wait_delivered(world.delivered() + SOME);
    feed.end();
    world.drained();
    first.stop();
    world.books().balance_with(usize::MAX, "what was not committed runs again");
    in_order(&world);
}
