//! Runs that are cut off: whoever wants to hears of each of them, and why.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{
    num::NonZeroUsize,
    sync::{Arc, mpsc},
    time::Duration,
};

use drakkar_core::{Output, Task};
use drakkar_executor::{
    CancelReason, Ended, ExecutorConfig, FreeMemory, Job, MemoryGuardConfig, Pool, Protocol, Rank,
    Run, StandIn, Ticket, Watched,
};
use support::{
    PATIENCE, config,
    persistent::{Stage, task},
    pool, sh, until,
};
use tokio::time::Instant;

/// What became of a run.
#[derive(Debug)]
enum End {
    Told(Run),
    Watched(Run),
    CutOff(CancelReason, Output),
}

/// Submits `task`; what its runs come to is to be read from the other side.
fn watch(pool: &Pool, task: Task) -> (Ticket, mpsc::Receiver<End>) {
    let (told, ends) = mpsc::channel();
    let watched = told.clone();
    let job = Job {
        task: Arc::new(task),
        rank: Rank::at(Instant::now()),
        done: Box::new(move |run| drop(told.send(End::Told(run)))),
    };
    let ticket = pool.submit_watched(job, move |seen| {
        let Watched::Ended(ended) = seen else { return };
        drop(watched.send(match ended {
            Ended::Ran(run) => End::Watched(run.clone()),
            Ended::Cancelled { reason, output } => End::CutOff(reason, output.clone()),
        }));
    });
    (ticket, ends)
}

#[track_caller]
fn cut_off(ends: &mpsc::Receiver<End>) -> (CancelReason, Output) {
    match ends.recv_timeout(PATIENCE).expect("it is told") {
        End::CutOff(reason, output) => (reason, output),
        end => panic!("it was cut off, and not {end:?}"),
    }
}

#[track_caller]
fn told(ends: &mpsc::Receiver<End>) -> Run {
    let next = || ends.recv_timeout(PATIENCE).expect("it is told");
    let (watched, told) = (next(), next());
    let (End::Watched(watched), End::Told(told)) = (watched, told) else { panic!("it ran") };
    assert_eq!(watched, told);
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_is_told_with_what_is_known_of_it_and_what_waits_is_not() {
    let (pool, dir) = (pool(&config(1)), tempfile::tempdir().unwrap());
    let script = sh("echo begun; : >begun; sleep 1000").working_dir(dir.path());
    let (running, ends) = watch(&pool, script);
    until("it has printed", || dir.path().join("begun").exists()).await;
    let (waiting, nothing) = watch(&pool, sh("true"));
    waiting.kill(CancelReason::Revoke);
    running.kill(CancelReason::Revoke);
    running.kill(CancelReason::Shutdown);
    let (reason, output) = cut_off(&ends);
    assert_eq!(reason, CancelReason::Revoke, "the first reason counts");
    assert!(output.pid.is_some() && output.started_at.is_some());
    assert_eq!(output.stdout, "begun\n");
    drop((running, waiting));
    assert!(ends.recv().is_err() && nothing.recv().is_err(), "nothing else is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_when_the_pool_is_closed_is_cut_off_by_the_shutdown() {
    let stage = Stage::new(Protocol::JsonLines).set(|program| {
        program.stop_grace = Duration::from_millis(10); // It does not end by itself.
    });
    let pool = pool(&stage.config);
    let (one_shot, ends) = watch(&pool, sh("sleep 1000"));
    let (stays, answers) = watch(&pool, task("hang"));
    until("both run", || one_shot.has_started() && stays.has_started()).await;
    pool.close().await;
    for ends in [ends, answers] {
        let (reason, output) = cut_off(&ends);
        assert!(reason == CancelReason::Shutdown && output.pid.is_some(), "{reason:?} {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_memory_guard_takes_back_is_cut_off_and_has_a_result_all_the_same() {
    let free = FreeMemory::percent(100);
    let stand_in: Arc<dyn StandIn> = Arc::clone(&free) as _;
    let memory_guard = MemoryGuardConfig { pause_below_percent: 20, kill_below_percent: 10 };
    let config = ExecutorConfig { memory_guard, ..config(2) };
    let pool = Pool::start_with(&config, Some(&stand_in)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = || sh("until [ -e end ]; do sleep 0.02; done").working_dir(dir.path());
    let (old, old_ends) = watch(&pool, script());
    until("the old one runs", || old.has_started()).await;
    let (young, young_ends) = watch(&pool, script());
    until("the young one runs", || young.has_started()).await;
    free.set(5);
    assert_eq!(cut_off(&young_ends).0, CancelReason::Memory);
    free.set(100);
    std::fs::write(dir.path().join("end"), "").unwrap();
    for ends in [old_ends, young_ends] {
        assert!(matches!(told(&ends), Run::Finished(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shares_a_process_with_a_task_that_is_killed_is_cut_off_by_its_program() {
    let stage = Stage::new(Protocol::JsonLines).set(|program| {
        program.instances = NonZeroUsize::new(1);
        program.depth = NonZeroUsize::new(2).unwrap();
    });
    let pool = pool(&stage.config);
    let (killed, killed_ends) = watch(&pool, task("hang"));
    let (other, other_ends) = watch(&pool, task("hang"));
    until("both are asked", || pool.programs()["stay"].in_flight == 2).await;
    killed.kill(CancelReason::Revoke);
    assert_eq!(cut_off(&killed_ends).0, CancelReason::Revoke);
    assert_eq!(cut_off(&other_ends).0, CancelReason::Program);
    until("it is asked again", || pool.programs()["stay"].in_flight == 1).await;
    other.kill(CancelReason::Revoke);
    assert_eq!(cut_off(&other_ends).0, CancelReason::Revoke);
    let (_next, next_ends) = watch(&pool, task("echo"));
    assert!(matches!(told(&next_ends), Run::Finished(_)));
}
