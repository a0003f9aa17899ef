//! Settled before committed, and nothing vanishes: what the pipeline promises about every message.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, echo, reasons, record, values};
use drakkar_core::{
    Collect, Delivery, DoneMap, FilePayload, KafkaPayload, Message, Offset, OnInvalid, SinkError,
    SourceMessage, Stage, Task, source::Position,
};
use drakkar_pipeline::PipelineError;
use drakkar_testing::{Script, Scripted, World, message};
use tokio::time::sleep;

fn produce(world: &mut World, values: impl IntoIterator<Item = &'static str>) {
    for value in values {
        world.produce(0, value);
    }
}

#[tokio::test]
async fn every_message_is_delivered_and_then_committed() {
    let mut world = World::of(Echo::default()).start();
    let expected: Vec<String> = (0..1_000).map(|n| format!("{n:04}")).collect();
    for value in &expected {
        world.produce(0, value.clone());
    }
    world.committed(0, 1_000).await;
    assert_eq!(values(&world.results.all()), expected);
    assert!(world.dead_letters.is_empty());
    assert_eq!(world.held(0), 0, "what is settled is no longer held");
}

#[tokio::test]
async fn commits_never_go_back_and_never_repeat() {
    let mut world = World::of(Echo::default()).start();
    for n in 0..2_000 {
        world.produce(0, n.to_string());
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    world.committed(0, 2_000).await;
    let commits: Vec<i64> =
        world.book(|book| book.commits.values().flatten().map(|p| p.next.0).collect());
    assert!(commits.is_sorted(), "{commits:?}");
    assert!(commits.len() < 500, "coalesced: {} commits for 2000 messages", commits.len());
}

#[tokio::test]
async fn an_offset_is_not_committed_before_its_payload_is_confirmed() {
    let down = |payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"first") => Delivery::Transient(SinkError::new("Down", "the sink is down")),
        _ => Delivery::Confirmed,
    };
    let results = Script::answering(down);
    let mut world = World::of(Echo::default()).results(&results).start();
    produce(&mut world, ["first", "second", "third"]);
    world.results.until(2).await;
    world
        .until("a done map", |book| {
            book.commits.values().flatten().any(|position| {
                let done = DoneMap::decode(position.next, &position.metadata).unwrap_or_default();
                position.next == Offset(0) && done.contains(Offset(1)) && done.contains(Offset(2))
            })
        })
        .await;
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 3).await;
    assert!(world.dead_letters.is_empty(), "an outage dead-letters nothing");
}

#[tokio::test]
async fn what_an_earlier_owner_settled_is_not_run_again() {
    let mut world = World::of(Echo::default()).start();
    let done = DoneMap::encode(Offset(10), [Offset(11), Offset(13)].into_iter(), 4096);
    world.assign(1, Some(Position { next: Offset(10), metadata: done.metadata }));
    for value in ["10", "11", "12", "13", "14"] {
        world.produce(1, value);
    }
    world.committed(1, 15).await;
    assert_eq!(values(&world.results.all()), ["10", "12", "14"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_owner_settled_is_committed_though_nothing_else_happens() {
    let mut world = World::of(Echo::default()).in_memory().start();
    let done = DoneMap::encode(Offset(10), [Offset(11)], 4096);
    world.assign(1, Some(Position { next: Offset(10), metadata: done.metadata }));
    world.produce(1, "10");
    world.committed(1, 11).await;
    world.produce(1, "11");
    world.committed(1, 12).await;
    assert_eq!(values(&world.results.all()), ["10"]);
}

#[tokio::test]
async fn foreign_commit_metadata_is_ignored() {
    let mut world = World::of(Echo::default()).start();
    world.assign(1, Some(Position { next: Offset(5), metadata: "somebody else's".to_owned() }));
    world.produce(1, "five");
    world.committed(1, 6).await;
    assert_eq!(values(&world.results.all()), ["five"]);
}

#[tokio::test]
async fn a_message_without_a_task_settles_at_once() {
    let mut world = World::of(Echo::default().arrange(|_| Ok(Vec::new()))).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert!(world.results.is_empty() && world.dead_letters.is_empty());
}

#[tokio::test]
async fn a_task_that_names_no_message_stands_for_its_whole_window() {
    let handler = Echo::default()
        .arrange(|window| Ok(vec![echo(&window[0]).with_source_offsets(Vec::new())]))
        .complete(|_| Err("no".into()));
    let mut world = World::of(handler).start();
    produce(&mut world, ["a", "b", "c"]);
    world.committed(0, 3).await;
    let offsets: Vec<i64> = reasons(&world).into_iter().map(|(offset, ..)| offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[tokio::test]
async fn a_poisonous_message_does_not_take_its_window_along_when_arrange_fails() {
    let handler = Echo::default().arrange(|window| {
        assert!(!window.iter().any(|m| m.input == "panic"), "poison");
        if window.iter().any(|m| m.input == "error") {
            return Err("cannot arrange".into());
        }
        Ok(window.iter().map(echo).collect())
    });
    let mut world = World::of(handler).start();
    produce(&mut world, ["0", "1", "error", "3", "4", "panic", "6", "7"]);
    world.committed(0, 8).await;
    assert_eq!(values(&world.results.all()), ["0", "1", "3", "4", "6", "7"]);
    assert_eq!(
        reasons(&world),
        [
            (2, Stage::Arrange, "hook_error".to_owned()),
            (5, Stage::Arrange, "hook_panic".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_task_that_names_a_message_outside_its_window_is_an_error_that_says_so() {
    let handler = Echo::default()
        .arrange(|window| Ok(vec![echo(&window[0]).with_source_offsets([Offset(999)])]));
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    let letter = &world.dead_letters.all()[0];
    assert_eq!(letter.cause.class, "foreign_offset");
    assert!(letter.cause.message.contains("offset 999"), "{}", letter.cause.message);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_never_returns_times_out_and_loses_nothing() {
    struct Stuck;
    impl drakkar_core::Handler for Stuck {
        type Input = bytes::Bytes;
        async fn arrange(
            &self,
            _: &[drakkar_core::Message<bytes::Bytes>],
            _: &drakkar_core::Pending,
        ) -> drakkar_core::HookResult<Vec<Task>> {
            std::future::pending().await
        }
    }
    let mut world = World::of(Stuck).start();
    produce(&mut world, ["a"]);
    world.dead_letters.until(1).await;
    assert_eq!(reasons(&world), [(0, Stage::Arrange, "hook_timeout".to_owned())]);
}

#[tokio::test]
async fn a_failing_result_hook_dead_letters_the_message() {
    let handler = Echo::default().complete(|done| match &*done.stdout_text() {
        "error" => Err("no such customer".into()),
        "panic" => panic!("unexpected"),
        _ => Ok(record(done)),
    });
    let mut world = World::of(handler).start();
    produce(&mut world, ["error", "fine", "panic"]);
    world.committed(0, 3).await;
    assert_eq!(values(&world.results.all()), ["fine"]);
    assert_eq!(
        reasons(&world),
        [
            (0, Stage::OnTaskComplete, "hook_error".to_owned()),
            (2, Stage::OnTaskComplete, "hook_panic".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_payload_for_a_sink_that_is_not_configured_dead_letters_the_message() {
    let handler = Echo::default()
        .complete(|_| Ok(Collect::new().kafka(KafkaPayload::raw("x").sink("nowhere"))));
    let mut world = World::of(handler).start();
    produce(&mut world, ["a"]);
    world.committed(0, 1).await;
    assert_eq!(reasons(&world), [(0, Stage::Deliver, "unknown_sink".to_owned())]);
}

#[tokio::test]
async fn a_refused_payload_dead_letters_its_message_alone() {
    let results = Script::answering(|payload: &KafkaPayload| {
        if payload.value.as_deref() == Some(b"huge") {
            return Delivery::Permanent(SinkError::new("MessageSizeTooLarge", "too large"));
        }
        Delivery::Confirmed
    });
    let mut world = World::of(Echo::default()).results(&results).start();
    produce(&mut world, ["a", "huge", "b"]);
    world.committed(0, 3).await;
    assert_eq!(values(&world.results.all()), ["a", "b"]);
    assert_eq!(reasons(&world), [(1, Stage::Deliver, "MessageSizeTooLarge".to_owned())]);
    let sink = world.dead_letters.all()[0].cause.sink.as_ref().map(ToString::to_string);
    assert_eq!(sink.as_deref(), Some("kafka/results"));
}

#[tokio::test]
async fn one_result_may_go_to_several_sinks_and_waits_for_all_of_them() {
    let handler = Echo::default().complete(|done| {
        Ok(record(done).file(FilePayload::json("out.jsonl", &done.stdout_text())?))
    });
    let mut world = World::of(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert_eq!((world.results.len(), world.files.len()), (2, 2));
}

#[tokio::test]
async fn while_the_dead_letter_topic_is_down_the_message_is_held_and_recovers_by_itself() {
    let dlq = Script::answering(|_| Delivery::Transient(SinkError::new("Down", "down")));
    let handler = Echo::default().complete(|_| Err("no".into()));
    let mut world = World::of(handler).dead_letters(&dlq).start();
    produce(&mut world, ["a"]);
    world.until("a held message", |book| book.commits.is_empty()).await;
    assert_eq!(world.held(0), 1);
    dlq.answer(|_| Delivery::Confirmed);
    world.committed(0, 1).await;
    assert_eq!(world.dead_letters.len(), 1);
}

#[tokio::test]
async fn a_tombstone_and_an_empty_value_are_ordinary_messages() {
    let mut world = World::of(Echo::default()).start();
    world.send(SourceMessage { value: None, ..message(0, 0, "") });
    world.send(message(0, 1, ""));
    world.committed(0, 2).await;
    assert_eq!(world.results.len(), 2);
}

mod invalid {
    use drakkar_core::{Handler, HookResult, Json, Message, Pending};

    use super::*;

    struct Numbers;

    impl Handler for Numbers {
        type Input = Json<u64>;
        async fn arrange(&self, _: &[Message<Json<u64>>], _: &Pending) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn an_undecodable_message_is_dead_lettered_with_the_reason() {
        let mut world = World::of(Numbers).start();
        produce(&mut world, ["1", "{", "3"]);
        world.committed(0, 3).await;
        assert_eq!(reasons(&world), [(1, Stage::Decode, "invalid_value".to_owned())]);
        assert!(world.dead_letters.all()[0].cause.message.contains("line 1"));
    }

    #[tokio::test]
    async fn or_is_skipped_and_counted() {
        let mut world = World::of(Numbers).settings(|s| s.on_invalid = OnInvalid::Skip).start();
        produce(&mut world, ["{", "2"]);
        world.committed(0, 2).await;
        assert!(world.dead_letters.is_empty());
        assert_eq!(world.metrics.skipped_invalid.get(), 1);
    }

    #[tokio::test]
    async fn or_stops_the_worker_with_an_error_that_names_it_and_is_not_committed() {
        let mut world = World::of(Numbers).settings(|s| s.on_invalid = OnInvalid::Fail).start();
        produce(&mut world, ["1", "{"]);
        world
            .until("the last word", |book| {
                book.handed_over.iter().any(|(_, over)| {
                    over.position.as_ref().is_some_and(|position| position.next.0 < 2)
                })
            })
            .await;
        match world.ended().await {
            Err(PipelineError::Invalid(text)) => {
                assert!(text.contains("orders:0:1") && text.contains("on_invalid"), "{text}");
            }
            other => panic!("expected an invalid message, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_window_of_100_000_tasks_is_data_not_futures() {
    const TASKS: usize = 100_000;
    let peak = Arc::new(AtomicUsize::new(0));
    let now = Arc::new(AtomicUsize::new(0));
    let (seen_peak, in_hooks) = (Arc::clone(&peak), Arc::clone(&now));
    let handler = Echo::default()
        .arrange(|window| Ok((0..TASKS).map(|_| echo(&window[0])).collect()))
        .complete(move |_| {
            seen_peak.fetch_max(in_hooks.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            in_hooks.fetch_sub(1, Ordering::SeqCst);
            Ok(Collect::new())
        });
    let mut world = World::of(handler).start();
    produce(&mut world, ["fan out"]);
    world.committed(0, 1).await;
    assert_eq!(world.metrics.tasks_precomputed.get(), TASKS as u64);
    assert!(peak.load(Ordering::SeqCst) <= 64, "hooks at once are bounded");
}

#[tokio::test(start_paused = true)]
async fn what_a_commit_has_no_room_to_name_is_counted_until_the_commit_is_beyond_it() {
    const SETTLED: i64 = 20_000;
    let handler = Echo::default().arrange(|window| {
        let task = |message: &Message<Bytes>| match message.offset.0 {
            0 => Task::for_message(message).program("slow"),
            _ => echo(message),
        };
        Ok(window.iter().map(task).collect())
    });
    let mut world = World::of(handler)
        .in_memory()
        .processes(|_| Scripted::prints("x").takes(Duration::from_mins(1)))
        .start();
    // With a gap behind each, as markers of transactions leave.
    for number in 0..=SETTLED {
        world.send(message(0, 2 * number, "x"));
    }
    let metrics = world.metrics.partition(&message(0, 0, "").partition);
    while metrics.settled.get() < SETTLED as u64 {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(1)).await; // Of the minute that the first takes.
    let position = world.position(0).unwrap();
    let named = DoneMap::decode(position.next, &position.metadata).unwrap().len();
    let left_out = SETTLED - i64::try_from(named).unwrap();
    assert!(0 < left_out && 0 < named, "{named} of {SETTLED} are named");
    assert_eq!(metrics.done_map_left_out.get(), left_out);
    world.committed(0, 2 * SETTLED + 1).await;
    assert_eq!(metrics.done_map_left_out.get(), 0);
}
