//! `on_ready`, `on_assign` and `on_revoke`: when they are called.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{Offset, Ready, TopicPartition};
use drakkar_telemetry::Hook;
use drakkar_testing::World;
use tokio::sync::Notify;

use crate::witness::*;

#[tokio::test]
async fn on_ready_is_first_and_sees_the_sinks_and_the_registry() {
    let (witness, diary) = Witness::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sinks = Arc::clone(&seen);
    let ready = Box::new(move |ready: &Ready| {
        sinks.lock().unwrap().extend(ready.sinks().iter().map(ToString::to_string));
        assert!(ready.get::<drakkar_telemetry::prometheus::Registry>().is_some());
    });
    let mut world = World::of(Witness { ready, ..witness }).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(entries(&diary)[..2], ["ready", "assign orders:0"]);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "kafka/results",
            "filesystem/files",
            "postgres/postgres",
            "mongo/mongo",
            "redis/redis",
            "http/http"
        ]
    );
}

#[tokio::test]
async fn nothing_is_arranged_before_on_assign_has_returned_though_messages_wait() {
    let (witness, diary) = Witness::new();
    let gate = Arc::new(Notify::new());
    let wait = Arc::clone(&gate);
    let assign: OnPartition = Box::new(move |partition| match partition.partition {
        0 => Then::Wait(Arc::clone(&wait)),
        _ => Then::Return,
    });
    let mut world = World::of(Witness { assign, ..witness }).start();
    world.produce(0, "waits");
    written(&diary, "assign orders:0").await;
    world.assign(1, None);
    world.produce(1, "goes on");
    world.committed(1, 1).await; // Another partition does not wait for it.
    assert!(!entries(&diary).contains(&"arrange orders:0".to_owned()));
    gate.notify_one();
    world.committed(0, 1).await;
    let order = ["assign orders:0", "assigned orders:0", "arrange orders:0"];
    let of_it: Vec<String> =
        entries(&diary).into_iter().filter(|entry| entry.ends_with(":0")).collect();
    assert_eq!(of_it, order);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_worked_on_even_if_on_assign_fails_panics_or_hangs() {
    let (witness, _) = Witness::new();
    let assign: OnPartition = Box::new(|partition| match partition.partition {
        0 => Then::Fail,
        1 => Then::Panic,
        _ => Then::Hang,
    });
    let mut world = World::of(Witness { assign, ..witness }).start();
    for partition in 0..3 {
        if partition > 0 {
            world.assign(partition, None);
        }
        world.produce(partition, "a");
        world.committed(partition, 1).await;
    }
    assert_eq!(errors(&world, Hook::OnAssign), 3);
}

#[tokio::test]
async fn on_revoke_is_called_once_and_after_the_last_word_of_the_partition() {
    let (witness, diary) = Witness::new();
    let book = Arc::new(Mutex::new(None));
    let look = Arc::clone(&book);
    let revoke: OnPartition = Box::new(move |partition| {
        let book = look.lock().unwrap();
        let book: &Arc<Mutex<drakkar_testing::Book>> = book.as_ref().unwrap();
        let last = book.lock().unwrap().position(partition).map(|position| position.next);
        assert_eq!(last, Some(Offset(2)), "its final commit is made");
        Then::Return
    });
    let mut world = World::of(Witness { revoke, ..witness })
        // Nothing but the hand-over commits.
        .settings(|settings| settings.commit.interval = Duration::from_hours(1))
        .start();
    *book.lock().unwrap() = Some(world.book_handle());
    world.produce(0, "a");
    world.produce(0, "b");
    world.results.until(2).await;
    world.revoke(0, Duration::from_secs(10)).await;
    written(&diary, "revoked orders:0").await;
    let metrics = Arc::clone(&world.metrics);
    world.stop().await.unwrap();
    let calls = entries(&diary).iter().filter(|entry| *entry == "revoke orders:0").count();
    assert_eq!(calls, 1, "also when the worker stops later");
    assert_eq!(metrics.hook(Hook::OnRevoke).errors.get(), 0);
}

#[tokio::test]
async fn on_revoke_is_called_for_every_partition_before_a_stop_ends() {
    let (witness, diary) = Witness::new();
    let mut world = World::of(witness).start();
    world.assign(1, None);
    world.produce(0, "a");
    world.committed(0, 1).await;
    written(&diary, "assigned orders:1").await;
    world.stop().await.unwrap();
    let ended: Vec<String> =
        entries(&diary).into_iter().filter(|entry| entry.starts_with("revoked")).collect();
    assert_eq!(ended.len(), 2, "{ended:?}");
}

#[tokio::test]
async fn a_lost_partition_is_revoked_too_and_its_next_on_assign_waits_for_that() {
    let (witness, diary) = Witness::new();
    let gate = Arc::new(Notify::new());
    let wait = Arc::clone(&gate);
    let revoke: OnPartition = Box::new(move |_| Then::Wait(Arc::clone(&wait)));
    let mut world = World::of(Witness { revoke, ..witness }).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    world.lose(0);
    world.assign(0, None); // At once, as a group does that wants us back.
    world.produce(0, "b");
    written(&diary, "revoke orders:0").await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let calls = entries(&diary).iter().filter(|entry| *entry == "assign orders:0").count();
    assert_eq!(calls, 1, "the second waits");
    gate.notify_one();
    world.committed(0, 2).await;
    let partition: Vec<String> =
        entries(&diary).into_iter().filter(|entry| entry.ends_with(":0")).collect();
    assert_eq!(
        partition,
        [
            "assign orders:0",
            "assigned orders:0",
            "arrange orders:0",
            "revoke orders:0",
            "revoked orders:0",
            "assign orders:0",
            "assigned orders:0",
            "arrange orders:0",
        ]
    );
    gate.notify_one();
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_revoke_waits_until_nothing_of_the_assignment_is_executed_any_more() {
    let (witness, diary) = Witness::new();
    let (release, gate) = std::sync::mpsc::channel();
    let gate = Mutex::new(Some(gate));
    let arrange = Box::new(move || match gate.lock().unwrap().take() {
        Some(gate) => Then::Block(gate),
        None => Then::Return,
    });
    let mut world = World::of(Witness { arrange, ..witness }).start();
    world.produce(0, "a");
    written(&diary, "arrange orders:0").await;
    world.lose(0);
    world.assign(1, None);
    world.produce(1, "b");
    world.committed(1, 1).await; // By now the loss was heard.
    assert!(!entries(&diary).contains(&"revoke orders:0".to_owned()), "{:?}", entries(&diary));
    let stuck = world.status.stuck_hook(Duration::ZERO).unwrap();
    assert_eq!(stuck.hook, Hook::Arrange);
    assert_eq!(stuck.partition, Some(TopicPartition::new("orders", 0)));
    assert_eq!(world.status.stuck_hook(Duration::from_hours(1)), None, "not that long");
    drop(release);
    written(&diary, "revoked orders:0").await;
    assert_eq!(world.status.stuck_hook(Duration::ZERO), None);
    world.stop().await.unwrap();
}
