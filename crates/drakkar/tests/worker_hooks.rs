//! The hooks of a start, in a worker as users run it.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod world;

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use drakkar::{
    Config, RunError, Worker,
    prometheus::{IntCounter, Registry},
};
use world::{LOG, SOON, Told, World, ready};

#[track_caller]
fn assert_says(error: &RunError, hook: &str, reason: &str) {
    let text = format!("{error:?}");
    assert!(text.starts_with(&format!("the hook {hook} failed")), "{text}");
    assert!(text.contains(reason), "{text}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn on_startup_sees_the_configuration_and_what_it_changes_is_what_is_built() {
    let world = World::new();
    let mut config = world.config();
    config.kafka.source_topic = "not-there".to_owned();
    let worker = Worker::new(ready()).config(config).unwrap().on_startup(
        |handler: &mut Told, config: &mut Config| {
            Box::pin(async move {
                tokio::task::yield_now().await;
                assert_eq!(config.kafka.source_topic, "not-there");
                config.kafka.source_topic = "orders".to_owned();
                handler.ready = Box::new(|_| Err("a changed handler".into()));
                Ok(())
            })
        },
    );
    // The topic is there, so the start comes as far as the handler.
    assert_says(&world.refused(worker), "on_ready", "a changed handler");
}

#[test]
fn what_on_startup_changes_is_checked_again_and_the_error_says_who_did_it() {
    let world = World::new();
    let worker = Worker::new(ready()).config(world.config()).unwrap().on_startup(
        |_: &mut Told, config: &mut Config| {
            config.metrics.host = String::new();
            Box::pin(async { Ok(()) })
        },
    );
    let error = world.refused(worker);
    let text = format!("{error:?}");
    assert!(text.contains("on_startup: metrics.host: must not be empty"), "{text}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_on_startup_that_errs_panics_hangs_or_blocks_stops_the_start() {
    let world = World::new();
    let within = |time| {
        let mut config = world.config();
        config.executor.hook_timeout_seconds = time;
        Worker::new(ready()).config(config).unwrap()
    };
    let worker = || within(SOON);
    let errs = worker().on_startup(|_, _| Box::pin(async { Err("no such table".into()) }));
    assert_says(&world.refused(errs), "on_startup", "no such table");
    let panics = worker().on_startup(|_, _| Box::pin(async { panic!("as told") }));
    assert_says(&world.refused(panics), "on_startup", "panicked: as told");
    let worker = || within(Duration::from_millis(200));
    let hangs = worker().on_startup(|_, _| Box::pin(std::future::pending()));
    assert_says(&world.refused(hangs), "on_startup", "did not return within 200ms");
    let (release, gate) = mpsc::channel::<()>();
    let blocks = worker().on_startup(|_, _| {
        Box::pin(async move {
            assert!(gate.recv().is_err());
            Ok(())
        })
    });
    assert_says(&world.refused(blocks), "on_startup", "did not return within 200ms");
    drop(release);
    assert!(!LOG.text()[world.before..].contains("worker starts"), "nothing was built");
}

#[test]
fn an_on_ready_that_errs_panics_hangs_or_blocks_stops_the_start_before_the_group_is_joined() {
    let world = World::new();
    let refused = |told: Told, within| {
        let mut config = world.config();
        config.executor.hook_timeout_seconds = within;
        world.refused(Worker::new(told).config(config).unwrap())
    };
    let errs = Told::when_ready(|_| Err("no such table".into()));
    assert_says(&refused(errs, SOON), "on_ready", "no such table");
    let panics = Told::when_ready(|_| panic!("as told"));
    assert_says(&refused(panics, SOON), "on_ready", "panicked: as told");
    let short = Duration::from_millis(200);
    let hangs = Told { hangs: true, ..ready() };
    assert_says(&refused(hangs, short), "on_ready", "did not return within 200ms");
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let blocks = Told::when_ready(move |_| {
        assert!(gate.lock().unwrap().recv().is_err());
        Ok(())
    });
    assert_says(&refused(blocks, short), "on_ready", "did not return within 200ms");
    drop(release);
    assert!(!LOG.text()[world.before..].contains("joining the group"));
}

#[test]
fn what_a_handler_registers_in_on_ready_is_scraped_with_the_worker_s_own_series() {
    let world = World::new();
    let mut config = world.config();
    let results = drakkar::sections::KafkaSinkConfig {
        topic: "results".to_owned(),
        ..drakkar::sections::KafkaSinkConfig::default()
    };
    config.sinks.kafka.insert("results".to_owned(), results);
    let handler = Told::when_ready(|ready| {
        let sinks: Vec<String> = ready.sinks().iter().map(ToString::to_string).collect();
        assert_eq!(sinks, ["kafka/results"]);
        let seen = IntCounter::new("search_seen_total", "Patterns that were seen")?;
        ready.get::<Registry>().ok_or("no registry")?.register(Box::new(seen.clone()))?;
        seen.inc_by(7);
        Ok(())
    });
    let (stop, ended) = world.run(Worker::new(handler).config(config).unwrap());
    let scrape = world.until("/metrics", |answer| answer.contains("search_seen_total 7"));
    assert!(scrape.contains("drakkar_worker_info"), "{scrape}");
    drop(stop);
    ended.recv_timeout(SOON).unwrap().unwrap();
}

#[test]
#[should_panic(expected = "a test has one world at a time")]
fn a_test_with_two_worlds_fails_at_once() {
    let _first = World::new();
    let _second = World::new();
}
