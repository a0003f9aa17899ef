//! A replay to a topic that does not take everything: what is named, what stops, and in which order the
//! rest comes back. Only real brokers keep such limits.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

use std::process::{Command, Stdio};

use drakkar_integration::{Given, Kafka, World, worker::built};

/// A world whose topics of one partition are there.
fn world() -> World {
    World::on(Kafka::shared(), 1)
}

/// Exit code of `drakkar dlq replay` and everything it said.
fn replay(world: &World, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(built("drakkar"));
    command.args(["dlq", "replay"]).args(more);
    command.args(["--brokers", &world.kafka.servers, "--topic", &world.dead]);
    let output = command.env_clear().stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// The dead letter of message `number` with this value, which was written at `timestamp`.
fn letter(world: &World, number: usize, value: &[u8], timestamp: i64) -> Given {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let headers = vec![
        ("drakkar-stage", text("execute")),
        ("drakkar-original-topic", text(&world.source)),
        ("drakkar-original-partition", text("0")),
        ("drakkar-original-offset", text(&number.to_string())),
        ("drakkar-original-timestamp", text(&timestamp.to_string())),
    ];
    Given { headers, ..Given::new(number.to_string(), value) }
}

/// The numbers of the messages in the topic that workers read, in their order.
fn numbers(world: &World) -> Vec<usize> {
    world.kafka.read(&world.source).iter().map(|record| record.id().parse().unwrap()).collect()
}

/// Letters of a batch.
const BATCH: usize = 500;

/// In 2023.
const LONG_AGO: i64 = 1_700_000_000_000;

#[test]
fn after_the_batch_in_which_the_topic_refused_one_messages_come_back_in_their_order_again() {
    let world = world();
    let too_large = [17, 700];
    let value = |number| vec![b'x'; if too_large.contains(&number) { 50_000 } else { 1_000 }];
    let letters = (0..1_200).map(|number| letter(&world, number, &value(number), LONG_AGO));
    world.kafka.produce(&world.dead, letters);
    world.kafka.configure_topic(&world.source, "max.message.bytes", "20000");
    let (code, said) = replay(&world, &[]);
    assert_eq!(code, Some(1), "{said}");
    for named in too_large {
        assert!(said.contains(&format!(":0:{named} is not sent: ")), "{said}");
    }
    assert!(said.contains("1198 replayed") && said.contains("2 not sent"), "{said}");
    let expected: Vec<usize> = (0..1_200).filter(|number| !too_large.contains(number)).collect();
    let mut found = numbers(&world);
    assert_eq!(found[BATCH..], expected[BATCH..]);
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn a_topic_that_refuses_a_timestamp_stops_the_replay_until_it_takes_it_or_a_new_one_is_allowed() {
    let world = world();
    let letters = (0..4).map(|number| letter(&world, number, b"v", LONG_AGO));
    world.kafka.produce(&world.dead, letters);
    let limit = "message.timestamp.before.max.ms";
    world.kafka.configure_topic(&world.source, limit, "3600000");
    for _ in 0..2 {
        let (code, said) = replay(&world, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("stopped at {}:0:0: ", world.dead)), "{said}");
        assert!(said.contains(limit) && said.contains("--now"), "{said}");
    }
    assert_eq!(numbers(&world), [0; 0]);
    let (code, said) = replay(&world, &["--now", "--limit", "1"]);
    assert_eq!((code, numbers(&world)), (Some(0), vec![0]), "{said}");
    world.kafka.configure_topic(&world.source, limit, &i64::MAX.to_string());
    let (code, said) = replay(&world, &[]);
    assert_eq!((code, numbers(&world)), (Some(0), vec![0, 1, 2, 3]), "{said}");
    let times: Vec<_> = world.kafka.read(&world.source).iter().map(|one| one.timestamp).collect();
    assert!(Some(LONG_AGO) < times[0], "{times:?}");
    assert_eq!(times[1..], [Some(LONG_AGO); 3]);
}

#[test]
fn a_message_of_no_time_is_named_and_not_sent_as_one_of_now() {
    let world = world();
    let letters = [letter(&world, 0, b"v", 0), letter(&world, 1, b"v", LONG_AGO)];
    world.kafka.produce(&world.dead, letters);
    let (code, said) = replay(&world, &[]);
    assert_eq!((code, numbers(&world)), (Some(1), vec![1]), "{said}");
    assert!(
        said.contains(":0:0 is not sent: its timestamp is 0") && said.contains("--now"),
        "{said}"
    );
    let (code, said) = replay(&world, &["--now", "--name", "anew"]);
    assert_eq!((code, numbers(&world)), (Some(0), vec![1, 0, 1]), "{said}");
}
