//! Who gets the next slot: the best priority, then the oldest of all partitions, and nobody starves.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, record, shell};
use drakkar_core::{
    Collect, Handler, HookResult, Message, Offset, OnError, Pending, SourceMessage, Task,
    TaskFailure, TaskResult,
};
use drakkar_executor::ProgramConfig;
use drakkar_testing::{Scripted, World, message};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Runs a script for every message and writes down who had a slot. The value of a message is its
/// priority and its name: `5 late`.
struct Ranked {
    dir: tempfile::TempDir,
    script: &'static str,
    /// What `on_task_complete` waits for.
    hooks: Arc<Semaphore>,
}

/// Holds its slot until it is let go.
const GATE: &str = "0 gate";

fn priority(value: &[u8]) -> i64 {
    String::from_utf8_lossy(value).split(' ').next().unwrap().parse().unwrap()
}

impl Ranked {
    fn new(script: &'static str) -> (Self, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        (Self { dir, script, hooks: Arc::new(Semaphore::new(1_000)) }, path)
    }
}

impl Handler for Ranked {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let script = format!(
            r#"echo "$V" >> order; if [ "$V" = "{GATE}" ]; then until [ -e go ]; do sleep 0.01; done; fi; {}"#,
            self.script
        );
        let task = |message: &Message<Bytes>| {
            let value = String::from_utf8_lossy(&message.input).into_owned();
            shell(message, &script).working_dir(self.dir.path()).env("V", &value).metadata(value)
        };
        Ok(window.iter().map(task).collect())
    }

    fn priority(&self, task: &Task) -> i64 {
        priority(task.meta().as_str().unwrap_or_default().as_bytes())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        self.hooks.acquire().await?.forget();
        Ok(record(done))
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        Ok(if 0 < failed.retries_left { OnError::Retry } else { OnError::Skip })
    }
}

fn one_slot(handler: Ranked) -> drakkar_testing::WorldBuilder<Ranked> {
    World::of(handler).executor(|executor| executor.max_executors = NonZeroUsize::new(1))
}

fn order(dir: &Path) -> Vec<String> {
    std::fs::read_to_string(dir.join("order")).unwrap().lines().map(str::to_owned).collect()
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_mins(1), waiting).await.unwrap();
}

fn let_go(dir: &Path) {
    std::fs::write(dir.join("go"), "").unwrap();
}

/// Starts the gate and lets these wait behind it, all in one window of partition 0.
async fn wait_behind_the_gate(world: &mut World, dir: &Path, values: &[&'static str]) {
    world.produce(0, GATE);
    until(|| dir.join("order").exists()).await;
    send(world, values).await;
}

/// One window, where nothing else runs until the next `await`.
async fn send(world: &mut World, values: &[&'static str]) {
    let started = world.metrics.partition(&message(0, 0, "").partition).consumed.get();
    for value in values {
        world.produce(0, *value);
    }
    let metrics = Arc::clone(&world.metrics);
    let consumed = metrics.partition(&message(0, 0, "").partition).consumed;
    until(|| consumed.get() == started + values.len() as u64).await;
}

#[tokio::test]
async fn priorities_are_strict_also_among_more_tasks_than_the_pool_takes() {
    let (handler, dir) = Ranked::new("");
    let hooks = Arc::clone(&handler.hooks);
    hooks.forget_permits(1_000);
    let mut world = one_slot(handler)
        .settings(|settings| {
            settings.max_in_pool = 4;
            settings.max_hooks = 1;
        })
        .start();
    wait_behind_the_gate(&mut world, &dir, &["5 a", "5 b"]).await;
    until(|| world.pool.stats().queued == 2).await;
    // Only one of these finds room in the pool.
    send(&mut world, &["9 c", "7 d", "1 e", "6 f", "1 g", "0 h", "5 i"]).await;
    until(|| world.pool.stats().queued == 3).await;
    // The pool holds the three best, although two others came before. It gets nothing new as long as
    // the hook for the gate is under way.
    let_go(&dir);
    until(|| order(&dir).len() == 4).await;
    hooks.add_permits(10);
    world.committed(0, 10).await;
    let ran = order(&dir);
    assert_eq!(ran, [GATE, "0 h", "1 e", "1 g", "5 a", "5 b", "5 i", "6 f", "7 d", "9 c"]);
    let started = world.metrics.tasks_started.get();
    assert_eq!(started, 10, "what gives way in the pool is not counted again");
}

#[tokio::test]
async fn a_task_that_has_waited_too_long_goes_first_whatever_its_priority() {
    let (handler, dir) = Ranked::new("");
    let ageing = Duration::from_millis(50);
    let mut world = one_slot(handler)
        .executor(|executor| executor.priority_ageing = ageing)
        .settings(move |settings| {
            settings.priority_ageing = ageing;
            settings.max_in_pool = 3;
        })
        .start();
    wait_behind_the_gate(&mut world, &dir, &["9 forgotten"]).await;
    until(|| world.pool.stats().queued == 1).await;
    let queued = Instant::now();
    until(|| ageing < queued.elapsed()).await;
    send(&mut world, &["0 urgent", "-5 very urgent", "0 urgent too"]).await;
    let_go(&dir);
    world.committed(0, 5).await;
    assert_eq!(order(&dir)[..2], [GATE, "9 forgotten"]);
}

#[tokio::test]
async fn a_retry_keeps_its_place_before_what_is_younger() {
    let (handler, dir) = Ranked::new(
        r#"if [ "$V" = "0 first" ] && ! [ -e failed ]; then : > failed; exit 1; fi
           if [ "$V" = "0 second" ]; then until [ -e go ]; do sleep 0.01; done; fi"#,
    );
    let mut world = one_slot(handler)
        .settings(|settings| {
            settings.backoff.initial = Duration::from_millis(1);
            settings.backoff.max = Duration::from_millis(1);
        })
        .start();
    for value in ["0 first", "0 second", "0 third", "0 fourth"] {
        world.produce(0, value);
    }
    // The second runs; the first waits with the others again.
    until(|| world.metrics.task_retries.get() == 1 && world.pool.stats().queued == 3).await;
    let_go(&dir);
    world.committed(0, 4).await;
    assert_eq!(order(&dir), ["0 first", "0 second", "0 first", "0 third", "0 fourth"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_takes_the_place_of_what_it_replaces() {
    let handler = Echo::default()
        .arrange(|window| {
            let named = |m: &Message<Bytes>| Task::for_message(m).program("first").arg(text(m));
            Ok(window.iter().map(named).collect())
        })
        .failed(|_| Ok(OnError::Replace(vec![Task::new().program("other").arg("other")])));
    let mut world = World::of(handler)
        .in_memory()
        .executor(|executor| executor.max_executors = Some(NonZeroUsize::MIN))
        .processes(|task| match task.args()[0].to_str() {
            Some("fails") => Scripted::exits(1),
            _ => Scripted::prints("x").takes(Duration::from_secs(1)),
        })
        .start();
    for value in ["fails", "second", "third", "fourth"] {
        world.produce(0, value);
    }
    world.committed(0, 4).await;
    let ran: Vec<_> = world.runs.all().iter().map(|run| run.task.args()[0].clone()).collect();
    // The second has the slot before anybody knows of the replacement.
    assert_eq!(ran, ["fails", "second", "other", "third", "fourth"]);
}

fn text(message: &Message<Bytes>) -> String {
    String::from_utf8_lossy(&message.input).into_owned()
}

/// Whatever the offsets are: what is arranged later waits longer, and a partition arranges no more than
/// a few windows ahead.
async fn ten_messages_get_through(many: i64, few: i64) {
    const MANY: i64 = 1_000_000;
    let handler = Echo::default().arrange(|window| {
        let task = |message| Task::for_message(message).program("program").arg(text(message));
        Ok(window.iter().map(task).collect())
    });
    let mut world = World::of(handler)
        .in_memory()
        .processes(|_| Scripted::prints("x").takes(Duration::from_millis(10)))
        .start();
    world.assign(1, None);
    let one = message(0, 0, "many");
    for offset in (many..many + MANY).map(Offset) {
        world.send(SourceMessage { offset, ..one.clone() });
    }
    world.results.until(20).await;
    for offset in few..few + 10 {
        world.send(message(1, offset, "few"));
    }
    world.committed(1, few + 10).await;
    let ran: Vec<_> = world.runs.all().iter().map(|run| run.task.args()[0].clone()).collect();
    let last = ran.iter().rposition(|value| value == "few").unwrap();
    assert!(last < 200, "the last of the few was the {last}th to run");
    assert!(world.committed_offset(0) < many + 1_000, "they did not come in between");
}

#[tokio::test(start_paused = true)]
async fn a_million_messages_with_large_offsets_do_not_starve_a_partition_with_ten() {
    ten_messages_get_through(1_000_000_000, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_million_messages_with_small_offsets_do_not_starve_a_partition_with_ten() {
    ten_messages_get_through(0, 1_000_000_000).await;
}

#[tokio::test]
async fn a_priority_that_panics_is_counted_and_the_task_keeps_its_own() {
    let (handler, dir) = Ranked::new("");
    let mut world = one_slot(handler).start();
    wait_behind_the_gate(&mut world, &dir, &["not a number"]).await;
    send(&mut world, &["1 worse than none", "-1 better than none"]).await;
    until(|| world.pool.stats().queued == 3).await;
    let_go(&dir);
    world.committed(0, 4).await;
    let order = order(&dir);
    assert_eq!(order, [GATE, "-1 better than none", "not a number", "1 worse than none"]);
    assert_eq!(world.metrics.priority_errors.get(), 1);
    assert_eq!(world.metrics.hook(drakkar_telemetry::Hook::Priority).errors.get(), 1);
}

/// Of its message: four tasks of a program that may run once at a time, and behind them one of another.
struct Busy(tempfile::TempDir);

impl Handler for Busy {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message, program: &str, script: &str| {
            let task = Task::for_message(message).program(program).working_dir(self.0.path());
            task.with_args(["-c", script])
        };
        let tasks = |message| {
            let slow =
                task(message, "slow", "until [ -e go ]; do sleep 0.01; done; echo slow >>order");
            let quick = task(message, "/bin/sh", "echo quick >>order");
            std::iter::repeat_n(slow, 4).chain([quick])
        };
        Ok(window.iter().flat_map(tasks).collect())
    }
}

#[tokio::test]
async fn tasks_that_wait_for_a_program_at_its_limit_keep_no_other_of_their_partition_waiting() {
    let handler = Busy(tempfile::tempdir().unwrap());
    let dir = handler.0.path().to_owned();
    let mut world = World::of(handler)
        .executor(|executor| {
            executor.max_executors = NonZeroUsize::new(2);
            let slow = ProgramConfig {
                binary: Some("/bin/sh".into()),
                max_concurrent: NonZeroUsize::new(1),
                ..ProgramConfig::default()
            };
            executor.programs.insert("slow".to_owned(), slow);
        })
        .settings(|settings| settings.max_in_pool = 2)
        .start();
    world.produce(0, "all");
    until(|| dir.join("order").exists()).await;
    let of_two_slow_ones_one_runs = || {
        let stats = world.pool.stats();
        (stats.active, stats.queued) == (1, 1)
    };
    until(of_two_slow_ones_one_runs).await;
    let_go(&dir);
    world.committed(0, 1).await;
    assert_eq!(order(&dir), ["quick", "slow", "slow", "slow", "slow"]);
}
