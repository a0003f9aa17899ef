//! Tasks of one handler that run in different ways: a process each, and processes that stay.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{num::NonZeroUsize, time::Duration};

use common::{Echo, values};
use drakkar_core::Task;
use drakkar_executor::{ExecutorConfig, Mode, ProgramConfig, Protocol};
use drakkar_testing::World;

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
        let task = |message: &drakkar_core::Message<bytes::Bytes>, program: &str| {
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
        let task = |message: &drakkar_core::Message<bytes::Bytes>| {
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
