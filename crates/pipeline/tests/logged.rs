//! What is logged of messages that come to nothing: which they are, and what a hook says of it; not what they
//! hold or what a program printed, which is in the letter.
//!
//! Every test begins with `Log::listen`. A listener of one thread would not do: where another thread is the
//! first to come to a place that logs, and has no listener, that place is silent for the whole process.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

#[path = "hooks/witness.rs"]
mod witness;

use std::{
    cell::RefCell,
    io::{self, Write},
    rc::Rc,
    sync::{Arc, Once},
};

use drakkar_core::{
    Collect, Handler, HookResult, Json, Message, OnDeliveryError, OnInvalid, Pending, Precomputed,
    SourceMessage, Stage, Task, TaskResult,
};
use drakkar_pipeline::PipelineError;
use drakkar_telemetry::{Hook, Metrics};
use drakkar_testing::World;
use witness::*;

/// What is logged on one thread, which is that of a test. Who listens is one for the whole process.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<u8>>>);

thread_local! {
    static LOG: Log = Log::default();
}

impl Log {
    fn listen() -> Self {
        static LISTENING: Once = Once::new();
        let writer = || LOG.with(Self::clone);
        LISTENING
            .call_once(|| tracing_subscriber::fmt().with_writer(writer).with_ansi(false).init());
        LOG.with(Self::clone)
    }

    fn all(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }

    /// The line that holds `text`.
    fn line(&self, text: &str) -> String {
        let all = self.all();
        let line = all.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no {text:?} in {all}")).to_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
    let log = Log::listen();
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
    let log = Log::listen();
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
    let log = Log::listen();
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

fn name(message: &SourceMessage) -> Option<String> {
    message.value.as_ref().map(|value| format!("order {}", String::from_utf8_lossy(value)))
}

#[tokio::test]
async fn what_is_given_up_is_logged_under_the_name_that_people_know() {
    let log = Log::listen();
    let witness = Witness { label: name, ..Witness::refusing(|_| Ok(OnDeliveryError::Skip)) };
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.produce(0, "invalid");
    world.committed(0, 2).await;
    for (event, label) in [
        ("refused payload skipped", "label=\"order a\""),
        ("message dead-lettered", "label=\"order invalid\""),
    ] {
        let line = log.line(event);
        assert!(line.contains(label) && line.contains("coordinates=orders:0:"), "{line}");
    }
    let (witness, _) = Witness::new();
    let mut world = World::of(Witness { label: name, ..witness })
        .settings(|settings| settings.on_invalid = OnInvalid::Skip)
        .start();
    world.produce(0, "invalid");
    world.committed(0, 1).await;
    let line = log.line("message skipped");
    assert!(line.contains("label=\"order invalid\""), "{line}");
}

#[tokio::test]
async fn a_label_that_panics_costs_no_message() {
    let log = Log::listen();
    let (witness, _) = Witness::new();
    let mut world = World::of(Witness { label: |_| panic!("as told"), ..witness }).start();
    world.produce(0, "invalid");
    world.committed(0, 1).await;
    assert_eq!(world.dead_letters.len(), 1);
    assert_eq!(errors(&world, Hook::MessageLabel), 1);
    assert!(!log.line("message dead-lettered").contains("label="));
}

#[tokio::test]
async fn every_hook_that_was_called_is_timed() {
    Log::listen(); // Nobody asks for a label that nobody reads.
    let (witness, _) = Witness::new();
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let metrics = Arc::clone(&world.metrics);
    world.stop().await.unwrap();
    let timed: Vec<&str> = Hook::ALL
        .into_iter()
        .filter(|hook| metrics.hook(*hook).duration.get_sample_count() == 1)
        .map(Hook::as_str)
        .collect();
    let called = [
        "on_ready",
        "on_assign",
        "decode",
        "arrange",
        "priority",
        "message_label",
        "on_task_complete",
        "on_delivery_error",
        "on_revoke",
    ];
    assert_eq!(timed, called);
}

#[tokio::test]
async fn a_hook_that_fails_all_the_time_keeps_no_other_out_of_the_log() {
    let log = Log::listen();
    let metrics = Metrics::new().unwrap();
    for number in 0..30 {
        let said = format!("failure {number}");
        metrics.hook_failed(Hook::OnTaskComplete, None, "hook_error", &said);
    }
    metrics.hook_failed(Hook::OnError, None, "hook_error", "once");
    assert_eq!(log.all().matches("failure ").count(), 20, "{}", log.all());
    assert!(log.line("once").contains("on_error"), "{}", log.all());
}
