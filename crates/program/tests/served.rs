//! A program that uses this crate, in a real pool: both sides of each protocol agree.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use drakkar_core::Task;
use drakkar_executor::{ExecutorConfig, Job, Mode, Pool, ProgramConfig, Protocol, Rank, Run};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// A pool in which `echo` answers every task with its own input.
fn pool(protocol: Protocol) -> Pool {
    let mut config = ExecutorConfig::default();
    let program = ProgramConfig {
        mode: Mode::Persistent,
        binary: Some(env!("CARGO_BIN_EXE_drakkar-echo").into()),
        args: vec![protocol.to_string()],
        protocol,
        instances: NonZeroUsize::new(2),
        depth: NonZeroUsize::new(16).unwrap(),
        ping: true,
        ..ProgramConfig::default()
    };
    config.programs.insert("echo".to_owned(), program);
    Pool::start(&config).unwrap()
}

fn submit(pool: &Pool, stdin: Vec<u8>) -> oneshot::Receiver<Run> {
    let (report, end) = oneshot::channel();
    let task = Arc::new(Task::new().program("echo").arg("--ignored").stdin(stdin));
    let done = Box::new(move |run| drop(report.send(run)));
    drop(pool.submit(Job { task, rank: Rank::at(Instant::now()), done }));
    end
}

#[tokio::test]
async fn what_is_sent_is_what_comes_back_byte_for_byte() {
    for protocol in [Protocol::Frames, Protocol::JsonLines] {
        let pool = pool(protocol);
        let every_byte: Vec<u8> = (0..=u8::MAX).collect();
        let inputs = [vec![], b"text".to_vec(), every_byte, vec![b'x'; 1_000_000]];
        let ends: Vec<_> =
            (0..40).map(|n| submit(&pool, inputs[n % inputs.len()].clone())).collect();
        for (n, end) in ends.into_iter().enumerate() {
            let run = timeout(Duration::from_mins(1), end).await.unwrap().unwrap();
            let Run::Finished(output) = run else { panic!("{protocol}: {run:?}") };
            assert!(output.stdout == inputs[n % inputs.len()], "{protocol}, {n}");
        }
        let stats = pool.programs()["echo"].clone();
        assert_eq!((stats.starts, stats.failures), (2, 0));
        pool.close().await;
    }
}
