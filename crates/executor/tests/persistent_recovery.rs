//! Programs that stay: after a failure everything goes on. Who is known to be innocent is not kept
//! apart, who waits is served by whoever is there, and what is well again is said to be well.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{num::NonZeroUsize, time::Duration};

use drakkar_core::Failure;
use drakkar_executor::{CancelReason, Pool, ProgramConfig, Protocol, Run, Ticket};
use support::{
    PATIENCE, failed, pass,
    persistent::{Stage, stdout, task},
    run, submit, until,
};
use tokio::{sync::oneshot, time::timeout};

const HOUR: Duration = Duration::from_hours(1);

type Submitted = (Ticket, oneshot::Receiver<Run>);

async fn end((_, end): Submitted) -> Run {
    timeout(PATIENCE, end).await.expect("the task ends").expect("the task is reported")
}

fn deep() -> Stage {
    let depth = NonZeroUsize::new(8).unwrap();
    Stage::new(Protocol::JsonLines).set(|program| program.depth = depth)
}

/// A task of which the program answers seven together, and fewer never.
fn one_of_seven(pool: &Pool, n: usize) -> Submitted {
    submit(pool, task("gather").arg("7").stdin(n.to_string()).timeout(HOUR))
}

/// One that hangs until `limit`, and six that are in the process with it.
async fn hangs_among_six(pool: &Pool, limit: Duration) -> (Submitted, Vec<Submitted>) {
    let hanging = submit(pool, task("hang").timeout(limit));
    let six: Vec<_> = (0..6).map(|n| one_of_seven(pool, n)).collect();
    until("all are given to it", || six.iter().all(|(ticket, _)| ticket.has_started())).await;
    (hanging, six)
}

/// The six go on together, and with one that comes later.
async fn go_on(pool: &Pool, mut six: Vec<Submitted>) {
    six.push(one_of_seven(pool, 6));
    for (n, submitted) in six.into_iter().enumerate() {
        assert_eq!(stdout(end(submitted).await), n.to_string());
    }
    assert_eq!(pool.programs()["stay"].requeued, 6);
}

#[tokio::test]
async fn who_was_in_a_process_with_a_killed_task_goes_on_in_company() {
    let stage = deep();
    let pool = stage.pool();
    let ((ticket, never), six) = hangs_among_six(&pool, HOUR).await;
    ticket.kill(CancelReason::Revoke);
    go_on(&pool, six).await;
    assert!(never.await.is_err(), "nobody is told");
}

#[tokio::test]
async fn who_was_in_a_process_with_an_overdue_task_goes_on_in_company() {
    let stage = deep();
    let pool = stage.pool();
    let limit = HOUR / 2;
    let (hanging, six) = hangs_among_six(&pool, limit).await;
    pass(limit).await;
    assert_eq!(failed(end(hanging).await).0, Failure::TimedOut(limit));
    go_on(&pool, six).await;
}

/// A program that comes up when it has failed three times.
fn recovering() -> Stage {
    Stage::with(Protocol::Frames, &["recover"])
}

/// After three failures it is no longer seen to loop, although no task comes.
async fn is_seen_to_recover(stage: Stage, after: Duration) {
    let pool = stage.pool();
    until("it has failed three times", || pool.programs()["stay"].failures == 3).await;
    let stats = || pool.programs()["stay"].clone();
    until("it is there again", || stage.noted("start").len() == 4 && stats().ready == 1).await;
    pass(after).await;
    until("it is well", || !pool.programs()["stay"].is_crash_looping()).await;
    assert_eq!(pool.programs()["stay"].starts, 4);
}

#[tokio::test]
async fn a_crash_loop_ends_with_the_answer_to_a_ping() {
    let pinged = |program: &mut ProgramConfig| (program.ping, program.backoff_max) = (true, HOUR);
    is_seen_to_recover(recovering().set(pinged), Duration::ZERO).await;
}

#[tokio::test]
async fn a_crash_loop_ends_when_a_process_lives_longer_than_it_would_be_waited_for() {
    is_seen_to_recover(recovering().set(|program| program.backoff_max = HOUR), HOUR).await;
}

#[tokio::test]
async fn a_process_that_owes_an_answer_is_not_well_however_long_it_lives() {
    let mute = Stage::with(Protocol::Frames, &["mute"]).set(|program| {
        program.ping = true;
        program.start_timeout = Duration::from_millis(300);
    });
    let pool = mute.pool();
    until("it is seen to loop", || pool.programs()["stay"].is_crash_looping()).await;
    let hanging = Stage::new(Protocol::Frames);
    let pool = hanging.pool();
    for _ in 0..3 {
        failed(run(&pool, task("hang").timeout(Duration::from_millis(300))).await);
    }
    let _fourth = submit(&pool, task("hang").timeout(HOUR));
    until("it is seen to loop", || pool.programs()["stay"].is_crash_looping()).await;
}

#[tokio::test]
async fn what_a_process_has_left_behind_cannot_talk_for_ever() {
    // Empty lines are no answers, and no garbage.
    let script = "read -r _; (while :; do echo; sleep 0.05; done) & exit 3";
    let stage = Stage::filter("sh")
        .set(|program| {
            program.args = vec!["-c".into(), script.into()];
            program.protocol = Protocol::JsonLines;
        })
        .configure(|config| config.pipe_grace = Duration::from_secs(1));
    let pool = stage.pool();
    let (failure, _) = failed(run(&pool, task("echo")).await);
    assert!(failure.to_string().contains("exit status: 3"), "{failure}");
    pool.close().await;
    stage.marker.until_gone().await;
}

#[tokio::test]
async fn when_those_that_had_to_run_alone_are_revoked_the_others_are_served_at_once() {
    let stage = deep().set(|program| {
        program.instances = NonZeroUsize::new(2);
        (program.backoff_initial, program.backoff_max) = (HOUR, HOUR);
    });
    let pool = stage.pool();
    let stats = || pool.programs()["stay"].clone();
    until("both take tasks", || stats().ready == 2).await;
    let mut busy = Vec::new();
    for n in 1..=2 {
        busy.push(one_of_seven(&pool, n));
        until("each has one", || stats().in_flight == n).await;
    }
    let deadly = submit(&pool, task("exit").arg("3"));
    until("two are to run alone", || stats().queued == 2).await;
    assert_eq!(stats().ready, 1, "one process is left, and it is busy");
    let revoked = busy.iter().chain([&deadly]).filter(|(ticket, _)| ticket.cancel_queued());
    assert_eq!(revoked.count(), 2);
    assert_eq!(stdout(end(submit(&pool, task("echo").stdin("x"))).await), "x");
    assert_eq!(stats().starts, 2, "the other process is still waited for");
}
