//! Persistent programs beside one process per task: both echo 200 B.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, mpsc},
};

use anyhow::{Context, ensure};
use drakkar_core::Task;
use drakkar_executor::{ExecutorConfig, Job, Mode, Pool, ProgramConfig, Protocol, Rank, Run};
use drakkar_program::{Answer, serve_frames};
use tokio::{runtime::Runtime, time::Instant};

use crate::report::{Figure, Goal, Round};

const PAYLOAD: &[u8] = &[b'x'; 200];
const ONE_SHOTS: u32 = 2_000;
const REQUESTS: u32 = 200_000;

/// The argument with which this program echoes frames.
pub(crate) const ECHO: &str = "echo-frames";

/// What a process does that was started with [`ECHO`].
pub(crate) fn echo() -> anyhow::Result<()> {
    serve_frames(|request| Answer::ok(request.stdin)).context("cannot echo")
}

/// Requests to processes that stay, beside a `cat` per task.
pub(crate) fn measure(runtime: &Runtime, rounds: NonZeroUsize) -> anyhow::Result<[Figure; 2]> {
    let name = |protocol| format!("echo of 200 B by {protocol}, beside one cat per task");
    let mut frames = Figure::new(name("frames"), "tasks/s", Goal::AtLeast(60.0));
    let mut lines = Figure::new(name("lines"), "tasks/s", Goal::AtLeast(30.0));
    for round in 0..rounds.get() {
        let (mut reference, mut by_frames, mut by_lines) = (0.0, 0.0, 0.0);
        // Whoever goes first meets a machine that has just rested: everybody does in turn.
        for step in 0..3 {
            match (round + step) % 3 {
                0 => reference = speed(runtime, one_shot(), ONE_SHOTS)?,
                1 => by_frames = speed(runtime, framed()?, REQUESTS)?,
                _ => by_lines = speed(runtime, filter(), REQUESTS)?,
            }
        }
        frames.add(Round { ours: by_frames, reference });
        lines.add(Round { ours: by_lines, reference });
    }
    Ok([frames, lines])
}

fn one_shot() -> ProgramConfig {
    ProgramConfig { binary: Some(PathBuf::from("cat")), ..ProgramConfig::default() }
}

fn framed() -> anyhow::Result<ProgramConfig> {
    Ok(ProgramConfig {
        mode: Mode::Persistent,
        binary: Some(std::env::current_exe().context("where is this program?")?),
        args: vec![ECHO.to_owned()],
        protocol: Protocol::Frames,
        instances: NonZeroUsize::new(2),
        depth: NonZeroUsize::new(64).unwrap_or(NonZeroUsize::MIN),
        ..ProgramConfig::default()
    })
}

fn filter() -> ProgramConfig {
    ProgramConfig {
        mode: Mode::Persistent,
        binary: Some(PathBuf::from("cat")),
        protocol: Protocol::Lines,
        instances: NonZeroUsize::new(4),
        ..ProgramConfig::default()
    }
}

/// Tasks per second, once its processes are there.
fn speed(runtime: &Runtime, program: ProgramConfig, tasks: u32) -> anyhow::Result<f64> {
    let _entered = runtime.enter();
    let mut config = ExecutorConfig::default();
    config.programs.insert("echo".to_owned(), program);
    let pool = Pool::start(&config)?;
    run(&pool, 100)?;
    let started = Instant::now();
    run(&pool, tasks)?;
    let speed = f64::from(tasks) / started.elapsed().as_secs_f64();
    runtime.block_on(pool.close());
    Ok(speed)
}

fn run(pool: &Pool, tasks: u32) -> anyhow::Result<()> {
    let (report, ends) = mpsc::channel();
    let rank = Rank::at(Instant::now());
    for _ in 0..tasks {
        let report = report.clone();
        drop(pool.submit(Job {
            task: Arc::new(Task::new().program("echo").stdin(PAYLOAD)),
            rank,
            // The receiver is there until all have reported.
            done: Box::new(move |run| drop(report.send(run))),
        }));
    }
    for _ in 0..tasks {
        match ends.recv()? {
            Run::Finished(output) => ensure!(output.stdout == PAYLOAD, "another answer"),
            failed @ Run::Failed { .. } => anyhow::bail!("{failed:?}"),
        }
    }
    Ok(())
}
