//! `drakkar check`: reads a configuration the way a worker does, and says what it means.
//!
//! Nothing is connected to. What is wrong goes to standard error with its key and place, exit code 2;
//! what this build lacks is a note and no error, because the rest of the file is as good as it was.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use drakkar::{Config, ConfigError, Line, Loaded};
use drakkar_core::contain::sources;
use humantime::format_duration;

use crate::say::say;

/// Exit code for a configuration that is wrong; the one a worker has for it.
const WRONG: u8 = 2;

/// Checks the file at `path`.
pub(crate) fn run(path: &Path) -> ExitCode {
    match Loaded::read(Some(path)) {
        Ok(loaded) => {
            let text = report(&loaded).join("\n") + "\n";
            match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                // Whoever reads has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                Err(error) => {
                    say(&format!("drakkar: cannot write the report: {error}"));
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            say(&complaint(&error));
            ExitCode::from(WRONG)
        }
    }
}

/// Every key that is wrong on a line of its own, or why nothing could be read.
fn complaint(error: &ConfigError) -> String {
    let mut text = error.to_string();
    for inner in sources(error) {
        text.push_str(": ");
        text.push_str(&inner.to_string());
    }
    text
}

fn report(loaded: &Loaded) -> Vec<String> {
    let mut lines = table(&loaded.explain());
    if !loaded.notes.is_empty() {
        lines.push("\nNotes".to_owned());
        lines.extend(loaded.notes.iter().map(|note| format!("  {note}")));
    }
    lines.push("\nWhat is waited for".to_owned());
    lines.extend(waits(&loaded.config).iter().map(|line| format!("  {line}")));
    lines
}

/// Key, value and origin in columns.
fn table(lines: &[Line]) -> Vec<String> {
    // One long value must not push the origins of all others out of sight.
    const WIDEST: usize = 40;
    let key = lines.iter().map(|line| line.key.chars().count()).max().unwrap_or(0);
    let value = lines.iter().map(|line| line.value.chars().count()).max().unwrap_or(0).min(WIDEST);
    let row = |line: &Line| format!("{:<key$}  {:<value$}  {}", line.key, line.value, line.from);
    lines.iter().map(row).collect()
}

/// How long a task may run beside how long a hand-over and a shutdown wait for it.
fn waits(config: &Config) -> Vec<String> {
    let task = config.executor.task_timeout_seconds;
    let revoke = config.kafka.revoke_timeout;
    let drain = config.executor.drain_timeout_seconds;
    let stop = config.stopping();
    let row = |name: &str, time: Duration, key: &str| {
        format!("{name:<34}{:<8}{key}", format_duration(time).to_string())
    };
    vec![
        row("a task may run for", task, "executor.task_timeout_seconds, unless it sets its own"),
        row("a hand-over waits for it", revoke, "kafka.revoke_timeout"),
        row("a shutdown waits for it", drain, "executor.drain_timeout_seconds"),
        row("a stop of the worker may take", stop, "that, the end of programs, sinks, the last commit, hooks"),
        cut("A hand-over", task, revoke, "kafka.revoke_timeout"),
        cut("A shutdown", task, drain, "executor.drain_timeout_seconds"),
        format!(
            "Nothing may kill a worker that stops before {} are over (terminationGracePeriodSeconds of \
             Kubernetes, 30 s unless set): what is not committed then runs again.",
            format_duration(stop)
        ),
        "Neither waits for a task that backs off before its retry: its message runs again."
            .to_owned(),
        "A dead letter that its topic finds too large is waited for as long as it takes: allow that topic \
         larger records (max.message.bytes) than the one that is consumed, or see dlq.on_too_large."
            .to_owned(),
    ]
}

fn cut(event: &str, task: Duration, wait: Duration, key: &str) -> String {
    let wait_text = format_duration(wait);
    if task <= wait {
        return format!(
            "{event} lets every started task end: none may run longer than {wait_text} ({key})."
        );
    }
    format!(
        "{event} ends what still runs after {wait_text} and the next owner runs those messages again: \
         tasks that take between {wait_text} and {} are repeated ({key}).",
        format_duration(task)
    )
}

#[cfg(test)]
mod tests {
    use drakkar::Origin;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let line = |key: &str, value: &str| Line {
            key: key.to_owned(),
            value: value.to_owned(),
            from: Origin::Default,
        };
        assert_eq!(
            table(&[line("a.long_key", "1"), line("b", "\"text\"")]),
            ["a.long_key  1       default", "b           \"text\"  default"]
        );
    }

    #[test]
    fn a_hand_over_that_is_shorter_than_a_task_says_what_runs_again() {
        let mut config = Config::default();
        config.executor.task_timeout_seconds = Duration::from_secs(20);
        config.kafka.revoke_timeout = Duration::from_secs(5);
        config.executor.drain_timeout_seconds = Duration::from_secs(30);
        let text = waits(&config).join("\n");
        assert!(text.contains("tasks that take between 5s and 20s are repeated"), "{text}");
        assert!(text.contains("A shutdown lets every started task end"), "{text}");
    }
}
