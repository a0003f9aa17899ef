//! A worker that is process 1, as in a container: it reaps what nobody else can, and nothing that
//! somebody waits for.
//!
//! Takes some twenty seconds: whom nobody waits for is known by having been a zombie at two looks.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{env, fs, process::Command, time::Duration};

use drakkar_core::{Failure, Task};
use drakkar_executor::ExecutorConfig;
use support::{config, failed, pool, run, sh, submit, until};
use tokio::time::Instant;

/// Longer than two looks for zombies are apart.
const HELD_OPEN: Duration = Duration::from_secs(22);

/// Runs this test again as process 1 of a container's namespaces; `false` where that is forbidden.
fn runs_as_process_one(name: &str) -> bool {
    let alone = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child", program]);
        command
    };
    let allowed = alone("true").output();
    if let Some(reason) = match &allowed {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    } {
        eprintln!("SKIPPED {name}: this machine gives us no process namespace: {reason}");
        return false;
    }
    let exe = env::current_exe().unwrap();
    let mut inner = alone(exe.to_str().unwrap());
    let inner = inner.args(["--exact", name, "--nocapture", "--test-threads=1"]).output().unwrap();
    let said = String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success(), "{}: {said}", inner.status);
    true
}

/// Every zombie there is, by name.
fn zombies() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats =
        processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(") Z ")).collect()
}

fn is_zombie(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// Forks twice; what is left ends when the task has, or a moment before.
fn forks_twice(code: i32) -> Task {
    sh(&format!("(sleep 0.01 &) ; (setsid sleep 0.01 >/dev/null 2>&1 &) ; exit {code}"))
}

#[tokio::test]
async fn as_process_one_a_worker_reaps_every_zombie_and_steals_no_exit_status() {
    const NAME: &str = "as_process_one_a_worker_reaps_every_zombie_and_steals_no_exit_status";
    if std::process::id() != 1 {
        runs_as_process_one(NAME);
        return;
    }
    let since = Instant::now();
    let passed = async |seconds| {
        until("time passes", || since.elapsed() > Duration::from_secs(seconds)).await;
    };
    let pool = pool(&ExecutorConfig { pipe_grace: HELD_OPEN, ..config(2) });
    // Ended, and a zombie for as long as its output is held open.
    let (_ticket, held) = submit(&pool, sh("setsid sleep 1000 2>/dev/null & exit 7"));
    // Brought into the container by others, and left to process 1: no mark tells whose it is.
    let stranger = ["-c", "(sleep 0.05; exit 3) & (setsid sh -c 'sleep 0.05 & exit 4' &) ; exit 0"];
    for _ in 0..10 {
        let stranger = Command::new("sh").args(stranger).env_clear().status().unwrap();
        assert!(stranger.success());
    }
    until("they are zombies", || zombies().len() > 10).await;
    for code in (1..=10).cycle().take(100) {
        assert_eq!(failed(run(&pool, forks_twice(code)).await).0, Failure::Exit(code));
    }
    // Of a hook that asks late, after the first look, and yet in time.
    passed(5).await;
    let own = || Command::new("sh").args(["-c", "exit 9"]).spawn().unwrap();
    // By a thread that is gone: then the kernel puts it where it puts what others have left behind.
    let mut own = std::thread::spawn(own).join().unwrap();
    until("it has ended", || is_zombie(own.id())).await;
    passed(12).await;
    assert_eq!(own.wait().unwrap().code(), Some(9));

    let ended = tokio::time::timeout(HELD_OPEN * 3, held).await.unwrap();
    assert_eq!(failed(ended.unwrap()).0, Failure::Exit(7));
    until("no zombie is left", || zombies().is_empty()).await;
}
