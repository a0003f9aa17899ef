//! What happens to a partition that is taken away, and to all of them when the worker stops.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by panicking.

mod common;

use std::time::Duration;

use common::{Echo, shell, values};
use drakkar_core::{Delivery, DoneMap, KafkaPayload, Offset, OnError, SinkError};
use drakkar_telemetry::JobLogSettings;
use drakkar_testing::{HandedOver, Script, World};
use tokio::time::Instant;

const GRACE: Duration = Duration::from_mins(2);

fn next(over: &HandedOver) -> Option<i64> {
    over.position.as_ref().map(|position| position.next.0)
}

fn done(over: &HandedOver) -> Vec<i64> {
    let position = over.position.as_ref().expect("a position");
    let done = DoneMap::decode(position.next, &position.metadata).expect("our own metadata");
    (0..100).filter(|offset| done.contains(Offset(*offset))).collect()
}

/// Waits until `path` exists: the script of a task says that it runs.
async fn exists(path: &std::path::Path) {
    while !path.exists() {
        tokio::task::yield_now().await;
    }
}

struct Flags(std::path::PathBuf);

impl Flags {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("drakkar-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Tasks that say `started-N` and wait for `go`.
fn waiting(flags: &Flags) -> Echo {
    let dir = flags.0.clone();
    Echo::default().arrange(move |window| {
        let script =
            r#": > "$DIR/started-$N"; until [ -e "$DIR/go" ]; do sleep 0.01; done; echo -n "$N""#;
        Ok(window
            .iter()
            .map(|m| shell(m, script).env("DIR", &dir).env("N", m.offset.to_string()))
            .collect())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_messages_are_finished_and_the_others_are_left_to_the_next_owner() {
    let flags = Flags::new("clean-revoke");
    let mut world = World::of(waiting(&flags)).start();
    for _ in 0..20 {
        world.produce(0, "x");
    }
    exists(&flags.path("started-0")).await;
    exists(&flags.path("started-1")).await;
    world.begin_revoke(0, GRACE);
    while 2 < world.held(0) {
        tokio::task::yield_now().await; // Until what has not started is dropped.
    }
    std::fs::write(flags.path("go"), "").unwrap();
    let over = world.handed_over(0).await;
    assert_eq!((next(&over), done(&over)), (Some(2), Vec::new()));
    assert_eq!(values(&world.results.all()), ["0", "1"]);
    assert_eq!(world.held(0), 0, "dropped messages are not held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_finished_behind_a_message_that_is_left_is_handed_over_as_done() {
    let flags = Flags::new("behind-left");
    let dir = flags.0.clone();
    let handler = Echo::default().arrange(move |window| {
        let script =
            r#": > "$DIR/started-$N"; until [ -e "$DIR/go" ]; do sleep 0.01; done; echo -n "$N""#;
        Ok(window
            .iter()
            .map(|m| match m.offset.0 {
                3 => common::echo(m),
                _ => shell(m, script).env("DIR", &dir).env("N", m.offset.to_string()),
            })
            .collect())
    });
    let mut world = World::of(handler).start();
    for value in ["runs", "runs", "waits for a slot", "3"] {
        world.produce(0, value);
    }
    exists(&flags.path("started-0")).await;
    exists(&flags.path("started-1")).await;
    world.results.until(1).await;
    world.begin_revoke(0, GRACE);
    while 2 < world.held(0) {
        tokio::task::yield_now().await; // Until what has not started is dropped.
    }
    std::fs::write(flags.path("go"), "").unwrap();
    let over = world.handed_over(0).await;
    assert_eq!((next(&over), done(&over)), (Some(2), vec![3]));
    assert_eq!(values(&world.results.all()), ["0", "1", "3"], "as many as are settled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_the_partition_is_fenced_and_exactly_the_settled_part_is_handed_over() {
    let flags = Flags::new("deadline");
    let dir = flags.0.clone();
    let handler = Echo::default().arrange(move |window| {
        Ok(window
            .iter()
            .map(|m| match m.offset.0 {
                0 => shell(m, r#": > "$DIR/started"; exec sleep 600"#).env("DIR", &dir),
                _ => common::echo(m),
            })
            .collect())
    });
    let mut world = World::of(handler).start();
    for value in ["stuck", "one", "two"] {
        world.produce(0, value);
    }
    world.results.until(2).await;
    exists(&flags.path("started")).await;
    let started = Instant::now();
    let over = world.revoke(0, Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_mins(1));
    assert_eq!((next(&over), done(&over)), (Some(0), vec![1, 2]));
    let pool = world.pool.clone();
    while pool.stats().active > 0 {
        tokio::task::yield_now().await; // Its process is ended with the partition.
    }
}

#[tokio::test]
async fn a_hand_over_does_not_wait_for_a_sink_that_is_down() {
    let results = Script::answering(|payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"held") => Delivery::Transient(SinkError::new("Down", "down")),
        _ => Delivery::Confirmed,
    });
    let mut world = World::of(Echo::default()).results(&results).start();
    for value in ["a", "held", "c"] {
        world.produce(0, value);
    }
    world.results.until(2).await;
    let started = Instant::now();
    let over = world.revoke(0, GRACE).await;
    assert!(started.elapsed() < GRACE / 2, "it waited for the sink");
    assert_eq!((next(&over), done(&over)), (Some(1), vec![2]));
}

#[tokio::test]
async fn a_hand_over_does_not_wait_for_what_waits_behind_a_sink_that_is_down() {
    let results = Script::answering(|_| Delivery::Transient(SinkError::new("Down", "down")));
    let flags = Flags::new("behind-held");
    let mut world =
        World::of(waiting(&flags)).results(&results).settings(|s| s.max_hooks = 1).start();
    for value in ["held", "ran"] {
        world.produce(0, value);
    }
    exists(&flags.path("started-0")).await;
    exists(&flags.path("started-1")).await;
    std::fs::write(flags.path("go"), "").unwrap();
    let pool = world.pool.clone();
    while results.writes() < 2 || pool.stats().active > 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    let over = world.revoke(0, GRACE).await;
    assert!(started.elapsed() < GRACE / 2, "it waited for the sink");
    assert_eq!((next(&over), done(&over)), (Some(0), Vec::new()));
}

#[tokio::test]
async fn a_hand_over_does_not_wait_for_a_retry_that_backs_off() {
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| common::ending(m, 1)).collect()))
        .failed(|_| Ok(OnError::Retry));
    let hour = Duration::from_hours(1);
    let mut world = World::of(handler)
        .settings(move |s| (s.backoff.initial, s.backoff.max) = (hour, hour))
        .start();
    world.produce(0, "a");
    while world.metrics.task_retries.get() == 0 {
        tokio::task::yield_now().await;
    }
    let over = world.revoke(0, GRACE).await;
    assert_eq!(next(&over), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_does_not_wait_for_payloads_that_wait_for_others() {
    let linger = Duration::from_secs(50); // Longer than the grace.
    let results = Script::kafka();
    let mut world = World::of(Echo::default())
        .in_memory()
        .results(&results)
        .batch(|batch| batch.linger = linger)
        .start();
    world.produce(0, "a");
    world.produce(0, "b");
    world.not_committed(0, 0, Duration::from_secs(1)).await;
    assert_eq!(results.writes(), 0, "they wait for others");
    let started = Instant::now();
    let over = world.revoke(0, GRACE).await;
    assert_eq!(
        (next(&over), values(&world.results.all())),
        (Some(2), vec!["a".into(), "b".into()])
    );
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_finishes_a_dead_letter_that_is_being_written() {
    let letters = Script::dead_letters();
    letters.take(Duration::from_secs(10));
    let handler = Echo::default().arrange(|_| Err("nobody can arrange this".into()));
    let mut world = World::of(handler)
        .in_memory()
        .dead_letters(&letters)
        .settings(|settings| settings.max_retries = 0)
        .start();
    world.produce(0, "a");
    while letters.writes() == 0 {
        tokio::task::yield_now().await;
    }
    let over = world.revoke(0, GRACE).await;
    assert_eq!((next(&over), world.dead_letters.len()), (Some(1), 1), "or it is written twice");
}

#[tokio::test]
async fn a_lost_partition_reports_nothing_and_stops_at_once() {
    let results =
        Script::answering(|_| Delivery::Transient(SinkError::new("Down", "the sink is down")));
    let mut world = World::of(Echo::default()).results(&results).start();
    world.produce(0, "a");
    while world.status.view().assigned != 1 {
        tokio::task::yield_now().await;
    }
    world.lose(0);
    while world.status.view().assigned != 0 {
        tokio::task::yield_now().await;
    }
    results.answer(|_| Delivery::Confirmed);
    world.assign(0, None);
    world.produce(0, "b");
    world.results.until(1).await;
    world.until("no hand-over", |book| book.handed_over.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cut_off_with_its_partition_has_a_line_in_the_job_log() {
    let flags = Flags::new("cut-off");
    let mut world = World::of(waiting(&flags)).start();
    let path = flags.path("jobs");
    let settings = JobLogSettings {
        path: path.clone(),
        max_bytes: 1 << 20,
        worker: "worker-1".to_owned(),
        program: None,
    };
    let guard = world.metrics.log_jobs(settings).unwrap();
    world.produce(0, "x");
    exists(&flags.path("started-0")).await;
    world.lose(0);
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    while lines().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(guard);
    let cut_off = r#""outcome":"cancelled","reason":"revoke","exit_code":null"#;
    assert!(lines().contains(cut_off) && lines().lines().count() == 1, "{}", lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_was_started_and_hands_everything_over() {
    let flags = Flags::new("stop");
    let mut world = World::of(waiting(&flags)).start();
    world.assign(1, None);
    for partition in [0, 1] {
        for _ in 0..5 {
            world.produce(partition, "x");
        }
    }
    exists(&flags.path("started-0")).await;
    std::fs::write(flags.path("go"), "").unwrap();
    let (book, results) = (world.book_handle(), world.results.clone());
    world.stop().await.unwrap();
    let book = book.lock().unwrap();
    assert!(book.quiesced);
    assert_eq!(book.handed_over.len(), 2);
    // What was queued behind a message that was taken back may have got a slot meanwhile.
    // A partition that was told to stop before its first message has no position.
    let settled = |over: &HandedOver| {
        next(over).map_or(0, |next| done(over).len() + usize::try_from(next).unwrap())
    };
    let settled: usize = book.handed_over.iter().map(|(_, over)| settled(over)).sum();
    assert_eq!(settled, results.len(), "delivered = committed, {:?}", book.handed_over);
}

#[tokio::test]
async fn an_assignment_begins_with_what_the_last_one_left() {
    let mut world = World::of(Echo::default()).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let over = world.revoke(0, GRACE).await;
    world.assign(0, over.position);
    world.produce(0, "b");
    world.committed(0, 2).await;
    assert_eq!(values(&world.results.all()), ["a", "b"]);
}
