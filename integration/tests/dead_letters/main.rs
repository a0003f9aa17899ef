//! Dead letters and the command that sends them back, against real brokers: what is restored, what
//! an interruption repeats, and that what failed succeeds once its cause is gone.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod apart; // letters on a cluster of their own
mod headers; // what a letter says of payloads, and of a value, that it does not have

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use drakkar_integration::{
    Act, Given, Kafka, Order, OwnBroker, Record, SOON, World, heavy, proc, until, worker::built,
};
use tokio::time::Instant;

/// What a replay that was killed may have sent and not committed.
const BATCH: usize = 500;

/// More letters than go back by the rates of these tests before what is meant to happen in the middle.
const MANY: usize = 10_000;

/// `drakkar dlq` about the letters of `world`.
fn dlq(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(built("drakkar"));
    command.arg("dlq").args(arguments);
    command.args(["--brokers", &world.kafka.servers, "--topic", &world.dead]);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code and everything it said.
fn ended(output: Output) -> (Option<i32>, String) {
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn run(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    ended(dlq(world, arguments).output().unwrap())
}

#[track_caller]
fn succeeds(world: &World, arguments: &[&str]) -> String {
    let (code, said) = run(world, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// The dead letter of message `number`, as a worker writes it.
fn letter(world: &World, number: usize) -> Given {
    letter_of(world, number, 0)
}

/// The same, of a message that was in this partition.
fn letter_of(world: &World, number: usize, partition: usize) -> Given {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let id = format!("m-{number}");
    let value = format!("value {number} {}", "x".repeat(100));
    let headers = vec![
        ("binary", Some(vec![0xff, 0x00])),
        ("drakkar-stage", text("execute")),
        ("drakkar-error-class", text("exit_code")),
        ("drakkar-original-topic", text(&world.source)),
        ("drakkar-original-partition", text(&partition.to_string())),
        ("drakkar-original-offset", text(&number.to_string())),
        ("drakkar-original-timestamp", text("1700000000000")),
    ];
    Given { headers, ..Given::new(id, value) }
}

fn letters(world: &World, count: usize) {
    world.kafka.produce(&world.dead, (0..count).map(|number| letter(world, number)));
}

/// How often each message is in the topic that workers read.
fn messages(world: &World) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for record in world.kafka.read(&world.source) {
        *counted.entry(record.id()).or_default() += 1;
    }
    counted
}

/// Starts a replay and returns when it has sent `count` letters.
fn replay_until(world: &World, arguments: &[&str], count: usize) -> Child {
    let child = dlq(world, &[&["replay"], arguments].concat()).spawn().unwrap();
    let observer = world.kafka.observer("none");
    until("some messages to be replayed", SOON, || match observer.count(&world.source) {
        Ok(found) if count <= found => Ok(()),
        other => Err(format!("{other:?}")),
    });
    child
}

#[test]
fn a_topic_that_is_not_there_is_named_and_none_is_made() {
    let world = World::without_topics(Kafka::shared());
    for command in ["list", "stats", "replay", "park"] {
        let (code, said) = run(&world, &[command]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("there is no topic {}", world.dead)), "{said}");
    }
    let observer = world.kafka.observer("none");
    assert!(observer.ends(&world.dead).is_err(), "asking has made the topic");

    // Where a message came from is gone: nothing is passed over.
    world.kafka.create_topic(&world.dead, 1);
    letters(&world, 3);
    let (code, said) = run(&world, &["replay"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("there is no topic {}", world.source)), "{said}");
    world.kafka.create_topic(&world.source, 1);
    assert!(succeeds(&world, &["replay"]).contains("3 replayed"));
}

#[test]
fn every_byte_of_a_message_comes_back_and_nothing_else() {
    let world = World::new(3);
    let noise: Vec<u8> = (0..=255).cycle().take(900_000).collect();
    let mut given = vec![letter(&world, 0), letter(&world, 1), letter(&world, 2)];
    (given[0].key, given[0].value) = (Some(noise[..256].to_vec()), Some(noise));
    (given[1].key, given[1].value) = (None, None);
    given[2].headers.insert(0, ("binary", None));
    world.kafka.produce(&world.dead, given.clone());
    succeeds(&world, &["replay"]);
    let messages = world.kafka.read(&world.source);
    assert_eq!(messages.len(), 3);
    for letter in given {
        let original = letter.headers.iter().take_while(|(name, _)| *name != "drakkar-stage");
        let mut headers: Vec<(String, Option<Vec<u8>>)> =
            original.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        headers.push(("drakkar-replays".to_owned(), Some(b"1".to_vec())));
        let is_it = |message: &&Record| message.key == letter.key && message.value == letter.value;
        let message = messages.iter().find(is_it).expect("the message is there");
        assert_eq!(message.headers, headers);
        assert_eq!((message.partition, message.timestamp), (0, Some(1_700_000_000_000)));
    }
}

#[test]
fn a_replay_that_is_interrupted_exits_with_130_and_the_next_sends_the_rest_exactly_once() {
    let world = World::new(2);
    letters(&world, MANY);
    let child = replay_until(&world, &["--rate", "100"], 100);
    signal(&child, "INT");
    let (code, said) = ended(child.wait_with_output().unwrap());
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("This was not all"), "{said}");
    assert!(messages(&world).len() < MANY);
    succeeds(&world, &["replay"]);
    let messages = messages(&world);
    assert_eq!(messages.len(), MANY);
    let twice: Vec<_> = messages.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn a_replay_that_is_killed_loses_nothing_and_repeats_a_batch_at_most() {
    let world = World::new(2);
    letters(&world, MANY);
    let mut child = replay_until(&world, &["--rate", "300"], 700);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(messages(&world).len() < MANY);
    succeeds(&world, &["replay"]);
    let messages = messages(&world);
    assert_eq!(messages.len(), MANY);
    let repeated: usize = messages.values().map(|count| count - 1).sum();
    assert!(repeated <= BATCH, "{repeated} messages were sent twice");
}

#[test]
fn what_brokers_forgot_of_the_progress_is_asked_for_and_not_sent_again_in_silence() {
    let world = World::new(2);
    letters(&world, 40);
    assert!(succeeds(&world, &["replay"]).contains("40 replayed"));
    forget(&world, &format!("drakkar-replay.{}", world.dead), 1);
    let (code, said) = run(&world, &["replay"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("there is no progress of {}:1 under", world.dead)), "{said}");
    assert!(said.ends_with("--restart --partition 1\n"), "{said}");
    assert_eq!(messages(&world).values().sum::<usize>(), 40);

    let there = world.kafka.read(&world.dead).iter().filter(|one| one.partition == 1).count();
    assert!((1..40).contains(&there), "{there} letters are in partition 1");
    let said = succeeds(&world, &["replay", "--restart", "--partition", "1"]);
    assert!(said.contains(&format!(" {there} replayed")), "{said}");
    assert!(succeeds(&world, &["replay"]).contains(" 0 replayed"));
    assert_eq!(messages(&world).values().sum::<usize>(), 40 + there);
}

/// Deletes what `group` has committed of one partition of the dead-letter topic, as brokers do after
/// `offsets.retention.minutes`. The client has no call for it: this is an `OffsetDelete` request.
fn forget(world: &World, group: &str, partition: i32) {
    let text =
        |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let request = [
        &[0, 47, 0, 0, 0, 0, 0, 1][..], // Its number, its version, which request of ours it is.
        &text("test"),
        &text(group),
        &1_i32.to_be_bytes(),
        &text(&world.dead),
        &1_i32.to_be_bytes(),
        &partition.to_be_bytes(),
    ]
    .concat();
    let mut broker = TcpStream::connect(&world.kafka.servers).unwrap();
    broker.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    let mut size = [0; 4];
    broker.read_exact(&mut size).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(size).try_into().unwrap()];
    broker.read_exact(&mut answer).unwrap();
    // Which request it answers, and an error as a whole; at the end the error of the partition.
    assert_eq!((&answer[4..6], &answer[answer.len() - 2..]), (&[0, 0][..], &[0, 0][..]));
}

#[test]
fn a_broker_that_dies_stops_the_replay_in_bounded_time_and_the_next_goes_on() {
    let _alone = heavy();
    let broker = OwnBroker::start();
    let world = World::on(broker.kafka(), 1);
    letters(&world, MANY);
    let child = replay_until(&world, &["--rate", "300", "--timeout", "3s"], 600);
    broker.kill();
    let begun = Instant::now();
    let (code, said) = ended(child.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(begun.elapsed() < SOON, "{:?}: {said}", begun.elapsed());
    let (code, said) = run(&world, &["list", "--timeout", "1s"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("the brokers {} did not answer", world.kafka.servers)),
        "{said}"
    );
    broker.restart();
    succeeds(&world, &["replay"]);
    let messages = messages(&world);
    assert_eq!(messages.len(), MANY);
    let repeated: usize = messages.values().map(|count| count - 1).sum();
    assert!(repeated <= BATCH, "{repeated} messages were sent twice");
}

#[test]
fn a_hundred_thousand_letters_go_back_at_a_bounded_rate_in_bounded_memory() {
    let _alone = heavy();
    let world = World::new(4);
    let partition = |number| number / 7 % 4; // Other ones than where their letters are.
    let letters = (0..100_000).map(|number| letter_of(&world, number, partition(number)));
    world.kafka.produce(&world.dead, letters);
    let begun = Instant::now();
    let mut child = dlq(&world, &["replay", "--rate", "10000"]).spawn().unwrap();
    let mut peak = 0;
    until("the end of the replay", 2 * SOON, || match child.try_wait().unwrap() {
        Some(status) => Ok(status),
        None => {
            peak = proc::peak_mib(child.id()).unwrap_or_default().max(peak);
            Err("it still runs")
        }
    });
    let took = begun.elapsed();
    let (code, said) = ended(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("100000 replayed"), "{said}");
    assert!(Duration::from_secs(9) < took, "faster than the rate: {took:?}");
    assert!(peak < 128, "{peak} MiB");
    let mut there = vec![0; 100_000];
    for record in world.kafka.read(&world.source) {
        let number: usize = record.id().strip_prefix("m-").unwrap().parse().unwrap();
        assert_eq!(usize::try_from(record.partition).unwrap(), partition(number), "of {number}");
        there[number] += 1;
    }
    let wrong: Vec<usize> = (0..there.len()).filter(|number| there[*number] != 1).collect();
    assert!(wrong.is_empty(), "lost or there twice: {wrong:?}");
    println!("100 000 letters in {took:?}, {peak} MiB");
}

#[test]
fn what_failed_for_a_missing_file_succeeds_when_the_file_is_there() {
    let world = World::new(2).with("executor.max_retries", 0);
    let _worker = world.start();
    // The program of the first kind fails until a file exists, which then does.
    let ids: Vec<String> = (0..5).map(|number| format!("late-{number}")).collect();
    world.order(ids.iter().map(|id| (id.as_str(), Act::FailOnce)));
    world.order([("good", Act::Echo)]);
    world.drained();
    assert_eq!(world.books().dead.len(), 5);
    let before = world.kafka.read(&world.source);

    let said = succeeds(&world, &["replay"]);
    assert!(said.contains("5 replayed"), "{said}");
    world.wait_delivered(6);
    world.drained();
    let books = world.books();
    books.balance();
    let after = world.kafka.read(&world.source);
    for id in &ids {
        assert!(books.result(id).value.is_some());
        let first = before.iter().find(|record| record.id() == *id).unwrap();
        let again = after.iter().rfind(|record| record.id() == *id).unwrap();
        assert_eq!(again.headers, [("drakkar-replays".to_owned(), Some(b"1".to_vec()))]);
        let place = |record: &Record| (record.partition, record.timestamp);
        assert_eq!((place(again), &again.value), (place(first), &first.value));
    }
}

#[test]
fn a_message_that_fails_in_every_round_is_parked_after_the_last_with_its_headers_intact() {
    let world = World::new(1).with("executor.max_retries", 0);
    let parked = format!("{}_parked", world.dead);
    world.kafka.create_topic(&parked, 1);
    let _worker = world.start();
    let headers = vec![("a", Some(b"1".to_vec())), ("a", None)];
    let value = Order::new("bad", Act::Fail).to_value();
    world.give([Given { headers, ..Given::new("bad", value.clone()) }]);
    for round in 1..=2 {
        world.drained();
        let said = succeeds(&world, &["replay", "--max-replays", "2"]);
        assert!(said.contains("1 replayed"), "round {round}: {said}");
        let observer = world.kafka.observer("none");
        until("another dead letter", SOON, || match observer.count(&world.dead) {
            Ok(found) if found == round + 1 => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let said = succeeds(&world, &["replay", "--max-replays", "2"]);
    assert!(said.contains("0 replayed") && said.contains("1 parked in"), "{said}");

    let parked = world.kafka.read(&parked);
    assert_eq!(parked.len(), 1);
    let (key, found) = (parked[0].key.as_deref(), parked[0].value.as_deref());
    assert_eq!((key, found), (Some(&b"bad"[..]), Some(&value[..])));
    let names: Vec<&str> = parked[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..4], ["a", "a", "drakkar-replays", "drakkar-stage"]);
    assert_eq!(parked[0].header("drakkar-replays").as_deref(), Some("2"));
    for name in &names[2..] {
        assert_eq!(names.iter().filter(|one| one == &name).count(), 1, "{name} in {names:?}");
    }
}
