//! What a program printed and what a message holds is in the letter, and in no log; what a hook says of
//! its failure is in both.

use drakkar_core::{
    Collect, Handler, HookResult, Json, Message, OnInvalid, Pending, Precomputed, Stage, Task,
    TaskResult,
};
use drakkar_pipeline::PipelineError;
use drakkar_telemetry::{Hook, Metrics};
use drakkar_testing::World;

use crate::witness::*;

/// Runs a program that prints a secret and fails, for every number.
struct Tells;

impl Handler for Tells {
    type Input = Json<u64>;

    async fn arrange(&self, window: &[Message<Json<u64>>], _: &Pending) -> HookResult<Vec<Task>> {
        let script = "echo hunter2 >&2; exit 3";
        let task = |message| Task::for_message(message).program("/bin/sh").arg("-c").arg(script);
        Ok(window.iter().map(task).collect())
    }
}

#[tokio::test]
async fn a_letter_quotes_what_was_printed_or_read_and_the_log_says_only_what_went_wrong() {
    let (log, _logging) = log();
    let mut world = World::of(Tells).settings(|settings| settings.max_retries = 0).start();
    world.produce(0, "1");
    world.produce(0, r#""hunter2""#);
    world.committed(0, 2).await;
    for letter in world.dead_letters.all() {
        assert!(letter.cause.message.contains("hunter2"), "{letter:?}");
        let stage = format!("stage=\"{}\"", letter.cause.stage.as_str());
        let line = log.line(&stage);
        for part in [&letter.message.coordinates().clone(), &letter.cause.class] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        if letter.cause.stage == Stage::Execute {
            assert!(line.contains("exit code 3"), "{line}");
        }
    }
    assert!(!log.all().contains("hunter2"), "{}", log.all());
}

#[tokio::test]
async fn neither_does_the_error_that_a_worker_stops_with() {
    let (log, _logging) = log();
    let mut world = World::of(Tells).settings(|s| s.on_invalid = OnInvalid::Fail).start();
    world.produce(0, r#""hunter2""#);
    match world.ended().await {
        Err(PipelineError::Invalid(text)) => {
            assert!(text.contains("orders:0:0") && !text.contains("hunter2"), "{text}");
        }
        other => panic!("expected an invalid message, got {other:?}"),
    }
    assert!(!log.all().contains("hunter2"), "{}", log.all());
}

/// Quotes what it was given as it fails: below 10 by an error, else by a panic.
struct Quotes;

impl Handler for Quotes {
    type Input = Json<u64>;

    async fn arrange(&self, window: &[Message<Json<u64>>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message: &Message<Json<u64>>| {
            let stdout = format!("hunter{}", *message.input).into();
            Task::for_message(message).precomputed(Precomputed { stdout, ..Precomputed::default() })
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let text = String::from_utf8_lossy(&done.output.stdout).into_owned();
        assert!(text.len() < 8, "{text} is too long");
        Err(format!("{text} is no hit").into())
    }
}

#[tokio::test]
async fn what_a_hook_says_of_its_failure_is_logged_once_and_is_in_the_letter() {
    let (log, _logging) = log();
    let mut world = World::of(Quotes).start();
    world.produce(0, "7");
    world.produce(0, "10");
    world.committed(0, 2).await;
    for letter in world.dead_letters.all() {
        let said = match letter.message.offset.0 {
            0 => "hunter7 is no hit",
            _ => "panicked: hunter10 is too long",
        };
        assert_eq!(letter.cause.message, said);
        assert!(log.line(said).contains("hook failed"), "{}", log.all());
        assert_eq!(log.all().matches(said).count(), 1, "{}", log.all());
        let coordinates = format!("coordinates={}", letter.message.coordinates());
        assert!(log.line(&coordinates).contains(&letter.cause.class), "{}", log.all());
    }
}

#[tokio::test]
async fn a_hook_that_fails_all_the_time_keeps_no_other_out_of_the_log() {
    let (log, _logging) = log();
    let metrics = Metrics::new().unwrap();
    for number in 0..30 {
        let said = format!("failure {number}");
        metrics.hook_failed(Hook::OnTaskComplete, None, "hook_error", &said);
    }
    metrics.hook_failed(Hook::OnError, None, "hook_error", "once");
    assert_eq!(log.all().matches("failure ").count(), 20, "{}", log.all());
    assert!(log.line("once").contains("on_error"), "{}", log.all());
}
