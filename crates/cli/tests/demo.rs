//! `drakkar demo`, as a user runs it: the whole way of a message through real processes, a broker
//! and two sinks, with nothing but this binary.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Output, Stdio},
};

fn demo(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_drakkar"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// The count in the row that ends with `what`.
#[track_caller]
fn count(stdout: &str, row: &str) -> u64 {
    let line = stdout.lines().find(|line| line.contains(row));
    let line = line.unwrap_or_else(|| panic!("{row} in\n{stdout}"));
    let digits: String = line.chars().take(26).filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn every_message_is_accounted_for_also_those_that_fail_on_purpose() {
    let (code, stdout, stderr) = demo(&["--messages", "300", "--keep"]);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    assert!(stdout.contains("The books balance: lost 0, duplicates 0."), "{stdout}");
    assert_eq!(count(&stdout, "of 300 messages"), 300);
    assert!(stdout.contains("4 of 4 partitions committed to their end"), "{stdout}");
    assert_eq!(count(&stdout, "failed for good"), 9);
    assert_eq!(count(&stdout, "  exit_code"), 5);
    assert_eq!(count(&stdout, "  timeout"), 4);
    assert_eq!(count(&stdout, "  invalid_value"), 3);
    assert_eq!(count(&stdout, "answered after a retry"), 5);
    assert_eq!(count(&stdout, "output beyond the capture limit"), 3);
    assert_eq!(count(&stdout, "answered without a run"), 1);

    let kept = stdout.lines().find_map(|line| line.strip_prefix("Results and logs are kept in "));
    let kept = std::path::Path::new(kept.unwrap());
    let lines = fs::read_to_string(kept.join("results.jsonl")).unwrap().lines().count();
    assert_eq!(lines as u64, count(&stdout, "lines to the file"));
    assert!(kept.join("worker.log").is_file());
    fs::remove_dir_all(kept).unwrap();
}

#[test]
fn a_size_that_cannot_be_held_is_refused_before_anything_starts() {
    let (code, stdout, stderr) = demo(&["--messages", "1000000000"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("--messages 1000000000 is too many"), "{stderr}");
}

#[test]
fn an_interrupted_demo_finishes_what_was_started_and_has_lost_nothing() {
    let mut running = Command::new(env!("CARGO_BIN_EXE_drakkar"))
        .args(["demo", "--messages", "20000", "--rate", "500"])
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(running.stderr.take().unwrap()).lines().map(Result::unwrap);
    progress.find(|line| line.starts_with('[')).expect("some messages are done");
    let asked = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let rest: Vec<String> = progress.collect();
    let mut stdout = String::new();
    running.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(0), "{stdout}\n{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("interrupted")), "{rest:?}");
    assert!(stdout.contains("The books balance: lost 0, duplicates 0."), "{stdout}");
    assert!((1..20_000).contains(&count(&stdout, "of 20 000 messages")), "{stdout}");
}
