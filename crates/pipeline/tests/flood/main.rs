//! A bad deploy cannot flush a topic into the dead-letter topic: a partition is held when too many of
//! its messages are dead-lettered, and goes on by itself when one of them succeeds.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by panicking.

#[path = "../common/mod.rs"]
mod common; // handlers and messages
mod handed_over; // what a hand-over tells the next owner
mod outages; // services that come and go
mod order; // what is held keeps its order

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, echo, ending, record};
use drakkar_core::{
    HookResult,
    flood::{FloodLimits, FloodReason},
    source::Position,
};
use drakkar_pipeline::HeldPartition;
use drakkar_testing::{World, WorldBuilder};
use tokio::time::{Instant, sleep, timeout};

const INTERVAL: Duration = Duration::from_secs(30);
/// Longer than anything takes that needs no try.
const MOMENT: Duration = Duration::from_secs(5);
/// Until just before a try that begins an interval after this.
const ALMOST: Duration = Duration::from_secs(20);

/// A service that every message depends on.
#[derive(Clone, Default)]
pub(crate) struct Service(Arc<AtomicBool>);

impl Service {
    pub(crate) fn set_up(&self, up: bool) {
        self.0.store(up, Ordering::SeqCst);
    }

    pub(crate) fn ask(&self) -> HookResult<()> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err("the service is down".into()) }
    }

    /// Tasks succeed, and what is made of their results needs the service; messages `own` need none.
    pub(crate) fn in_collect(&self) -> Echo {
        let service = self.clone();
        Echo::default().complete(move |done| {
            if done.output.stdout.starts_with(b"own") {
                return Ok(record(done));
            }
            service.ask().map(|()| record(done))
        })
    }
}

pub(crate) fn limits(max_consecutive: u32, max_ratio: f64) -> FloodLimits {
    FloodLimits { max_consecutive, max_ratio, probe_interval: INTERVAL }
}

pub(crate) fn limited<H: drakkar_core::Handler>(
    handler: H,
    limits: FloodLimits,
) -> WorldBuilder<H> {
    World::of(handler).in_memory().allow_unused_hooks().settings(move |settings| {
        settings.flood = limits;
        settings.max_hooks = 4; // What waits for a try occupies none.
    })
}

/// Messages with a number each, which is their offset where nothing else is produced.
pub(crate) fn produce(world: &mut World, partition: i32, numbers: Range<usize>) {
    for number in numbers {
        world.produce(partition, format!("{number}"));
    }
}

/// Takes partition 0 away, for the first time or again.
pub(crate) async fn revoke(world: &mut World) -> Option<Position> {
    let before = world.book(|book| book.handed_over.len());
    world.begin_revoke(0, Duration::from_mins(10));
    world.until("another hand-over", |book| before < book.handed_over.len()).await;
    world.book(|book| book.handed_over.last().and_then(|(_, over)| over.position.clone()))
}

pub(crate) fn held(world: &World) -> Vec<HeldPartition> {
    world.status.held_partitions()
}

/// Everything of partition 0 up to `next` is committed in this time, which is paused.
pub(crate) async fn committed_within(world: &mut World, next: i64, time: Duration) {
    let in_time = timeout(time, world.committed(0, next)).await;
    assert!(in_time.is_ok(), "not within {time:?}: {} committed", world.committed_offset(0));
}

/// Each message up to `end` was answered, or dead-lettered, and none both.
#[track_caller]
pub(crate) fn balance(world: &World, count: usize) {
    let letters = world.dead_letters.all();
    let dead: BTreeSet<Bytes> =
        letters.iter().map(|letter| letter.message.value.clone().unwrap()).collect();
    let results = world.results.all();
    let answered: BTreeSet<Bytes> =
        results.iter().map(|record| record.value.clone().unwrap()).collect();
    assert_eq!((dead.len(), answered.len()), (letters.len(), results.len()), "none twice");
    assert_eq!(dead.intersection(&answered).next(), None);
    assert_eq!(dead.len() + answered.len(), count);
}

/// A partition whose service is down, after the limit was reached.
pub(crate) async fn tripped(service: &Service, limit: u32, count: usize) -> World {
    let mut world = limited(service.in_collect(), limits(limit, 0.0)).start();
    produce(&mut world, 0, 0..count);
    world.dead_letters.until(limit as usize).await;
    sleep(MOMENT).await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_reached_exactly_and_then_nothing_more_is_dead_lettered() {
    let world = tripped(&Service::default(), 10, 200).await;
    sleep(ALMOST).await;
    assert_eq!(world.dead_letters.len(), 10);
    let held = held(&world);
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].reason, held[0].failed_tries), (FloodReason::Consecutive, 0));
    assert!(0 < held[0].waiting);
    let metrics = world.metrics.render().unwrap();
    let labels = r#"{partition="0",reason="max_consecutive",topic="orders"}"#;
    for line in [
        format!("drakkar_partition_held{labels} 1"),
        format!("drakkar_partition_holds_total{labels} 1"),
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "no {line} in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_message_is_tried_per_interval_and_dead_lettered_when_it_fails() {
    let world = tripped(&Service::default(), 10, 200).await;
    for tries in 1..=20 {
        sleep(INTERVAL).await;
        assert_eq!(world.dead_letters.len(), 10 + tries);
        assert_eq!(held(&world)[0].failed_tries, tries as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_try_that_succeeds_lifts_the_hold_and_everything_is_answered() {
    let service = Service::default();
    let mut world = tripped(&service, 10, 200).await;
    sleep(INTERVAL).await;
    service.set_up(true);
    committed_within(&mut world, 200, 2 * INTERVAL).await;
    assert_eq!(world.dead_letters.len(), 11, "what waited is not dead-lettered");
    balance(&world, 200);
    assert_eq!(held(&world), []);
    assert!(!world.metrics.render().unwrap().contains("drakkar_partition_held{"));
}

#[tokio::test(start_paused = true)]
async fn a_new_message_is_tried_where_none_waits() {
    let service = Service::default();
    let mut world = limited(service.in_collect(), limits(10, 0.0)).start();
    produce(&mut world, 0, 0..10);
    world.committed(0, 10).await;
    sleep(3 * INTERVAL).await;
    service.set_up(true);
    world.produce(0, "tried");
    world.committed(0, 11).await;
    produce(&mut world, 0, 11..21);
    world.committed(0, 21).await;
    assert_eq!(held(&world), []);
    assert_eq!(world.dead_letters.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn new_messages_are_tried_one_by_one_too() {
    let mut world = limited(Service::default().in_collect(), limits(10, 0.0)).start();
    produce(&mut world, 0, 0..10);
    world.committed(0, 10).await;
    sleep(2 * INTERVAL).await;
    produce(&mut world, 0, 10..30);
    for tries in 1..=20 {
        sleep(MOMENT).await;
        assert_eq!(world.dead_letters.len(), 10 + tries);
        sleep(ALMOST + MOMENT).await;
    }
    balance(&world, 30);
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_at_fault_themselves_do_not_stop_a_partition_for_ever() {
    let service = Service::default();
    let mut world = limited(service.in_collect(), limits(5, 0.0)).start();
    service.set_up(false);
    produce(&mut world, 0, 0..20);
    for number in 0..20 {
        world.produce(0, format!("own-{number}"));
    }
    committed_within(&mut world, 40, 17 * INTERVAL).await;
    assert_eq!(world.dead_letters.len(), 20);
    world.produce(0, "own-40");
    world.committed(0, 41).await;
    balance(&world, 41);
    assert_eq!(held(&world), []);
}

#[tokio::test(start_paused = true)]
async fn a_success_that_was_under_way_when_the_limit_was_reached_does_not_lift_the_hold() {
    let service = Service::default();
    let mut world = limited(service.in_collect(), limits(3, 0.0))
        .settings(|settings| settings.window_size = 10)
        .start();
    for value in ["0", "1", "2", "3", "own-4", "own-5"] {
        world.produce(0, value);
    }
    world.results.until(2).await;
    sleep(MOMENT).await;
    assert_eq!((world.dead_letters.len(), held(&world).len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn zero_is_off() {
    let mut world = limited(Service::default().in_collect(), limits(0, 0.0)).start();
    produce(&mut world, 0, 0..300);
    world.committed(0, 300).await;
    assert_eq!((world.dead_letters.len(), held(&world).len()), (300, 0));
}

#[tokio::test(start_paused = true)]
async fn the_ratio_holds_a_partition_in_which_others_succeed() {
    let mut world = limited(Service::default().in_collect(), limits(0, 0.01)).start();
    for number in 0..50 {
        world.produce(0, format!("{number}"));
        world.produce(0, format!("own-{number}"));
    }
    world.dead_letters.until(10).await;
    sleep(MOMENT).await;
    assert_eq!(world.dead_letters.len(), 10, "of a thousand");
    assert_eq!(held(&world)[0].reason, FloodReason::Ratio);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_held_does_not_hold_another() {
    let service = Service::default();
    let mut world = limited(service.in_collect(), limits(5, 0.0)).start();
    world.assign(1, None);
    produce(&mut world, 0, 0..50);
    world.dead_letters.until(5).await;
    for number in 0..50 {
        world.produce(1, format!("own-{number}"));
    }
    world.committed(1, 50).await;
    assert_eq!(held(&world).iter().map(|h| h.partition.partition).collect::<Vec<_>>(), [0]);
    assert_eq!(world.dead_letters.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_message_with_many_tasks_counts_once() {
    let service = Service::default();
    let handler = service
        .in_collect()
        .arrange(|window| Ok(window.iter().flat_map(|m| (0..20).map(|_| echo(m))).collect()));
    let mut world = limited(handler, limits(5, 0.0)).start();
    produce(&mut world, 0, 0..4);
    world.committed(0, 4).await;
    assert_eq!((world.dead_letters.len(), held(&world).len()), (80, 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_tried_again_has_all_its_retries_again() {
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|message| ending(message, 1)).collect()));
    let mut world = limited(handler, limits(1, 0.0)).start();
    produce(&mut world, 0, 0..3);
    committed_within(&mut world, 3, 3 * INTERVAL).await;
    let attempts: Vec<u32> =
        world.dead_letters.all().iter().map(|letter| letter.cause.attempt).collect();
    assert_eq!(attempts, [4, 8, 8], "three retries each time");
}

/// Tasks that need the service, for every third message only.
fn filtering(service: &Service) -> Echo {
    service.in_collect().arrange(|window| {
        Ok(window.iter().filter(|message| message.offset.0 % 3 == 0).map(echo).collect())
    })
}

#[tokio::test(start_paused = true)]
async fn messages_without_a_task_do_not_hide_a_flood() {
    let service = Service::default();
    let mut world = limited(filtering(&service), limits(10, 0.5)).start();
    produce(&mut world, 0, 0..300);
    sleep(MOMENT).await;
    assert_eq!(world.dead_letters.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_task_does_not_lift_a_hold() {
    let service = Service::default();
    let handler = service.in_collect().arrange(|window| {
        Ok(window.iter().filter(|message| message.offset.0 < 4).map(echo).collect())
    });
    let mut world = limited(handler, limits(4, 0.0)).start();
    produce(&mut world, 0, 0..4);
    world.dead_letters.until(4).await;
    sleep(MOMENT).await;
    assert_eq!(held(&world).len(), 1);
    produce(&mut world, 0, 4..6);
    sleep(INTERVAL * 2).await;
    assert_eq!(held(&world).len(), 1, "nothing succeeded");
}
