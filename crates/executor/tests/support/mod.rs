//! What the tests of the pool share: a pool, shell tasks, waiting for conditions, and finding
//! processes by a variable of their environment.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.
#![allow(dead_code, unreachable_pub)] // Every test binary uses a part.

pub mod persistent;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use drakkar_core::{Failure, Output, Task};
use drakkar_executor::{ExecutorConfig, Job, Pool, Rank, Run, Ticket};
use tokio::{sync::oneshot, time::Instant};

/// How long a condition may take; reached only by a failing test.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// What `attempt` sees when it gives a program time enough to come to the point. A machine that stalls may
/// need more than usual.
pub async fn given_time<T>(mut attempt: impl AsyncFnMut(Duration) -> Option<T>) -> T {
    for limit in [300, 3_000, 30_000].map(Duration::from_millis) {
        if let Some(seen) = attempt(limit).await {
            return seen;
        }
    }
    panic!("the program has not come to the point in half a minute");
}

/// Lets so much time pass at once for what runs on this runtime: programs that stay.
pub async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub fn config(slots: usize) -> ExecutorConfig {
    ExecutorConfig { max_executors: slots.try_into().ok(), ..ExecutorConfig::default() }
}

pub fn pool(config: &ExecutorConfig) -> Pool {
    Pool::start(config).unwrap()
}

/// A task that runs `script` in a shell.
pub fn sh(script: &str) -> Task {
    Task::new().program("/bin/sh").arg("-c").arg(script)
}

pub fn submit(pool: &Pool, task: Task) -> (Ticket, oneshot::Receiver<Run>) {
    submit_as(pool, task, Rank::at(Instant::now()))
}

pub fn submit_as(pool: &Pool, task: Task, rank: Rank) -> (Ticket, oneshot::Receiver<Run>) {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |run| drop(sender.send(run)));
    (pool.submit(Job { task: Arc::new(task), rank, done }), receiver)
}

pub async fn run(pool: &Pool, task: Task) -> Run {
    let (_ticket, end) = submit(pool, task);
    tokio::time::timeout(PATIENCE, end).await.expect("the task ends").expect("the task is reported")
}

#[track_caller]
pub fn finished(run: Run) -> Output {
    match run {
        Run::Finished(output) => output,
        Run::Failed { failure, output } => panic!("{failure}: {output:?}"),
    }
}

#[track_caller]
pub fn failed(run: Run) -> (Failure, Output) {
    match run {
        Run::Finished(output) => panic!("did not fail: {output:?}"),
        Run::Failed { failure, output } => (failure, output),
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The variable that carries it.
pub const MARK: &str = "POOL_TEST_MARK";

/// A variable that marks the processes of one test, their children included.
pub struct Marker(String);

impl Marker {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The mark that another process has made.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The variable.
    pub fn variable(&self) -> (String, String) {
        (MARK.to_owned(), self.0.clone())
    }

    pub fn mark(&self, task: Task) -> Task {
        let (name, value) = self.variable();
        task.env(name, value)
    }

    /// How many processes with the mark live; a zombie has no environment left.
    pub fn alive(&self) -> usize {
        let wanted = format!("{MARK}={}", self.0);
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes
            .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
            .filter(|all| all.split(|&byte| byte == 0).any(|one| one == wanted.as_bytes()))
            .count()
    }

    pub async fn until_gone(&self) {
        until("no process is left", || self.alive() == 0).await;
    }

    pub async fn until_alive(&self, count: usize) {
        until("the processes run", || self.alive() >= count).await;
    }
}
