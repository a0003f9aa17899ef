//! A hook that blocks its thread, beside hooks that only wait.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{
    Collect, Handler, HookResult, KafkaPayload, Message, Pending, Precomputed, Task, TaskResult,
};
use drakkar_testing::World;
use tokio::time::{sleep, timeout};

/// As many as begin together.
const WINDOW: usize = 32;

/// How long a hook may take.
const LIMIT: Duration = Duration::from_secs(30);

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
        for _ in 0..10_000 {
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

/// Wakes the loop of its partition and blocks the very thread that is to go on with it.
struct Strands {
    world: Arc<Mutex<Option<World>>>,
    /// Until it has.
    blocked: Mutex<Option<mpsc::Receiver<()>>>,
    has_begun: Arc<AtomicBool>,
}

impl Handler for Strands {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        let blocked = self.blocked.lock().unwrap().take();
        if let Some(blocked) = blocked {
            self.world.lock().unwrap().as_mut().unwrap().produce(0, "wakes it");
            self.has_begun.store(true, Ordering::SeqCst);
            assert!(blocked.recv_timeout(Duration::from_mins(4)).is_err());
        }
        Ok(Collect::new())
    }
}

/// Has a hook block and then asks for a stop, until the worker says what it left behind.
async fn stopped(world: &Mutex<Option<World>>, has_begun: &AtomicBool, asks: fn(&World)) {
    let metrics = {
        let mut world = world.lock().unwrap();
        let world = world.as_mut().unwrap();
        world.produce(0, "first");
        Arc::clone(&world.metrics)
    };
    while !has_begun.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(10)).await;
    }
    asks(world.lock().unwrap().as_ref().unwrap());
    // One, where another thread went on with the partition after all.
    let left = |line: &str| {
        let count = line.strip_prefix("drakkar_uncommitted_offsets_at_stop ");
        count.is_some_and(|count| count != "0")
    };
    while !metrics.render().unwrap().lines().any(left) {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_although_a_hook_keeps_the_thread_that_its_partition_is_next_on() {
    keep_timers_going();
    let asked: [fn(&World); 2] = [
        World::begin_stop, // And its deadline comes.
        |world| {
            world.begin_stop();
            world.stop_now();
        },
    ];
    for asks in asked {
        let (release, blocked) = mpsc::channel();
        let place = Arc::new(Mutex::new(None));
        let has_begun = Arc::<AtomicBool>::default();
        let handler = Strands {
            world: Arc::clone(&place),
            blocked: Mutex::new(Some(blocked)),
            has_begun: Arc::clone(&has_begun),
        };
        let world = World::of(handler)
            .in_memory()
            .executor(|executor| executor.drain_timeout_seconds = Duration::from_secs(2))
            .start();
        *place.lock().unwrap() = Some(world);
        let stopped = timeout(Duration::from_mins(1), stopped(&place, &has_begun, asks)).await;
        drop(release);
        stopped.expect("it stops while the hook blocks");
        let world = place.lock().unwrap().take();
        world.unwrap().ended().await.unwrap();
    }
}
