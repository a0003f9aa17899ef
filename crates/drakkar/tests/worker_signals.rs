//! What a second signal does not wait for. The signals are this process's own.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod world;

use std::{
    process::Command,
    sync::{Mutex, mpsc::Sender},
    thread,
    time::Duration,
};

use drakkar::{
    Bytes, Collect, CustomPayload, Delivery, Handler, HookResult, Message, Pending, Precomputed,
    Sink, Task, TaskResult, Worker,
};
use rdkafka::Offset;
use tokio::time::Instant;
use world::{LOG, SOON, World};

/// Sends every message to `audit`.
struct Audited;

impl Handler for Audited {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let offset = done.task.source_offsets()[0].0;
        Ok(Collect::new().custom(CustomPayload::new("audit", offset, 8)))
    }
}

/// Confirms offset 0 and answers nothing else. Tells what it was given.
struct Silent(Mutex<Sender<i64>>);

impl Sink for Silent {
    type Payload = i64;

    async fn deliver(&self, batch: &[i64]) -> Vec<Delivery> {
        for offset in batch {
            self.0.lock().unwrap().send(*offset).unwrap();
        }
        if batch != [0] {
            std::future::pending::<()>().await;
        }
        vec![Delivery::Confirmed; batch.len()]
    }
}

/// Waits until the worker has said `what` so many times.
fn said(world: &World, what: &str, times: usize) {
    let deadline = Instant::now() + SOON;
    while LOG.text()[world.before..].matches(what).count() < times {
        assert!(Instant::now() < deadline, "not said: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends SIGTERM until the worker has been asked to stop so many times.
fn terminate(world: &World, times: usize) {
    let asked = || LOG.text()[world.before..].matches("asked to stop").count();
    let deadline = Instant::now() + SOON;
    while asked() < times {
        assert!(Instant::now() < deadline, "not asked");
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        thread::sleep(Duration::from_millis(100)); // A signal that nobody listens to is lost.
    }
}

#[test]
fn a_second_signal_waits_for_no_sink_and_commits_what_is_settled() {
    let world = World::new();
    let mut config = world.config();
    // Only the last commit is made.
    config.kafka.commit_interval = Duration::from_hours(1);
    config.executor.drain_timeout_seconds = Duration::from_hours(1);
    let (tell, given) = std::sync::mpsc::channel();
    let worker = Worker::new(Audited).config(config).unwrap();
    let ended = world.run_to_signals(worker.sink("audit", Silent(Mutex::new(tell))));
    for offset in 0..2 {
        world.produce(0);
        assert_eq!(given.recv_timeout(SOON), Ok(offset));
    }
    terminate(&world, 1);
    terminate(&world, 2);
    let outcome = ended.recv_timeout(SOON).unwrap();
    assert_eq!(outcome.unwrap_err().exit_code(), 130);
    world.until_committed(0, 1);
}

#[test]
fn a_second_signal_waits_for_the_last_commit_and_the_end_of_the_membership() {
    let world = World::new();
    let mut config = world.config();
    config.kafka.commit_interval = Duration::from_hours(1);
    config.executor.drain_timeout_seconds = SOON;
    let (tell, given) = std::sync::mpsc::channel();
    let worker = Worker::new(Audited).config(config).unwrap();
    let ended = world.run_to_signals(worker.sink("audit", Silent(Mutex::new(tell))));
    world.produce(0);
    assert_eq!(given.recv_timeout(SOON), Ok(0));
    // Made again after 0.1, 0.2, 0.4, 0.8 s: the second signal comes meanwhile.
    world.refuse_commits(4);
    terminate(&world, 1);
    said(&world, "reading stopped", 2); // By the drain, and by the end of the poll thread.
    terminate(&world, 2);
    let outcome = ended.recv_timeout(SOON).unwrap();
    assert_eq!(outcome.unwrap_err().exit_code(), 130);
    assert_eq!(world.committed(0), Offset::Offset(1));
    let log = LOG.text();
    let left = log[world.before..].find("leaving the group").unwrap();
    assert!(left < log[world.before..].find("worker: stopped").unwrap(), "{log}");
}
