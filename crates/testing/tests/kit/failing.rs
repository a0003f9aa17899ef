//! What a test sees when it fails: a kit that cannot fail is worthless, and one that does not say why
//! is little better.

use std::{panic::AssertUnwindSafe, time::Duration};

use drakkar_testing::{KafkaPayload, Record, Script, Scripted, World};
use futures_util::FutureExt;

use crate::handler::{Counted, Forgetful, PerWord, order};

/// The words with which `failing` fails the test.
pub(crate) async fn words_of(failing: impl Future<Output = ()>) -> String {
    match AssertUnwindSafe(failing).catch_unwind().await {
        Ok(()) => panic!("it did not fail"),
        Err(panic) => *panic.downcast::<String>().unwrap(),
    }
}

#[track_caller]
fn check(words: &str, expected: &[&str]) {
    for part in expected {
        assert!(words.contains(part), "{part:?} is missing in: {words}");
    }
}

#[tokio::test]
async fn a_message_for_a_partition_that_nobody_has_is_not_waited_for_in_vain_or_not_at_all() {
    for partition in [1, -1] {
        let mut world = World::of(PerWord).start();
        let words = words_of(async {
            world.produce(partition, order(["a"]));
        })
        .await;
        check(&words, &["orders", "is not there", "World::of(..).partitions("]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_for_a_partition_that_was_taken_away_waits_for_its_next_owner() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::prints("1")).start();
    world.assign(7, None);
    world.lose(7);
    world.produce(7, order(["a"]));
    world.give_back(7);
    world.settled().await;
    assert_eq!(world.results.len(), 1);
}

/// The guide shows what a test that fails says.
mod guide {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/guide/handler.in"));

    #[tokio::test(start_paused = true)]
    async fn the_guide_shows_what_a_wait_in_vain_says() {
        use super::*;
        let results = Script::kafka();
        results.begin_outage();
        let mut world = World::of(Cut)
            .in_memory()
            .results(&results)
            .executor(|executor| executor.task_timeout_seconds = Duration::from_hours(24))
            .processes(|part| match &*part.labels()["film"] {
                "Brazil" => Scripted::hangs(),
                _ => Scripted::prints("60"),
            })
            .start();
        for name in ["Alien", "Brazil"] {
            world.produce(0, Record::json(&Film { name: name.into(), parts: 1 }));
        }
        world.produce(0, "this is no film");
        let words = words_of(world.settled()).await;
        let (_, said) = words.split_once(": ").unwrap();
        let guide = include_str!("../../../../docs/testing.md");
        let (_, shown) = guide.split_once("```text\n").unwrap();
        let (shown, _) = shown.split_once("```").unwrap();
        let (_, shown) = shown.split_once(": ").unwrap();
        assert_eq!(said.trim_end(), shown.trim_end());
    }
}

#[tokio::test]
async fn a_hook_that_would_never_be_called_is_named_at_the_start() {
    let words = words_of(async { drop(World::of(Forgetful).start()) }).await;
    check(&words, &["Forgetful", "on_message_complete", "const AGGREGATES_MESSAGES: bool = true;"]);
    drop(World::of(Forgetful).allow_unused_hooks().start());
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_vain_says_what_is_open_what_runs_and_which_sink_holds() {
    let results = Script::confirming();
    results.begin_outage();
    let mut world = World::of(PerWord)
        .in_memory()
        .results(&results)
        .executor(|executor| executor.task_timeout_seconds = Duration::from_hours(24))
        .processes(|call| match &*call.args_text() {
            "stuck" => Scripted::hangs(),
            _ => Scripted::prints("1"),
        })
        .start();
    world.produce(0, order(["a"]));
    world.produce(0, order(["stuck"]));
    world.produce(0, Record::from("not JSON"));
    let words = words_of(world.settled()).await;
    check(
        &words,
        &[
            "failing.rs",
            "waited for everything to be committed, in vain",
            "orders:0: 3 records, committed up to 0, settled above: 2, not committed as settled: 0, 1",
            "1 of 2 slots taken",
            "attempt 1 for offset [1] of count \"stuck\": running for",
            "sink results: 0 accepted",
            "kafka/results has accepted nothing for",
            "orders:0:2: decode",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn every_wait_ends_with_a_look_at_the_world() {
    let world = World::of(PerWord).in_memory().start();
    for words in [
        words_of(world.results.until(1)).await,
        words_of(world.runs.started(1)).await,
        words_of(world.runs.ended(1)).await,
        words_of(world.dead_letters.until(1)).await,
    ] {
        check(&words, &["waited for", "in vain", "orders:0: 0 records"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_must_not_be_is_noticed() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::prints("1")).start();
    world.produce(0, order(["a"]));
    let words = words_of(world.not_committed(0, 0, Duration::from_secs(5))).await;
    check(&words, &["orders:0:0 was committed within 5s"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_must_not_be_is_shown_with_its_cause() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::missing()).start();
    world.produce(0, order(["a"]));
    world.settled().await;
    let words = words_of(async { world.assert_no_dead_letters() }).await;
    check(&words, &["orders:0:0: execute, unstartable, attempt", "No such file"]);
}

#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_fails_the_wait_at_once() {
    let mut world = World::of(PerWord).in_memory().processes(|call| panic!("{call:?}")).start();
    world.produce(0, order(["a"]));
    let begun = tokio::time::Instant::now();
    let words = words_of(world.settled()).await;
    check(&words, &["the closure that plays processes panicked"]);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_real_process_in_paused_time_is_an_error_that_says_what_to_do() {
    let mut world = World::of(PerWord).in_memory().start();
    world.produce(0, order(["a"]));
    let words = words_of(world.settled()).await;
    check(&words, &["time is paused", ".processes(..)"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_stopped_fails_the_wait_with_its_reason() {
    let mut world = World::of(PerWord).in_memory().start();
    world.fail_source("the brokers are gone");
    let words = words_of(world.committed(0, 1)).await;
    check(&words, &["the worker has stopped", "the brokers are gone"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_and_does_not_decode_is_shown() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::prints("1")).start();
    world.produce(0, order(["a"]));
    world.settled().await;
    let words = words_of(async { drop(world.results.json::<Vec<u8>>()) }).await;
    check(&words, &["is no JSON of", "Vec<u8>", "\\\"count\\\":1"]);
    let words = words_of(async { drop::<Vec<Counted>>(world.files.json()) }.then(|()| async {
        drop(world.files.only());
    }))
    .await;
    check(&words, &["the sink accepted nothing", "sink results: 1 accepted"]);
}

#[tokio::test(start_paused = true)]
async fn more_than_one_is_not_the_only_one() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::prints("1")).start();
    world.produce(0, order(["a", "b"]));
    world.settled().await;
    let words = words_of(async { drop::<KafkaPayload>(world.results.only()) }).await;
    check(&words, &["accepted 2 payloads, not one"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ran_again_after_it_had_succeeded_is_named() {
    // What a faulty pool would do.
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::prints("1")).start();
    world.produce(0, order(["a"]));
    world.settled().await;
    let task = std::sync::Arc::clone(&world.runs.all()[0].task);
    let ticket = world.pool.submit(drakkar_executor::Job {
        task,
        rank: drakkar_executor::Rank::at(tokio::time::Instant::now()),
        done: Box::new(drop),
    });
    world.runs.ended(2).await;
    drop(ticket);
    let words = words_of(async { world.runs.assert_nothing_ran_twice() }).await;
    check(&words, &["ran twice", "attempt 1", "attempt 2"]);
}
