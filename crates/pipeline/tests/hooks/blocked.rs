//! A hook that blocks its thread, beside hooks that only wait.

use std::{
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{
    Collect, Handler, HookResult, KafkaPayload, Message, Pending, Precomputed, Task, TaskResult,
};
use drakkar_testing::World;
use tokio::time::sleep;

/// As many as begin together.
const WINDOW: usize = 32;

/// How long a hook may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Asks a service five times for every message, and blocks its thread over `last`.
struct Service {
    blocked: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Handler for Service {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let stdout = |message: &Message<Bytes>| message.source.value.clone().unwrap_or_default();
        let task = |message: &Message<Bytes>| {
            let known = Precomputed { stdout: stdout(message), ..Precomputed::default() };
            Task::for_message(message).precomputed(known)
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        if &done.output.stdout[..] == b"last" {
            let blocked = self.blocked.lock().unwrap().take();
            // Longer than the others may take, unless they end first.
            let told = blocked.map(|blocked| blocked.recv_timeout(5 * LIMIT));
            assert_eq!(told, Some(Err(mpsc::RecvTimeoutError::Disconnected)), "the others wait");
        }
        for _ in 0..5 {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Collect::new().kafka(KafkaPayload::raw(done.output.stdout.clone())))
    }
}

/// As a worker does: timers go on while a thread is blocked.
fn keep_timers_going() {
    let runtime = tokio::runtime::Handle::current();
    thread::spawn(move || {
        for _ in 0..3000 {
            thread::sleep(Duration::from_millis(20));
            drop(runtime.spawn(async {}));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_hook_that_blocks_its_thread_costs_none_of_its_neighbours() {
    keep_timers_going();
    let (release, blocked) = mpsc::channel();
    let mut world = World::of(Service { blocked: Mutex::new(Some(blocked)) })
        .settings(|settings| {
            settings.window_size = WINDOW;
            settings.hook_timeout = LIMIT;
        })
        .start();
    for _ in 1..WINDOW {
        world.produce(0, "neighbour");
    }
    world.produce(0, "last");
    world.committed(0, i64::try_from(WINDOW).unwrap() - 1).await;
    drop(release);
    world.committed(0, i64::try_from(WINDOW).unwrap()).await;
    world.assert_no_dead_letters();
    world.stop().await.unwrap();
}
