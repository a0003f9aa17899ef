//! Payloads on their way to sinks that misbehave, while partitions come and go.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::Echo;
use drakkar_core::{
    Collect, Delivery, DeliveryFailure, DoneMap, Handler, HookResult, KafkaPayload, Message,
    Offset, OnDeliveryError, Payload, Pending, Precomputed, Sink, SinkError, Task, TaskResult,
    order::Ordering as Order, payload::CustomPayload, source::Position,
};
use drakkar_testing::{Record, Script, World, message};
use fastrand::Rng;
use tokio::{
    sync::Semaphore,
    time::{advance, sleep},
};

fn down() -> Delivery {
    Delivery::Transient(SinkError::new("Down", "down"))
}

fn next(over: Option<&Position>) -> i64 {
    over.map_or(0, |position| position.next.0)
}

/// A sink and a handler that do what they like, by chance, and what became of each payload.
#[derive(Clone)]
struct Fickle(Arc<Chance>);

struct Chance {
    rng: Mutex<Rng>,
    /// From now on all goes well.
    is_calm: AtomicBool,
    /// Confirmed, or skipped by the handler.
    done: Mutex<HashSet<String>>,
    /// Tasks of which the hook was called, and payloads that were done, in order.
    journal: Mutex<Vec<String>>,
}

impl Fickle {
    fn of(seed: u64) -> Self {
        Self(Arc::new(Chance {
            rng: Mutex::new(Rng::with_seed(seed)),
            is_calm: AtomicBool::new(false),
            done: Mutex::default(),
            journal: Mutex::default(),
        }))
    }

    /// Less than `many`.
    fn chance(&self, many: u64) -> u64 {
        self.0.rng.lock().unwrap().u64(0..many)
    }

    fn done(&self, payload: &str) {
        self.0.done.lock().unwrap().insert(payload.to_owned());
        self.0.journal.lock().unwrap().push(payload.to_owned());
    }

    fn answer(&self) -> Delivery {
        if self.0.is_calm.load(Ordering::SeqCst) {
            return Delivery::Confirmed;
        }
        match self.chance(10) {
            0 => Delivery::Permanent(SinkError::new("Refused", "never")),
            1..4 => down(),
            _ => Delivery::Confirmed,
        }
    }
}

impl Sink for Fickle {
    type Payload = String;

    async fn deliver(&self, batch: &[String]) -> Vec<Delivery> {
        if !self.0.is_calm.load(Ordering::SeqCst) {
            match self.chance(10) {
                0 => panic!("a sink that panics"),
                1 => return vec![Delivery::Confirmed; batch.len() + 1],
                2 => return vec![Delivery::Confirmed; batch.len() - 1],
                3 => return std::future::pending().await,
                4..7 => sleep(Duration::from_millis(self.chance(40))).await,
                _ => {}
            }
        }
        let answers: Vec<Delivery> = batch.iter().map(|_| self.answer()).collect();
        let confirmed = batch.iter().zip(&answers).filter(|(_, a)| **a == Delivery::Confirmed);
        confirmed.for_each(|(payload, _)| self.done(payload));
        answers
    }
}

/// The payloads of a message, by its task.
fn payloads(offset: i64, task: i64) -> impl Iterator<Item = String> {
    (0..(offset * 7 + task * 3) % 4).map(move |nth| format!("{offset}:{task}:{nth}"))
}

impl Handler for Fickle {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let tasks = |message| (0..3).map(move |task: i64| (message, task));
        let each = window.iter().flat_map(tasks).map(|(message, task)| {
            let stdout = format!("{}:{task}", message.offset).into();
            Task::for_message(message).precomputed(Precomputed { stdout, ..Precomputed::default() })
        });
        Ok(each.collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let name = str::from_utf8(&done.output.stdout)?;
        self.0.journal.lock().unwrap().push(name.to_owned());
        let (offset, task) = name.split_once(':').unwrap();
        let mut collect = Collect::new();
        for payload in payloads(offset.parse()?, task.parse()?) {
            let size = payload.len();
            collect.push(CustomPayload::new("fickle", payload, size).into());
        }
        Ok(collect)
    }

    async fn on_delivery_error(&self, failed: &DeliveryFailure) -> HookResult<OnDeliveryError> {
        let Payload::Custom(payload) = &failed.payload else { unreachable!() };
        match self.chance(4) {
            0 => Err("no verdict".into()),
            1 => Ok(OnDeliveryError::Dlq),
            2 => Ok(OnDeliveryError::Retry),
            _ => {
                self.done(payload.value::<String>().unwrap());
                Ok(OnDeliveryError::Skip)
            }
        }
    }
}

const MESSAGES: i64 = 24;
const KEYS: i64 = 3;

/// Asserts that everything that `position` says is settled is confirmed, skipped or dead-lettered.
fn assert_settled_is_done(seed: u64, world: &World, fickle: &Fickle, position: Option<&Position>) {
    let (next, done) = match position {
        None => return,
        Some(at) => (at.next, DoneMap::decode(at.next, &at.metadata).unwrap()),
    };
    let dead: HashSet<Offset> =
        world.dead_letters.all().iter().map(|letter| letter.message.offset).collect();
    let delivered = fickle.0.done.lock().unwrap();
    let settled = (0..MESSAGES).map(Offset).filter(|&at| at < next || done.contains(at));
    for offset in settled.filter(|offset| !dead.contains(offset)) {
        for payload in (0..3).flat_map(|task| payloads(offset.0, task)) {
            assert!(delivered.contains(&payload), "seed {seed}: {payload} of {position:?}");
        }
    }
}

/// Asserts that a message was done with before the next one of its key began.
fn assert_in_order(seed: u64, journal: &[String]) {
    for key in 0..KEYS {
        let offset = |entry: &String| entry.split(':').next().unwrap().parse::<i64>().unwrap();
        let offsets = journal.iter().map(offset).filter(|offset| offset % KEYS == key);
        assert!(offsets.is_sorted(), "seed {seed}, key {key}: {journal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_is_delivered_whatever_sinks_do_and_whenever_a_partition_goes() {
    for seed in 0..60 {
        let fickle = Fickle::of(seed);
        let mut world = World::of(fickle.clone())
            .in_memory()
            .settings(move |settings| {
                settings.max_hooks = 16;
                settings.ordering = if seed % 2 == 0 { Order::Key } else { Order::default() };
            })
            .batch(|batch| (batch.max_items, batch.in_flight) = (5.try_into().ok(), None))
            .sink("fickle", fickle.clone())
            .start();
        for offset in 0..MESSAGES {
            world.produce(0, Record::from("x").key((offset % KEYS).to_string()));
        }
        sleep(Duration::from_millis(fickle.chance(400))).await;
        if seed % 3 == 0 {
            world.lose(0);
        } else {
            world.revoke(0, Duration::from_millis(fickle.chance(400))).await;
        }
        assert_settled_is_done(seed, &world, &fickle, world.position(0).as_ref());
        if seed % 2 == 0 {
            assert_in_order(seed, &fickle.0.journal.lock().unwrap());
        }
        fickle.0.is_calm.store(true, Ordering::SeqCst);
        world.give_back(0);
        world.committed(0, MESSAGES).await;
        assert_settled_is_done(seed, &world, &fickle, world.position(0).as_ref());
        assert_eq!(world.held(0), 0, "seed {seed}");
    }
}

/// A sink whose write waits to be let on; it counts those that began.
#[derive(Clone)]
struct Gated {
    begun: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    ended: Arc<Mutex<Vec<String>>>,
}

impl Gated {
    fn shut() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Self { begun: Arc::default(), gate, ended: Arc::default() }
    }

    async fn begun(&self, writes: usize) {
        while self.begun.load(Ordering::SeqCst) < writes {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn ended(&self) -> Vec<String> {
        self.ended.lock().unwrap().clone()
    }
}

impl Sink for Gated {
    type Payload = String;

    async fn deliver(&self, batch: &[String]) -> Vec<Delivery> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.ended.lock().unwrap().extend_from_slice(batch);
        vec![Delivery::Confirmed; batch.len()]
    }
}

/// Each message is one payload of its own value for the sink `far`.
fn to_far() -> Echo {
    Echo::default().complete(|done| {
        let text = String::from_utf8_lossy(&done.output.stdout).into_owned();
        let mut collect = Collect::new();
        collect.push(CustomPayload::new("far", text, 1).into());
        Ok(collect)
    })
}

/// A world whose sink writes one payload at a time.
fn one_at_a_time(far: &Gated) -> World {
    World::of(to_far())
        .in_memory()
        .batch(|batch| {
            (batch.max_items, batch.in_flight) = (1.try_into().ok(), 1.try_into().ok());
        })
        .sink("far", far.clone())
        .start()
}

/// Lets everything run that can, without time passing.
async fn quiet() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_posted_and_not_begun_is_not_written_after_the_partition_is_gone() {
    for is_lost in [false, true] {
        let far = Gated::shut();
        let mut world = one_at_a_time(&far);
        for value in ["a", "b", "c"] {
            world.produce(0, value);
        }
        far.begun(1).await;
        quiet().await;
        if is_lost {
            world.lose(0);
        } else {
            let over = world.revoke(0, Duration::ZERO).await;
            assert_eq!(next(over.position.as_ref()), 0);
        }
        quiet().await;
        far.gate.add_permits(10);
        quiet().await;
        advance(Duration::from_mins(1)).await;
        assert_eq!(far.ended(), ["a"], "it was being written; lost: {is_lost}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_earlier_assignment_settles_nothing_of_the_next() {
    let far = Gated::shut();
    let mut world = one_at_a_time(&far);
    world.produce(0, "a");
    far.begun(1).await;
    world.lose(0);
    world.assign(0, None);
    world.send(message(0, 0, "again"));
    quiet().await;
    far.gate.add_permits(1);
    far.begun(2).await;
    assert_eq!(far.ended(), ["a"]);
    world.not_committed(0, 0, Duration::from_secs(10)).await;
    far.gate.add_permits(1);
    world.committed(0, 1).await;
    assert_eq!(far.ended(), ["a", "again"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_by_the_deadline_counts_and_what_is_not_does_not() {
    let far = Gated::shut();
    let mut world = one_at_a_time(&far);
    for value in ["a", "b", "c"] {
        world.produce(0, value);
    }
    far.gate.add_permits(2);
    far.begun(3).await;
    let over = world.revoke(0, Duration::ZERO).await;
    assert_eq!((next(over.position.as_ref()), far.ended().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_when_the_deadline_comes_counts_although_nobody_has_looked_at_it() {
    let far = Gated::shut();
    let mut world = one_at_a_time(&far);
    world.produce(0, "a");
    far.begun(1).await;
    quiet().await;
    // The write ends, and then the order arrives, before the loop of the partition has its turn.
    far.gate.add_permits(1);
    let over = world.revoke(0, Duration::ZERO).await;
    assert_eq!((next(over.position.as_ref()), far.ended().len()), (1, 1));
}

/// A payload that panics when it is dropped, and so does each copy of it.
#[derive(Clone)]
struct Trap(Arc<AtomicUsize>);

impl Drop for Trap {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a trap");
    }
}

/// Confirms everything.
#[derive(Clone)]
struct Kind(Arc<AtomicUsize>);

impl Sink for Kind {
    type Payload = Trap;

    async fn deliver(&self, batch: &[Trap]) -> Vec<Delivery> {
        self.0.fetch_add(batch.len(), Ordering::SeqCst);
        vec![Delivery::Confirmed; batch.len()]
    }
}

/// Two payloads for every message.
struct Trapper(Arc<AtomicUsize>);

impl Handler for Trapper {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        let payload = || CustomPayload::new("far", Trap(Arc::clone(&self.0)), 1);
        Ok(Collect::new().custom(payload()).custom(payload()))
    }
}

#[tokio::test(start_paused = true)]
async fn payloads_that_panic_when_they_are_dropped_are_written_once_and_cost_nothing() {
    let (dropped, written) = (Arc::default(), Arc::default());
    let mut world = World::of(Trapper(Arc::clone(&dropped)))
        .in_memory()
        .sink("far", Kind(Arc::clone(&written)))
        .start();
    world.produce(0, "a");
    world.produce(0, "b");
    world.committed(0, 2).await;
    assert_eq!(written.load(Ordering::SeqCst), 4);
    world.stop().await.unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 8, "each, and the copy that its sink was given");
}

#[tokio::test(start_paused = true)]
async fn output_counts_until_its_payloads_are_confirmed_and_is_given_back_once() {
    let results = Script::answering(|_: &KafkaPayload| down());
    let mut world = World::of(Echo::default())
        .in_memory()
        .settings(|settings| settings.max_result_bytes = 250)
        .results(&results)
        .start();
    for _ in 0..20 {
        world.produce(0, vec![b'x'; 100]);
    }
    quiet().await;
    advance(Duration::from_secs(10)).await;
    quiet().await;
    assert_eq!(world.metrics.tasks_precomputed.get(), 3, "the third exceeds the budget");
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 20).await;
    results.answer(|_| down());
    for _ in 0..20 {
        world.produce(0, vec![b'x'; 100]);
    }
    quiet().await;
    advance(Duration::from_secs(10)).await;
    quiet().await;
    assert_eq!(world.metrics.tasks_precomputed.get(), 23, "as many as before");
}
