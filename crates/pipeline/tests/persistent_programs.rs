//! Tasks of one handler that run in different ways: a process each, and processes that stay.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, values};
use drakkar_core::{Collect, Handler, HookResult, Message, Pending, Task, TaskResult};
use drakkar_executor::{ExecutorConfig, Mode, ProgramConfig, Protocol};
use drakkar_testing::World;
use tokio::time::Instant;

/// Answers each request with its input, and dies of `poison`.
const SCRIPT: &str = r#"
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["stdin"] == "poison":
        os._exit(1)
    print(json.dumps({"id": request["id"], "stdout": request["stdin"]}), flush=True)
"#;

fn programs(config: &mut ExecutorConfig) {
    let filter = ProgramConfig {
        mode: Mode::Persistent,
        binary: Some("cat".into()),
        protocol: Protocol::Lines,
        ..ProgramConfig::default()
    };
    let script = ProgramConfig {
        mode: Mode::Persistent,
        binary: Some("python3".into()),
        args: vec!["-c".into(), SCRIPT.into()],
        depth: NonZeroUsize::new(8).unwrap(),
        backoff_initial: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        ..ProgramConfig::default()
    };
    let each = ProgramConfig { binary: Some("cat".into()), ..ProgramConfig::default() };
    for (name, program) in [("filter", filter), ("script", script), ("each", each)] {
        config.programs.insert(name.to_owned(), program);
    }
}

#[tokio::test]
async fn every_message_is_settled_whatever_its_tasks_run_in() {
    let handler = Echo::default().arrange(|window| {
        let task = |message: &Message<Bytes>, program: &str| {
            Task::for_message(message).program(program).stdin(message.input.clone())
        };
        let programs = ["filter", "script", "each"];
        Ok(window
            .iter()
            .flat_map(|message| programs.map(|program| task(message, program)))
            .collect())
    });
    let mut world = World::of(handler).executor(programs).start();
    for n in 0..50 {
        world.produce(0, n.to_string());
    }
    world.committed(0, 50).await;
    let delivered = values(&world.results.all());
    let mut expected: Vec<String> = (0..50).flat_map(|n| vec![n.to_string(); 3]).collect();
    expected.sort();
    assert_eq!(delivered, expected);
    assert!(world.dead_letters.all().is_empty());
}

#[tokio::test]
async fn only_the_message_that_kills_its_process_is_given_up() {
    let handler = Echo::default().arrange(|window| {
        let task = |message: &Message<Bytes>| {
            Task::for_message(message).program("script").stdin(message.input.clone())
        };
        Ok(window.iter().map(task).collect())
    });
    let mut world =
        World::of(handler).executor(programs).settings(|settings| settings.max_retries = 0).start();
    for value in ["a", "b", "poison", "c", "d"] {
        world.produce(0, value);
    }
    world.committed(0, 5).await;
    let delivered = values(&world.results.all());
    assert_eq!(delivered, ["a", "b", "c", "d"]);
    let given_up: Vec<i64> =
        world.dead_letters.all().iter().map(|letter| letter.message.offset.0).collect();
    assert_eq!(given_up, [2]);
}

/// As [`SCRIPT`], but its first process answers nothing, and the next one waits until there is a file `go`.
const RELUCTANT: &str = r#"
import json, os, sys, time
first = not os.path.exists("starts")
with open("starts", "a") as starts:
    starts.write("x")
while not first and not os.path.exists("go"):
    time.sleep(0.01)
for line in sys.stdin:
    request = json.loads(line)
    if request.get("stdin") == "poison":
        os._exit(1)
    if not first or request.get("ping"):
        print(json.dumps({"id": request["id"], "stdout": request.get("stdin")}), flush=True)
"#;

/// Messages called `urgent` go first.
struct Hurried(Echo);

impl Handler for Hurried {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], pending: &Pending) -> HookResult<Vec<Task>> {
        Handler::arrange(&self.0, window, pending).await
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        self.0.on_task_complete(done).await
    }

    fn priority(&self, task: &Task) -> i64 {
        if task.stdin_bytes().is_some_and(|input| input == "urgent") { -1 } else { 0 }
    }
}

#[tokio::test]
async fn a_task_that_has_to_run_alone_does_so_although_its_place_is_wanted_by_a_better_one() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, size) = (dir.path().to_owned(), |path: PathBuf| {
        std::fs::metadata(path).map_or(0, |file| file.len())
    });
    let is_arranged = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&is_arranged);
    let handler = Echo::default().arrange(move |window| {
        sees.fetch_or(window.iter().any(|message| message.input == "urgent"), Ordering::Relaxed);
        let task = |message: &Message<Bytes>| {
            Task::for_message(message).program("reluctant").stdin(message.input.clone())
        };
        Ok(window.iter().map(task).collect())
    });
    let script = format!("cd '{}' && exec python3 -c \"$0\"", inside.display());
    let program = ProgramConfig {
        mode: Mode::Persistent,
        binary: Some("sh".into()),
        args: vec!["-c".into(), script, RELUCTANT.into()],
        instances: NonZeroUsize::new(1),
        depth: NonZeroUsize::new(2).unwrap(),
        ping: true,
        backoff_initial: Duration::from_millis(1),
        ..ProgramConfig::default()
    };
    let mut world = World::of(Hurried(handler))
        .executor(|config| drop(config.programs.insert("reluctant".to_owned(), program)))
        .settings(|settings| (settings.max_in_pool, settings.max_retries) = (3, 0))
        .start();
    world.produce(0, "innocent");
    world.produce(0, "poison");
    until(|| size(inside.join("starts")) == 2).await;
    // One has a place in the pool, the other one has to get one.
    for _ in 0..2 {
        world.produce(0, "urgent");
    }
    until(|| is_arranged.load(Ordering::Relaxed)).await;
    std::fs::write(inside.join("go"), "").unwrap();
    world.committed(0, 4).await;
    assert_eq!(values(&world.results.all()), ["innocent", "urgent", "urgent"]);
    assert_eq!(size(inside.join("starts")), 3, "alone, and before those that came later");
}

/// Waits until `condition` holds.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "within 30 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
