//! `decode`, `message_label`, and what is measured.

use std::sync::Arc;

use bytes::Bytes;
use drakkar_core::{OnDeliveryError, OnInvalid, SourceMessage};
use drakkar_telemetry::Hook;
use drakkar_testing::World;

use crate::witness::*;

#[tokio::test]
async fn the_handler_decodes_and_a_panic_in_it_is_an_invalid_message() {
    let (witness, _) = Witness::new();
    let mut world = World::of(witness).start();
    for value in ["text", "panic", "invalid", "more"] {
        world.produce(0, value);
    }
    world.committed(0, 4).await;
    let mut values: Vec<Bytes> =
        world.results.all().into_iter().filter_map(|record| record.value).collect();
    values.sort();
    assert_eq!(values, ["MORE", "TEXT"]);
    let mut reasons: Vec<String> =
        world.dead_letters.all().into_iter().map(|letter| letter.cause.message).collect();
    reasons.sort();
    assert_eq!(reasons, ["as told", "decoding panicked: as told"]);
    assert_eq!(errors(&world, Hook::Decode), 1, "an invalid message is no error of the hook");
}

fn name(message: &SourceMessage) -> Option<String> {
    message.value.as_ref().map(|value| format!("order {}", String::from_utf8_lossy(value)))
}

#[tokio::test]
async fn what_is_given_up_is_logged_under_the_name_that_people_know() {
    let (log, _logging) = log();
    let witness = Witness { label: name, ..Witness::refusing(|_| Ok(OnDeliveryError::Skip)) };
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.produce(0, "invalid");
    world.committed(0, 2).await;
    for (event, label) in [
        ("refused payload skipped", "label=\"order a\""),
        ("message dead-lettered", "label=\"order invalid\""),
    ] {
        let line = log.line(event);
        assert!(line.contains(label) && line.contains("coordinates=orders:0:"), "{line}");
    }
    let (witness, _) = Witness::new();
    let mut world = World::of(Witness { label: name, ..witness })
        .settings(|settings| settings.on_invalid = OnInvalid::Skip)
        .start();
    world.produce(0, "invalid");
    world.committed(0, 1).await;
    let line = log.line("message skipped");
    assert!(line.contains("label=\"order invalid\""), "{line}");
}

#[tokio::test]
async fn a_label_that_panics_costs_no_message() {
    let (log, _logging) = log();
    let (witness, _) = Witness::new();
    let mut world = World::of(Witness { label: |_| panic!("as told"), ..witness }).start();
    world.produce(0, "invalid");
    world.committed(0, 1).await;
    assert_eq!(world.dead_letters.len(), 1);
    assert_eq!(errors(&world, Hook::MessageLabel), 1);
    assert!(!log.line("message dead-lettered").contains("label="));
}

#[tokio::test]
async fn every_hook_that_was_called_is_timed() {
    let (_log, _logging) = log(); // Nobody asks for a label that nobody reads.
    let (witness, _) = Witness::new();
    let mut world = World::of(witness).results(&refusing()).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    let metrics = Arc::clone(&world.metrics);
    world.stop().await.unwrap();
    let timed: Vec<&str> = Hook::ALL
        .into_iter()
        .filter(|hook| metrics.hook(*hook).duration.get_sample_count() == 1)
        .map(Hook::as_str)
        .collect();
    let called = [
        "on_ready",
        "on_assign",
        "decode",
        "arrange",
        "priority",
        "message_label",
        "on_task_complete",
        "on_delivery_error",
        "on_revoke",
    ];
    assert_eq!(timed, called);
}
