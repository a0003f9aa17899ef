//! A partition that is held keeps the order of its messages, and counts what hooks give up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{
    Collect, DeadLetter, Delivery, DeliveryFailure, Handler, HookResult, KafkaPayload, Message,
    OnDeliveryError, Pending, SinkError, Task, TaskResult, flood::FloodLimits, order::Ordering,
};
use drakkar_executor::Scripted;
use drakkar_testing::{Record, Script, World, WorldBuilder};
use tokio::time::sleep;

use crate::{
    INTERVAL, Service,
    common::{Echo, Whole, echo, record, shell},
};

/// Until just before a try that begins an interval after this.
const ALMOST: Duration = Duration::from_secs(25);

/// What was done with which message, in order. The first letter of a value is its key.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, value: Option<&Bytes>) {
        let text = String::from_utf8_lossy(value.unwrap()).into_owned();
        self.0.lock().unwrap().push(text);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A sink that writes down what it takes.
    fn results(&self) -> Script<KafkaPayload> {
        let journal = self.clone();
        Script::answering(move |payload: &KafkaPayload| {
            journal.note(payload.value.as_ref());
            Delivery::Confirmed
        })
    }

    fn letters(&self) -> Script<DeadLetter> {
        let journal = self.clone();
        Script::answering(move |letter: &DeadLetter| {
            journal.note(letter.message.value.as_ref());
            Delivery::Confirmed
        })
    }

    /// Every message of a key comes after those before it.
    #[track_caller]
    fn in_order(&self) {
        let mut lines: BTreeMap<char, Vec<u32>> = BTreeMap::new();
        for value in self.all() {
            let number = value.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            lines.entry(value.chars().next().unwrap()).or_default().push(number);
        }
        for (key, numbers) in lines {
            assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        }
    }
}

fn in_lines<H: Handler>(handler: H, journal: &Journal, limit: u32) -> WorldBuilder<H> {
    World::of(handler)
        .in_memory()
        .allow_unused_hooks()
        .results(&journal.results())
        .dead_letters(&journal.letters())
        .settings(move |settings| {
            settings.ordering = Ordering::Key;
            settings.max_retries = 0;
            settings.flood =
                FloodLimits { max_consecutive: limit, max_ratio: 0.0, probe_interval: INTERVAL };
        })
}

fn produce(world: &mut World, values: &[&str]) {
    for value in values {
        world.produce(0, Record::from((*value).to_owned()).key(value[..1].to_owned()));
    }
}

fn needs(service: &Service) -> Echo {
    let service = service.clone();
    Echo::default().complete(move |done| service.ask().map(|()| record(done)))
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_message_that_waits_waits_and_goes_on_in_order_after_the_lift() {
    let (service, journal) = (Service::default(), Journal::default());
    let (needed, ran) = (service.clone(), Journal::default());
    let began = ran.clone();
    let handler = Echo::default().complete(move |done| {
        began.note(Some(&done.output.stdout));
        needed.ask().map(|()| record(done))
    });
    let mut world = in_lines(handler, &journal, 1).start();
    produce(&mut world, &["x0", "a0", "a1", "b0", "a2", "b1", "b2"]);
    world.dead_letters.until(1).await;
    sleep(ALMOST).await;
    assert_eq!(ran.all(), ["x0", "a0", "b0"], "each holds its line");
    service.set_up(true);
    world.committed(0, 7).await;
    journal.in_order();
    assert_eq!((world.dead_letters.len(), world.results.len()), (1, 6));
    assert_eq!(world.status.held_partitions(), []);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_arranged_again_kept_its_place() {
    let (service, journal) = (Service::default(), Journal::default());
    let needed = service.clone();
    let handler = Echo::default().arrange(move |window| {
        if window.iter().any(|message| message.input.ends_with(b"!")) {
            needed.ask()?;
        }
        Ok(window.iter().map(echo).collect())
    });
    let mut world = in_lines(handler, &journal, 1).start();
    produce(&mut world, &["x0!", "a0", "a1!", "a2", "b0", "a3!", "a4"]);
    world.dead_letters.until(1).await;
    sleep(ALMOST).await;
    let mut before = journal.all();
    before.sort();
    assert_eq!(before, ["a0", "b0", "x0!"]);
    service.set_up(true);
    world.committed(0, 7).await;
    journal.in_order();
    assert_eq!((world.dead_letters.len(), world.results.len()), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_behind_something_that_waits_does_not_stop_the_partition() {
    let journal = Journal::default();
    let handler = needs(&Service::default()).arrange(|window| {
        let task = |message: &Message<Bytes>| {
            if message.input.starts_with(b"a") { shell(message, "sleep 70") } else { echo(message) }
        };
        Ok(window.iter().map(task).collect())
    });
    let mut world = in_lines(handler, &journal, 1)
        .processes(|_| Scripted::prints("").takes(Duration::from_secs(70)))
        .start();
    produce(&mut world, &["x0", "a0"]);
    world.dead_letters.until(1).await;
    // It is tried while the one before it runs, which then fails.
    produce(&mut world, &["a1"]);
    world.committed(0, 3).await;
    assert_eq!(journal.all(), ["x0", "a0", "a1"]);
}

/// A sink that refuses everything for good, and a handler that is asked about it.
struct Refused(Echo);

impl Handler for Refused {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], pending: &Pending) -> HookResult<Vec<Task>> {
        Handler::arrange(&self.0, window, pending).await
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        self.0.on_task_complete(done).await
    }

    async fn on_delivery_error(&self, failed: &DeliveryFailure) -> HookResult<OnDeliveryError> {
        Ok(match failed.messages[0].value.as_deref().unwrap() {
            [b's', ..] => OnDeliveryError::Skip,
            [b'r', ..] => OnDeliveryError::Retry,
            _ => OnDeliveryError::Dlq,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn payloads_that_on_delivery_error_gives_up_are_counted_and_those_it_skips_are_not() {
    let results: Script<KafkaPayload> =
        Script::answering(|_| Delivery::Permanent(SinkError::new("TooLarge", "it is too large")));
    let limits = FloodLimits { max_consecutive: 4, max_ratio: 0.0, probe_interval: INTERVAL };
    let mut world = World::of(Refused(Echo::default()))
        .in_memory()
        .results(&results)
        .settings(move |settings| settings.flood = limits)
        .start();
    produce(&mut world, &["s0", "s1", "s2", "s3", "s4"]);
    world.committed(0, 5).await;
    assert_eq!((world.dead_letters.len(), world.status.held_partitions().len()), (0, 0));
    produce(&mut world, &["d5", "r6", "d7", "d8", "d9", "r10", "d11"]);
    world.dead_letters.until(4).await;
    sleep(ALMOST).await;
    assert_eq!((world.dead_letters.len(), world.status.held_partitions().len()), (4, 1));
    results.answer(|_| Delivery::Confirmed);
    world.committed(0, 12).await;
    assert_eq!((world.dead_letters.len(), world.results.len()), (4, 3));
}

/// Whatever fails and when: nobody waits for ever, and each key is done with in order.
async fn comes_and_goes<const WINDOWS: bool>(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (service, journal) = (Service::default(), Journal::default());
    let needed = service.clone();
    let tasks = needs(&service).arrange(move |window| {
        if window.iter().any(|message| message.input.ends_with(b"!")) {
            needed.ask()?;
        }
        // Some stand for two neighbours, of whatever keys.
        Ok(window
            .chunks(2)
            .flat_map(|pair| match pair {
                [one, two] if one.input.ends_with(b"+") => {
                    let both = Task::for_messages([one, two]);
                    vec![both.precomputed(echo(one).known_result().unwrap().clone())]
                }
                _ => pair.iter().map(echo).collect(),
            })
            .collect())
    });
    let mut world = in_lines(Whole::<false, WINDOWS>::new(tasks), &journal, random.u32(1..6))
        .settings(|settings| settings.flood.probe_interval = Duration::from_millis(700))
        .start();
    let mut count = 0;
    for _ in 0..20 {
        for _ in 0..random.usize(0..30) {
            let (key, act) = (random.choice(["a", "b", "c"]), random.choice(["", "", "!", "+"]));
            produce(&mut world, &[&format!("{}{count}{}", key.unwrap(), act.unwrap())]);
            count += 1;
        }
        sleep(Duration::from_millis(random.u64(0..1_500))).await;
        service.set_up(random.bool());
    }
    service.set_up(true);
    world.committed(0, count).await;
    let dead = world.dead_letters.len();
    assert!(dead <= usize::try_from(count).unwrap(), "seed {seed}: {dead} dead letters");
    if !WINDOWS {
        journal.in_order();
    }
}

#[tokio::test(start_paused = true)]
async fn whenever_the_service_comes_and_goes_nobody_waits_for_ever_and_lines_stay_in_order() {
    for seed in 0..15 {
        comes_and_goes::<false>(seed).await;
        comes_and_goes::<true>(seed).await;
    }
}
