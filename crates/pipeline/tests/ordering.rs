//! Messages of one key are processed one after the other, whatever happens to them, and only they.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, Whole, echo, ending, record, shell};
use drakkar_core::{
    Collect, DeadLetter, Delivery, KafkaPayload, Message, OnError, Precomputed, SinkError, Task,
    order::Ordering,
};
use drakkar_testing::{Script, World, WorldBuilder, message};
use tokio::time::timeout;

const LONG: Duration = Duration::from_mins(10);

/// What happened to which message, in order: the values of messages. They are `a0`, `a1`, `b0`: the
/// letter is the key (`-` is none), the number the position, and what follows says what to do.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, value: &[u8]) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(value).into_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, value: &str) -> usize {
        self.all().iter().filter(|one| *one == value).count()
    }

    /// Asserts that for each line nothing happened to a message before the last thing that happened to
    /// the one before it.
    #[track_caller]
    fn in_order(&self, line: impl Fn(&str) -> String) {
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for value in self.all() {
            lines.entry(line(&value)).or_default().push(value);
        }
        for (line, mut values) in lines {
            let seen = values.clone();
            values.dedup();
            let once: HashSet<&String> = values.iter().collect();
            assert_eq!(once.len(), values.len(), "{line} is mixed up: {seen:?}");
            assert!(values.is_sorted_by_key(|value| number(value)), "{line}: {seen:?}");
        }
    }
}

fn number(value: &str) -> u32 {
    value.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn key(value: &str) -> String {
    value[..1].to_owned()
}

fn down() -> Delivery {
    Delivery::Transient(SinkError::new("Down", "down"))
}

/// Messages from `offset` on, all in one window if they are sent before the next `await`.
fn send(world: &mut World, offset: i64, values: &[&str]) {
    for (offset, value) in (offset..).zip(values) {
        let mut message = message(0, offset, Bytes::copy_from_slice(value.as_bytes()));
        message.key = (key(value) != "-").then(|| Bytes::copy_from_slice(key(value).as_bytes()));
        world.send(message);
    }
}

fn value(bytes: Option<&Bytes>) -> &[u8] {
    bytes.map_or(b"", |bytes| bytes)
}

/// Every hook and every delivery of the handler writes into the journal.
fn noted(journal: &Journal, handler: Echo) -> Echo {
    let (ran, failed) = (journal.clone(), journal.clone());
    handler
        .complete(move |done| {
            ran.note(&done.output.stdout);
            Ok(record(done))
        })
        .failed(move |task| {
            failed.note(&task.output.stdout);
            let again = || {
                let stdout = task.output.stdout.clone();
                Task::new().precomputed(Precomputed { stdout, ..Precomputed::default() })
            };
            Ok(match task.output.stdout.last() {
                Some(b'r') if 0 < task.retries_left => OnError::Retry,
                Some(b'x') => OnError::Replace(vec![again(), again()]),
                Some(b'd') => OnError::DeadLetter,
                _ => OnError::Skip,
            })
        })
}

/// What ends with a letter fails.
fn failing(message: &Message<Bytes>) -> Task {
    ending(message, i32::from(message.input.last().is_some_and(u8::is_ascii_alphabetic)))
}

/// A sink that takes what `holds` lets pass, and writes it into the journal.
fn results(
    journal: &Journal,
    holds: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
) -> Script<KafkaPayload> {
    let journal = journal.clone();
    Script::answering(move |payload: &KafkaPayload| {
        let value = value(payload.value.as_ref());
        if holds(value) {
            return down();
        }
        journal.note(value);
        Delivery::Confirmed
    })
}

fn letters(journal: &Journal) -> Script<DeadLetter> {
    let journal = journal.clone();
    Script::answering(move |letter: &DeadLetter| {
        journal.note(value(letter.message.value.as_ref()));
        Delivery::Confirmed
    })
}

async fn delivered(world: &World, count: usize) {
    let waiting = timeout(Duration::from_mins(1), world.results.until(count));
    assert!(waiting.await.is_ok(), "{} delivered", world.results.len());
}

fn by_key(world: WorldBuilder<impl drakkar_core::Handler>) -> World {
    world.allow_unused_hooks().settings(|settings| settings.ordering = Ordering::Key).start()
}

/// Messages of four keys that succeed, are retried, replaced, dead-lettered and skipped, each of
/// which a sink refuses once.
async fn everything_happens(ordering: Ordering) -> Journal {
    let journal = Journal::default();
    let handler = Echo::default().arrange(|window| Ok(window.iter().map(failing).collect()));
    let refused = Mutex::new(HashSet::new());
    let results = results(&journal, move |value| refused.lock().unwrap().insert(value.to_vec()));
    let mut world = World::of(noted(&journal, handler))
        .settings(move |settings| {
            settings.ordering = ordering;
            settings.backoff.max = Duration::from_millis(10);
        })
        .results(&results)
        .dead_letters(&letters(&journal))
        .start();
    let acts = ["", "r", "x", "d", "s", "", ""];
    let values: Vec<String> = (0..160)
        .map(|at| format!("{}{at}{}", ["a", "b", "a", "c", "d"][at % 5], acts[at % acts.len()]))
        .collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    send(&mut world, 0, &values);
    world.committed(0, 160).await;
    world.stop().await.unwrap();
    let seen: HashSet<String> = journal.all().into_iter().collect();
    assert_eq!(seen.len(), 160);
    journal
}

#[tokio::test]
async fn messages_of_a_key_are_done_with_one_after_the_other_whatever_happens_to_them() {
    let journal = everything_happens(Ordering::Key).await;
    journal.in_order(key);
    let numbers: Vec<u32> = journal.all().iter().map(|value| number(value)).collect();
    assert!(!numbers.is_sorted(), "keys wait for each other");
}

#[tokio::test]
async fn messages_of_a_partition_are_done_with_one_after_the_other_where_that_is_asked() {
    everything_happens(Ordering::Partition).await.in_order(|_| "the partition".to_owned());
}

#[tokio::test]
async fn a_message_that_is_held_holds_its_key_in_all_windows_and_nobody_else() {
    let journal = Journal::default();
    let results = results(&journal, |value| value == b"a0" || value == b"-0");
    let mut world = by_key(World::of(noted(&journal, Echo::default())).results(&results));
    send(&mut world, 0, &["a0", "-0", "a1", "b0", "-1"]);
    delivered(&world, 2).await;
    send(&mut world, 5, &["a2", "b1", "-2", "c0"]);
    delivered(&world, 5).await;
    assert_eq!([journal.count("a1"), journal.count("a2")], [0, 0], "{:?}", journal.all());
    assert_eq!(journal.count("-0"), 1, "messages without a key are done with in no order");
    let after = journal.clone();
    results.answer(move |payload| {
        after.note(value(payload.value.as_ref()));
        Delivery::Confirmed
    });
    world.committed(0, 9).await;
    journal.in_order(|value| if key(value) == "-" { value.to_owned() } else { key(value) });
}

#[tokio::test]
async fn a_task_for_messages_of_two_keys_waits_for_both_and_both_wait_for_it() {
    let journal = Journal::default();
    let results = results(&journal, |value| value == b"a0");
    let handler = Echo::default().arrange(|window| {
        let (both, alone): (Vec<_>, Vec<_>) =
            window.iter().partition(|message| matches!(&*message.input, b"a1" | b"b0"));
        let stdout = Bytes::from_static(b"both9");
        let joined =
            Task::for_messages(both).precomputed(Precomputed { stdout, ..Precomputed::default() });
        Ok(alone.into_iter().map(echo).chain([joined]).collect())
    });
    let mut world = by_key(World::of(noted(&journal, handler)).results(&results));
    send(&mut world, 0, &["a0", "a1", "b0", "b1", "c0"]);
    delivered(&world, 1).await;
    assert_eq!(journal.all().iter().filter(|one| *one != "a0").collect::<Vec<_>>(), ["c0", "c0"]);
    let after = journal.clone();
    results.answer(move |payload| {
        after.note(value(payload.value.as_ref()));
        Delivery::Confirmed
    });
    world.committed(0, 5).await;
    let order: Vec<String> = journal.all().into_iter().filter(|one| *one != "c0").collect();
    assert_eq!(order, ["a0", "a0", "both9", "both9", "b1", "b1"]);
}

#[tokio::test]
async fn the_next_owner_goes_on_in_order() {
    let journal = Journal::default();
    let results = results(&journal, |value| value == b"a0");
    let mut world = by_key(World::of(noted(&journal, Echo::default())).results(&results));
    let values = ["a0", "b0", "a1", "b1", "a2"];
    send(&mut world, 0, &values);
    delivered(&world, 2).await;
    let over = world.revoke(0, LONG).await;
    assert_eq!(over.position.as_ref().map(|position| position.next.0), Some(0));
    let after = journal.clone();
    results.answer(move |payload| {
        after.note(value(payload.value.as_ref()));
        Delivery::Confirmed
    });
    world.assign(0, over.position);
    send(&mut world, 0, &values);
    world.committed(0, 5).await;
    journal.in_order(key);
    assert_eq!([journal.count("b0"), journal.count("b1")], [2, 2], "they were settled before");
}

#[tokio::test]
async fn what_is_made_of_a_message_as_a_whole_belongs_to_it() {
    let journal = Journal::default();
    let whole = journal.clone();
    let handler = noted(&journal, Echo::default()).arrange(|window| {
        Ok(window.iter().filter(|message| !message.input.ends_with(b"e")).map(echo).collect())
    });
    let handler = Whole::<true, false>::new(handler).message(move |group| {
        whole.note(&group.message.input);
        Ok(Collect::new().kafka(KafkaPayload::raw("whole")))
    });
    let results = results(&journal, |value| value == b"whole");
    let mut world = by_key(World::of(handler).results(&results));
    // Nothing is arranged for the one with the `e`.
    send(&mut world, 0, &["a0", "a1e", "a2", "b0"]);
    delivered(&world, 2).await;
    assert_eq!([journal.count("a1e"), journal.count("a2")], [0, 0], "{:?}", journal.all());
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 4).await;
    journal.in_order(key);
}

#[tokio::test]
async fn messages_of_a_window_follow_each_other_before_the_window_completes_and_later_ones_after() {
    let journal = Journal::default();
    let handler = Whole::<false, true>::new(noted(&journal, Echo::default()))
        .window(|_| Ok(Collect::new().kafka(KafkaPayload::raw("window"))));
    let results = results(&journal, |value| value == b"window");
    let mut world = by_key(World::of(handler).results(&results));
    send(&mut world, 0, &["a0", "a1", "b0"]);
    delivered(&world, 3).await;
    send(&mut world, 3, &["a2", "c0"]);
    delivered(&world, 4).await;
    assert_eq!([journal.count("a1"), journal.count("a2")], [2, 0], "{:?}", journal.all());
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 5).await;
    journal.in_order(key);
}

#[tokio::test]
async fn a_message_that_is_not_arranged_is_dead_lettered_when_its_turn_comes() {
    let journal = Journal::default();
    let handler = Echo::default().arrange(|window| {
        if window.iter().any(|message| message.input.ends_with(b"bad")) {
            return Err("cannot arrange this".into());
        }
        Ok(window.iter().map(echo).collect())
    });
    let results = results(&journal, |value| value == b"a0");
    let dead = Script::answering(|_: &DeadLetter| down());
    let mut world = by_key(
        World::of(noted(&journal, handler))
            .settings(|settings| settings.max_retries = 0)
            .results(&results)
            .dead_letters(&dead),
    );
    send(&mut world, 0, &["a0", "a1bad", "a2", "b0"]);
    delivered(&world, 1).await;
    assert_eq!(world.metrics.dlq_send_failures.get(), 0, "its turn has not come");
    let after = journal.clone();
    results.answer(move |payload| {
        after.note(value(payload.value.as_ref()));
        Delivery::Confirmed
    });
    while world.metrics.dlq_send_failures.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.count("a2"), 0, "the one before it is not dead-lettered yet");
    let after = journal.clone();
    dead.answer(move |letter| {
        after.note(value(letter.message.value.as_ref()));
        Delivery::Confirmed
    });
    world.committed(0, 4).await;
    journal.in_order(key);
}

/// The task for `b0` and `a1` cannot run before `a0`, which has not started when the partition is taken
/// away: it is finished all the same, because `b0` has begun.
#[tokio::test]
async fn a_hand_over_finishes_what_the_messages_that_have_begun_must_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let (go, at) = (dir.path().join("go"), dir.path().to_owned());
    let handler = Echo::default().arrange(move |window| {
        let by = |wanted: &'static [u8]| window.iter().find(move |m| &*m.input == wanted);
        let gate = "until [ -e go ]; do sleep 0.01; done";
        let mut tasks = Vec::new();
        tasks.extend(by(b"x0").map(|message| shell(message, gate).working_dir(&at)));
        tasks.extend(by(b"a0").map(|message| shell(message, "echo a0")));
        tasks.extend(by(b"b0").map(echo));
        if let (Some(first), Some(second)) = (by(b"b0"), by(b"a1")) {
            let both = Task::for_messages([first, second]);
            tasks.push(both.precomputed(Precomputed::default()));
        }
        Ok(tasks)
    });
    let mut world =
        by_key(World::of(handler).executor(|e| e.max_executors = std::num::NonZeroUsize::new(1)));
    send(&mut world, 0, &["x0", "a0", "b0", "a1", "a2"]);
    delivered(&world, 1).await;
    while world.pool.stats().active == 0 || world.pool.stats().queued == 0 {
        tokio::task::yield_now().await;
    }
    world.begin_revoke(0, LONG);
    std::fs::write(go, "").unwrap();
    let over = world.handed_over(0).await;
    // What nothing is arranged for was done with when it was arranged.
    assert_eq!(over.position.map(|position| position.next.0), Some(5));
}

#[tokio::test]
async fn tasks_that_wait_for_their_turn_are_bounded() {
    let results = Script::answering(|payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"a0") => down(),
        _ => Delivery::Confirmed,
    });
    let handler = Echo::default()
        .arrange(|window| Ok(window.iter().flat_map(|m| (0..100).map(move |_| echo(m))).collect()));
    let mut world = by_key(World::of(handler).results(&results));
    let values: Vec<String> = (0..30).map(|at| format!("a{at}")).collect();
    send(&mut world, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
    world.assign(1, None);
    for _ in 0..100 {
        world.produce(1, "time passes");
    }
    world.committed(1, 100).await;
    let consumed = world.metrics.partition(&message(0, 0, "").partition).consumed.get();
    assert_eq!(consumed, 10, "a window of 1 000 tasks waits, and another is arranged");
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 30).await;
}
