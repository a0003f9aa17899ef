//! What becomes of a task that fails: tried again, skipped, replaced, dead-lettered.

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use common::{Echo, ending, reasons, record, values};
use drakkar_core::{Offset, OnError, Output, Stage, Task};
use drakkar_testing::{Scripted, World};

fn produce(world: &mut World, values: impl IntoIterator<Item = &'static str>) {
    for value in values {
        world.produce(0, value);
    }
}

#[tokio::test]
async fn a_failed_task_is_retried_and_then_dead_lettered() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| ending(m, 7)).collect()))
        .failed(move |failed| {
            let before = u32::try_from(count.fetch_add(1, Ordering::SeqCst))?;
            assert_eq!((failed.attempt, failed.retries_left), (before + 1, 3 - before));
            Ok(OnError::Retry)
        });
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 4, "once and three retries");
    let letter = &world.dead_letters.all()[0];
    assert_eq!((letter.cause.stage, letter.cause.attempt), (Stage::Execute, 4));
    assert_eq!(letter.cause.message, "exit code 7");
}

#[tokio::test]
async fn a_retry_that_succeeds_leaves_no_trace_in_the_dead_letters() {
    let first = Arc::new(AtomicUsize::new(0));
    let handler = Echo::default()
        .arrange(|window| {
            // The shell remembers in its working file whether it ran before.
            let script = r#"if [ -e "$MARK" ]; then echo -n ok; else : > "$MARK"; exit 1; fi"#;
            let mark = std::env::temp_dir().join(format!("drakkar-retry-{}", std::process::id()));
            Ok(window.iter().map(|m| common::shell(m, script).env("MARK", &mark)).collect())
        })
        .failed(move |_| {
            first.fetch_add(1, Ordering::SeqCst);
            Ok(OnError::Retry)
        });
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    assert_eq!(values(&world.results.all()), ["ok"]);
    assert!(world.dead_letters.is_empty());
    let mark = std::env::temp_dir().join(format!("drakkar-retry-{}", std::process::id()));
    std::fs::remove_file(mark).unwrap();
}

#[tokio::test]
async fn a_skipped_task_settles_its_message_and_is_counted() {
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| ending(m, 1)).collect()))
        .failed(|_| Ok(OnError::Skip));
    let mut world = World::of(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert!(world.results.is_empty() && world.dead_letters.is_empty());
    assert_eq!(world.metrics.skipped_on_error.get(), 2);
}

#[tokio::test]
async fn a_replaced_task_hands_its_message_to_its_replacements() {
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| ending(m, 1)).collect()))
        .failed(|failed| {
            let part = |text: &'static str| {
                Task::new().precomputed(drakkar_core::Precomputed {
                    stdout: text.into(),
                    ..drakkar_core::Precomputed::default()
                })
            };
            assert_eq!(failed.task.source_offsets(), [Offset(0)]);
            Ok(OnError::Replace(vec![part("left"), part("right")]))
        })
        .complete(|done| {
            assert_eq!(done.task.source_offsets(), [Offset(0)]);
            assert!(done.task.parent_task_id().is_some());
            Ok(record(done))
        });
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    assert_eq!(values(&world.results.all()), ["left", "right"]);
}

#[tokio::test]
async fn a_chain_of_replacements_is_bounded() {
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| ending(m, 1)).collect()))
        .failed(|failed| Ok(OnError::Replace(vec![(*failed.task).clone().with_id("again")])));
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    assert_eq!(reasons(&world), [(0, Stage::Execute, "replacement_limit".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn on_error_sees_what_a_program_printed_before_it_failed() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| common::shell(m, "")).collect()))
        .failed(move |failed| {
            let Output { stdout, stderr, .. } = failed.output.clone();
            saw.lock().unwrap().push((stdout, stderr));
            Ok(OnError::Skip)
        });
    let mut world = World::of(handler)
        .in_memory()
        .processes(|_| Scripted::exits(3).with_stdout("half").with_stderr(&b"w\xffy"[..]))
        .start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let printed = (Bytes::from("half"), Bytes::from_static(b"w\xffy"));
    assert_eq!(*seen.lock().unwrap(), [printed]);
}

#[tokio::test]
async fn a_failing_error_hook_dead_letters_the_message() {
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().map(|m| ending(m, 1)).collect()))
        .failed(|_| panic!("in on_error"));
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    assert_eq!(reasons(&world), [(0, Stage::OnError, "hook_panic".to_owned())]);
}
