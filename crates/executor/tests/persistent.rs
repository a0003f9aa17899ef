//! Programs that stay: what becomes of their tasks when they behave.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drakkar_core::{Failure, Task};
use drakkar_executor::{Job, Pool, ProgramConfig, Protocol, Rank};
use support::{
    config, failed, finished, pass,
    persistent::{Stage, stdout, task},
    run, submit, until,
};
use tokio::time::Instant;

#[tokio::test]
async fn a_task_may_have_all_the_time_there_is() {
    let stage = Stage::new(Protocol::Frames);
    let ended = run(&stage.pool(), task("echo").stdin("x").timeout(Duration::MAX)).await;
    assert_eq!(stdout(ended), "x");
}

#[tokio::test]
async fn a_process_answers_one_task_after_the_other() {
    for protocol in [Protocol::JsonLines, Protocol::Frames] {
        let stage = Stage::new(protocol);
        let pool = stage.pool();
        let pid = stdout(run(&pool, task("pid")).await);
        for text in ["one", "", "three\n", "\u{1F6A2}"] {
            assert_eq!(stdout(run(&pool, task("echo").stdin(text)).await), text);
        }
        assert_eq!(stdout(run(&pool, task("pid")).await), pid, "it is the same process");
        let output = finished(run(&pool, task("echo").stdin("x")).await);
        assert_eq!(output.pid.unwrap().to_string(), pid);
        let (failure, output) = failed(run(&pool, task("fail").arg("3")).await);
        assert_eq!(failure, Failure::Exit(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"some"[..], &b"reason"[..]));
        assert_eq!(stage.noted("start").len(), 1);
        pool.close().await;
    }
}

#[tokio::test]
async fn a_filter_answers_a_line_with_a_line() {
    let stage = Stage::filter("cat");
    let pool = stage.pool();
    for text in ["one", "", "\u{1F6A2}", "four\r"] {
        let task = Task::new().program("stay").stdin(text);
        assert_eq!(stdout(run(&pool, task).await), text);
    }
    assert_eq!(pool.programs()["stay"].starts, 1);
}

#[tokio::test]
async fn answers_that_come_in_another_order_reach_who_asked() {
    for protocol in [Protocol::JsonLines, Protocol::Frames] {
        let stage = Stage::new(protocol).set(|program| program.depth = depth(8));
        let pool = stage.pool();
        let jobs: Vec<_> = (0..24)
            .map(|n| submit(&pool, task("gather").arg("8").stdin(n.to_string())).1)
            .collect();
        for (n, end) in jobs.into_iter().enumerate() {
            assert_eq!(stdout(end.await.unwrap()), n.to_string());
        }
    }
}

fn depth(depth: usize) -> NonZeroUsize {
    NonZeroUsize::new(depth).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_end_exactly_once_each() {
    const TASKS: usize = 10_000;
    for (stage, what) in [
        (Stage::new(Protocol::Frames).set(|program| program.depth = depth(16)), Some("echo")),
        (Stage::new(Protocol::JsonLines), Some("echo")),
        (Stage::filter("cat"), None),
    ] {
        let stage = stage.set(|program| program.instances = NonZeroUsize::new(2));
        let pool = stage.pool();
        let ended = Arc::new(AtomicUsize::new(0));
        let texts = Arc::new(Mutex::new(HashSet::new()));
        for n in 0..TASKS {
            let (ended, texts) = (Arc::clone(&ended), Arc::clone(&texts));
            let task = Task::new().program("stay").with_args(what).stdin(n.to_string());
            let done = Box::new(move |run| {
                let text = stdout(run);
                assert_eq!(text, n.to_string());
                texts.lock().unwrap().insert(text);
                ended.fetch_add(1, Ordering::Relaxed);
            });
            drop(pool.submit(Job { task: Arc::new(task), rank: Rank::at(Instant::now()), done }));
        }
        until("all have ended", || ended.load(Ordering::Relaxed) == TASKS).await;
        pool.close().await;
        assert_eq!(ended.load(Ordering::Relaxed), TASKS, "none more than once");
        assert_eq!(texts.lock().unwrap().len(), TASKS);
    }
}

#[tokio::test]
async fn a_few_jobs_are_spread_over_the_processes() {
    let stage = Stage::new(Protocol::Frames).set(|program| {
        program.depth = depth(16);
        program.instances = NonZeroUsize::new(4);
    });
    let pool = stage.pool();
    until("all are ready", || pool.programs()["stay"].ready == 4).await;
    let ends: Vec<_> =
        (0..4).map(|_| submit(&pool, task("sleep").arg("0.3").stdin("x")).1).collect();
    let mut pids = HashSet::new();
    for end in ends {
        pids.insert(finished(end.await.unwrap()).pid);
    }
    assert_eq!(pids.len(), 4);
}

#[tokio::test]
async fn output_beyond_the_limit_is_dropped_and_counted() {
    for protocol in [Protocol::JsonLines, Protocol::Frames] {
        let stage = Stage::new(protocol).configure(|config| config.max_stdout_bytes = 10);
        let pool = stage.pool();
        let output = finished(run(&pool, task("echo").stdin("0123456789abc")).await);
        assert_eq!((&output.stdout[..], output.stdout_dropped), (&b"0123456789"[..], 3));
    }
}

#[tokio::test]
async fn priority_goes_first_then_age() {
    let stage = Stage::new(Protocol::JsonLines);
    let pool = stage.pool();
    let (blocker, end) = submit(&pool, task("sleep").arg("0.2"));
    until("it runs", || blocker.has_started()).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let now = Instant::now();
    for (name, priority, age) in [("young", 0, 1), ("old", 0, 9), ("urgent", -1, 0)] {
        let log = Arc::clone(&log);
        let done = Box::new(move |_| log.lock().unwrap().push(name));
        let since = now - Duration::from_millis(age);
        let rank = Rank { priority, since, sequence: 0 };
        drop(pool.submit(Job { task: Arc::new(task("echo")), rank, done }));
    }
    finished(end.await.unwrap());
    until("all have run", || log.lock().unwrap().len() == 3).await;
    assert_eq!(*log.lock().unwrap(), ["urgent", "old", "young"]);
}

#[tokio::test]
async fn what_only_a_new_process_can_be_given_is_a_failure_for_good() {
    let stage = Stage::new(Protocol::JsonLines);
    let pool = stage.pool();
    for (task, reason) in [
        (task("echo").env("A", "1"), "environment"),
        (task("echo").working_dir("/"), "working directory"),
    ] {
        let (failure, _) = failed(run(&pool, task).await);
        assert!(failure.is_permanent() && failure.to_string().contains(reason), "{failure}");
    }
    assert_eq!(stdout(run(&pool, task("echo").stdin("x")).await), "x");
    assert_eq!(pool.programs()["stay"].failures, 0, "the process is not to blame");
}

#[tokio::test]
async fn a_line_cannot_hold_a_line_end() {
    let stage = Stage::filter("cat");
    let pool = stage.pool();
    for (task, reason) in [
        (Task::new().stdin("two\nlines"), "line end"),
        (Task::new().arg("-n").stdin("one"), "arguments"),
    ] {
        let (failure, _) = failed(run(&pool, task.program("stay")).await);
        assert!(failure.is_permanent() && failure.to_string().contains(reason), "{failure}");
    }
    assert_eq!(stdout(run(&pool, Task::new().program("stay").stdin("x")).await), "x");
}

#[tokio::test]
async fn a_queued_task_can_be_taken_back() {
    let stage = Stage::new(Protocol::JsonLines);
    let pool = stage.pool();
    let (running, end) = submit(&pool, task("sleep").arg("0.2"));
    until("it runs", || running.has_started()).await;
    let (queued, never) = submit(&pool, task("exit").arg("1"));
    assert!(!queued.has_started() && queued.cancel_queued() && !queued.cancel_queued());
    assert!(!running.cancel_queued());
    assert!(never.await.is_err(), "nobody is told");
    finished(end.await.unwrap());
    assert_eq!(stage.noted("exit").len(), 0);
}

#[tokio::test]
async fn a_process_is_replaced_after_so_many_tasks() {
    let stage = Stage::new(Protocol::Frames).set(|program| {
        program.depth = depth(4);
        program.recycle_after_tasks = Some(10.try_into().unwrap());
    });
    let pool = stage.pool();
    let mut ends = Vec::new();
    for _ in 0..30 {
        ends.push(submit(&pool, task("pid")).1);
    }
    let mut pids = Vec::new();
    for end in ends {
        pids.push(stdout(end.await.unwrap()));
    }
    let different: HashSet<&String> = pids.iter().collect();
    assert_eq!(different.len(), 3, "{pids:?}");
    until("the third is replaced", || pool.programs()["stay"].recycled == 3).await;
    let stats = &pool.programs()["stay"];
    assert_eq!((stats.failures, stats.requeued), (0, 0));
    assert_eq!(stage.noted("end").len(), 3, "each saw the end of its input");
    assert_eq!(stage.noted("term").len(), 0);
}

#[tokio::test]
async fn a_process_is_replaced_when_it_is_old() {
    let age = Duration::from_millis(300);
    let stage = Stage::new(Protocol::Frames).set(|program| program.recycle_after = Some(age));
    let pool = stage.pool();
    until("it is replaced while idle", || 2 <= pool.programs()["stay"].recycled).await;
    assert_eq!(stdout(run(&pool, task("echo").stdin("x")).await), "x");
    assert_eq!(pool.programs()["stay"].failures, 0);
}

#[tokio::test]
async fn a_process_is_replaced_when_it_is_large() {
    let limit = 100_000_000.try_into().unwrap();
    let stage = Stage::new(Protocol::Frames).set(|program| program.recycle_rss_bytes = Some(limit));
    let pool = stage.pool();
    let small = stdout(run(&pool, task("grow").arg("1000")).await);
    assert_eq!(stdout(run(&pool, task("grow").arg("200000000")).await), small);
    until("it is replaced", || pool.programs()["stay"].recycled == 1).await;
    assert_ne!(stdout(run(&pool, task("pid")).await), small);
}

#[tokio::test]
async fn the_end_of_the_pool_is_the_end_of_the_input_and_nobody_is_told() {
    let stage = Stage::new(Protocol::JsonLines).set(|program| program.instances = Some(depth(2)));
    let pool = stage.pool();
    stage.marker.until_alive(2).await;
    until("both have begun", || stage.noted("start").len() == 2).await;
    let (ticket, running) = submit(&pool, task("sleep").arg("0.2"));
    until("it runs", || ticket.has_started()).await;
    pool.close().await;
    assert!(running.await.is_err());
    assert_eq!(stage.marker.alive(), 0);
    assert_eq!(stage.noted("end").len(), 2);
    assert_eq!(stage.noted("term").len(), 0, "they ended by themselves");
    let (ticket, late) = submit(&pool, task("echo"));
    assert!(late.await.is_err() && !ticket.has_started());
}

#[tokio::test]
async fn a_process_that_outlives_its_input_is_terminated_and_then_killed() {
    for word in ["lingering", "stubborn"] {
        let stage = Stage::with(Protocol::JsonLines, &[word])
            .set(|program| program.stop_grace = Duration::from_millis(100));
        let pool = stage.pool();
        finished(run(&pool, task("echo")).await);
        tokio::join!(pool.close(), async {
            until("it is terminated", || stage.noted("term").len() == 1).await;
            pass(stage.config.kill_grace).await;
        });
        stage.marker.until_gone().await;
        assert_eq!(stage.noted("term").len(), 1);
    }
}

#[tokio::test]
async fn a_name_of_the_configuration_is_a_program_with_its_first_arguments_and_variables() {
    let mut config = config(1);
    let mut program = ProgramConfig {
        binary: Some("/bin/sh".into()),
        args: vec!["-c".into(), "echo $A $B $1".into(), "name".into()],
        ..ProgramConfig::default()
    };
    program.env.insert("A".to_owned(), "of the program".to_owned());
    program.env.insert("B".to_owned(), "of the program".to_owned());
    config.programs.insert("say".to_owned(), program);
    config.binary_path = Some("say".into());
    config.env.insert("A".to_owned(), "of all".to_owned());
    let pool = Pool::start(&config).unwrap();
    for task in [Task::new().program("say"), Task::new()] {
        let run = run(&pool, task.arg("an argument").env("B", "of the task")).await;
        assert_eq!(stdout(run), "of the program of the task an argument\n");
    }
    assert!(pool.programs().is_empty(), "it is no persistent one");
}

#[tokio::test]
async fn a_pool_that_nobody_holds_ends_its_programs() {
    let stage = Stage::new(Protocol::JsonLines);
    let pool = stage.pool();
    stage.marker.until_alive(1).await;
    drop(pool);
    stage.marker.until_gone().await;
}

#[test]
fn programs_do_not_outlive_the_runtime() {
    let stage = Stage::new(Protocol::JsonLines);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pool = runtime.block_on(async {
        let pool = stage.pool();
        stage.marker.until_alive(1).await;
        pool
    });
    drop(runtime);
    drop(pool);
    tokio::runtime::Runtime::new().unwrap().block_on(stage.marker.until_gone());
}
