//! What is told of partitions that went before their messages were done.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use drakkar_core::{Collect, Handler, HookResult, Message, Pending, Precomputed, Task, TaskResult};
use drakkar_telemetry::Metrics;
use drakkar_testing::World;
use tokio::time::timeout;

/// Where its messages stay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hangs {
    InArrange,
    InTaskComplete,
}

impl Handler for Hangs {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        if *self == Self::InArrange {
            return pending().await;
        }
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        pending().await
    }
}

fn start(handler: Hangs, partitions: i32) -> World {
    let world = World::of(handler).in_memory().partitions(partitions);
    // The worker ends before a hook does.
    world.settings(|settings| settings.hook_timeout = Duration::from_hours(24)).start()
}

#[track_caller]
fn shows(metrics: &Metrics, wanted: &str) {
    let text = metrics.render().unwrap();
    assert!(text.lines().any(|line| line == wanted), "no {wanted} in\n{text}");
}

/// Lets the worker go on until `wanted`.
async fn until(wanted: impl Fn() -> bool) {
    let happened = async {
        while !wanted() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_mins(1), happened).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_is_lost_and_comes_back_at_once_shows_what_it_holds() {
    let mut world = start(Hangs::InArrange, 1);
    world.produce(0, "of the old log");
    until(|| world.held(0) == 1).await;
    // As the source tells a log that was made anew: in one go.
    world.lose(0);
    world.assign(0, None);
    for _ in 0..3 {
        world.produce(0, "of the new log");
    }
    let metrics = Arc::clone(&world.metrics);
    let dropped = r#"drakkar_messages_dropped_at_revoke_total{partition="0",topic="orders"} 1"#;
    until(|| metrics.render().unwrap().lines().any(|line| line == dropped)).await;
    until(|| world.status.view().assigned == 1).await;
    world.status.show_loads();
    shows(&metrics, r#"drakkar_partition_queue_size{partition="0",topic="orders"} 3"#);
    shows(&metrics, "drakkar_total_queued 3");

    world.begin_revoke(0, Duration::ZERO);
    until(|| !metrics.render().unwrap().contains("drakkar_partition_queue_size{")).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_leaves_to_the_next_owner_is_counted_whether_it_began_or_not() {
    let mut world = start(Hangs::InArrange, 1);
    let metrics = Arc::clone(&world.metrics);
    world.produce(0, "is being arranged");
    let consumed = r#"drakkar_messages_consumed_total{partition="0",topic="orders"} 1"#;
    until(|| metrics.render().unwrap().lines().any(|line| line == consumed)).await;
    for _ in 0..4 {
        world.produce(0, "waits");
    }
    world.stop().await.unwrap();
    shows(&metrics, "drakkar_uncommitted_offsets_at_stop 5");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_with_the_poll_thread_is_counted_as_well() {
    let mut world = start(Hangs::InTaskComplete, 2);
    for partition in [0, 1, 1] {
        world.produce(partition, "x");
    }
    until(|| world.held(0) == 1 && world.held(1) == 2).await;
    let metrics = Arc::clone(&world.metrics);
    world.fail_source("as told");
    world.ended().await.unwrap_err();
    shows(&metrics, "drakkar_uncommitted_offsets_at_stop 3");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hits_its_deadline_counts_once_whatever_it_cuts_off() {
    let mut world = start(Hangs::InTaskComplete, 2);
    world.produce(0, "x");
    world.produce(1, "x");
    let metrics = Arc::clone(&world.metrics);
    until(|| metrics.tasks_precomputed.get() == 2).await;
    world.stop().await.unwrap();
    shows(&metrics, "drakkar_drain_timeout_hit_total 1");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_told_to_stop_now_hits_no_deadline() {
    let mut world = start(Hangs::InTaskComplete, 2);
    world.produce(0, "x");
    let metrics = Arc::clone(&world.metrics);
    until(|| metrics.tasks_precomputed.get() == 1).await;
    world.begin_stop();
    world.draining(0).await;
    world.stop_now();
    world.ended().await.unwrap();
    shows(&metrics, "drakkar_drain_timeout_hit_total 0");
}
