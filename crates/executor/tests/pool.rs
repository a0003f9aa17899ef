//! What becomes of many tasks: order, slots, withdrawal, and the end of the pool.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{
    fs,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use drakkar_core::Task;
use drakkar_executor::{CancelReason, ExecutorConfig, Job, Pool, Rank, Run, StartError, Ticket};
use support::{Marker, config, finished, pool, run, sh, submit, submit_as, until};
use tokio::{sync::oneshot, time::Instant};

/// A job that holds its slot until the file it waits for appears.
struct Blocker {
    dir: tempfile::TempDir,
    end: oneshot::Receiver<Run>,
}

impl Blocker {
    async fn start(pool: &Pool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("gate");
        let script = "mkfifo gate && echo > ready && cat gate";
        let (ticket, end) = submit(pool, sh(script).working_dir(dir.path()));
        let ready = dir.path().join("ready");
        until("the blocker runs", || ticket.has_started() && ready.exists() && fifo.exists()).await;
        Self { dir, end }
    }

    async fn release(self) {
        let gate = self.dir.path().join("gate");
        std::thread::spawn(move || std::fs::write(gate, "").unwrap());
        finished(self.end.await.unwrap());
    }
}

/// Submits a job that writes down its name when it has run.
fn note(pool: &Pool, log: &Arc<Mutex<Vec<String>>>, name: &str, rank: Rank) -> Ticket {
    let (log, name) = (Arc::clone(log), name.to_owned());
    let done = Box::new(move |_| log.lock().unwrap().push(name));
    pool.submit(Job { task: Arc::new(Task::new().program("true")), rank, done })
}

/// The rank of a job that waits since so many milliseconds after the first one.
fn rank(priority: i64, since: u64) -> Rank {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    Rank { priority, since: *FIRST + Duration::from_millis(since), sequence: 0 }
}

#[tokio::test]
async fn priority_goes_first_then_age_then_who_came_first() {
    let pool = pool(&config(1));
    let blocker = Blocker::start(&pool).await;
    let log = Arc::default();
    for (name, rank) in [
        ("young", rank(0, 20)),
        ("old, first", rank(0, 10)),
        ("old, second", rank(0, 10)),
        ("unimportant", rank(5, 0)),
        ("urgent", rank(-1, 99)),
    ] {
        note(&pool, &log, name, rank);
    }
    assert_eq!(pool.stats().queued, 5);
    blocker.release().await;
    until("all have run", || log.lock().unwrap().len() == 5).await;
    let order = ["urgent", "old, first", "old, second", "young", "unimportant"];
    assert_eq!(*log.lock().unwrap(), order);
}

#[tokio::test]
async fn whoever_has_waited_too_long_goes_first_whatever_its_priority() {
    let pool = pool(&ExecutorConfig { priority_ageing: Duration::from_secs(1), ..config(1) });
    let blocker = Blocker::start(&pool).await;
    let log = Arc::default();
    let now = Instant::now();
    for (name, priority, waited) in
        [("urgent", -1, 0), ("forgotten", 9, 2_000), ("usual", 0, 0), ("for ages", 9, 3_000)]
    {
        let since = now.checked_sub(Duration::from_millis(waited)).unwrap();
        note(&pool, &log, name, Rank { priority, since, sequence: 0 });
    }
    blocker.release().await;
    until("all have run", || log.lock().unwrap().len() == 4).await;
    assert_eq!(*log.lock().unwrap(), ["for ages", "forgotten", "urgent", "usual"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_processes_live_than_there_are_slots() {
    let pool = pool(&config(3));
    let dir = tempfile::tempdir().unwrap();
    let script = "echo + >>log; until [ -e go ]; do sleep 0.02; done; echo - >>log";
    let ends: Vec<_> =
        (0..60).map(|_| submit(&pool, sh(script).working_dir(dir.path())).1).collect();
    let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    until("every slot is used", || log() == "+\n+\n+\n").await;
    fs::write(dir.path().join("go"), "").unwrap();
    for end in ends {
        finished(end.await.unwrap());
    }
    let mut now = 0;
    for line in log().lines() {
        now += if line == "+" { 1 } else { -1 };
        assert!(now <= 3, "{now} at once");
    }
}

#[tokio::test]
async fn what_is_withdrawn_from_the_queue_never_runs() {
    let pool = pool(&config(1));
    let blocker = Blocker::start(&pool).await;
    let dir = tempfile::tempdir().unwrap();
    let (ticket, end) = submit(&pool, sh("touch ran").working_dir(dir.path()));
    assert!(!ticket.has_started());
    assert!(ticket.cancel_queued());
    assert!(!ticket.cancel_queued(), "it was withdrawn before");
    assert!(end.await.is_err(), "nobody is told");
    assert_eq!(pool.stats().queued, 0);
    blocker.release().await;
    finished(run(&pool, Task::new().program("true")).await);
    assert!(!ticket.has_started() && !dir.path().join("ran").exists());
}

#[tokio::test]
async fn what_has_started_cannot_be_withdrawn() {
    let pool = pool(&config(1));
    let (ticket, end) = submit(&pool, Task::new().program("true"));
    until("it runs", || ticket.has_started()).await;
    assert!(!ticket.cancel_queued());
    finished(end.await.unwrap());
    assert!(ticket.has_started(), "also when it has ended");
}

#[tokio::test]
async fn killing_ends_the_whole_group_and_frees_the_slot() {
    let pool = pool(&config(1));
    let marker = Marker::new();
    let (ticket, end) = submit(&pool, marker.mark(sh("sleep 1000 & sleep 1000 & wait")));
    marker.until_alive(3).await;
    ticket.kill(CancelReason::Revoke);
    assert!(end.await.is_err(), "nobody is told");
    marker.until_gone().await;
    finished(run(&pool, Task::new().program("true")).await);
}

#[tokio::test]
async fn killing_what_waits_takes_it_out_of_the_queue() {
    let pool = pool(&config(1));
    let blocker = Blocker::start(&pool).await;
    let (ticket, end) = submit(&pool, Task::new().program("true"));
    ticket.kill(CancelReason::Revoke);
    assert!(end.await.is_err());
    assert_eq!(pool.stats().queued, 0);
    blocker.release().await;
}

#[tokio::test]
async fn after_close_nothing_runs_and_nothing_is_left() {
    let grace = Duration::from_millis(200);
    let pool = pool(&ExecutorConfig { kill_grace: grace, ..config(4) });
    let marker = Marker::new();
    let scripts = [
        "sleep 1000",
        "sleep 1000 & wait",
        "trap '' TERM; sleep 1000; sleep 1000",
        "exec sleep 999",
    ];
    let mut jobs: Vec<_> =
        scripts.map(|script| submit(&pool, marker.mark(sh(script)))).into_iter().collect();
    marker.until_alive(6).await;
    jobs.push(submit(&pool, marker.mark(sh("sleep 1000"))));

    pool.close().await;

    assert_eq!(pool.stats().active + pool.stats().queued, 0);
    marker.until_gone().await;
    jobs.push(submit(&pool, Task::new().program("true")));
    for (_ticket, end) in jobs {
        assert!(end.await.is_err(), "nobody is told");
    }
}

#[tokio::test]
async fn a_pool_that_nobody_holds_ends_its_processes() {
    let pool = pool(&config(1));
    let marker = Marker::new();
    let (_ticket, end) = submit(&pool, marker.mark(sh("sleep 1000")));
    marker.until_alive(1).await;
    drop(pool);
    assert!(end.await.is_err());
    marker.until_gone().await;
}

#[test]
fn processes_do_not_outlive_the_runtime() {
    let marker = Marker::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pool = runtime.block_on(async {
        let pool = pool(&config(1));
        drop(submit(&pool, marker.mark(sh("sleep 1000 & sleep 1000 & wait"))));
        marker.until_alive(3).await;
        pool
    });
    drop(runtime);
    drop(pool);
    let waiting = tokio::runtime::Runtime::new().unwrap();
    waiting.block_on(marker.until_gone());
}

#[tokio::test]
async fn a_hundred_thousand_jobs_wait_and_leave_again() {
    let pool = pool(&config(1));
    let blocker = Blocker::start(&pool).await;
    let task = Arc::new(Task::new().program("true"));
    let tickets: Vec<Ticket> = (0..100_000)
        .map(|age| {
            let done = Box::new(|_| {});
            pool.submit(Job { task: Arc::clone(&task), rank: rank(0, age % 1_000), done })
        })
        .collect();
    assert_eq!(pool.stats().queued, 100_000);
    assert!(tickets.iter().skip(100).all(Ticket::cancel_queued));
    assert_eq!(pool.stats().queued, 100);
    assert_eq!(Arc::strong_count(&task), 101, "what is withdrawn takes its data along");
    blocker.release().await;
    until("the rest has run", || pool.stats().queued + pool.stats().active == 0).await;
    assert!(tickets.iter().take(100).all(Ticket::has_started));
}

#[tokio::test]
async fn a_receiver_that_panics_costs_no_slot() {
    let pool = pool(&config(1));
    let task = Arc::new(Task::new().program("true"));
    let done = Box::new(|_| panic!("in the receiver"));
    drop(pool.submit(Job { task, rank: Rank::at(Instant::now()), done }));
    finished(run(&pool, Task::new().program("true")).await);
}

#[tokio::test]
async fn waiting_for_a_slot_is_measured() {
    let pool = pool(&config(1));
    let blocker = Blocker::start(&pool).await;
    let (_ticket, end) = submit_as(&pool, Task::new().program("true"), rank(0, 0));
    let submitted = Instant::now();
    until("time has passed", || submitted.elapsed() > Duration::from_millis(50)).await;
    blocker.release().await;
    let output = finished(end.await.unwrap());
    assert!(output.waited >= Duration::from_millis(50), "{:?}", output.waited);
}

#[test]
fn a_pool_needs_a_runtime() {
    assert!(matches!(Pool::start(&config(1)), Err(StartError::NoRuntime(_))));
}
