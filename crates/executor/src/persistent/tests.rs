//! Who takes what: the queue of a program without any process.

use std::{
    process::Stdio,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use drakkar_core::Task;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    program::{Claim, Program, Taken},
    queued::Queued,
    service::Service,
    stderr::Current,
};
use crate::{CancelReason, ExecutorConfig, Job, ProgramConfig, Rank, job::Watcher};

/// A program with two processes that nobody has started.
fn program() -> Arc<Program> {
    let settings =
        ProgramConfig { instances: std::num::NonZeroUsize::new(2), ..ProgramConfig::default() };
    Arc::new(Program::new("stay", &settings, &ExecutorConfig::default()))
}

fn submit(program: &Arc<Program>) -> Claim {
    let (task, rank) = (Arc::new(Task::new()), Rank::at(Instant::now()));
    program.submit(Job { task, rank, done: Box::new(|_| {}) }, Watcher::default())
}

fn take(program: &Program, number: usize, load: usize) -> (Taken, Vec<Queued>) {
    let mut batch = Vec::new();
    (program.take(number, load, 16, &mut batch), batch)
}

/// Their process is gone, and nobody knows by whose doing.
fn suspect(program: &Program, mut jobs: Vec<Queued>) {
    for queued in &mut jobs {
        queued.is_suspect = true;
    }
    program.requeue(jobs);
}

fn is_signalled(program: &Program, number: usize) -> bool {
    program.signal(number).notified().now_or_never().is_some()
}

#[tokio::test]
async fn a_job_wakes_the_process_that_has_least_to_do_and_no_other() {
    let program = program();
    assert_eq!(take(&program, 0, 3).0, Taken::Nothing);
    assert_eq!(take(&program, 1, 2).0, Taken::Nothing);
    drop(submit(&program));
    assert!(is_signalled(&program, 1) && !is_signalled(&program, 0));
}

#[tokio::test]
async fn a_process_that_goes_passes_its_signal_on() {
    let program = program();
    assert_eq!(take(&program, 0, 0).0, Taken::Nothing);
    assert_eq!(take(&program, 1, 1).0, Taken::Nothing);
    drop(submit(&program));
    assert!(is_signalled(&program, 0));
    program.leave(0);
    assert!(is_signalled(&program, 1), "or the job would wait for nobody");
    assert_eq!(take(&program, 1, 1).1.len(), 1);
}

#[tokio::test]
async fn jobs_are_shared_evenly_among_those_that_are_ready() {
    let program = program();
    assert_eq!(take(&program, 0, 0).0, Taken::Nothing);
    assert_eq!(take(&program, 1, 0).0, Taken::Nothing);
    (0..4).for_each(|_| drop(submit(&program)));
    assert_eq!(take(&program, 0, 0).1.len(), 2);
    assert_eq!(take(&program, 0, 2).0, Taken::Nothing, "the rest is for the other");
    assert_eq!(take(&program, 1, 0).1.len(), 2);
}

#[tokio::test]
async fn suspects_are_taken_one_by_one_by_who_has_nothing_else() {
    let program = program();
    (0..3).for_each(|_| drop(submit(&program)));
    let (_, jobs) = take(&program, 0, 0);
    suspect(&program, jobs);
    drop(submit(&program));
    assert_eq!(take(&program, 1, 1).0, Taken::Nothing, "it has company for them");
    for _ in 0..3 {
        let (taken, batch) = take(&program, 0, 0);
        assert_eq!((taken, batch.len(), batch[0].is_suspect), (Taken::Suspect, 1, true));
    }
    assert!(is_signalled(&program, 1), "it had to stand back and may take jobs again");
    assert_eq!(take(&program, 1, 1).0, Taken::Nothing, "the other has less to do");
    assert_eq!(take(&program, 0, 0).0, Taken::Jobs);
}

#[tokio::test]
async fn who_is_known_to_be_innocent_is_taken_at_its_place_and_in_company() {
    let program = program();
    (0..2).for_each(|_| drop(submit(&program)));
    let (_, jobs) = take(&program, 0, 0);
    let places: Vec<_> = jobs.iter().map(|queued| queued.place).collect();
    drop(submit(&program));
    program.requeue(jobs);
    let (taken, batch) = take(&program, 0, 5);
    assert_eq!((taken, batch.len()), (Taken::Jobs, 3));
    assert!(batch.iter().all(|queued| !queued.is_suspect));
    assert!(batch.iter().map(|queued| queued.place).take(2).eq(places), "before the younger one");
}

#[tokio::test]
async fn when_the_last_suspect_is_taken_back_those_that_stood_back_look_again() {
    let program = program();
    let claims: Vec<Claim> = (0..2).map(|_| submit(&program)).collect();
    let (_, jobs) = take(&program, 0, 0);
    suspect(&program, jobs);
    program.leave(0);
    assert_eq!(take(&program, 1, 1).0, Taken::Nothing, "it has company for them");
    drop(submit(&program));
    assert!(claims[0].cancel_queued() && !is_signalled(&program, 1), "there is another one");
    assert!(claims[1].cancel_queued() && is_signalled(&program, 1));
    assert_eq!(take(&program, 1, 1).0, Taken::Jobs);
}

#[tokio::test]
async fn a_suspect_that_is_killed_on_its_way_does_not_keep_the_next_one_waiting() {
    let program = program();
    let claims: Vec<Claim> = (0..2).map(|_| submit(&program)).collect();
    let (_, jobs) = take(&program, 0, 0);
    claims[0].kill(CancelReason::Revoke);
    suspect(&program, jobs);
    let mut command = tokio::process::Command::new("cat");
    let silent = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let current = Current::default();
    let mut service = Service::new(&program, 0, 0, &current);
    assert!(service.fill(silent.stdout.as_ref().unwrap()).unwrap().is_none());
    assert_eq!(service.flights.len(), 1);
}

#[tokio::test]
async fn a_suspect_is_not_lent_out_to_come_back_as_somebody_else() {
    let program = program();
    let claims: Vec<Claim> = (0..3).map(|_| submit(&program)).collect();
    assert!(claims[2].recall(), "it waits and nothing is known of it");
    let (_, jobs) = take(&program, 0, 0);
    suspect(&program, jobs);
    assert_eq!(program.stats().queued, 2);
    assert!(!claims.iter().any(Claim::recall));
    assert!(claims[0].cancel_queued(), "who does not submit it again may have it");
    let (taken, batch) = take(&program, 0, 0);
    assert_eq!((taken, batch.len()), (Taken::Suspect, 1));
}

#[tokio::test]
async fn nothing_is_handed_out_after_the_end() {
    let program = program();
    drop(submit(&program));
    program.shut();
    drop(submit(&program));
    assert_eq!(take(&program, 0, 0).0, Taken::Closed);
    assert!(is_signalled(&program, 0) && is_signalled(&program, 1));
    assert_eq!(program.stats().queued, 0);
}

#[tokio::test]
async fn while_memory_is_short_one_task_runs_at_a_time() {
    let program = program();
    (0..3).for_each(|_| drop(submit(&program)));
    program.pause(true);
    assert_eq!(take(&program, 0, 0).1.len(), 1, "one may always run");
    program.books.in_flight.fetch_add(1, Relaxed);
    assert_eq!(take(&program, 1, 0).0, Taken::Nothing);
    program.pause(true);
    assert!(!is_signalled(&program, 1), "the first one has a task");
    program.leave(0);
    assert!(is_signalled(&program, 1));
    assert_eq!(take(&program, 1, 0).0, Taken::Nothing, "what the first one had is not settled yet");
    program.books.in_flight.fetch_sub(1, Relaxed);
    program.pause(true);
    assert!(is_signalled(&program, 1), "or the rest would wait for a process that may never come");
    assert_eq!(take(&program, 1, 0).1.len(), 1);
    program.books.in_flight.fetch_add(1, Relaxed);
    assert_eq!(take(&program, 1, 1).0, Taken::Nothing);
    program.pause(false);
    assert!(is_signalled(&program, 1));
    assert_eq!(take(&program, 1, 1).1.len(), 1);
}
