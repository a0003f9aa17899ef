//! What hooks leave behind, and what panics only then: the text of an error, the end of a value.

use std::{error::Error, fmt, future::pending, num::NonZero, time::Duration};

use bytes::Bytes;
use drakkar_core::{
    Collect, Handler, HookResult, Input, Message, Offset, Pending, Precomputed, SourceMessage,
    Task, TaskResult,
};
use drakkar_testing::{Scripted, World};

/// Panics when it is shown.
#[derive(Debug)]
struct Unspeakable;

impl Error for Unspeakable {}

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("as told")
    }
}

/// Panics when it is dropped.
struct Clinging;

impl Drop for Clinging {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "as told");
    }
}

/// What goes wrong for message 0.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Decode,
    Arrange,
    ArrangeHangs,
    Complete,
    CompleteHangs,
    /// The same, and `arrange` for message 1.
    BothHang,
    InputDropped,
    /// The same, while `arrange` waits.
    HangsOverInput,
}

struct Faulty(At);

/// The value of a message, and what panics when it is dropped.
struct Value {
    bytes: Bytes,
    _clings: Option<Clinging>,
}

impl Input for Value {
    fn decode(message: &SourceMessage) -> HookResult<Self> {
        let bytes = message.value.clone().unwrap_or_default();
        Ok(Self { bytes, _clings: None })
    }
}

async fn hangs() {
    let _clinging = Clinging;
    pending::<()>().await;
}

impl Handler for Faulty {
    type Input = Value;

    fn decode(&self, message: &SourceMessage) -> HookResult<Value> {
        match (self.0, message.offset) {
            (At::Decode, Offset(0)) => Err(Unspeakable.into()),
            (at, offset) => {
                let clings =
                    [At::InputDropped, At::HangsOverInput].contains(&at) && offset == Offset(0);
                Ok(Value { _clings: clings.then(|| Clinging), ..Value::decode(message)? })
            }
        }
    }

    async fn arrange(&self, window: &[Message<Value>], _: &Pending) -> HookResult<Vec<Task>> {
        match (self.0, window[0].offset) {
            (At::Arrange, Offset(0)) => return Err(Unspeakable.into()),
            (At::ArrangeHangs, Offset(0)) | (At::BothHang, Offset(1)) => hangs().await,
            (At::HangsOverInput, _) => pending().await,
            _ => {}
        }
        let task = |message: &Message<Value>| {
            let stdout = message.input.bytes.clone();
            Task::for_message(message).precomputed(Precomputed { stdout, ..Precomputed::default() })
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        if &done.output.stdout[..] == b"0" {
            match self.0 {
                At::Complete => return Err(Unspeakable.into()),
                At::CompleteHangs | At::BothHang => hangs().await,
                _ => {}
            }
        }
        Ok(Collect::new())
    }
}

/// Message 0 meets `at`, message 1 nothing. Returns the dead letters, as class and reason.
async fn dead_letters(at: At) -> Vec<(String, String)> {
    let mut world = World::of(Faulty(at)).in_memory().start();
    world.produce(0, "0");
    world.produce(0, "1");
    world.committed(0, 2).await;
    let letters = world.dead_letters.all();
    assert!(letters.iter().all(|letter| letter.message.offset == Offset(0)));
    world.stop().await.unwrap();
    letters.into_iter().map(|letter| (letter.cause.class.clone(), letter.cause.message)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_text_panics_costs_its_message_and_no_other() {
    for (at, class) in
        [(At::Complete, "hook_error"), (At::Decode, "invalid_value"), (At::Arrange, "hook_error")]
    {
        let text = "an error whose text panicked: as told";
        assert_eq!(dead_letters(at).await, [(class.to_owned(), text.to_owned())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_when_its_time_is_up_costs_its_message_and_no_other() {
    for at in [At::CompleteHangs, At::ArrangeHangs] {
        let letters = dead_letters(at).await;
        let classes: Vec<&str> = letters.iter().map(|(class, _)| class.as_str()).collect();
        assert_eq!(classes, ["hook_timeout"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_when_it_is_given_up_for_a_hand_over_costs_nothing() {
    let mut world = World::of(Faulty(At::BothHang))
        .in_memory()
        .settings(|settings| {
            settings.window_size = 1;
            settings.hook_timeout = Duration::from_hours(24);
        })
        .start();
    world.produce(0, "0");
    world.produce(0, "1");
    tokio::time::sleep(Duration::from_secs(1)).await; // Paused: all that can has begun.
    assert_eq!((world.metrics.tasks_precomputed.get(), world.held(0)), (1, 2));
    world.revoke(0, Duration::from_secs(5)).await;
    world.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_input_that_panics_when_it_is_dropped_costs_nothing() {
    assert_eq!(dead_letters(At::InputDropped).await, []);
}

#[tokio::test(start_paused = true)]
async fn inputs_that_panic_when_they_are_dropped_cost_a_hand_over_nothing() {
    let mut world = World::of(Faulty(At::HangsOverInput)).in_memory().start();
    world.produce(0, "0");
    tokio::time::sleep(Duration::from_secs(1)).await; // Paused: it is being arranged.
    let over = world.revoke(0, Duration::from_secs(5)).await;
    assert_eq!(over.position.map(|position| position.next), Some(Offset(0)));
    world.give_back(0);
    world.stop().await.unwrap();
}

/// Aggregates values that panic when they are dropped.
struct Gathers;

impl Handler for Gathers {
    type Input = Value;
    const AGGREGATES_MESSAGES: bool = true;
    const AGGREGATES_WINDOWS: bool = true;

    fn decode(&self, message: &SourceMessage) -> HookResult<Value> {
        Ok(Value { _clings: Some(Clinging), ..Value::decode(message)? })
    }

    async fn arrange(&self, window: &[Message<Value>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(window.iter().map(Task::for_message).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn groups_of_inputs_that_panic_when_they_are_dropped_cost_a_hand_over_nothing() {
    let mut world = World::of(Gathers)
        .in_memory()
        .processes(|_| Scripted::hangs())
        .executor(|executor| executor.max_executors = NonZero::new(1))
        .settings(|settings| settings.window_size = 2)
        .start();
    for value in ["0", "1", "2", "3"] {
        world.produce(0, value);
    }
    world.runs.started(1).await; // The first window is cut off, the second never began.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.held(0), 4);
    let over = world.revoke(0, Duration::from_secs(5)).await;
    assert_eq!(over.position.map(|position| position.next), Some(Offset(0)));
    world.give_back(0);
    world.stop().await.unwrap();
}
