//! What a world shows by its metrics, and which keys of the configuration count in it.

use std::{num::NonZeroUsize, time::Duration};

use drakkar::{Bytes, Handler, HookResult, Message, Pending, Precomputed, Task};
use drakkar_testing::{Script, Scripted, World};

use crate::handler::{PerWord, order};

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn shows(world: &World, series: &str, value: u64) {
    let text = world.metrics.render().unwrap();
    let line = format!("{series} {value}");
    let of_it: Vec<&str> = text.lines().filter(|shown| shown.starts_with(series)).collect();
    assert!(of_it == [&*line], "{line} expected: {of_it:?}");
}

#[track_caller]
fn tasks(world: &World, status: &str, count: u64) {
    shows(world, &format!("drakkar_executor_tasks_total{{status=\"{status}\"}}"), count);
}

#[track_caller]
fn skipped(world: &World, count: u64) {
    shows(world, "drakkar_messages_skipped_total{reason=\"on_error\"}", count);
}

#[tokio::test(start_paused = true)]
async fn a_task_counts_as_started_when_it_has_a_slot_and_not_while_it_waits_for_one() {
    let mut world = World::of(PerWord)
        .in_memory()
        .executor(|executor| executor.max_executors = NonZeroUsize::new(1))
        .processes(|call| match call.attempt {
            1 => Scripted::hangs(),
            _ => Scripted::prints("1"),
        })
        .start();
    world.produce(0, order(["a", "b", "c", "d", "e"]));
    world.runs.started(1).await;
    tokio::time::sleep(SECOND).await;
    tasks(&world, "started", 1);
    world.settled().await;
    tasks(&world, "started", 10);
    tasks(&world, "failed", 5);
    tasks(&world, "completed", 5);
}

/// Knows every result.
struct Known;

impl Handler for Known {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let known = Precomputed { stdout: "1".into(), ..Precomputed::default() };
        let task = |message| Task::for_message(message).precomputed(known.clone());
        Ok(window.iter().map(task).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_that_know_their_result_count_as_started_as_well() {
    let mut world = World::of(Known).in_memory().start();
    for _ in 0..3 {
        world.produce(0, "a");
    }
    world.settled().await;
    tasks(&world, "started", 3);
    tasks(&world, "completed", 3);
}

#[tokio::test(start_paused = true)]
async fn a_message_counts_as_skipped_once_and_only_when_nothing_of_it_succeeded() {
    let mut world = World::of(PerWord)
        .in_memory()
        .processes(|call| match &*call.args_text() {
            "bad" => Scripted::exits(1), // on_error answers Skip
            "worse" => Scripted::missing(),
            _ => Scripted::prints("1"),
        })
        .start();
    world.produce(0, order(["a", "bad", "bad"]));
    world.settled().await;
    skipped(&world, 0);
    world.produce(0, order(["bad", "bad", "bad"]));
    world.settled().await;
    skipped(&world, 1);
    world.produce(0, order(["bad", "worse"]));
    world.settled().await;
    assert_eq!(world.dead_letters.len(), 1, "what is dead-lettered is not skipped");
    skipped(&world, 1);
}

#[tokio::test(start_paused = true)]
async fn what_all_partitions_may_hold_together_counts_in_a_world() {
    let slow = Script::confirming();
    slow.take(10 * SECOND);
    let mut world = World::of(PerWord)
        .in_memory()
        .executor(|executor| executor.max_result_bytes_total = 1)
        .processes(|_| Scripted::prints("1"))
        .results(&slow)
        .start();
    world.produce(0, order(["a"]));
    world.runs.ended(1).await;
    world.produce(0, order(["b"]));
    world.settled().await;
    let runs = world.runs.all();
    let waited = runs[1].started - runs[0].ended.unwrap();
    assert!(10 * SECOND <= waited, "until the first is delivered, and not {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_settings_say_counts_whatever_the_section_executor_says_later() {
    let mut world = World::of(PerWord)
        .in_memory()
        .settings(|settings| settings.max_retries = 0)
        .executor(|executor| executor.max_retries = 2)
        .processes(|_| Scripted::exits(7))
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    assert_eq!(world.runs.len(), 1);
}
