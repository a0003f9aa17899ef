//! What probes and metrics say of a worker, as users run it.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod world;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    time::Duration,
};

use drakkar::{
    Delivery, Sink, SinkError, Worker,
    prometheus::{
        Registry,
        core::{Collector, Desc},
        proto::MetricFamily,
    },
};
use tokio::sync::oneshot;
use world::{SOON, Told, World, ready};

/// A worker that is blocked in `arrange` of one partition, or of both, until the first sender goes.
fn blocked(
    world: &World,
    only: Option<i32>,
    health: Duration,
) -> (Sender<()>, oneshot::Sender<()>) {
    let (release, gate) = mpsc::channel();
    let mut config = world.config();
    config.health.hook_stuck = health;
    let handler = Told { gate: Some((only, Mutex::new(gate))), ..ready() };
    let (stop, _) = world.run(Worker::new(handler).config(config).unwrap());
    world.produce(0);
    world.produce(1);
    (release, stop)
}

#[test]
fn hooks_that_block_every_thread_for_ever_fail_the_liveness_probe_which_names_one() {
    let world = World::new();
    let (release, _stop) = blocked(&world, None, Duration::from_millis(300));
    // Another hook may be named first, where the machine stalls while it runs.
    let named = |answer: &str| answer.contains("the hook arrange of partition orders:");
    world.until("/healthz", |answer| answer.contains(" 503 ") && named(answer));
    assert!(world.get("/readyz").unwrap().contains(" 503 "), "and it is not ready");
    drop(release);
    world.until("/healthz", |answer| answer.contains(" 200 "));
}

/// The value of a series without labels.
fn value(answer: &str, series: &str) -> f64 {
    let mut lines = answer.lines().filter_map(|line| line.strip_prefix(series));
    lines.find_map(|rest| rest.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn time_without_messages_is_told_from_time_in_which_slots_are_free_although_there_are_some() {
    let world = World::new();
    let nothing = "drakkar_consumer_idle_seconds_total";
    let slots = "drakkar_executor_idle_slot_seconds_total";
    let (release, _stop) = blocked(&world, Some(0), Duration::from_hours(1));
    world.until("/metrics", |answer| 0.5 < value(answer, slots));
    drop(release);
    let before = value(&world.get("/metrics").unwrap(), nothing);
    world.until("/metrics", |answer| before + 1.0 < value(answer, nothing));
}

#[test]
fn a_hook_that_blocks_shorter_than_allowed_fails_no_probe() {
    let world = World::new();
    let (release, _stop) = blocked(&world, None, Duration::from_hours(1));
    world.until("/readyz", |answer| answer.contains("\"assigned_partitions\":2"));
    assert!(world.get("/healthz").unwrap().contains(" 200 "));
    drop(release);
}

#[test]
fn while_a_hook_blocks_one_thread_the_other_partitions_are_worked_on_and_committed() {
    let world = World::new();
    let (release, _stop) = blocked(&world, Some(0), Duration::from_millis(300));
    let named = |answer: &str| answer.contains("the hook arrange of partition orders:0");
    world.until("/healthz", |answer| answer.contains(" 503 ") && named(answer));
    world.produce(1);
    // The second message of that partition; the first came together with the one that blocks.
    world.until("/metrics", |answer| {
        answer.contains(r#"drakkar_messages_consumed_total{partition="1",topic="orders"} 2"#)
    });
    world.until_committed(1, 2);
    drop(release);
}

/// A sink that is there or not.
#[derive(Clone, Default)]
struct Far(Arc<AtomicBool>);

impl Sink for Far {
    type Payload = ();

    async fn deliver(&self, batch: &[()]) -> Vec<Delivery> {
        vec![Delivery::Confirmed; batch.len()]
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let is_gone = self.0.load(Ordering::SeqCst);
        if is_gone { Err(SinkError::new("gone", "nobody answers")) } else { Ok(()) }
    }
}

#[test]
fn a_sink_that_goes_away_while_nothing_is_meant_for_it_makes_the_worker_unready_until_it_is_back() {
    let (world, far) = (World::new(), Far::default());
    let mut config = world.config();
    config.health.sink_window = Duration::from_millis(100);
    let worker = Worker::new(ready()).sink("far", far.clone()).config(config).unwrap();
    let (_stop, _) = world.run(worker);
    world.until("/readyz", |answer| answer.contains(" 200 "));
    far.0.store(true, Ordering::SeqCst);
    let unready = world.until("/readyz", |answer| answer.contains(" 503 "));
    assert!(unready.contains("sink custom/far has accepted nothing for"), "{unready}");
    assert!(world.get("/healthz").unwrap().contains(" 200 "), "a restart cures nothing");
    far.0.store(false, Ordering::SeqCst);
    world.until("/readyz", |answer| answer.contains(" 200 "));
}

#[test]
fn while_it_waits_for_its_broker_a_worker_is_alive_and_not_ready() {
    let world = World::new();
    let mut config = world.config();
    config.kafka.brokers = "127.0.0.1:1".to_owned(); // Nobody listens there.
    let (_stop, _) = world.run(Worker::new(ready()).config(config).unwrap());
    let answer = world.until("/readyz", |answer| answer.contains(" 503 "));
    assert!(answer.contains("the worker is starting"), "{answer}");
    assert!(world.get("/healthz").unwrap().contains(" 200 "), "a restart cures nothing");
    assert!(world.get("/metrics").unwrap().contains("drakkar_worker_info"));
}

#[test]
fn what_the_client_cannot_read_is_in_the_details_and_a_restart_is_not_asked_for() {
    let world = World::new();
    world.refuse_fetches(1_000);
    let (_stop, _) = world.run(Worker::new(ready()).config(world.config()).unwrap());
    let answer = world.until("/healthz", |answer| answer.contains("Fetch from broker"));
    assert!(answer.contains(" 200 ") && answer.contains(r#""kafka_error":{"reason":"#), "{answer}");
}

#[test]
fn what_piles_up_behind_a_partition_that_is_stuck_is_seen_in_the_scrape() {
    let world = World::new();
    let (release, _stop) = blocked(&world, Some(0), Duration::from_hours(1));
    let queued = |count: usize| {
        let series = r#"drakkar_partition_queue_size{partition="0",topic="orders"}"#;
        world.until("/metrics", |answer| answer.contains(&format!("{series} {count}\n")))
    };
    queued(1);
    world.produce(0);
    world.produce(0);
    assert!(queued(3).contains("drakkar_total_queued 3\n"));
    drop(release);
    queued(0);
}

/// A metric that is never collected, as long as the sender of its gate is there.
struct Stuck(Sender<()>, Mutex<mpsc::Receiver<()>>);

impl Collector for Stuck {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.send(()).unwrap();
        // Much longer than a stop may take, and no end of a test that fails.
        assert!(self.1.lock().unwrap().recv_timeout(2 * SOON).is_err());
        Vec::new()
    }
}

#[test]
fn a_collector_that_blocks_silences_no_probe_and_holds_up_no_stop() {
    let world = World::new();
    let (entered, is_in) = mpsc::channel();
    let (release, gate) = mpsc::channel();
    let stuck = Mutex::new(Some(Stuck(entered, Mutex::new(gate))));
    let handler = Told::when_ready(move |ready| {
        let registry = ready.get::<Registry>().ok_or("no metrics")?;
        let stuck = stuck.lock().unwrap().take().ok_or("asked twice")?;
        Ok(registry.register(Box::new(stuck))?)
    });
    let (stop, ended) = world.run(Worker::new(handler).config(world.config()).unwrap());
    world.until("/readyz", |answer| answer.contains(" 200 "));
    let _scrape = world.ask("/metrics").unwrap();
    is_in.recv_timeout(SOON).unwrap();
    assert!(world.get("/healthz").unwrap().contains(" 200 "));
    drop(stop);
    ended.recv_timeout(SOON).unwrap().unwrap();
    drop(release);
}
