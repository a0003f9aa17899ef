//! What one task may ask for: input from a file, a limit in percent, its own way to be ended, both ends
//! of its output.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{fs, num::NonZeroU32, process::Command, time::Duration};

use drakkar_core::{Failure, Keep, StopSignal, Task};
use drakkar_executor::ExecutorConfig;
use support::{config, failed, finished, given_time, pool, run, sh, submit, until};

#[tokio::test]
async fn a_program_reads_the_file_that_its_task_names() {
    let (pool, dir) = (pool(&config(1)), tempfile::tempdir().unwrap());
    let path = dir.path().join("input");
    fs::write(&path, vec![7; 300_000]).unwrap();
    let task = Task::new().program("cat").stdin("forgotten").stdin_file(&path);
    assert_eq!(finished(run(&pool, task.clone()).await).stdout, vec![7; 300_000]);
    let output = finished(run(&pool, task.stdin("bytes again")).await);
    assert_eq!(output.stdout, "bytes again");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_permanent_failure_that_names_it() {
    let (pool, dir) = (pool(&config(1)), tempfile::tempdir().unwrap());
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, reason) in [
        (dir.path().join("missing"), "No such file"),
        (dir.path().to_owned(), "not a regular file"),
        (pipe, "not a regular file"),
    ] {
        let (failure, _) = failed(run(&pool, Task::new().program("cat").stdin_file(&path)).await);
        let text = failure.to_string();
        assert!(failure.is_permanent(), "{text}");
        assert!(text.contains(reason) && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn a_task_is_ended_with_the_signals_and_waits_it_asks_for() {
    let pool = pool(&ExecutorConfig { kill_grace: Duration::from_mins(5), ..config(1) });
    let script = "trap 'echo usr1' USR1; trap 'echo usr2' USR2; trap 'echo term' TERM; echo ready
                  while :; do sleep 0.05; done";
    given_time(async |time| {
        let task = sh(script)
            .timeout(time)
            .stop_with([(StopSignal::User1, time), (StopSignal::User2, time)]);
        let (failure, output) = failed(run(&pool, task).await);
        assert_eq!(failure, Failure::TimedOut(time));
        assert!(output.took >= 3 * time, "{:?}", output.took);
        assert!("ready\nusr1\nusr2\n".as_bytes().starts_with(&output.stdout), "{output:?}");
        output.stdout.ends_with(b"usr2\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_any_signal_a_task_is_killed_at_once() {
    let pool = pool(&ExecutorConfig { kill_grace: Duration::from_mins(5), ..config(1) });
    let script = "trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done";
    let printed = given_time(async |limit| {
        let (failure, output) = failed(run(&pool, sh(script).timeout(limit).stop_with([])).await);
        assert_eq!(failure, Failure::TimedOut(limit));
        (!output.stdout.is_empty()).then_some(output.stdout)
    });
    assert_eq!(printed.await, "ready\n");
}

/// Runs a task that asks for a minute to end and uses `used` of it; closes its pool. Whether it has ended.
async fn ends_before_its_pool_is_closed(used: &str, drain_timeout_seconds: Duration) -> bool {
    let none = Duration::ZERO;
    let pool = pool(&ExecutorConfig {
        kill_grace: none,
        pipe_grace: none,
        drain_timeout_seconds,
        ..config(1)
    });
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'sleep $1; : >ended; exit' USR2; : >ready; while :; do sleep 0.05; done";
    let task = sh(script).arg("sh").arg(used).working_dir(dir.path());
    let (_ticket, _end) =
        submit(&pool, task.stop_with([(StopSignal::User2, Duration::from_mins(1))]));
    until("it runs", || dir.path().join("ready").exists()).await;
    pool.close().await;
    dir.path().join("ended").exists()
}

#[tokio::test]
async fn a_pool_is_closed_when_the_steps_of_its_tasks_are_over_or_a_stop_may_last_no_longer() {
    let (waited_for, given_up) = tokio::join!(
        ends_before_its_pool_is_closed("7", Duration::from_mins(1)),
        ends_before_its_pool_is_closed("60", Duration::from_secs(1)),
    );
    assert!(waited_for, "its own steps are longer than the usual grace");
    assert!(!given_up, "a stop has an end whatever a task asks for");
}

#[tokio::test]
async fn a_limit_in_percent_counts_when_enough_runs_have_ended() {
    let pool = pool(&config(4));
    let percent = NonZeroU32::new(1_000).unwrap();
    // With the program named as the configuration's would be: the median is that of `/bin/sh`.
    for _ in 0..10 {
        finished(run(&pool, sh("sleep 0.05").timeout_percent(percent)).await);
    }
    let task = sh("sleep 1000").timeout_percent(percent);
    let (failure, output) = failed(run(&pool, task.clone()).await);
    let Failure::TimedOut(limit) = failure else { panic!("{failure}") };
    assert!(limit >= Duration::from_millis(500) && limit < Duration::from_mins(2), "{limit:?}");
    assert!(output.took >= limit);
    let shorter = Duration::from_millis(200);
    let (failure, _) = failed(run(&pool, task.timeout(shorter)).await);
    assert_eq!(failure, Failure::TimedOut(shorter), "the limit in time counts beside it");
}

#[tokio::test]
async fn both_ends_of_each_output_are_kept_where_a_task_asks_for_them() {
    let pool = pool(&config(1));
    let script = "seq 100000; printf 0123456789 >&2";
    let task =
        sh(script).keep_stdout(Keep { head: 4, tail: 7 }).keep_stderr(Keep { head: 0, tail: 3 });
    let output = finished(run(&pool, task).await);
    assert_eq!(output.stdout, "1\n2\n100000\n");
    assert_eq!(output.stderr, "789");
    assert_eq!((output.stdout_dropped, output.stderr_dropped), (588_895 - 11, 7));
    let output = finished(run(&pool, sh(script)).await);
    assert_eq!(output.stdout_dropped, 0, "the next task is not concerned");
    assert_eq!(output.stderr, "0123456789");
}
