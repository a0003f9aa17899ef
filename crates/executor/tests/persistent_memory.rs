//! Programs that stay: what talking to one costs the worker does not grow with the number of tasks
//! that wait for it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{fs, num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use drakkar_core::Task;
use drakkar_executor::{Job, Pool, Protocol, Rank, Run};
use support::{
    PATIENCE,
    persistent::{Stage, task},
};
use tokio::{sync::mpsc, time::Instant};

const TASKS: usize = 12_000;
const INPUT: usize = 16 * 1024;

/// The memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

fn submit_all(pool: &Pool, task: &Arc<Task>) -> mpsc::UnboundedReceiver<usize> {
    let (sender, ends) = mpsc::unbounded_channel();
    for _ in 0..TASKS {
        let sender = sender.clone();
        let done = Box::new(move |run| match run {
            Run::Finished(output) => sender.send(output.stdout.len()).unwrap(),
            Run::Failed { failure, .. } => panic!("{failure}"),
        });
        drop(pool.submit(Job { task: Arc::clone(task), rank: Rank::at(Instant::now()), done }));
    }
    ends
}

#[tokio::test]
async fn a_backlog_does_not_let_the_requests_of_a_busy_process_pile_up() {
    // More is always on its way than the pipe and the program take at once.
    let depth = NonZeroUsize::new(16).unwrap();
    let stage = Stage::new(Protocol::Frames).set(|program| program.depth = depth);
    let pool = stage.pool();
    let task = Arc::new(task("echo").stdin(Bytes::from(vec![b'x'; INPUT])));
    let mut ends = submit_all(&pool, &task);
    let before = resident();
    for _ in 0..TASKS {
        let end = tokio::time::timeout(PATIENCE, ends.recv()).await;
        assert_eq!(end.expect("the tasks end").expect("every task is reported"), INPUT);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < TASKS * INPUT / 4, "{grown} bytes more");
    pool.close().await;
}
