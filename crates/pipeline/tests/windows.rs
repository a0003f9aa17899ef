//! Windows that `arrange` fails for: the message at fault is given up, its neighbours are not.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by panicking.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{echo, values};
use drakkar_core::{Collect, Handler, HookResult, Message, Pending, Task, TaskResult};
use drakkar_pipeline::PipelineError;
use drakkar_testing::{World, WorldBuilder};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(10);

/// Hangs, fails or answers by what the window holds, and counts how often it is asked.
#[derive(Default)]
struct Picky {
    asked: Arc<AtomicUsize>,
    /// Fails that often before it answers at all.
    fails_first: usize,
}

impl Handler for Picky {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let holds = |value: &str| window.iter().any(|message| *message.input == *value.as_bytes());
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.fails_first {
            return Err("not yet".into());
        }
        if holds("hangs") {
            std::future::pending::<()>().await;
        }
        if holds("fails") {
            return Err("fails".into());
        }
        Ok(window.iter().map(echo).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        Ok(common::record(done))
    }
}

fn world(handler: Picky) -> WorldBuilder<Picky> {
    World::of(handler).in_memory().settings(|settings| {
        settings.window_size = 100;
        settings.max_in_flight = 400;
        settings.hook_timeout = LIMIT;
        settings.max_retries = 3;
    })
}

/// One window of a hundred messages; those at `odd` hold `value`.
fn produce(world: &mut World, odd: &[usize], value: &'static str) {
    for index in 0..100 {
        let value =
            if odd.contains(&index) { Bytes::from(value) } else { format!("{index}").into() };
        world.produce(0, value);
    }
}

fn dead(world: &World) -> Vec<i64> {
    let mut offsets: Vec<i64> =
        world.dead_letters.all().iter().map(|letter| letter.message.offset.0).collect();
    offsets.sort_unstable();
    offsets
}

#[tokio::test(start_paused = true)]
async fn an_arrange_that_fails_for_a_while_costs_no_message() {
    let mut world = world(Picky { fails_first: 3, ..Picky::default() }).start();
    produce(&mut world, &[], "");
    world.committed(0, 100).await;
    assert_eq!(dead(&world), Vec::<i64>::new());
    assert_eq!(values(&world.results.all()).len(), 100);
}

#[tokio::test(start_paused = true)]
async fn of_a_window_that_fails_only_the_messages_at_fault_are_given_up() {
    let handler = Picky::default();
    let asked = Arc::clone(&handler.asked);
    let mut world = world(handler).start();
    produce(&mut world, &[0, 41, 99], "fails");
    world.committed(0, 100).await;
    assert_eq!(dead(&world), [0, 41, 99]);
    // Three retries of the whole, and two halves per level and message.
    assert!(asked.load(Ordering::SeqCst) <= 4 + 3 * 2 * 7, "{asked:?}");
    let attempts: Vec<u32> = world.dead_letters.all().iter().map(|l| l.cause.attempt).collect();
    assert!(attempts.iter().all(|attempt| (10..=11).contains(attempt)), "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_message_that_hangs_is_found_and_its_neighbours_are_answered() {
    for position in [0, 37, 99] {
        let mut world = world(Picky::default()).start();
        let started = Instant::now();
        produce(&mut world, &[position], "hangs");
        world.committed(0, 100).await;
        assert_eq!(dead(&world), [i64::try_from(position).unwrap()]);
        assert!(started.elapsed() < 12 * LIMIT, "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_arrange_that_always_hangs_costs_a_bounded_number_of_time_outs_and_says_so() {
    let mut world = world(Picky::default()).start();
    let started = Instant::now();
    let everything: Vec<usize> = (0..100).collect();
    produce(&mut world, &everything, "hangs");
    world.committed(0, 100).await;
    // Four of the whole, seven splits, and each part that comes of them once.
    assert!(started.elapsed() < 19 * LIMIT, "{:?}", started.elapsed());
    let letters = world.dead_letters.all();
    assert_eq!(letters.len(), 100);
    let together = letters.iter().find(|l| l.message.offset.0 == 99).unwrap();
    assert_eq!(together.cause.class, "hook_timeout");
    assert!(
        together.cause.message.contains("for which of 50 messages"),
        "{}",
        together.cause.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_tried_again_does_not_hold_up_a_hand_over() {
    let handler = Picky { fails_first: usize::MAX, ..Picky::default() };
    let asked = Arc::clone(&handler.asked);
    let mut world = world(handler)
        .settings(|settings| {
            settings.backoff.initial = Duration::from_hours(1);
            settings.backoff.max = Duration::from_hours(1);
        })
        .start();
    produce(&mut world, &[], "");
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    let over = world.revoke(0, Duration::from_mins(5)).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(over.position.map(|position| position.next.0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_was_passed_stops_the_worker_instead_of_being_committed_past() {
    let mut world = world(Picky::default()).start();
    world.produce(0, "first");
    world.produce(0, "second");
    world.committed(0, 2).await;
    world.send(drakkar_testing::message(0, 1, "another one under the same offset"));
    match world.ended().await {
        Err(PipelineError::Invalid(text)) => assert!(text.starts_with("orders:0:1 "), "{text}"),
        other => panic!("expected an error about the message, got {other:?}"),
    }
}
