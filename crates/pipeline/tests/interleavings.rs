//! What happens when things happen at the same time: a revoke, a loss, a stop or a failure in the
//! middle of arranging, running, delivering.

#![allow(clippy::unwrap_used)] // It is test code without being a test.

mod common;

use std::{path::PathBuf, sync::Arc, time::Duration};

use common::{Echo, echo, record, shell, values};
use drakkar_core::{
    Delivery, DoneMap, KafkaPayload, Offset, OnInvalid, SinkError, source::Position,
};
use drakkar_pipeline::PipelineError;
use drakkar_testing::{Script, World, message};
use tokio::time::{Instant, timeout};

const LONG: Duration = Duration::from_mins(10);
const SOON: Duration = Duration::from_mins(1);

fn down() -> Delivery {
    Delivery::Transient(SinkError::new("Down", "down"))
}

/// A directory through which tests and scripts talk.
struct Flags(PathBuf);

impl Flags {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("drakkar-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn set(&self, name: &str) {
        std::fs::write(self.0.join(name), "").unwrap();
    }

    fn count(&self, begins: &str) -> usize {
        let names = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(begins)).count()
    }

    async fn until(&self, begins: &str, count: usize) {
        while self.count(begins) < count {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Flags {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Every message whose value is not `echo` says `started-…` and runs this script in the directory.
fn running(flags: &Flags, script: &'static str) -> Echo {
    let dir = flags.0.clone();
    Echo::default().arrange(move |window| {
        let script = format!(r#"cd "$DIR"; : > "started-$N"; {script}"#);
        Ok(window
            .iter()
            .map(|m| match &*m.input {
                b"echo" => echo(m),
                _ => shell(m, &script)
                    .env("DIR", &dir)
                    .env("N", format!("{}-{}", m.partition.partition, m.offset)),
            })
            .collect())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_while_the_worker_stops_shortens_the_time_of_the_hand_over() {
    let flags = Flags::new("revoke-in-stop");
    let mut world = World::of(running(&flags, "exec sleep 600"))
        .executor(|e| e.drain_timeout_seconds = LONG)
        .start();
    world.produce(0, "x");
    flags.until("started", 1).await;
    world.begin_stop();
    world.until("a stop", |book| book.quiesced).await;
    world.begin_revoke(0, Duration::from_millis(100));
    let over = timeout(SOON, world.handed_over(0)).await.expect("the group waits for us");
    assert_eq!(over.position.map(|position| position.next), Some(Offset(0)));
    world.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_fails_while_the_worker_stops_is_no_clean_stop() {
    let flags = Flags::new("fail-in-stop");
    let mut world = World::of(running(&flags, "exec sleep 600"))
        .executor(|e| e.drain_timeout_seconds = LONG)
        .start();
    world.produce(0, "x");
    flags.until("started", 1).await;
    world.begin_stop();
    world.until("a stop", |book| book.quiesced).await;
    world.fail_source("gone");
    assert_source_failed(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_finished_for_partitions_that_others_may_own_when_the_source_has_failed() {
    let flags = Flags::new("fail");
    let mut world = World::of(running(&flags, "exec sleep 600"))
        .executor(|e| e.drain_timeout_seconds = LONG)
        .start();
    world.produce(0, "x");
    flags.until("started", 1).await;
    let status = Arc::clone(&world.status);
    world.fail_source("gone");
    assert_source_failed(world).await;
    assert!(status.view().failed, "a restart cures it");
}

/// It ends at once, though it might finish what runs for longer than a test may take.
async fn assert_source_failed(world: World) {
    match timeout(SOON, world.ended()).await.unwrap() {
        Err(PipelineError::Source(text)) => assert!(text.contains("gone"), "{text}"),
        other => panic!("expected a failed source, got {other:?}"),
    }
}

#[tokio::test]
async fn a_done_map_does_not_settle_messages_of_a_log_that_began_anew() {
    let mut world = World::of(Echo::default()).start();
    let done = DoneMap::encode(Offset(2), [Offset(3)], 4096);
    world.assign(1, Some(Position { next: Offset(2), metadata: done.metadata }));
    for offset in 0..5 {
        world.send(message(1, offset, offset.to_string()));
    }
    world.committed(1, 5).await;
    assert_eq!(values(&world.results.all()), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_that_cannot_be_delivered_are_bounded_in_bytes() {
    let flags = Flags::new("result-bytes");
    let results = Script::answering(|_: &KafkaPayload| down());
    let mut world = World::of(running(&flags, "head -c 100000 /dev/zero"))
        .settings(|s| s.max_result_bytes = 150_000)
        .results(&results)
        .start();
    for _ in 0..40 {
        world.produce(0, "x");
    }
    flags.until("started", 3).await;
    let pool = world.pool.clone();
    while 0 < pool.stats().active + pool.stats().queued {
        tokio::task::yield_now().await;
    }
    // Two fill the budget; what the slots had begun by then is finished.
    let ran = flags.count("started");
    assert!(ran <= 8, "{ran} results are held");
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 40).await;
    assert_eq!(flags.count("started"), 40);
}

#[tokio::test]
async fn what_settled_is_reported_in_time_however_busy_a_partition_is() {
    const TASKS: usize = 300_000;
    let handler = Echo::default()
        .arrange(|window| {
            let fan_out = |m| if echo(m).source_offsets() == [Offset(0)] { 1 } else { TASKS };
            Ok(window.iter().flat_map(|m| (0..fan_out(m)).map(move |_| echo(m))).collect())
        })
        .complete(|_| Ok(drakkar_core::Collect::new()));
    let mut world = World::of(handler).start();
    world.produce(0, "small");
    world.produce(0, "large");
    world.committed(0, 1).await;
    let done = world.metrics.tasks_precomputed.get();
    assert!(done < TASKS as u64, "reported after {done} tasks");
}

#[tokio::test]
async fn nothing_of_a_partition_settles_after_its_fence() {
    let results = Script::answering(|payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"late") => down(),
        _ => Delivery::Confirmed,
    });
    let mut world = World::of(Echo::default()).results(&results).start();
    for value in ["late", "in time", "late"] {
        world.produce(0, value);
    }
    world.results.until(1).await;
    let over = world.revoke(0, LONG).await;
    assert_eq!(over.position.as_ref().map(|position| position.next), Some(Offset(0)));
    results.answer(|_| Delivery::Confirmed);
    // Another partition shows that the sink is back and time goes on.
    world.assign(1, None);
    for _ in 0..10 {
        world.produce(1, "other");
    }
    world.committed(1, 10).await;
    let id = drakkar_core::TopicPartition::new(drakkar_testing::TOPIC, 0);
    assert_eq!(world.book(|book| book.position(&id).cloned()), over.position);
    assert!(!values(&world.results.all()).contains(&"late".to_owned()), "it is somebody else's");
}

#[tokio::test]
async fn a_revoke_while_a_window_is_arranged_leaves_it_to_the_next_owner() {
    struct Slow;
    impl drakkar_core::Handler for Slow {
        type Input = bytes::Bytes;
        async fn arrange(
            &self,
            _: &[drakkar_core::Message<bytes::Bytes>],
            _: &drakkar_core::Pending,
        ) -> drakkar_core::HookResult<Vec<drakkar_core::Task>> {
            std::future::pending().await
        }
    }
    let mut world = World::of(Slow).settings(|s| s.hook_timeout = LONG).start();
    world.produce(0, "x");
    while world.metrics.partition(&message(0, 0, "").partition).consumed.get() == 0 {
        tokio::task::yield_now().await;
    }
    let over = timeout(SOON, world.revoke(0, LONG)).await.expect("it waited for the hook");
    assert_eq!(over.position.map(|position| position.next), Some(Offset(0)));
    assert_eq!(world.held(0), 0);
    assert!(world.dead_letters.is_empty(), "an aborted hook has not failed");
}

#[tokio::test]
async fn a_hand_over_does_not_wait_for_a_dead_letter_topic_that_is_down() {
    let dlq = Script::answering(|_| down());
    let handler = Echo::default().arrange(|_| Err("no".into()));
    let mut world = World::of(handler).dead_letters(&dlq).start();
    world.produce(0, "x");
    while world.metrics.dlq_send_failures.get() == 0 {
        tokio::task::yield_now().await;
    }
    let over = timeout(SOON, world.revoke(0, LONG)).await.expect("it waited");
    assert_eq!(over.position.map(|position| position.next), Some(Offset(0)));
}

#[tokio::test]
async fn a_fan_out_that_is_under_way_is_cut_off_at_the_deadline() {
    let handler = Echo::default()
        .arrange(|window| Ok((0..100_000).map(|_| echo(&window[0])).collect()))
        .complete(|done| Ok(record(done)));
    let mut world = World::of(handler).start();
    world.produce(0, "x");
    world.results.until(100).await;
    let over = timeout(SOON, world.revoke(0, Duration::from_millis(20))).await.unwrap();
    assert_eq!(over.position.map(|position| position.next), Some(Offset(0)));
    assert!(world.results.len() < 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_lost_and_assigned_again_at_once_starts_anew() {
    let flags = Flags::new("lost-again");
    let mut world = World::of(running(&flags, "exec sleep 600")).start();
    world.produce(0, "x");
    flags.until("started", 1).await;
    world.lose(0);
    world.assign(0, None);
    world.send(message(0, 0, "echo"));
    world.committed(0, 1).await;
    assert!(world.book(|book| book.handed_over.is_empty()));
    let pool = world.pool.clone();
    while 0 < pool.stats().active {
        tokio::task::yield_now().await; // The process of the lost assignment is ended.
    }
    assert_eq!(world.status.view().assigned, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_drops_the_rest_at_once_and_reports_what_settled() {
    let flags = Flags::new("second-signal");
    let mut world = World::of(running(&flags, "exec sleep 600"))
        .executor(|e| e.drain_timeout_seconds = LONG)
        .start();
    world.produce(0, "echo");
    world.produce(0, "x");
    flags.until("started", 1).await;
    world.results.until(1).await;
    world.committed(0, 1).await;
    world.begin_stop();
    world.until("a stop", |book| book.quiesced).await;
    let (begun, book, pool) = (Instant::now(), world.book_handle(), world.pool.clone());
    world.stop_now();
    world.ended().await.unwrap();
    assert!(begun.elapsed() < SOON);
    let over = book.lock().unwrap().handed_over[0].1.clone();
    assert_eq!(over.position.map(|position| position.next), Some(Offset(1)));
    assert_eq!(pool.stats().active, 0, "no process outlives the worker");
}

/// Messages are numbers; each says that it started and waits for `go`.
struct Numbers(Flags);

impl drakkar_core::Handler for Numbers {
    type Input = drakkar_core::Json<u64>;

    async fn arrange(
        &self,
        window: &[drakkar_core::Message<drakkar_core::Json<u64>>],
        _: &drakkar_core::Pending,
    ) -> drakkar_core::HookResult<Vec<drakkar_core::Task>> {
        let script = r#"cd "$DIR"; : > started; until [ -e go ]; do sleep 0.01; done"#;
        let task = |m| drakkar_core::Task::for_message(m).program("/bin/sh").arg("-c");
        Ok(window.iter().map(|m| task(m).arg(script).env("DIR", &self.0.0)).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_stops_the_worker_lets_every_partition_finish_what_it_started() {
    for (partition, test) in [(1, "fatal-neighbour"), (0, "fatal-own")] {
        let flags = Flags::new(test);
        let (go, started) = (flags.0.join("go"), flags.0.join("started"));
        let mut world =
            World::of(Numbers(flags)).settings(|s| s.on_invalid = OnInvalid::Fail).start();
        world.assign(1, None);
        world.produce(partition, "1");
        while !started.exists() {
            tokio::task::yield_now().await;
        }
        world.produce(0, "{");
        world.until("the stop", |book| book.quiesced).await;
        let view = world.status.view();
        assert!(view.draining && !view.failed, "a restart cures nothing: {view:?}");
        std::fs::write(go, "").unwrap();
        let over = world.handed_over(partition).await;
        assert_eq!(over.position.map(|position| position.next), Some(Offset(1)), "{test}");
        assert!(matches!(world.ended().await, Err(PipelineError::Invalid(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_task_of_all_partitions_gets_the_next_slot() {
    let flags = Flags::new("oldest-first");
    let script = r#"until [ -e go ]; do sleep 0.01; done; echo "$N" >> order"#;
    let mut world = World::of(running(&flags, script))
        .executor(|e| e.max_executors = std::num::NonZeroUsize::new(1))
        .start();
    world.assign(1, None);
    world.send(message(0, 1_000, "gate"));
    flags.until("started", 1).await;
    let pool = world.pool.clone();
    let sent = [(0, 1_001), (1, 5), (0, 1_002), (1, 6)];
    for (queued, (partition, offset)) in sent.into_iter().enumerate() {
        world.send(message(partition, offset, "x"));
        while pool.stats().queued <= queued {
            tokio::task::yield_now().await;
        }
    }
    flags.set("go");
    world.results.until(5).await;
    let order = std::fs::read_to_string(flags.0.join("order")).unwrap();
    let order: Vec<&str> = order.lines().collect();
    assert_eq!(order, ["0-1000", "0-1001", "1-5", "0-1002", "1-6"]);
}

#[tokio::test]
async fn a_slow_partition_pauses_at_its_limit_and_asks_once_to_go_on() {
    let results = Script::answering(|_: &KafkaPayload| down());
    let mut world = World::of(Echo::default())
        .results(&results)
        .limits(drakkar_core::backpressure::Limits::new(10, 1 << 20))
        .start();
    for _ in 0..10 {
        world.produce(0, "x");
    }
    while world.metrics.tasks_completed.get() < 10 {
        tokio::task::yield_now().await;
    }
    assert!(world.book(|book| book.resumed.is_empty()), "nothing is settled");
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 10).await;
    assert_eq!(world.book(|book| book.resumed.len()), 1);
}

#[tokio::test]
async fn what_was_delivered_by_the_deadline_is_handed_over_as_settled() {
    let mut world = World::of(Echo::default()).start();
    for _ in 0..10 {
        world.produce(0, "x");
    }
    world.results.until(10).await;
    let over = world.revoke(0, Duration::ZERO).await;
    assert_eq!(over.position.map(|position| position.next), Some(Offset(10)));
}
