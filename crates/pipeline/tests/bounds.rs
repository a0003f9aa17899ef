//! What a partition holds, and what all of them hold together.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, shell};
use drakkar_core::{
    Collect, Delivery, Handler, HookResult, KafkaPayload, Message, MessageGroup, Pending,
    SinkError, Task, TaskResult, backpressure::Limits,
};
use drakkar_executor::ExecutorConfig;
use drakkar_testing::{Script, Scripted, World, message};
use tokio::time::sleep;

const PARTITIONS: i32 = 200;
const MESSAGES: i64 = 10;
const SIZE: usize = 1_000;

#[tokio::test]
async fn two_hundred_partitions_hold_no_more_results_together_than_a_few_and_all_go_on() {
    let down = |_: &KafkaPayload| Delivery::Transient(SinkError::new("Down", "down"));
    let results = Script::answering(down);
    let mut world = World::of(Echo::default())
        // Half a result for each of them: one is let through.
        .settings(|s| s.max_result_bytes_total = SIZE * 100)
        .results(&results)
        .start();
    for partition in 1..PARTITIONS {
        world.assign(partition, None);
    }
    // All are assigned before anything is held.
    while world.status.view().assigned < 200 {
        tokio::task::yield_now().await;
    }
    for partition in 0..PARTITIONS {
        for _ in 0..MESSAGES {
            world.produce(partition, vec![b'x'; SIZE]);
        }
    }
    while world.metrics.tasks_precomputed.get() < 200 {
        tokio::task::yield_now().await;
    }
    // Whatever could still begin has begun by then: every task of the runtime had many turns.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.metrics.tasks_precomputed.get(), 200, "one of each partition");
    results.answer(|_| Delivery::Confirmed);
    for partition in 0..PARTITIONS {
        world.committed(partition, MESSAGES).await;
    }
}

#[tokio::test]
async fn while_a_sink_is_down_no_task_runs_for_whose_file_there_is_no_room() {
    const MESSAGES: i64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let results =
        Script::answering(|_: &KafkaPayload| Delivery::Transient(SinkError::new("Down", "down")));
    let handler = Echo::default()
        .arrange(|window| {
            let spooling = |message| shell(message, "printf %0100d 0").spool_stdout();
            Ok(window.iter().map(spooling).collect())
        })
        .complete(|_| Ok(Collect::new().kafka(KafkaPayload::raw("done"))));
    let mut world = World::of(handler)
        // Room for 50 files; results may hold 25, and what runs when they do comes on top.
        .executor(|executor| {
            executor.spool.dir = Some(dir.path().to_owned());
            (executor.spool.max_task_bytes, executor.spool.max_bytes) = (100, 5_000);
        })
        .settings(|s| s.max_in_flight = 100)
        .results(&results)
        .start();
    for _ in 0..MESSAGES {
        world.produce(0, "x");
    }
    let mut own = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let own = own.find(|path| path.is_dir()).unwrap();
    // Beside its lock.
    let files = || std::fs::read_dir(&own).unwrap().count() - 1;
    while files() < 25 {
        tokio::task::yield_now().await;
    }
    // A run that fails is tried again and dead-lettered sooner than this.
    let too_many = async {
        while world.dead_letters.is_empty() && files() < 45 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let too_many = tokio::time::timeout(Duration::from_millis(500), too_many).await;
    assert!(too_many.is_err(), "{} files, {} dead", files(), world.dead_letters.all().len());
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, MESSAGES).await;
    assert!(world.dead_letters.is_empty());
}

/// Its hooks take a second, and it counts how many of them there are at a time.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl Counting {
    async fn attend(&self) -> HookResult<Collect> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        sleep(Duration::from_secs(1)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Collect::new())
    }
}

impl Handler for Counting {
    type Input = Bytes;
    const AGGREGATES_MESSAGES: bool = true;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        // Half of the messages have nothing but the hook for the message as a whole.
        let tasks = window.iter().filter(|message| message.offset.0 % 2 == 0);
        Ok(tasks.map(|message| Task::for_message(message).program("runs")).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        self.attend().await
    }

    async fn on_message_complete(&self, _: &MessageGroup<Bytes>) -> HookResult<Collect> {
        self.attend().await
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_hooks_of_a_partition_are_asked_at_a_time_than_it_may_ask() {
    let handler = Counting::default();
    let most = Arc::clone(&handler.most);
    let mut world = World::of(handler)
        .in_memory()
        .executor(|executor| {
            executor.max_hooks = number(3);
            executor.max_executors = Some(number(10));
        })
        .processes(|_| Scripted::prints("x").takes(Duration::from_secs(1)))
        .start();
    for _ in 0..40 {
        world.produce(0, "x");
    }
    world.committed(0, 40).await;
    assert_eq!(most.load(Ordering::SeqCst), 3, "as many as it may, and not one more");
}

/// How many messages were arranged, when none of their tasks ever ends.
async fn arranged_at_once(config: impl FnOnce(&mut ExecutorConfig)) -> usize {
    let arranged = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arranged);
    let handler = Echo::default().arrange(move |window| {
        count.fetch_add(window.len(), Ordering::SeqCst);
        Ok(window.iter().map(|message| Task::for_message(message).program("hangs")).collect())
    });
    let mut world =
        World::of(handler).in_memory().executor(config).processes(|_| Scripted::hangs()).start();
    for _ in 0..100 {
        world.produce(0, "x");
    }
    world.not_committed(0, 0, Duration::from_secs(30)).await;
    arranged.load(Ordering::SeqCst)
}

const fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_are_open_than_the_windows_of_a_partition_hold() {
    let arranged = arranged_at_once(|executor| {
        (executor.window_size, executor.max_windows) = (number(10), number(2));
    });
    assert_eq!(arranged.await, 20);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_arranged_while_as_many_tasks_wait_as_the_pool_may_be_given() {
    let arranged = arranged_at_once(|executor| {
        executor.max_executors = Some(number(1));
        executor.backpressure_high_multiplier = number(3);
        (executor.window_size, executor.max_windows) = (number(1), number(50));
    });
    assert_eq!(arranged.await, 3);
}

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn a_handler_that_makes_much_of_little_holds_no_more_of_it_than_of_messages() {
    const MESSAGES: i64 = 100;
    let (now, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (made, at_each_window) = (Arc::clone(&now), Arc::clone(&held));
    let handler = Echo::default()
        .arrange(move |window| {
            let before = made.fetch_add(window.len(), Ordering::SeqCst);
            at_each_window.lock().unwrap().push(before + window.len());
            let task = |message| Task::for_message(message).program("reads it").stdin(vec![0; MIB]);
            Ok(window.iter().map(task).collect())
        })
        .complete(move |_| {
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Collect::new())
        });
    let mut world = World::of(handler)
        .in_memory()
        .executor(|executor| {
            (executor.window_size, executor.max_windows) = (number(10), number(5));
        })
        .limits(Limits::new(1_000, 4 * MIB))
        .processes(|_| Scripted::prints("x").takes(Duration::from_secs(1)))
        .start();
    for _ in 0..MESSAGES {
        world.produce(0, "x");
    }
    world.committed(0, MESSAGES).await;
    let held = held.lock().unwrap();
    assert_eq!(held[0], 10, "the first window shows how much it is");
    assert!(held[1..].iter().all(|mebibytes| *mebibytes <= 4), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_larger_than_all_that_may_be_held_is_run_alone() {
    let handler = Echo::default().arrange(|window| {
        let task = |message| Task::for_message(message).program("reads it").stdin(vec![0; MIB]);
        Ok(window.iter().map(task).collect())
    });
    let mut world = World::of(handler)
        .in_memory()
        .limits(Limits::new(1_000, 10))
        .processes(|_| Scripted::prints("x"))
        .start();
    for _ in 0..30 {
        world.produce(0, "x");
    }
    world.committed(0, 30).await;
}

#[tokio::test]
async fn a_task_that_led_to_more_than_its_sink_has_room_for_ends_when_all_of_it_is_confirmed() {
    const PAYLOADS: usize = 20_000;
    let results = Script::answering(|payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"19999") => Delivery::Transient(SinkError::new("Down", "down")),
        _ => Delivery::Confirmed,
    });
    let handler = Echo::default().complete(|_| {
        let payloads = (0..PAYLOADS).map(|number| KafkaPayload::raw(number.to_string()));
        Ok(payloads.fold(Collect::new(), Collect::kafka))
    });
    let mut world = World::of(handler).results(&results).start();
    world.produce(0, "x");
    results.recorded().until(PAYLOADS - 1).await;
    assert_eq!(world.committed_offset(0), 0, "the last of them, which had to wait, is held");
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 1).await;
    assert_eq!(results.recorded().len(), PAYLOADS, "each once");
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_tasks_are_shown_until_these_have_ended() {
    let handler = Echo::default().arrange(|window| {
        let task = |message: &Message<Bytes>| {
            Task::for_message(message).program("slow").stdin(message.input.clone())
        };
        Ok(window.iter().map(task).collect())
    });
    let mut world = World::of(handler)
        .in_memory()
        .processes(|_| Scripted::prints("x").takes(Duration::from_mins(1)))
        .executor(|executor| executor.max_executors = NonZeroUsize::new(3))
        .start();
    for size in [1_000, 2_000, 4_000] {
        world.produce(0, vec![b'x'; size]);
    }
    world.runs.started(3).await;
    let metrics = world.metrics.partition(&message(0, 0, "").partition);
    let bytes: usize = world.runs.all().iter().map(|run| run.task.size()).sum();
    assert!((7_000..20_000).contains(&bytes), "{bytes}");
    assert_eq!(metrics.task_bytes.get(), i64::try_from(bytes).unwrap());
    world.committed(0, 3).await;
    assert_eq!(metrics.task_bytes.get(), 0);
}
