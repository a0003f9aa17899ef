//! What becomes of one process: its input, its output, its end, and what it leaves behind.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{os::unix::fs::PermissionsExt, time::Duration};

use bytes::Bytes;
use drakkar_core::{Failure, Task};
use drakkar_executor::ExecutorConfig;
use support::{
    Marker, PATIENCE, config, failed, finished, given_time, pool, run, sh, submit, until,
};
use tokio::time::Instant;

#[tokio::test]
async fn every_byte_of_the_input_comes_back() {
    let pool = pool(&config(1));
    let input: Bytes = (0..=255_u8).cycle().take(700_001).collect();
    let output = finished(run(&pool, Task::new().program("cat").stdin(input.clone())).await);
    assert_eq!(output.stdout, input);
    assert_eq!((output.stderr, output.stdout_dropped), (Bytes::new(), 0));
}

#[tokio::test]
async fn without_input_a_program_reads_from_dev_null() {
    let pool = pool(&config(1));
    let output = finished(run(&pool, sh("readlink /proc/self/fd/0")).await);
    assert_eq!(output.stdout, "/dev/null\n");
}

#[tokio::test]
async fn an_empty_input_is_an_input() {
    let pool = pool(&config(1));
    let script = "readlink /proc/self/fd/0 | cut -c1-4; cat; echo end";
    let output = finished(run(&pool, sh(script).stdin("")).await);
    assert_eq!(output.stdout, "pipe\nend\n");
}

#[tokio::test]
async fn a_program_that_does_not_read_its_input_does_not_fail() {
    let pool = pool(&config(1));
    let input = vec![b'x'; 4 * 1024 * 1024];
    finished(run(&pool, sh("exec <&-; exit 0").stdin(input.clone())).await);
    let output = finished(run(&pool, sh("head -c 1 && exec <&- && echo .").stdin(input)).await);
    assert_eq!(output.stdout, "x.\n");
}

#[tokio::test]
async fn both_outputs_are_kept_and_timed() {
    let pool = pool(&config(1));
    let output = finished(run(&pool, sh("echo out; echo err >&2; echo $$")).await);
    let pid = output.pid.unwrap();
    assert_eq!(output.stdout, format!("out\n{pid}\n"));
    assert_eq!(output.stderr, "err\n");
    assert!(output.spawned_in > Duration::ZERO && output.spawned_in < output.took);
}

#[tokio::test]
async fn an_exit_code_is_reported_with_the_output() {
    let pool = pool(&config(1));
    let (failure, output) = failed(run(&pool, sh("echo out; echo err >&2; exit 7")).await);
    assert_eq!(failure, Failure::Exit(7));
    assert_eq!((output.stdout, output.stderr), ("out\n".into(), "err\n".into()));
}

#[tokio::test]
async fn a_signal_that_is_not_ours_is_reported_as_such() {
    let pool = pool(&config(1));
    let (failure, _) = failed(run(&pool, sh("kill -SEGV $$")).await);
    assert_eq!(failure, Failure::Signal(11));
}

#[tokio::test]
async fn a_program_out_of_time_is_ended_and_its_output_is_kept() {
    let pool = pool(&config(1));
    let marker = Marker::new();
    let printed = given_time(async |limit| {
        let task = marker.mark(sh("echo before; sleep 1000; echo after").timeout(limit));
        let (failure, output) = failed(run(&pool, task).await);
        assert_eq!(failure, Failure::TimedOut(limit));
        (!output.stdout.is_empty()).then_some(output.stdout)
    });
    assert_eq!(printed.await, "before\n");
    marker.until_gone().await;
}

#[tokio::test]
async fn a_program_that_ignores_term_is_killed_after_the_grace() {
    let marker = Marker::new();
    let script = "trap 'echo asked' TERM; while :; do sleep 1000; done";
    let printed = given_time(async |time| {
        let pool = pool(&ExecutorConfig { kill_grace: time, ..config(1) });
        let (failure, output) = failed(run(&pool, marker.mark(sh(script).timeout(time))).await);
        assert_eq!(failure, Failure::TimedOut(time));
        if output.stdout.is_empty() {
            return None; // It did not ignore the signal: it had not begun, or had no time to answer.
        }
        assert!(output.took >= 2 * time, "{:?}", output.took);
        Some(output.stdout)
    });
    assert_eq!(printed.await, "asked\n");
    marker.until_gone().await;
}

#[tokio::test]
async fn a_program_may_use_the_grace_to_clean_up() {
    let pool = pool(&ExecutorConfig { kill_grace: PATIENCE, ..config(1) });
    let script = "trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 1000; done";
    let printed = given_time(async |limit| {
        let (failure, output) = failed(run(&pool, sh(script).timeout(limit)).await);
        assert!(matches!(failure, Failure::TimedOut(_)), "{failure}");
        (!output.stdout.is_empty()).then_some(output.stdout)
    });
    assert_eq!(printed.await, "ready\ncleaned\n");
}

#[tokio::test]
async fn what_a_program_leaves_running_neither_delays_its_result_nor_survives_it() {
    let pool = pool(&config(1));
    let marker = Marker::new();
    let output = finished(run(&pool, marker.mark(sh("sleep 1000 & echo done"))).await);
    assert_eq!(output.stdout, "done\n");
    marker.until_gone().await;
}

#[tokio::test]
async fn what_a_program_leaves_running_with_closed_pipes_does_not_survive_it_either() {
    // Longer than the run is waited for: nothing holds the pipes.
    let pool = pool(&ExecutorConfig { pipe_grace: 2 * PATIENCE, ..config(1) });
    let marker = Marker::new();
    let script = "sleep 1000 >/dev/null 2>&1 & echo done";
    let output = finished(run(&pool, marker.mark(sh(script))).await);
    assert_eq!(output.stdout, "done\n");
    marker.until_gone().await;
}

#[tokio::test]
async fn what_leaves_the_group_cannot_delay_the_result() {
    let pool = pool(&config(1));
    let output = finished(run(&pool, sh("setsid sleep 1000 & echo $!")).await);
    assert!(!output.stdout.is_empty());
}

#[tokio::test]
async fn a_gigabyte_of_output_is_read_counted_and_not_kept() {
    let pool = pool(&ExecutorConfig { max_stdout_bytes: 64 * 1024, ..config(1) });
    let before = resident_peak();
    let task = Task::new().program("head").with_args(["-c", "1000000000", "/dev/zero"]);
    let output = finished(run(&pool, task).await);
    assert_eq!(output.stdout.len(), 64 * 1024);
    assert_eq!(output.stdout_dropped, 1_000_000_000 - 64 * 1024);
    let grown = resident_peak() - before;
    assert!(grown < 64 * 1024, "memory grew by {grown} KiB");
}

/// The most this process ever held, in KiB.
fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_permanent_failure_that_names_it() {
    let pool = pool(&config(1));
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "no shebang").unwrap();
    for (mode, program, reason) in [
        (0o644, script.as_path(), "Permission denied"),
        (0o755, script.as_path(), "Exec format error"),
        (0o755, "/no/such/program".as_ref(), "No such file"),
        (0o755, "no-such-program".as_ref(), "No such file"),
        (0o755, &script.join("below"), "Not a directory"),
    ] {
        std::fs::set_permissions(&script, PermissionsExt::from_mode(mode)).unwrap();
        let (failure, output) = failed(run(&pool, Task::new().program(program)).await);
        let text = failure.to_string();
        assert!(failure.is_permanent(), "{text}");
        assert!(text.contains(reason) && text.contains(program.to_str().unwrap()), "{text}");
        assert_eq!(output.pid, None);
    }
}

/// A program whose file is open for writing: the system refuses to start it for now.
fn busy_program() -> (tempfile::TempDir, Task, std::fs::File) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/bin/true", &path).unwrap();
    let open = std::fs::File::options().append(true).open(&path).unwrap();
    (dir, Task::new().program(path), open)
}

#[tokio::test]
async fn a_start_that_fails_for_now_is_tried_again_without_telling() {
    // Five retries take at least this long, a tenth of their upper bounds.
    let retries = Duration::from_millis(62);
    let pool = pool(&config(1));
    loop {
        let (_dir, task, open) = busy_program();
        let started = Instant::now();
        let (_ticket, end) = submit(&pool, task);
        until("it has been tried", || started.elapsed() > retries / 3).await;
        drop(open);
        let held = started.elapsed();
        let run = end.await.unwrap();
        if held < retries {
            finished(run);
            return;
        } // Else all retries may have been over before this thread had its turn.
    }
}

#[tokio::test]
async fn a_start_that_keeps_failing_for_now_is_no_permanent_failure() {
    let pool = pool(&config(1));
    let (_dir, task, _open) = busy_program();
    let (failure, _) = failed(run(&pool, task).await);
    assert!(!failure.is_permanent() && failure.to_string().contains("busy"), "{failure}");
}

#[tokio::test]
async fn without_any_program_the_failure_names_the_key_to_set() {
    let pool = pool(&config(1));
    let (failure, _) = failed(run(&pool, Task::new()).await);
    assert!(failure.is_permanent());
    assert!(failure.to_string().contains("executor.binary_path"), "{failure}");
}

#[tokio::test]
async fn the_configured_program_runs_where_the_task_names_none() {
    let pool = pool(&ExecutorConfig { binary_path: Some("echo".into()), ..config(1) });
    assert_eq!(finished(run(&pool, Task::new().arg("a b")).await).stdout, "a b\n");
    assert_eq!(finished(run(&pool, Task::new().program("true")).await).stdout, "");
}

#[tokio::test]
async fn a_task_runs_in_its_directory() {
    let pool = pool(&config(1));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let output = finished(run(&pool, Task::new().program("pwd").working_dir(&path)).await);
    assert_eq!(output.stdout, format!("{}\n", path.display()));

    let missing = path.join("missing");
    let (failure, _) = failed(run(&pool, Task::new().program("pwd").working_dir(&missing)).await);
    assert!(failure.to_string().contains(missing.to_str().unwrap()), "{failure}");
}

#[tokio::test]
async fn a_process_sees_the_environment_it_was_given_and_no_other() {
    let mut config = ExecutorConfig { env_inherit_parent: false, ..config(1) };
    config.env.insert("FROM_CONFIG".to_owned(), "1".to_owned());
    config.env.insert("BOTH".to_owned(), "config".to_owned());
    let pool = pool(&config);
    let task = Task::new().program("env").env("BOTH", "task").env("OWN", "ü=x");
    // What has a directory of its own is started in another way.
    for task in [task.clone(), task.working_dir("/")] {
        let output = finished(run(&pool, task).await);
        let text = String::from_utf8(output.stdout.to_vec()).unwrap();
        let mut seen: Vec<&str> = text.lines().collect();
        // How the pool finds it again, should it hide.
        seen.retain(|variable| !variable.starts_with("DRAKKAR_TASK_OF="));
        seen.sort_unstable();
        assert_eq!(seen, ["BOTH=task", "FROM_CONFIG=1", "OWN=ü=x"]);
    }
}

#[tokio::test]
async fn a_program_blocks_no_signal_and_ignores_none_but_those_that_its_worker_was_told_to() {
    // The standard library has the worker ignore it.
    const PIPE: u64 = 1 << 12;
    let pool = pool(&config(1));
    let ignored = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        // Without those that the C library keeps to itself.
        u64::from_str_radix(line.trim(), 16).unwrap() & ((1 << 31) - 1)
    };
    let own = ignored(&std::fs::read_to_string("/proc/self/status").unwrap());
    assert_eq!(own & PIPE, PIPE);
    let look = Task::new().program("cat").arg("/proc/self/status");
    for task in [look.clone(), look.working_dir("/")] {
        let output = finished(run(&pool, task).await);
        let text = String::from_utf8(output.stdout.to_vec()).unwrap();
        assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
        assert_eq!(ignored(&text), own & !PIPE);
    }
}

#[tokio::test]
async fn what_no_system_takes_is_a_permanent_failure() {
    let mut config = config(1);
    let task = || Task::new().program("true");
    for task in [task().arg("a\0b"), task().env("A", "a\0b"), task().arg("\0").working_dir("/")] {
        let (failure, _) = failed(run(&pool(&config), task).await);
        assert!(failure.is_permanent(), "{failure}");
    }
    config.env.insert("A".to_owned(), "\0".to_owned());
    let (failure, _) = failed(run(&pool(&config), task()).await);
    assert!(failure.is_permanent(), "{failure}");
}

#[tokio::test]
async fn names_that_are_denied_are_not_inherited() {
    // Cargo sets these for every test.
    let deny = vec!["cargo_pkg_*".to_owned()];
    let pool = pool(&ExecutorConfig { env_inherit_deny: deny, ..config(1) });
    let output = finished(run(&pool, Task::new().program("env")).await);
    let text = String::from_utf8(output.stdout.to_vec()).unwrap();
    assert!(text.contains("PATH=") && text.contains("CARGO_MANIFEST_DIR="), "{text}");
    assert!(!text.contains("CARGO_PKG_"), "{text}");
}
