//! The process pool beside bare loops that spawn the same program: both outputs captured, standard
//! input from `/dev/null`, a process group of its own.

use std::{
    io::Read,
    num::NonZeroUsize,
    os::unix::process::CommandExt,
    process::{self, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, ensure};
use drakkar_core::Task;
use drakkar_executor::{ExecutorConfig, Job, Pool, Rank, Run};
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    persistent,
    report::{Figure, Goal, Round},
    usage,
};

const SLOTS: [usize; 3] = [2, 4, 16];
const TASKS: usize = 2_000;
const PROGRAM: &str = "/bin/true";
/// In the place of a number of tasks.
const FAILED: usize = usize::MAX;
const GIB: usize = 1 << 30;
const CAPTURE: usize = 64 * 1024;

/// Runs the suite.
pub(crate) fn measure(rounds: NonZeroUsize) -> anyhow::Result<Vec<Figure>> {
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let mut figures = Vec::new();
    for slots in SLOTS {
        figures.extend(pool_alone(&runtime, slots, rounds)?);
    }
    figures.push(behind_many(&runtime, rounds)?);
    figures.push(beside_ballast(&runtime, rounds)?);
    figures.extend(large_output(&runtime, rounds)?);
    figures.extend(persistent::measure(&runtime, rounds)?);
    Ok(figures)
}

/// Short programs, as many as go, and what each costs this process.
fn pool_alone(
    runtime: &Runtime,
    slots: usize,
    rounds: NonZeroUsize,
) -> anyhow::Result<[Figure; 3]> {
    let name = |reference| format!("{PROGRAM}, {slots} slots, beside {reference}");
    let mut beside_tokio = Figure::new(name("tokio::process"), "tasks/s", Goal::AtLeast(0.95));
    let mut beside_threads = Figure::new(name("threads"), "tasks/s", Goal::AtLeast(0.9));
    let name = format!("own CPU of it, {slots} slots, beside tokio::process");
    let mut processor = Figure::new(name, "µs/task", Goal::AtMost(1.2));
    for round in 0..rounds.get() {
        let (mut ours, mut tokio, mut threads) = ((0.0, 0.0), (0.0, 0.0), 0.0);
        // Whoever goes first meets a machine that has just rested: everybody does in turn.
        for step in 0..3 {
            match (round + step) % 3 {
                0 => tokio = with_cpu(|| tokio_loop(runtime, slots))?,
                1 => ours = with_cpu(|| in_pool(runtime, slots))?,
                _ => threads = thread_loop(slots)?,
            }
        }
        beside_tokio.add(Round { ours: ours.0, reference: tokio.0 });
        beside_threads.add(Round { ours: ours.0, reference: threads });
        processor.add(Round { ours: ours.1, reference: tokio.1 });
    }
    Ok([beside_tokio, beside_threads, processor])
}

/// What `run` answers, and the microseconds of this process per task, its children left out.
fn with_cpu(run: impl FnOnce() -> anyhow::Result<f64>) -> anyhow::Result<(f64, f64)> {
    let before = usage::own_cpu()?;
    let speed = run()?;
    let spent = usage::own_cpu()?.saturating_sub(before).as_secs_f64();
    Ok((speed, spent * 1e6 / f64::from(u32::try_from(TASKS)?)))
}

/// Whether it matters how many wait.
fn behind_many(runtime: &Runtime, rounds: NonZeroUsize) -> anyhow::Result<Figure> {
    let name = format!("{PROGRAM}, 4 slots, 10 000 waiting, beside 100");
    let mut figure = Figure::new(name, "tasks/s", Goal::AtLeast(0.95));
    for round in 0..rounds.get() {
        let (ours, reference) = if round % 2 == 0 {
            (with_waiting(runtime, 10_000)?, with_waiting(runtime, 100)?)
        } else {
            let reference = with_waiting(runtime, 100)?;
            (with_waiting(runtime, 10_000)?, reference)
        };
        figure.add(Round { ours, reference });
    }
    Ok(figure)
}

/// Whether the memory that a worker holds makes starting a process dearer.
fn beside_ballast(runtime: &Runtime, rounds: NonZeroUsize) -> anyhow::Result<Figure> {
    let name = format!("{PROGRAM}, 4 slots, 1 GiB resident, beside an empty worker");
    let mut figure = Figure::new(name, "tasks/s", Goal::AtLeast(0.9));
    for _ in 0..rounds.get() {
        let reference = in_pool(runtime, 4)?;
        let ballast = vec![1_u8; GIB];
        let ours = in_pool(runtime, 4)?;
        drop(std::hint::black_box(ballast));
        figure.add(Round { ours, reference });
    }
    Ok(figure)
}

/// A program that prints much more than is kept.
fn large_output(runtime: &Runtime, rounds: NonZeroUsize) -> anyhow::Result<[Figure; 2]> {
    let name = "1 GiB of output, 64 KiB kept, beside a bare reader".to_owned();
    let mut speed = Figure::new(name, "MiB/s", Goal::AtLeast(0.7));
    let name = "resident memory after it, beside before".to_owned();
    let mut memory = Figure::new(name, "MiB", Goal::AtMost(1.1));
    for round in 0..rounds.get() {
        let ours_first = round % 2 == 0;
        let mut reference = if ours_first { 0.0 } else { bare_reader()? };
        let before = usage::memory("VmRSS")?;
        let ours = captured(runtime)?;
        memory.add(Round { ours: usage::memory("VmRSS")?, reference: before });
        if ours_first {
            reference = bare_reader()?;
        }
        speed.add(Round { ours, reference });
    }
    Ok([speed, memory])
}

/// `count` per second since `started`.
fn rate(count: f64, started: Instant) -> f64 {
    count / started.elapsed().as_secs_f64()
}

fn tasks_per_second(started: Instant) -> f64 {
    rate(f64::from(u32::try_from(TASKS).unwrap_or(u32::MAX)), started)
}

fn in_pool(runtime: &Runtime, slots: usize) -> anyhow::Result<f64> {
    let _entered = runtime.enter();
    let config =
        ExecutorConfig { max_executors: NonZeroUsize::new(slots), ..ExecutorConfig::default() };
    let pool = Pool::start(&config)?;
    let (left, main) = (Arc::new(AtomicUsize::new(TASKS)), thread::current());
    let started = Instant::now();
    for _ in 0..TASKS {
        let (left, main) = (Arc::clone(&left), main.clone());
        drop(pool.submit(Job {
            task: Arc::new(Task::new().program(PROGRAM)),
            rank: Rank::at(Instant::now()),
            // As in the bare loops, nobody is woken before the last has ended.
            done: Box::new(move |run| {
                if !matches!(run, Run::Finished(_)) {
                    left.store(FAILED, Ordering::Relaxed);
                } else if left.fetch_sub(1, Ordering::Relaxed) > 1 {
                    return;
                }
                main.unpark();
            }),
        }));
    }
    while (1..=TASKS).contains(&left.load(Ordering::Relaxed)) {
        thread::park();
    }
    ensure!(left.load(Ordering::Relaxed) == 0, "a task failed");
    let speed = tasks_per_second(started);
    runtime.block_on(pool.close());
    Ok(speed)
}

/// Runs some of many jobs of different priorities; `waiting` are left at the end.
fn with_waiting(runtime: &Runtime, waiting: usize) -> anyhow::Result<f64> {
    let _entered = runtime.enter();
    let config =
        ExecutorConfig { max_executors: NonZeroUsize::new(4), ..ExecutorConfig::default() };
    let pool = Pool::start(&config)?;
    let (report, ends) = mpsc::channel();
    for priority in (0..7).cycle().take(waiting + TASKS) {
        let report = report.clone();
        drop(pool.submit(Job {
            task: Arc::new(Task::new().program(PROGRAM)),
            rank: Rank { priority, ..Rank::at(Instant::now()) },
            // Those that wait at the end are dropped with the pool.
            done: Box::new(move |run| drop(report.send(run))),
        }));
    }
    let ended = ends.try_iter().count();
    ensure!(ended < TASKS, "all have run before they were counted");
    let started = Instant::now();
    for _ in ended..TASKS {
        let run = ends.recv()?;
        ensure!(matches!(run, Run::Finished(_)), "{run:?}");
    }
    let speed = rate(f64::from(u32::try_from(TASKS - ended)?), started);
    runtime.block_on(pool.close());
    Ok(speed)
}

fn tokio_loop(runtime: &Runtime, slots: usize) -> anyhow::Result<f64> {
    let started = Instant::now();
    let left = Arc::new(AtomicUsize::new(TASKS));
    let loops: Vec<_> = (0..slots)
        .map(|_| {
            let left = Arc::clone(&left);
            runtime.spawn(async move {
                while takes_one(&left) {
                    let output = tokio::process::Command::new(PROGRAM)
                        .stdin(Stdio::null())
                        .process_group(0)
                        .output()
                        .await?;
                    ensure!(output.status.success());
                }
                Ok(())
            })
        })
        .collect();
    runtime.block_on(async {
        for one in loops {
            one.await??;
        }
        anyhow::Ok(())
    })?;
    Ok(tasks_per_second(started))
}

fn thread_loop(slots: usize) -> anyhow::Result<f64> {
    let started = Instant::now();
    let left = AtomicUsize::new(TASKS);
    let run = || {
        while takes_one(&left) {
            let output =
                process::Command::new(PROGRAM).stdin(Stdio::null()).process_group(0).output()?;
            ensure!(output.status.success());
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..slots).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok(tasks_per_second(started))
}

fn takes_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn captured(runtime: &Runtime) -> anyhow::Result<f64> {
    let _entered = runtime.enter();
    let config = ExecutorConfig {
        max_executors: Some(NonZeroUsize::MIN),
        max_stdout_bytes: CAPTURE,
        ..ExecutorConfig::default()
    };
    let pool = Pool::start(&config)?;
    let (report, end) = mpsc::channel();
    let started = Instant::now();
    drop(pool.submit(Job {
        task: Arc::new(Task::new().program("head").with_args(large_arguments())),
        rank: Rank::at(Instant::now()),
        done: Box::new(move |run| drop(report.send(run))),
    }));
    let run = end.recv()?;
    let speed = rate(1024.0, started);
    let Run::Finished(output) = run else { anyhow::bail!("{run:?}") };
    ensure!(output.stdout_dropped + CAPTURE as u64 == GIB as u64, "bytes are missing");
    runtime.block_on(pool.close());
    Ok(speed)
}

fn bare_reader() -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut child = process::Command::new("head")
        .args(large_arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut pipe = child.stdout.take().context("no pipe")?;
    let (mut chunk, mut total) = (vec![0; CAPTURE], 0);
    loop {
        match pipe.read(&mut chunk)? {
            0 => break,
            read => total += read,
        }
    }
    ensure!(child.wait()?.success() && total == GIB, "bytes are missing");
    Ok(rate(1024.0, started))
}

fn large_arguments() -> [String; 3] {
    ["-c".to_owned(), GIB.to_string(), "/dev/zero".to_owned()]
}
