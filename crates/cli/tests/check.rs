//! `drakkar check`, as a user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

struct Checked {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// The file that was checked.
    path: PathBuf,
}

/// Checks a file with this content, in an environment of only these variables.
fn check(content: &str, variables: &[(&str, &str)]) -> Checked {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("drakkar.yaml");
    fs::write(&path, content).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_drakkar"))
        .arg("check")
        .arg(&path)
        .env_clear()
        .envs(variables.iter().copied())
        .output();
    let Output { status, stdout, stderr } = command.unwrap();
    Checked {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
        path,
    }
}

impl Checked {
    /// The line of `key`, with runs of blanks joined.
    fn line(&self, key: &str) -> String {
        let line = self.stdout.lines().find(|line| line.split(' ').next() == Some(key));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_good_file_is_shown_in_effect_with_the_origin_of_every_value() {
    let checked = check(
        "kafka:\n  brokers: kafka:9092\n  source_topic: orders\nexecutor:\n  window_size: 7\n",
        &[("DRAKKAR_KAFKA__CONSUMER_GROUP", "123")],
    );
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(checked.stderr, "");
    let file = checked.path.display();
    assert_eq!(checked.line("kafka.brokers"), format!("kafka.brokers \"kafka:9092\" {file}:2"));
    assert_eq!(checked.line("executor.window_size"), format!("executor.window_size 7 {file}:5"));
    assert_eq!(
        checked.line("kafka.consumer_group"),
        "kafka.consumer_group \"123\" DRAKKAR_KAFKA__CONSUMER_GROUP"
    );
    assert_eq!(checked.line("kafka.revoke_timeout"), "kafka.revoke_timeout \"5s\" default");
}

#[test]
fn how_long_a_stop_takes_is_shown_for_whoever_kills_after_a_while() {
    let checked = check("", &[]);
    assert!(
        checked.stdout.contains("a stop of the worker may take     1m 18s"),
        "{}",
        checked.stdout
    );
    assert!(checked.stdout.contains("terminationGracePeriodSeconds"), "{}", checked.stdout);
    let programs = "{model: {mode: persistent, stop_grace: 20}, other: {stop_grace: 50}}";
    let yaml =
        format!("executor: {{drain_timeout_seconds: 5, kill_grace: 3, programs: {programs}}}\n");
    let stdout = check(&yaml, &[]).stdout;
    assert!(
        stdout.contains("a stop of the worker may take     1m 14s"),
        "5 + 3 + 20 + 45: {stdout}"
    );
}

#[test]
fn the_task_time_out_is_shown_beside_the_waits_and_what_a_hand_over_repeats() {
    let checked = check(
        "executor: {task_timeout_seconds: 60, drain_timeout_seconds: 90}\nkafka: {revoke_timeout: 5}\n",
        &[],
    );
    assert!(
        checked
            .stdout
            .contains("tasks that take between 5s and 1m are repeated (kafka.revoke_timeout)"),
        "{}",
        checked.stdout
    );
    assert!(checked.stdout.contains("none may run longer than 1m 30s"), "{}", checked.stdout);
}

#[test]
fn an_unknown_key_is_an_error_with_its_place_and_the_key_that_was_meant() {
    let checked = check("kafka:\n  broker: kafka:9092\n", &[]);
    assert_eq!(checked.code, Some(2));
    assert_eq!(checked.stdout, "");
    let expected = format!(
        "{}:2: kafka.broker: unknown key; did you mean kafka.brokers?\n",
        checked.path.display()
    );
    assert_eq!(checked.stderr, expected);
}

#[test]
fn every_wrong_value_is_named_with_its_file_or_variable() {
    let checked = check(
        "executor:\n  window_size: 0\nsinks:\n  kafka:\n    results: {}\n",
        &[("DRAKKAR_EXECUTOR__MAX_RETRIES", "many")],
    );
    assert_eq!(checked.code, Some(2));
    let place = format!("{}:2: executor.window_size: ", checked.path.display());
    for expected in [
        place.as_str(),
        "sinks.kafka.results.topic: is required",
        "DRAKKAR_EXECUTOR__MAX_RETRIES: executor.max_retries: ",
    ] {
        assert!(checked.stderr.contains(expected), "{expected} in {}", checked.stderr);
    }
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_drakkar"))
        .args(["check", "/nowhere/drakkar.yaml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("/nowhere/drakkar.yaml: No such file"), "{stderr}");
}

#[test]
fn secrets_are_masked_wherever_they_come_from() {
    let checked = check(
        "kafka:\n  security: {protocol: SASL_PLAINTEXT, sasl_mechanism: PLAIN, sasl_username: me}\n\
         executor:\n  env: {API_TOKEN: hunter2, URL: 'http://me:hunter2@host'}\n",
        &[("DRAKKAR_KAFKA__SECURITY__SASL_PASSWORD", "hunter2")],
    );
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(!checked.stdout.contains("hunter2"), "{}", checked.stdout);
    let password = checked.line("kafka.security.sasl_password");
    assert!(password.starts_with("kafka.security.sasl_password \"***\""), "{password}");
    assert!(checked.line("kafka.security.sasl_username").contains("\"me\""));
}

#[test]
fn what_this_build_lacks_is_a_note_and_no_error() {
    let checked = check("kafka:\n  ui_url: http://kafka-ui\n", &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let note =
        format!("{}:2: kafka.ui_url: this build lacks it; it is ignored", checked.path.display());
    assert!(checked.stdout.contains(&note), "{note} in {}", checked.stdout);
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let output = Command::new(env!("CARGO_BIN_EXE_drakkar")).arg("--version").output().unwrap();
    assert!(output.status.success());
    let expected = format!("drakkar {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
