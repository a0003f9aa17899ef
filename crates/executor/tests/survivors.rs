//! Nothing a task started outlives it, whatever it does to hide, on whatever path the task ends; and
//! nothing outlives the worker.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use drakkar_core::{Failure, Task};
use drakkar_executor::{CancelReason, ExecutorConfig, Pool};
use support::{MARK, Marker, failed, finished, pool, run, sh, submit, until};

/// What holds the pipes open is not waited for long.
fn config(slots: usize) -> ExecutorConfig {
    ExecutorConfig { pipe_grace: Duration::from_millis(30), ..support::config(slots) }
}

/// How programs stay behind, and how many they are while their parent waits.
const HIDE: [(&str, usize); 7] = [
    ("sleep 1000 &", 2),
    ("(sleep 1000 >/dev/null 2>&1 &) &", 2),
    ("setsid sleep 1000 &", 2),
    ("setsid sleep 1000 >/dev/null 2>&1 </dev/null &", 2),
    ("setsid sh -c '(nohup sleep 1000 &); sleep 1000' &", 4),
    ("setsid sh -c \"setsid sh -c 'setsid sleep 1000 & trap : TERM HUP; wait; wait' & wait\" &", 4),
    ("setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' >/dev/null 2>&1 &", 3),
];

/// Has `task` leave something behind in every way there is.
fn hiding(marker: &Marker, end: &str) -> (Task, usize) {
    let script = HIDE.map(|(way, _)| way).join("\n");
    let count = HIDE.iter().map(|(_, count)| count - 1).sum::<usize>();
    (marker.mark(sh(&format!("{script}\n{end}"))), count)
}

/// Waits, in a script, until `count` processes carry the mark.
fn once_there_are(count: usize) -> String {
    format!(
        "while [ $(grep -lsF \"$POOL_TEST_MARK\" /proc/[0-9]*/environ | wc -l) -lt {count} ]; do sleep 0.05; done"
    )
}

#[tokio::test]
async fn whatever_a_program_leaves_behind_is_gone_when_its_task_has_ended() {
    let pool = pool(&config(1));
    for (way, count) in HIDE {
        let marker = Marker::new();
        // The loop runs grep, which carries the mark as well, in a subshell.
        let script = format!("{way}\n{}\necho done", once_there_are(count + 2));
        let output = finished(run(&pool, marker.mark(sh(&script))).await);
        assert_eq!(output.stdout, "done\n", "{way}");
        assert_eq!(marker.alive(), 0, "{way}: the result is reported when all are gone");
    }
}

/// The kernel cuts names after 15 bytes, here in the middle of a letter.
#[tokio::test]
async fn a_program_whose_name_is_no_text_does_not_hide_by_it() {
    let pool = pool(&config(1));
    let (marker, dir) = (Marker::new(), tempfile::tempdir().unwrap());
    let script = "mkfifo wait; name=обработчик-видео
        printf '#!/bin/sh\\nread nothing <wait\\n' >$name; chmod +x $name
        setsid ./$name >/dev/null 2>&1 </dev/null &
        until grep -aqs обработ /proc/$!/comm; do sleep 0.05; done";
    finished(run(&pool, marker.mark(sh(script).working_dir(dir.path()))).await);
    assert_eq!(marker.alive(), 0, "it is gone when the result is reported");
    assert_eq!(pool.stats().escaped, 1);
}

#[tokio::test]
async fn a_failed_task_leaves_nothing_behind_for_its_next_attempt() {
    let pool = pool(&config(1));
    let marker = Marker::new();
    let (task, _) = hiding(&marker, "exit 3");
    for _attempt in 0..2 {
        assert_eq!(failed(run(&pool, task.clone()).await).0, Failure::Exit(3));
        assert_eq!(marker.alive(), 0);
    }
}

#[tokio::test]
async fn a_task_out_of_time_leaves_nothing_behind() {
    let pool = pool(&ExecutorConfig { kill_grace: Duration::from_millis(100), ..config(1) });
    let marker = Marker::new();
    let (task, _) = hiding(&marker, "trap '' TERM; sleep 1000; sleep 1000");
    let (failure, _) = failed(run(&pool, task.timeout(Duration::from_millis(500))).await);
    assert!(matches!(failure, Failure::TimedOut(_)), "{failure}");
    assert_eq!(marker.alive(), 0);
}

#[tokio::test]
async fn a_task_that_is_cancelled_leaves_nothing_behind() {
    let pool = pool(&config(1));
    let marker = Marker::new();
    let (task, count) = hiding(&marker, "sleep 1000");
    let (ticket, end) = submit(&pool, task);
    marker.until_alive(count + 2).await;
    ticket.kill(CancelReason::Revoke);
    assert!(end.await.is_err(), "nobody is told");
    marker.until_gone().await;
}

#[tokio::test]
async fn a_pool_that_is_closed_leaves_nothing_behind() {
    let pool = pool(&config(2));
    let marker = Marker::new();
    let (task, count) = hiding(&marker, "sleep 1000");
    let jobs = [submit(&pool, task.clone()), submit(&pool, task)];
    marker.until_alive(2 * count + 4).await;
    pool.close().await;
    assert_eq!(marker.alive(), 0);
    drop(jobs);
}

#[tokio::test]
async fn what_another_task_has_detached_is_not_touched_while_that_task_runs() {
    let pool = pool(&config(2));
    let (marker, dir) = (Marker::new(), tempfile::tempdir().unwrap());
    let script = "(setsid sleep 1000 >/dev/null 2>&1 &); mkfifo gate; touch ready; cat gate";
    let (_ticket, end) = submit(&pool, marker.mark(sh(script).working_dir(dir.path())));
    until("it has detached", || dir.path().join("ready").exists() && marker.alive() == 3).await;
    for _ in 0..20 {
        finished(run(&pool, sh("setsid sleep 1000 &")).await);
    }
    assert_eq!(marker.alive(), 3);
    fs::write(dir.path().join("gate"), "").unwrap();
    finished(end.await.unwrap());
    assert_eq!(marker.alive(), 0);
}

#[tokio::test]
async fn who_had_left_the_group_is_counted_and_who_had_not_is_not() {
    let (pool, dir) = (pool(&config(1)), tempfile::tempdir().unwrap());
    finished(run(&pool, sh("sleep 1000 & sleep 1000 &")).await);
    assert_eq!(pool.stats().escaped, 0);
    let script =
        "setsid sh -c 'touch away; exec sleep 1000' & until [ -e away ]; do sleep 0.01; done";
    finished(run(&pool, sh(script).working_dir(dir.path())).await);
    assert_eq!(pool.stats().escaped, 1);
}

#[tokio::test]
async fn what_is_left_behind_leaves_no_zombie_either() {
    let (pool, dir) = (pool(&config(1)), tempfile::tempdir().unwrap());
    // A name that tells our zombies from those of other tests.
    std::os::unix::fs::symlink("/bin/sleep", dir.path().join("left-behind")).unwrap();
    let script = "./left-behind 99 & ./left-behind 99 & setsid ./left-behind 99 &";
    for _ in 0..10 {
        finished(run(&pool, sh(script).working_dir(dir.path())).await);
        assert_eq!(zombies("left-behind"), 0);
    }
}

/// Zombies of this name that are ours to reap.
fn zombies(name: &str) -> usize {
    let ours = format!("({name}) Z {} ", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats =
        processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&ours)).count()
}

#[tokio::test]
async fn the_mark_of_a_worker_that_is_itself_a_task_names_both() {
    let pool = pool(&config(1));
    let output = finished(run(&pool, sh("echo $DRAKKAR_TASK_OF")).await);
    let text = String::from_utf8(output.stdout.to_vec()).unwrap();
    let outer = env::var("DRAKKAR_TASK_OF").map_or(String::new(), |mark| mark + "/");
    let expected = format!("{outer}{}-", std::process::id());
    assert!(text.starts_with(&expected) && text.trim().ends_with(".0"), "{text}");
    if outer.is_empty() {
        let mut inner = this_test("the_mark_of_a_worker_that_is_itself_a_task_names_both");
        let inner = inner.env("DRAKKAR_TASK_OF", "7-outer.3").output().unwrap();
        assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stderr));
    }
}

/// Runs the test `name` again, in a process of its own.
fn this_test(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command
}

/// A worker in a process of its own: the same test, which sees this variable and plays the worker.
const WORKER: &str = "POOL_TEST_WORKER";

/// Starts it, and waits until its tasks run.
async fn worker(test: &str, marker: &Marker) -> Child {
    let mut command = this_test(test);
    command.env(WORKER, marker.text());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let (_, count) = hiding(marker, "");
    let child = command.spawn().unwrap();
    marker.until_alive(2 * count + 4).await;
    child
}

/// The worker's side: two tasks that hide and wait, and then `end`.
async fn work(end: impl FnOnce(Pool)) {
    let pool = pool(&config(2));
    let marker = Marker::of(&env::var(WORKER).unwrap());
    let (task, _) = hiding(&marker, "sleep 1000");
    let jobs = [submit(&pool, task.clone()), submit(&pool, task)];
    end(pool.clone());
    for (_ticket, run) in jobs {
        drop(run.await);
    }
}

#[tokio::test]
async fn nothing_survives_a_worker_that_is_killed() {
    if env::var_os(WORKER).is_some() {
        return work(drop).await;
    }
    let marker = Marker::new();
    let mut worker = worker("nothing_survives_a_worker_that_is_killed", &marker).await;
    worker.kill().unwrap();
    assert_eq!(worker.wait().unwrap().signal(), Some(9));
    marker.until_gone().await;
}

#[tokio::test]
async fn nothing_survives_a_worker_that_panics() {
    if env::var_os(WORKER).is_some() {
        return work(|_pool| {
            // As a whole: a panic in a test ends the test alone.
            std::thread::spawn(|| {
                std::panic::set_hook(Box::new(|_| std::process::abort()));
                let told = std::io::stdin().lines().next();
                panic!("as told: {told:?}");
            });
        })
        .await;
    }
    let marker = Marker::new();
    let mut worker = worker("nothing_survives_a_worker_that_panics", &marker).await;
    drop(worker.stdin.take()); // Its processes were seen: now it may.
    assert_eq!(worker.wait().unwrap().signal(), Some(6));
    marker.until_gone().await;
}

#[tokio::test]
async fn a_warden_that_dies_is_replaced() {
    if env::var_os(WORKER).is_some() {
        return work(drop).await;
    }
    let marker = Marker::new();
    let mut worker = worker("a_warden_that_dies_is_replaced", &marker).await;
    let first = warden(worker.id()).expect("there is one");
    Command::new("kill").args(["-KILL", &first.to_string()]).status().unwrap();
    until("there is another", || warden(worker.id()).is_some_and(|id| id != first)).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    marker.until_gone().await;
}

/// The warden of the worker with this id, once it is ready.
fn warden(worker: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.find(|id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let command = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let is_child = stat.rsplit_once(") ").is_some_and(|(_, rest)| {
            rest.split(' ').nth(1).is_some_and(|parent| parent == worker.to_string())
        });
        is_child && command.contains("\0drakkar-warden\0")
    })
}

#[test]
fn the_mark_of_tests_is_not_the_mark_of_the_pool() {
    assert_ne!(MARK, "DRAKKAR_TASK_OF", "the tests would only ask the pool about itself");
}
