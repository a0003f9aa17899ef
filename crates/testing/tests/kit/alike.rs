//! What a worker has by default, a world has too: what passes here passes there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar::{
    Bytes, Collect, Handler, HookResult, KafkaPayload, Message, OnError, Pending, Precomputed,
    Ready, Task, TaskFailure, TaskResult,
};
use drakkar_testing::{Record, Script, Scripted, SinkKind, World};

use crate::handler::PerWord;

/// Runs one task per message; what fails is replaced by what comes after it.
struct Chain;

impl Handler for Chain {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(window.iter().map(|m| Task::for_message(m).program("try").arg("0")).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        Ok(Collect::new().kafka(KafkaPayload::raw(done.stdout_text().into_owned())))
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        let number: u32 = failed.task.args()[0].to_string_lossy().parse()?;
        Ok(OnError::Replace(vec![Task::new().program("try").arg((number + 1).to_string())]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_replacements_is_as_long_as_that_of_a_worker() {
    let mut world = World::of(Chain)
        .in_memory()
        .processes(|call| match &*call.args_text() {
            "5" => Scripted::prints("five"),
            _ => Scripted::exits(1),
        })
        .start();
    world.produce(0, "a");
    world.settled().await;
    assert_eq!(world.results.texts(), ["five"]);
}

#[tokio::test(start_paused = true)]
async fn as_many_dead_letters_in_a_row_hold_a_partition_as_that_of_a_worker() {
    let mut world = World::of(PerWord).in_memory().start();
    for _ in 0..101 {
        world.produce(0, "not JSON");
    }
    world.not_committed(0, 100, Duration::from_secs(20)).await;
    assert_eq!(world.dead_letters.len(), 100);
    world.settled().await; // one more is tried after dlq.probe_interval
}

/// Thinks for long.
struct Slow;

fn precomputed<T>(window: &[Message<T>]) -> Vec<Task> {
    let task = |message| Task::for_message(message).precomputed(Precomputed::default());
    window.iter().map(task).collect()
}

impl Handler for Slow {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(precomputed(window))
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_may_take_as_long_as_with_a_worker() {
    let mut world = World::of(Slow).in_memory().start();
    world.produce(0, "a");
    world.settled().await;
    world.assert_no_dead_letters();
}

/// Needs to know how old a message is; gives up what is older than a day.
struct Old;

impl Handler for Old {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        for message in window {
            let millis = message.timestamp.ok_or("no timestamp")?.millis();
            let made = std::time::UNIX_EPOCH + Duration::from_millis(millis.try_into()?);
            if Duration::from_hours(24) < made.elapsed()? {
                return Err("too old".into());
            }
        }
        Ok(precomputed(window))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_has_the_time_of_its_making_as_at_a_broker() {
    let mut world = World::of(Old).start();
    world.produce(0, "a");
    world.settled().await;
    world.assert_no_dead_letters();
    world.produce(0, Record::from("a").created_at(1_700_000_000_000));
    world.settled().await;
    assert_eq!(&*world.dead_letters.only().cause.message, "too old");
}

/// Looks things up by the connection of a sink, and has a model to ask.
#[derive(Clone, Default)]
struct Asking(Arc<Mutex<Vec<String>>>);

impl Handler for Asking {
    type Input = Bytes;

    async fn on_ready(&self, ready: &Ready) -> HookResult<()> {
        let warehouse = ready.sink::<String>("warehouse").ok_or("no such sink")?;
        let model = ready.get::<u32>().ok_or("no model")?;
        let sinks = ready.sinks().iter().filter(|sink| sink.kind == SinkKind::Postgres).count();
        self.0.lock().unwrap().push(format!("{warehouse} {model}, {sinks} of PostgreSQL"));
        Ok(())
    }

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(precomputed(window))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_given_the_connections_that_the_test_offers_also_after_a_crash() {
    let handler = Asking::default();
    let world = World::of(handler.clone())
        .postgres_sink("warehouse", &Script::postgres())
        .offer(SinkKind::Postgres, "warehouse", String::from("a pool"))
        .provide(7_u32)
        .start();
    let mut world = world.crash().await.restart(handler.clone());
    world.produce(0, "a");
    world.settled().await;
    let told = handler.0.lock().unwrap().clone();
    assert_eq!(told.last().unwrap(), "a pool 7, 1 of PostgreSQL");
}
