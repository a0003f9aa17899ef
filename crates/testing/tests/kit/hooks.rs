//! The hooks around the messages: the kit calls them when a worker does.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar::{
    AfterError, Bytes, Collect, CustomPayload, Delivery, Handler, HookResult, Message, Pending,
    Precomputed, Ready, Sink, Task, TaskResult, TopicPartition, prometheus::Registry,
};
use drakkar_testing::{Script, World};

/// Writes down what it is called for.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Handler for Diary {
    type Input = Bytes;

    async fn on_ready(&self, ready: &Ready) -> HookResult<()> {
        ready.get::<Registry>().ok_or("no registry")?;
        let sinks: Vec<String> = ready.sinks().iter().map(ToString::to_string).collect();
        self.note(format!("ready: {}", sinks.join(", ")));
        Ok(())
    }

    async fn on_assign(&self, partition: &TopicPartition) -> HookResult<()> {
        self.note(format!("assign {}", partition.partition));
        Ok(())
    }

    async fn on_revoke(&self, partition: &TopicPartition) -> HookResult<()> {
        self.note(format!("revoke {}", partition.partition));
        Ok(())
    }

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        self.note(format!("arrange {}", window.len()));
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        Ok(Collect::new().custom(CustomPayload::new("audit", String::from("done"), 4)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_hears_of_its_worker_and_of_its_partitions_in_the_order_of_a_worker() {
    let diary = Diary::default();
    let audit = Script::<String>::confirming();
    let mut world = World::of(diary.clone()).sink("audit", audit.clone()).start();
    world.produce(0, "a");
    world.settled().await;
    world.shutdown().await.unwrap();
    let expected = [
        "ready: kafka/results, filesystem/files, postgres/postgres, mongo/mongo, redis/redis, http/http, \
             custom/audit",
        "assign 0",
        "arrange 1",
        "revoke 0",
    ];
    assert_eq!(diary.read(), expected);
    assert_eq!(audit.recorded().all(), ["done"]);
}

/// There is one, and it cannot be cloned.
struct Connection(Arc<Mutex<Vec<String>>>);

impl Sink for Connection {
    type Payload = String;

    async fn deliver(&self, batch: &[String]) -> Vec<Delivery> {
        self.0.lock().unwrap().extend(batch.iter().cloned());
        vec![Delivery::Confirmed; batch.len()]
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_cannot_be_cloned_is_that_of_the_worker_after_a_crash_as_well() {
    let written = Arc::default();
    let sink = Connection(Arc::clone(&written));
    let mut world = World::of(Diary::default()).in_memory().sink("audit", sink).start();
    world.produce(0, "a");
    world.settled().await;
    let mut world = world.crash().await.restart(Diary::default());
    world.produce(0, "b");
    world.settled().await;
    assert_eq!(*written.lock().unwrap(), ["done", "done"]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_and_comes_back_is_told_to_the_handler() {
    let diary = Diary::default();
    let mut world = World::of(diary.clone()).in_memory().partitions(2).start();
    world.rebalance().await;
    world.shutdown().await.unwrap();
    let of_second: Vec<String> =
        diary.read().into_iter().filter(|line| line.ends_with(" 1")).collect();
    assert_eq!(of_second, ["assign 1", "revoke 1", "assign 1", "revoke 1"]);
}

#[tokio::test(start_paused = true)]
async fn work_by_the_clock_is_done_in_virtual_time() {
    let diary = Diary::default();
    let world = World::of(diary.clone())
        .in_memory()
        .periodic("tick", Duration::from_hours(1), AfterError::Continue, |diary| {
            Box::pin(async move {
                diary.note("tick");
                Ok(())
            })
        })
        .start();
    tokio::time::sleep(Duration::from_hours(3) + Duration::from_mins(1)).await;
    assert_eq!(diary.read().iter().filter(|line| *line == "tick").count(), 3);
    drop(world);
}

/// Cannot work.
struct Unready;

impl Handler for Unready {
    type Input = Bytes;

    async fn on_ready(&self, _: &Ready) -> HookResult<()> {
        Err("the model is missing".into())
    }

    async fn arrange(&self, _: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn where_on_ready_fails_the_first_wait_says_so() {
    let mut world = World::of(Unready).in_memory().start();
    world.produce(0, "a");
    let words = crate::failing::words_of(world.settled()).await;
    assert!(words.contains("on_ready failed") && words.contains("the model is missing"), "{words}");
}
