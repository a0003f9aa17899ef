//! Programs that share the slots: limits and weights, with real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use drakkar_core::Task;
use drakkar_executor::{CancelReason, ExecutorConfig, Job, ProgramConfig, Rank, Variables};
use support::{Marker, config, finished, pool, submit, until};
use tokio::time::Instant;

/// Some slots, and programs by name and binary.
fn sharing(slots: usize, programs: [(&str, &str, Option<usize>); 2]) -> ExecutorConfig {
    let programs = programs.map(|(name, binary, limit)| {
        let max_concurrent = limit.and_then(NonZeroUsize::new);
        let binary = Some(binary.into());
        (name.to_owned(), ProgramConfig { binary, max_concurrent, ..ProgramConfig::default() })
    });
    ExecutorConfig { programs: programs.into(), ..config(slots) }
}

#[tokio::test]
async fn a_flood_of_slow_tasks_of_one_program_does_not_keep_another_from_running() {
    let pool = pool(&sharing(2, [("slow", "sleep", None), ("quick", "true", None)]));
    let ended = Arc::new(Mutex::new(Vec::new()));
    let submit = |name: &'static str, task: Task| {
        let (task, ended) = (Arc::new(task.program(name)), Arc::clone(&ended));
        let done = Box::new(move |_| ended.lock().unwrap().push(name));
        pool.submit(Job { task, rank: Rank::at(Instant::now()), done })
    };
    let slow: Vec<_> = (0..60).map(|_| submit("slow", Task::new().arg("0.2"))).collect();
    until("the flood fills the slots", || pool.stats().active == 2).await;
    let quick: Vec<_> = (0..10).map(|_| submit("quick", Task::new())).collect();
    let ended = || ended.lock().unwrap().clone();
    until("all of it has run", || ended().iter().filter(|name| **name == "quick").count() == 10)
        .await;
    let last = ended().iter().rposition(|name| *name == "quick").unwrap();
    assert!(last < 40 + quick.len(), "{} of 60 went before ten that came later", last - 9);
    for ticket in &slow {
        ticket.kill(CancelReason::Revoke);
    }
}

#[tokio::test]
async fn a_program_at_its_limit_leaves_the_other_slots_to_others() {
    let pool = pool(&sharing(3, [("stuck", "sleep", Some(2)), ("quick", "true", None)]));
    let marker = Marker::new();
    let stuck = || marker.mark(Task::new().program("stuck").arg("1000"));
    let held: Vec<_> = (0..10).map(|_| submit(&pool, stuck())).collect();
    marker.until_alive(2).await;
    for _ in 0..20 {
        let (_ticket, end) = submit(&pool, Task::new().program("quick"));
        finished(end.await.unwrap());
        let started = held.iter().filter(|(ticket, _)| ticket.has_started()).count();
        assert_eq!((started, marker.alive()), (2, 2));
    }
    // An end makes room for one more of the same.
    held[0].0.kill(CancelReason::Revoke);
    until("the next one starts", || held[2].0.has_started()).await;
    marker.until_alive(2).await;
    assert!(!held[3].0.has_started());
}

#[tokio::test]
async fn a_task_without_a_name_shares_with_named_programs() {
    let pool = pool(&sharing(1, [("limited", "true", Some(1)), ("other", "true", None)]));
    let ends = ["limited", "/bin/true", "other", "limited", "true"]
        .map(|program| submit(&pool, Task::new().program(program)).1);
    for end in ends {
        finished(end.await.unwrap());
    }
}

#[tokio::test]
async fn a_program_with_a_search_path_of_its_own_is_found_there_by_the_start_and_by_every_task() {
    let dir = tempfile::tempdir().unwrap();
    let only_here = "only-on-its-own-path";
    std::os::unix::fs::symlink("/bin/true", dir.path().join(only_here)).unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let program = ProgramConfig {
        binary: Some(only_here.into()),
        env: Variables([("PATH".to_owned(), path)].into()),
        ..ProgramConfig::default()
    };
    let programs = [("own".to_owned(), program)].into();
    let pool = pool(&ExecutorConfig { programs, ..config(1) });
    let (_ticket, end) = submit(&pool, Task::new().program("own"));
    finished(end.await.unwrap());
}
