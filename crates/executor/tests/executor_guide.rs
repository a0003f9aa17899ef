//! The programs that `docs/executor.md` shows do what it says.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use drakkar_core::Task;
use drakkar_executor::{Mode, Pool, ProgramConfig, Protocol};
use support::{config, failed, finished, run};

const GUIDE: &str = include_str!("../../../docs/executor.md");

/// The example in `language` below the heading of `protocol`.
fn example(protocol: &str, language: &str) -> String {
    let section = GUIDE.split(&format!("\n### `{protocol}`")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let block = section.split(&format!("```{language}\n")).nth(1).expect("there is an example");
    block.split("```").next().unwrap().to_owned()
}

fn pool(interpreter: &str, example: &str, program: ProgramConfig) -> Pool {
    let mut config = config(1);
    let flag = if interpreter == "sh" { "-c" } else { "-Ic" };
    let program = ProgramConfig {
        mode: Mode::Persistent,
        binary: Some(interpreter.into()),
        args: vec![flag.to_owned(), example.to_owned()],
        ..program
    };
    config.programs.insert("upper".to_owned(), program);
    Pool::start(&config).unwrap()
}

async fn upper(pool: &Pool, text: &str) -> String {
    let output = finished(run(pool, Task::new().program("upper").stdin(text.to_owned())).await);
    String::from_utf8(output.stdout.into()).unwrap()
}

#[tokio::test]
async fn the_examples_in_python_answer_tasks_and_pings() {
    for protocol in [Protocol::JsonLines, Protocol::Frames] {
        let program = ProgramConfig { protocol, ping: true, ..ProgramConfig::default() };
        let pool = pool("python3", &example(&protocol.to_string(), "python"), program);
        for text in ["one", "", "two\nlines"] {
            assert_eq!(upper(&pool, text).await, text.to_uppercase());
        }
        let stats = pool.programs()["upper"].clone();
        assert_eq!((stats.starts, stats.failures), (1, 0), "{:?}", stats.last_failure);
        pool.close().await;
    }
}

#[tokio::test]
async fn the_example_in_python_says_what_went_wrong_and_lives_on() {
    let broken = example("json_lines", "python").replace("text.upper()", "text.lower() + args[0]");
    let pool = pool("python3", &broken, ProgramConfig::default());
    let (failure, output) = failed(run(&pool, Task::new().program("upper").stdin("x")).await);
    assert_eq!(failure.class(), "exit_code");
    assert!(String::from_utf8_lossy(&output.stderr).contains("IndexError"), "{output:?}");
    let task = Task::new().program("upper").stdin("X").arg("y");
    assert_eq!(&finished(run(&pool, task).await).stdout[..], b"xy");
    assert_eq!(pool.programs()["upper"].starts, 1);
}

#[tokio::test]
async fn the_example_in_shell_is_a_filter() {
    let program = ProgramConfig { protocol: Protocol::Lines, ..ProgramConfig::default() };
    let pool = pool("sh", &example("lines", "sh"), program);
    for text in ["one", " two  words", "back\\slash"] {
        assert_eq!(upper(&pool, text).await, text.to_uppercase());
    }
    assert_eq!(pool.programs()["upper"].failures, 0);
}
