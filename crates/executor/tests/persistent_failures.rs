//! Programs that stay: what becomes of their tasks when they misbehave. Only who is to blame is
//! charged, nobody gets an answer that is not its own, and nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{num::NonZeroUsize, time::Duration};

use drakkar_core::{Failure, Task};
use drakkar_executor::{CancelReason, Pool, Protocol, StartError};
use support::{
    failed, finished, pass,
    persistent::{Stage, stdout, task},
    run, submit, until,
};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_hours(1);

const PROTOCOLS: [Protocol; 2] = [Protocol::JsonLines, Protocol::Frames];

fn deep(protocol: Protocol, words: &[&str]) -> Stage {
    Stage::with(protocol, words).set(|program| program.depth = NonZeroUsize::new(8).unwrap())
}

async fn echoes(pool: &Pool) {
    assert_eq!(stdout(run(pool, task("echo").stdin("x")).await), "x");
}

/// `bad` is charged for what it does alone, and the next task is served.
#[track_caller]
fn alone(stage: Stage, bad: Task, expected: &'static str) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let pool = stage.pool();
        let (failure, output) = failed(run(&pool, bad).await);
        let text = failure.to_string();
        assert!(text.contains(expected), "{text:?} has no {expected:?}, {at}");
        assert!(!failure.is_permanent(), "it may be tried again, {at}");
        assert!(output.pid.is_some(), "{at}");
        echoes(&pool).await;
        let stats = &pool.programs()["stay"];
        assert_eq!((stats.failures, stats.starts, stats.requeued), (1, 2, 0), "{at}");
        assert!(stats.last_failure.is_some(), "{at}");
        pool.close().await;
        stage.marker.until_gone().await;
    }
}

#[tokio::test]
async fn a_task_that_ends_its_process_is_charged_and_the_process_replaced() {
    for protocol in PROTOCOLS {
        let stage = || Stage::new(protocol);
        alone(stage(), task("exit").arg("3"), "exit status: 3").await;
        alone(stage(), task("signal").arg("9"), "signal 9").await;
    }
}

#[tokio::test]
async fn what_is_no_answer_ends_the_process() {
    let frames = || Stage::new(Protocol::Frames);
    alone(Stage::new(Protocol::JsonLines), task("garbage"), "no answer").await;
    alone(frames(), task("garbage"), "more than").await;
    alone(frames(), task("huge"), "more than 16777216 bytes").await;
    for protocol in PROTOCOLS {
        alone(Stage::new(protocol), task("stranger"), "not asked").await;
    }
    let stage = Stage::new(Protocol::JsonLines).set(|program| program.max_answer_bytes = 2000);
    alone(stage, task("echo").stdin("x".repeat(2000)), "more than 2000 bytes").await;
}

#[tokio::test]
async fn a_process_that_closes_its_output_is_replaced() {
    let short = Duration::from_millis(100);
    let stage = Stage::new(Protocol::JsonLines).configure(|config| config.pipe_grace = short);
    alone(stage, task("close"), "without an answer").await;
}

#[tokio::test]
async fn an_answer_that_comes_twice_reaches_nobody() {
    for protocol in PROTOCOLS {
        let stage = Stage::new(protocol);
        let pool = stage.pool();
        assert_eq!(stdout(run(&pool, task("twice").stdin("x")).await), "x");
        for n in 0..5 {
            let text = n.to_string();
            assert_eq!(stdout(run(&pool, task("echo").stdin(text.clone())).await), text);
        }
        let stats = &pool.programs()["stay"];
        assert_eq!((stats.failures, stats.starts), (1, 2));
    }
}

#[tokio::test]
async fn an_answer_that_comes_too_late_reaches_nobody() {
    for protocol in PROTOCOLS {
        // It answers when it is terminated, which is when its time was up.
        let stage = Stage::with(protocol, &["late"]);
        let pool = stage.pool();
        echoes(&pool).await;
        let (_, late) = submit(&pool, task("hang").timeout(HOUR));
        let (_, next) = submit(&pool, task("echo").stdin("mine"));
        until("it hangs", || stage.noted("hang").len() == 1).await;
        pass(HOUR).await;
        let (failure, _) = failed(late.await.unwrap());
        assert_eq!(failure, Failure::TimedOut(HOUR));
        assert_eq!(stage.noted("term").len(), 1, "it is gone before anybody is told");
        assert_eq!(stdout(next.await.unwrap()), "mine");
    }
}

#[tokio::test]
async fn only_the_overdue_task_is_charged() {
    for protocol in PROTOCOLS {
        let stage = deep(protocol, &[]);
        let pool = stage.pool();
        echoes(&pool).await;
        let (_, hanging) = submit(&pool, task("hang").timeout(HOUR));
        until("it hangs", || stage.noted("hang").len() == 1).await;
        let others: Vec<_> = (0..5)
            .map(|n| submit(&pool, task("echo").stdin(n.to_string()).timeout(HOUR * 20)))
            .collect();
        until("they are given to it", || others.iter().all(|(ticket, _)| ticket.has_started()))
            .await;
        pass(HOUR).await;
        assert_eq!(failed(hanging.await.unwrap()).0, Failure::TimedOut(HOUR));
        for (n, (_, end)) in others.into_iter().enumerate() {
            assert_eq!(stdout(end.await.unwrap()), n.to_string());
        }
        let stats = &pool.programs()["stay"];
        assert_eq!((stats.failures, stats.requeued, stats.starts), (1, 5, 2));
    }
}

#[tokio::test]
async fn time_spent_on_earlier_tasks_is_not_charged() {
    let stage = deep(Protocol::Frames, &[]);
    let pool = stage.pool();
    echoes(&pool).await;
    let wait = |n: usize| task("wait").arg(n.to_string()).timeout(HOUR);
    let jobs: Vec<_> = (0..6).map(|n| submit(&pool, wait(n))).collect();
    until("they are given to it", || jobs.iter().all(|(ticket, _)| ticket.has_started())).await;
    for (n, (_, end)) in jobs.into_iter().enumerate() {
        pass(HOUR / 2).await;
        stage.tell(&n.to_string());
        finished(end.await.unwrap()); // The last one after three hours.
    }
}

#[tokio::test]
async fn among_several_only_the_task_that_ends_its_process_again_alone_is_charged() {
    for (protocol, deadly, expected) in [
        (Protocol::JsonLines, task("exit").arg("3"), "exit status: 3"),
        (Protocol::Frames, task("signal").arg("9"), "signal 9"),
        (Protocol::Frames, task("garbage"), "more than"),
    ] {
        let stage = deep(protocol, &[]);
        let pool = stage.pool();
        echoes(&pool).await;
        let (_, before) = submit(&pool, task("beside").arg("go").stdin("before"));
        let (_, deadly) = submit(&pool, deadly);
        let after: Vec<_> =
            (0..5).map(|n| submit(&pool, task("echo").stdin(n.to_string())).1).collect();
        until("the process is gone", || pool.programs()["stay"].failures == 1).await;
        stage.tell("go");
        let (failure, _) = failed(deadly.await.unwrap());
        assert!(failure.to_string().contains(expected), "{failure}");
        assert_eq!(stdout(before.await.unwrap()), "before");
        for (n, end) in after.into_iter().enumerate() {
            assert_eq!(stdout(end.await.unwrap()), n.to_string());
        }
        let stats = &pool.programs()["stay"];
        assert_eq!((stats.failures, stats.starts), (2, 3));
        assert!(2 <= stats.requeued && stats.requeued <= 7, "{stats:?}");
    }
}

#[tokio::test]
async fn who_was_in_a_process_that_failed_runs_alone_although_others_wait() {
    let stage =
        Stage::new(Protocol::Frames).set(|program| program.depth = NonZeroUsize::new(2).unwrap());
    let pool = stage.pool();
    echoes(&pool).await;
    let (_, first) = submit(&pool, task("beside").arg("go").stdin("first"));
    let (_, deadly) = submit(&pool, task("exit").arg("3"));
    let queued: Vec<_> = (0..5).map(|_| submit(&pool, task("echo").stdin("x")).1).collect();
    until("the process is gone", || pool.programs()["stay"].failures == 1).await;
    stage.tell("go");
    failed(deadly.await.unwrap());
    assert_eq!(stdout(first.await.unwrap()), "first");
    for end in queued {
        assert_eq!(stdout(end.await.unwrap()), "x");
    }
    let stats = &pool.programs()["stay"];
    assert_eq!((stats.failures, stats.requeued), (2, 2), "the others were never in danger");
}

#[tokio::test]
async fn a_killed_task_is_told_to_nobody_and_the_others_go_on() {
    for protocol in PROTOCOLS {
        let stage = deep(protocol, &[]);
        let pool = stage.pool();
        echoes(&pool).await;
        let (ticket, never) = submit(&pool, task("hang"));
        until("it hangs", || stage.noted("hang").len() == 1).await;
        let (other, end) = submit(&pool, task("echo").stdin("other"));
        until("both are given", || other.has_started()).await;
        ticket.kill(CancelReason::Revoke);
        assert!(never.await.is_err(), "nobody is told");
        assert_eq!(stdout(end.await.unwrap()), "other");
        let stats = &pool.programs()["stay"];
        assert_eq!((stats.failures, stats.requeued, stats.starts), (0, 1, 2));
    }
}

#[tokio::test]
async fn killing_what_waits_takes_it_out_of_the_queue() {
    let stage = Stage::new(Protocol::JsonLines);
    let pool = stage.pool();
    let (running, end) = submit(&pool, task("sleep").arg("0.2"));
    until("it runs", || running.has_started()).await;
    let (waiting, never) = submit(&pool, task("exit").arg("1"));
    waiting.kill(CancelReason::Revoke);
    assert!(never.await.is_err());
    finished(end.await.unwrap());
    let stats = &pool.programs()["stay"];
    assert_eq!((stats.queued, stats.failures, stats.starts), (0, 0, 1));
}

#[tokio::test]
async fn a_program_that_does_not_start_keeps_its_tasks_waiting_and_says_so() {
    let stage = Stage::with(Protocol::JsonLines, &["crash"]).set(|program| program.ping = true);
    let pool = stage.pool();
    let (ticket, mut end) = submit(&pool, task("echo"));
    until("it is seen to loop", || pool.programs()["stay"].is_crash_looping()).await;
    let stats = pool.programs()["stay"].clone();
    assert!(stats.last_failure.unwrap().contains("exit status: 7"));
    assert!(!ticket.has_started() && end.try_recv().is_err(), "the task is not to blame");
    assert_eq!(stats.queued, 1);
}

#[tokio::test]
async fn a_crash_loop_ends_with_the_first_answer() {
    let stage = Stage::new(Protocol::Frames);
    let pool = stage.pool();
    for _ in 0..4 {
        failed(run(&pool, task("exit").arg("3")).await);
    }
    let stats = pool.programs()["stay"].clone();
    assert!(stats.is_crash_looping() && stats.failures_in_a_row == 4, "{stats:?}");
    echoes(&pool).await;
    assert!(!pool.programs()["stay"].is_crash_looping());
}

#[tokio::test]
async fn every_further_failure_is_waited_for_longer() {
    let stage = Stage::filter("false").set(|program| {
        program.backoff_initial = Duration::from_secs(1);
        program.backoff_max = Duration::from_mins(1);
    });
    let began = Instant::now();
    let pool = stage.pool();
    until("it has failed four times", || 4 <= pool.programs()["stay"].failures).await;
    // A tenth of each bound is always waited.
    assert!(Duration::from_millis(100 + 200 + 400) <= began.elapsed());
}

#[tokio::test]
async fn a_process_that_prints_while_idle_in_lines_is_replaced() {
    // Answers each line, and a moment later says something that nobody asked for.
    let script = "while read -r line; do echo \"$line\"; sleep 0.1; echo more; done";
    let stage = Stage::filter("sh").set(|program| program.args = vec!["-c".into(), script.into()]);
    let pool = stage.pool();
    let asked = || Task::new().program("stay").stdin("x");
    assert_eq!(stdout(run(&pool, asked()).await), "x");
    until("it is replaced", || pool.programs()["stay"].starts == 2).await;
    assert_eq!(stdout(run(&pool, asked()).await), "x");
    let failure = pool.programs()["stay"].last_failure.clone().unwrap();
    assert!(failure.contains("not asked"), "{failure}");
}

#[tokio::test]
async fn what_is_printed_beyond_the_line_is_no_part_of_the_next_answer() {
    for beyond in ["more\\n", "mo"] {
        let script = format!("while read -r line; do printf \"%s\\n{beyond}\" \"$line\"; done");
        let stage = Stage::filter("sh").set(|program| program.args = vec!["-c".into(), script]);
        let pool = stage.pool();
        for n in 0..5 {
            let text = n.to_string();
            let answer = run(&pool, Task::new().program("stay").stdin(text.clone())).await;
            assert_eq!(stdout(answer), text);
        }
    }
}

#[tokio::test]
async fn a_process_gets_no_task_before_it_has_answered_its_first_ping() {
    for protocol in PROTOCOLS {
        let stage = Stage::with(protocol, &["mute"]).set(|program| {
            program.ping = true;
            program.start_timeout = Duration::from_millis(1500);
        });
        let pool = stage.pool();
        let (ticket, _end) = submit(&pool, task("echo"));
        until("it is replaced", || 2 <= pool.programs()["stay"].starts).await;
        assert!(!ticket.has_started());
        assert!(pool.programs()["stay"].last_failure.clone().unwrap().contains("ping"));
    }
}

#[tokio::test]
async fn an_idle_process_that_hangs_is_found_by_a_ping() {
    let stage = Stage::with(Protocol::Frames, &["once"]).set(|program| {
        program.ping = true;
        program.ping_interval = Duration::from_millis(100);
        program.ping_timeout = Duration::from_millis(200);
    });
    let pool = stage.pool();
    echoes(&pool).await;
    until("it is replaced", || 1 <= pool.programs()["stay"].failures).await;
    until("it was asked again", || 2 <= stage.noted("ping").len()).await;
    echoes(&pool).await;
}

#[test]
fn a_program_that_is_not_there_keeps_the_pool_from_starting() {
    let stage = Stage::filter("no-such-program-anywhere");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let error = Pool::start(&stage.config).err().unwrap();
    assert!(matches!(error, StartError::Program { .. }), "{error}");
    assert!(error.to_string().contains("executor.programs.stay"), "{error}");
}
