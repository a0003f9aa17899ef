//! The sinks of a worker as users run it.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod world;

use std::sync::{
    Arc, Mutex,
    mpsc::{self, Sender},
};

use drakkar::{
    Bytes, Collect, CustomPayload, Delivery, Handler, HookResult, Message, Pending, Precomputed,
    Sink, Task, TaskResult, Worker,
};
use tokio::sync::Notify;
use world::{SOON, World};

/// Sends every message on.
struct SendsOn;

impl Handler for SendsOn {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        Ok(Collect::new().custom(CustomPayload::new("slow", (), 1)))
    }
}

/// Says what it is at, and confirms when it is told to.
struct Slow {
    at: Mutex<Sender<&'static str>>,
    go: Arc<Notify>,
}

impl Sink for Slow {
    type Payload = ();

    async fn deliver(&self, batch: &[()]) -> Vec<Delivery> {
        self.at.lock().unwrap().send("asked").unwrap();
        self.go.notified().await;
        self.at.lock().unwrap().send("confirms").unwrap();
        vec![Delivery::Confirmed; batch.len()]
    }
}

#[test]
fn sinks_are_written_while_hooks_block_every_thread() {
    let world = World::new();
    let (at, looked) = mpsc::channel();
    let go = Arc::new(Notify::new());
    let slow = Slow { at: Mutex::new(at), go: Arc::clone(&go) };
    let worker = Worker::new(SendsOn).sink("slow", slow).config(world.config()).unwrap();
    let (_stop, _) = world.run(worker);
    world.produce(0);
    assert_eq!(looked.recv_timeout(SOON), Ok("asked"));
    let release = world.block();
    go.notify_one();
    assert_eq!(looked.recv_timeout(SOON), Ok("confirms"));
    drop(release);
    world.until_committed(0, 1);
}
