//! Sinks that fail, refuse and dawdle on demand.

use std::time::Duration;

use drakkar_testing::{KafkaPayload, Script, Scripted, Stage, World};
use tokio::time::Instant;

use crate::handler::{Counted, PerWord, order};

fn world(results: &Script<KafkaPayload>) -> World {
    World::of(PerWord).results(results).processes(|_| Scripted::prints("1")).in_memory().start()
}

#[tokio::test(start_paused = true)]
async fn while_a_sink_is_down_nothing_is_committed_and_afterwards_everything() {
    let results = Script::kafka();
    results.begin_outage();
    let mut world = world(&results);
    world.produce(0, order(["a"]));
    world.not_committed(0, 0, Duration::from_mins(10)).await;
    assert!(results.writes() > 1, "it is tried again and again");
    assert!(world.results.is_empty());
    results.end_outage();
    world.settled().await;
    assert_eq!(world.results.json::<Counted>().len(), 1);
    world.assert_no_dead_letters();
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_a_few_times_gets_everything_once() {
    let results = Script::kafka();
    results.fail_next(3);
    let mut world = world(&results);
    world.produce(0, order(["a"]));
    world.settled().await;
    assert_eq!((results.writes(), world.results.len()), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_delays_the_commit() {
    let results = Script::kafka();
    results.take(Duration::from_secs(30));
    let mut world = world(&results);
    let begun = Instant::now();
    world.produce(0, order(["a"]));
    world.settled().await;
    assert!(Duration::from_secs(30) <= begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_refuses_for_good_is_dead_lettered_with_the_sink_it_was_for() {
    let results = Script::kafka();
    results.refuse_if(|payload| payload.key.as_deref() == Some(b"bad"));
    let mut world = world(&results);
    world.produce(0, order(["good"]));
    world.produce(0, order(["bad"]));
    world.settled().await;
    let letter = world.dead_letters.only();
    assert_eq!((letter.message.offset.0, letter.cause.stage), (1, Stage::Deliver));
    assert_eq!(letter.cause.sink.unwrap().to_string(), "kafka/results");
    assert_eq!(world.results.only().key.as_deref(), Some(&b"good"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_topic_that_is_down_holds_the_message() {
    let letters = Script::dead_letters();
    letters.begin_outage();
    let mut world = World::of(PerWord).dead_letters(&letters).in_memory().start();
    world.produce(0, "not JSON");
    world.not_committed(0, 0, Duration::from_mins(1)).await;
    letters.end_outage();
    world.settled().await;
    assert_eq!(world.dead_letters.at(0, 0).unwrap().cause.stage, Stage::Decode);
}

#[tokio::test(start_paused = true)]
async fn sinks_have_the_names_that_the_test_gives_them() {
    let (first, second) = (Script::kafka(), Script::kafka());
    let mut world = World::of(PerWord)
        .kafka_sink("hits", &first)
        .kafka_sink("audit", &second)
        .processes(|_| Scripted::prints("1"))
        .in_memory()
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    // The payload names none of the two.
    let cause = world.dead_letters.only().cause;
    assert!(cause.message.contains("audit, hits"), "{cause:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_configuration_says_about_giving_up_counts() {
    let results = Script::kafka();
    results.begin_outage();
    let mut world = World::of(PerWord)
        .results(&results)
        .sinks(|sinks| sinks.give_up_after = Some(Duration::from_secs(20)))
        .processes(|_| Scripted::prints("1"))
        .in_memory()
        .start();
    world.produce(0, order(["a"]));
    world.not_committed(0, 0, Duration::from_secs(19)).await;
    world.settled().await;
    assert_eq!(world.dead_letters.only().cause.stage, Stage::Deliver);
}
