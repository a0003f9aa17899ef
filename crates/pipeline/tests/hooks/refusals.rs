//! `on_delivery_error`: what becomes of a payload that a sink refuses for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{
    Carried, Collect, Delivery, DeliveryFailure, Handler, HookResult, KafkaPayload, Message,
    Offset, OnDeliveryError, Pending, Precomputed, SinkError, Stage, Task, TaskResult,
};
use drakkar_telemetry::Hook;
use drakkar_testing::{Script, World};

use tokio::time::Instant;

use crate::witness::*;

#[tokio::test]
async fn a_refused_payload_is_delivered_again_until_the_sink_takes_it() {
    let results = refusing();
    let heal = results.clone();
    let witness = Witness::refusing(move |failed| {
        if failed.attempt == 2 {
            heal.answer(|_| Delivery::Confirmed);
        }
        Ok(OnDeliveryError::Retry)
    });
    let diary = Arc::clone(&witness.diary);
    let mut world = World::of(witness).results(&results).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let asked: Vec<String> =
        entries(&diary).into_iter().filter(|entry| entry.starts_with("refused")).collect();
    assert_eq!(asked, ["refused 1 left 3", "refused 2 left 2"]);
    assert_eq!(world.results.all()[0].value.as_deref(), Some(&b"A"[..]), "the same payload");
    assert!(world.dead_letters.is_empty());
}

#[tokio::test]
async fn a_payload_whose_retries_are_used_up_is_dead_lettered_and_not_lost() {
    let witness = Witness::refusing(|_| Ok(OnDeliveryError::Retry));
    let diary = Arc::clone(&witness.diary);
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let letters = world.dead_letters.all();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].cause.stage, letters[0].cause.class.as_str(), letters[0].cause.attempt),
        (Stage::Deliver, "TooLarge", 4)
    );
    assert_eq!(entries(&diary).last().unwrap(), "refused 4 left 0");
}

#[tokio::test(start_paused = true)]
async fn a_refused_payload_that_backs_off_is_left_to_the_next_owner_without_waiting() {
    let witness = Witness::refusing(|_| Ok(OnDeliveryError::Retry));
    let diary = Arc::clone(&witness.diary);
    let mut world = World::of(witness)
        .results(&refusing())
        .settings(|settings| {
            settings.backoff.initial = Duration::from_hours(1);
            settings.backoff.max = Duration::from_hours(1);
        })
        .start();
    world.produce(0, "a");
    written(&diary, "refused 1 left 3").await;
    let begun = Instant::now();
    let over = world.revoke(0, Duration::from_secs(30)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(over.position.unwrap().next, Offset(0), "it is not settled");
    assert!(world.dead_letters.is_empty() && world.results.is_empty());
}

#[tokio::test]
async fn a_skipped_payload_is_counted_and_its_message_settles() {
    let witness = Witness::refusing(|_| Ok(OnDeliveryError::Skip));
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert!(world.dead_letters.is_empty());
    let shown = world.metrics.render().unwrap();
    let series =
        r#"drakkar_sink_deliveries_skipped_total{sink_name="results",sink_type="kafka"} 1"#;
    assert!(shown.contains(series), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_dead_lettered_if_on_delivery_error_fails_panics_or_hangs() {
    for class in ["hook_error", "hook_panic", "hook_timeout"] {
        let witness = Witness::refusing(move |_| {
            Err(match class {
                "hook_error" => Then::Fail,
                "hook_panic" => Then::Panic,
                _ => Then::Hang,
            })
        });
        let mut world = World::of(witness).results(&refusing()).start();
        world.produce(0, "a");
        world.committed(0, 1).await;
        let cause = &world.dead_letters.all()[0].cause;
        assert_eq!((cause.stage, cause.class.as_str()), (Stage::Deliver, "TooLarge"));
        let why = &cause.message;
        assert!(why.starts_with("it is too large") && why.contains(class), "{why}");
        assert_eq!(errors(&world, Hook::OnDeliveryError), 1);
    }
}

#[tokio::test]
async fn several_refused_payloads_make_one_dead_letter_and_each_is_asked_about() {
    let witness = Witness { payloads: 3, ..Witness::refusing(|_| Ok(OnDeliveryError::Dlq)) };
    let diary = Arc::clone(&witness.diary);
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let letters = world.dead_letters.all();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].cause.message.contains("2 more payloads"), "{}", letters[0].cause.message);
    let asked = entries(&diary).iter().filter(|entry| entry.starts_with("refused")).count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn a_dead_letter_carries_every_payload_that_was_refused_and_names_its_sink() {
    let witness = Witness { payloads: 3, ..Witness::refusing(|_| Ok(OnDeliveryError::Dlq)) };
    let refused = Arc::new(AtomicUsize::new(0));
    let results =
        Script::answering(move |_: &KafkaPayload| match refused.fetch_add(1, Ordering::Relaxed) {
            1 => Delivery::Confirmed,
            _ => Delivery::Permanent(SinkError::new("TooLarge", "it is too large")),
        });
    let mut world = World::of(witness).results(&results).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let one = || Carried::of(&KafkaPayload::raw("A").sink("results").into());
    assert_eq!(world.dead_letters.only().cause.carried, one().and(one()));
    assert_eq!(world.results.len(), 1, "what was confirmed is not in the letter");
}

#[tokio::test]
async fn a_dead_letter_of_something_else_carries_no_payload() {
    let mut world = World::of(Witness::new().0).start();
    world.produce(0, "invalid");
    world.committed(0, 1).await;
    assert_eq!(world.dead_letters.only().cause.carried, Carried::default());
}

#[tokio::test]
async fn a_payload_for_a_sink_that_does_not_exist_is_asked_about_as_well() {
    struct Lost(Diary);
    impl Handler for Lost {
        type Input = Bytes;
        async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
            let known = |message| Task::for_message(message).precomputed(Precomputed::default());
            Ok(window.iter().map(known).collect())
        }
        async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
            Ok(Collect::new().kafka(KafkaPayload::raw("a").sink("nowhere")))
        }
        async fn on_delivery_error(&self, failed: &DeliveryFailure) -> HookResult<OnDeliveryError> {
            let note = format!("{} {} {}", failed.sink, failed.error.class, failed.messages.len());
            self.0.lock().unwrap().push(note);
            Ok(OnDeliveryError::Skip)
        }
    }
    let diary = Diary::default();
    let mut world = World::of(Lost(Arc::clone(&diary))).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(entries(&diary), ["kafka/nowhere unknown_sink 1"]);
}
