//! Dead letters on a cluster of their own (`dlq.brokers`), with a password of its own: while it is away the
//! cluster that is consumed is not, and whoever looks at the letters talks to both.
//!
//! Each cluster also has the topics that only the other one is to write to: what goes to the wrong cluster
//! would be taken there.

use std::{collections::BTreeSet, path::Path, process::Command};

use drakkar_integration::{
    Act, Given, Kafka, Order, OwnBroker, Record, SOON, WorkerProcess, World, until, worker::built,
};
use serde_json::json;

/// Messages; one in ten cannot be processed without a licence, of either partition.
const COUNT: usize = 1_000;

/// One that never can.
const HOPELESS: &str = "hopeless";

fn id(number: usize) -> String {
    format!("n-{number}")
}

/// Whether the message of this id has a dead letter.
fn fails(id: &str) -> bool {
    let number = id.strip_prefix("n-").map(|number| number.parse::<usize>().unwrap());
    number.is_none_or(|number| matches!(number % 20, 8 | 19))
}

/// Two clusters: what is consumed, and where the letters are.
struct Apart {
    letters: OwnBroker,
    world: World,
    parked: String,
}

impl Apart {
    fn start() -> Self {
        let letters = OwnBroker::start();
        let port = letters.ask_on(None, "eve", "hunter2");
        letters.kill();
        letters.restart();
        let world = World::new(2)
            .with("health.sink_window", "2s")
            .with("executor.max_retries", 0)
            .with("dlq.brokers", format!("127.0.0.1:{port}"))
            .with(
                "dlq.security",
                json!({
                    "protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN",
                    "sasl_username": "eve", "sasl_password": "hunter2",
                }),
            );
        let parked = format!("{}_parked", world.dead);
        world.kafka.create_topic(&parked, 1);
        for topic in [&world.source, &world.dead, &parked] {
            letters.kafka().create_topic(topic, 1);
        }
        Self { letters, world, parked }
    }

    fn there(&self) -> Kafka {
        self.letters.kafka()
    }

    fn letters(&self) -> Vec<Record> {
        self.there().read(&self.world.dead)
    }

    /// Nothing is where only the other cluster's records belong.
    #[track_caller]
    fn nothing_is_astray(&self) {
        let World { kafka, source, dead, .. } = &self.world;
        assert_eq!(self.there().read(source), [], "messages beside the letters");
        assert_eq!(kafka.read(dead), [], "letters beside the messages");
        assert_eq!(kafka.read(&self.parked), [], "parked beside the messages");
    }
}

/// Waits until all that does not fail is delivered and all that may be committed is: of each partition
/// everything before a message whose letter is not confirmed.
fn held(world: &World, worker: &WorkerProcess) -> Vec<Record> {
    world.wait_delivered(COUNT - COUNT / 10);
    until("/readyz to say that nobody takes dead letters", SOON, || {
        let (status, body) = worker.get("/readyz").unwrap();
        let named = body.contains("sink dlq/dlq has accepted nothing for");
        if status == 503 && named { Ok(()) } else { Err(format!("{status} {body}")) }
    });
    assert_eq!(worker.status("/healthz"), 200, "a restart cures nothing");
    let messages = world.kafka.read(&world.source);
    until("commits to stop at messages that failed", SOON, || {
        let commits = world.commits();
        let first = |partition: i32| {
            messages
                .iter()
                .find(|one| (one.partition, one.offset) == (partition, commits[&partition]))
        };
        match (first(0), first(1)) {
            (Some(one), Some(other)) if fails(&one.id()) && fails(&other.id()) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    messages
}

/// Exit code and everything that `drakkar dlq` said.
fn dlq(config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(built("drakkar"));
    command.arg("dlq").args(arguments).arg("--config").arg(config);
    let output = command.env_clear().output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[track_caller]
fn says(config: &Path, arguments: &[&str], code: i32, text: &str) {
    let (found, said) = dlq(config, arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {said}");
    assert!(said.contains(text), "{text:?} is not in: {said}");
}

#[test]
fn while_the_cluster_of_the_letters_is_away_what_failed_is_held_and_it_goes_back_across_both_clusters()
 {
    let apart = Apart::start();
    let Apart { letters, world, .. } = &apart;
    let mut worker = world.start();
    let act = |number| if fails(&id(number)) { Act::Licensed } else { Act::Precomputed };
    let order = move |number| Order::new(id(number), act(number)).given();
    world.give((0..COUNT / 2).map(order));
    let confirmed = "drakkar_sink_dlq_messages_total";
    until("letters to be written", SOON, || match worker.metric(confirmed) {
        some if COUNT / 100 <= some => Ok(()),
        few => Err(few),
    });
    letters.kill();
    world.give((COUNT / 2..COUNT).map(order));
    let messages = held(world, &worker);
    let confirmed = worker.metric(confirmed);
    assert!(confirmed < COUNT / 10, "it is away");

    // A worker that stands still writes no letter: what is committed has one already.
    let commits = world.commits();
    worker.signal("STOP");
    letters.restart();
    let before: BTreeSet<String> = apart.letters().iter().map(Record::id).collect();
    let settled = messages.iter().filter(|one| one.offset < commits[&one.partition]);
    let given_up: BTreeSet<String> = settled.map(Record::id).filter(|id| fails(id)).collect();
    assert!(given_up.is_subset(&before), "committed without a letter: {given_up:?} {before:?}");
    assert_eq!(world.commits(), commits);
    worker.signal("CONT");

    world.drained();
    worker.assert_runs();
    until("/readyz to be well again", SOON, || match worker.get("/readyz").unwrap() {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let mut books = world.books();
    assert_eq!(books.results.len(), COUNT - COUNT / 10, "no neighbour ran twice");
    books.dead = apart.letters();
    let why = "a letter whose confirmation was lost with the broker";
    books.balance_with(before.len() - confirmed, why);
    apart.nothing_is_astray();

    by_hand(&apart, &world.config_file("by-hand"), &worker);
}

/// Parks a letter that is of no use, and replays the others, without saying more than the worker was told.
fn by_hand(apart: &Apart, config: &Path, worker: &WorkerProcess) {
    let Apart { world, parked, .. } = apart;
    world.give([Given::new(HOPELESS, Order::new(HOPELESS, Act::Fail).to_value())]);
    world.drained();
    says(config, &["park", "--key", HOPELESS], 0, " 1 parked");
    let [aside] = &apart.there().read(parked)[..] else { panic!("one is parked") };
    let letter = apart.letters().into_iter().find(|one| one.id() == HOPELESS).unwrap();
    let at = format!("{}:{}:{}", world.dead, letter.partition, letter.offset);
    assert_eq!(aside.header("drakkar-parked-from"), Some(at));
    assert_eq!((&aside.key, &aside.value), (&letter.key, &letter.value));
    assert_eq!(aside.headers[..letter.headers.len()], letter.headers);

    let letters = apart.letters().len() - 1;
    world.license();
    says(config, &["replay"], 0, &format!("{letters} replayed"));
    assert_eq!(world.kafka.read(&world.source).len(), COUNT + 1 + letters);
    world.drained();
    assert_eq!(world.books().results.len(), COUNT - COUNT / 10 + letters);
    assert_eq!(apart.letters().len(), letters + 1, "none failed again");
    says(config, &["replay"], 0, " 0 replayed");
    apart.nothing_is_astray();
    assert_eq!(worker.status("/readyz"), 200);

    apart.letters.kill();
    let port = world.config()["dlq"]["brokers"].as_str().unwrap().to_owned();
    says(config, &["replay", "--timeout", "1s"], 1, &format!("the brokers {port} did not answer"));
}
