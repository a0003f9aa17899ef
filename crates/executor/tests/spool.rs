//! Standard output in files, and what a program has used: with real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{fs, path::Path, time::Duration};

use drakkar_core::{Failure, Task, Usage};
use drakkar_executor::{CancelReason, ExecutorConfig, JobLogConfig, SpoolConfig};
use support::{config, failed, finished, given_time, pool, run, sh, submit, until};

fn spooling(dir: &Path) -> ExecutorConfig {
    let spool = SpoolConfig { dir: Some(dir.to_owned()), ..SpoolConfig::default() };
    ExecutorConfig { spool, max_stdout_bytes: 10, ..config(2) }
}

/// The files that tasks have now.
fn files(dir: &Path) -> usize {
    let dirs = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let own = dirs.filter(|path| path.is_dir());
    // Beside its lock.
    own.map(|path| fs::read_dir(path).unwrap().count() - 1).sum()
}

#[tokio::test]
async fn all_that_a_program_prints_is_in_a_file_that_goes_with_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&spooling(dir.path()));
    let task = sh("head -c 5000000 /dev/zero; echo end; echo said >&2").spool_stdout();
    let output = finished(run(&pool, task).await);
    assert_eq!((output.stdout.len(), &*output.stderr), (0, &b"said\n"[..]));
    assert_eq!((output.stdout_len(), output.is_truncated()), (5_000_004, false));
    let printed = fs::read(output.stdout_file().unwrap()).unwrap();
    assert!(printed.len() == 5_000_004 && printed.ends_with(b"\0end\n"));
    // The slot is used again, and who does not ask is not spooled.
    let short = finished(run(&pool, sh("echo short")).await);
    assert_eq!((&*short.stdout, short.stdout_file()), (&b"short\n"[..], None));
    drop(output);
    until("its file is gone", || files(dir.path()) == 0).await;
}

#[tokio::test]
async fn what_a_failed_program_printed_is_there_too() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&spooling(dir.path()));
    let printed = given_time(async |limit| {
        let task = sh("echo so far; sleep 1000").spool_stdout().timeout(limit);
        let (failure, output) = failed(run(&pool, task).await);
        assert!(matches!(failure, Failure::TimedOut(_)), "{failure}");
        let printed = fs::read(output.stdout_file()?).unwrap();
        (!printed.is_empty()).then_some(printed)
    });
    assert_eq!(printed.await, b"so far\n");
}

#[tokio::test]
async fn what_is_beyond_the_limit_is_read_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = spooling(dir.path());
    config.spool.max_task_bytes = 100_000;
    let output =
        finished(run(&pool(&config), sh("head -c 3000000 /dev/zero").spool_stdout()).await);
    assert_eq!((output.stdout_len(), output.stdout_dropped), (100_000, 2_900_000));
}

#[tokio::test]
async fn a_run_that_was_cut_off_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&spooling(dir.path()));
    let (ticket, end) = submit(&pool, sh("echo x; sleep 1000").spool_stdout());
    until("it has a file", || files(dir.path()) == 1).await;
    ticket.kill(CancelReason::Revoke);
    assert!(end.await.is_err());
    until("the file is gone", || files(dir.path()) == 0).await;
    pool.close().await;
    drop(pool);
    let is_ours = |entry: &fs::DirEntry| entry.file_type().unwrap().is_dir();
    let left = || fs::read_dir(dir.path()).unwrap().map(Result::unwrap).filter(is_ours).count();
    until("the directory is gone", || left() == 0).await;
}

#[tokio::test]
async fn to_spool_without_a_directory_is_a_permanent_failure_that_names_the_key() {
    let (failure, _) = failed(run(&pool(&config(1)), sh("echo x").spool_stdout()).await);
    assert!(
        failure.is_permanent() && failure.to_string().contains("executor.spool.dir"),
        "{failure}"
    );
}

#[tokio::test]
async fn what_a_program_used_is_known_if_somebody_wants_to_know() {
    // Has 20 MB for a while, after a child for which it waits has worked.
    let script = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'
                  x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep $1; : $x";
    let job_log = JobLogConfig { path: Some("unused".into()), ..JobLogConfig::default() };
    let measuring = pool(&ExecutorConfig { job_log, ..config(1) });
    let usage = given_time(async |time| {
        let task = sh(script).arg("sh").arg(time.as_secs_f64().to_string());
        let Usage { max_rss, user, system } = finished(run(&measuring, task).await).usage;
        assert!(user > Some(Duration::from_millis(10)) && system.is_some(), "{user:?} {system:?}");
        max_rss.filter(|&peak| peak > 20_000_000)
    });
    usage.await;
    let not_measuring = pool(&config(1));
    let output = finished(run(&not_measuring, Task::new().program("true")).await);
    assert_eq!(output.usage, Usage::default());
    assert!(output.started_at.is_some());
}
