//! `drakkar dlq` as a user runs it, against a broker inside of this process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod bar;
mod fan_out;
mod progress;
mod to_sink;
mod unheard;
mod world;

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Refusal};
use tokio::time::Instant;
use world::{Ended, Record, World, letter};

#[test]
fn each_letter_is_a_line_and_filters_choose() {
    let world = World::new();
    world.letters([
        letter(0, &[("a", Some(b"1"))]),
        letter(1, &[("drakkar-error-class", Some(b"of the message"))]).class("timeout"),
        letter(2, &[]).class("timeout"),
    ]);
    let all = world.dlq(&["list"]).succeeds();
    assert_eq!(all.stdout.lines().count(), 3, "{}", all.stdout);
    let first = all.stdout.lines().next().unwrap();
    let at = format!("{}:0:0", world.letters);
    assert!(
        first.starts_with(&at) && first.contains("  execute  exit_code  attempt 4  why"),
        "{first}"
    );
    assert!(first.contains(&format!("  {}:1:0  ", world.source)), "{first}");
    assert!(all.stderr.contains("3 of 3 letters"), "{}", all.stderr);

    let some = world.dlq(&["list", "--class", "timeout", "--limit", "1"]).succeeds();
    assert_eq!(some.stdout.lines().count(), 1, "{}", some.stdout);
    let some = world.dlq(&["list", "--json", "/n=2", "--output", "json"]).succeeds();
    let found: serde_json::Value = serde_json::from_str(&some.stdout).unwrap();
    assert_eq!((&found["offset"], &found["class"]), (&2.into(), &"timeout".into()));
    assert_eq!(found["key"], "\\xffk-2");
    assert_eq!(world.dlq(&["list", "--partition", "1"]).succeeds().stdout, "");
}

#[test]
fn a_letter_is_shown_with_every_header_and_letters_are_counted() {
    let world = World::new();
    world.letters([
        letter(0, &[("a", Some(b"\x00")), ("n", None)]),
        letter(1, &[]).class("timeout"),
    ]);
    let shown = world.dlq(&["show", "0:0"]).succeeds().stdout;
    for part in [
        "key        \\xffk-0\n",
        "  a = \\u{0}\n  n = (null)\nwhy\n",
        "  drakkar-stage = execute\n",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let missing = world.dlq(&["show", "0:7"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("there is no letter at"), "{}", missing.stderr);

    let counts = world.dlq(&["stats", "--output", "json"]).succeeds().stdout;
    let counts: serde_json::Value = serde_json::from_str(&counts).unwrap();
    assert_eq!(counts["letters"], 2);
    assert_eq!(counts["class"], serde_json::json!({"exit_code": 1, "timeout": 1}));
    assert_eq!(counts["topic"][&world.source], 2);
}

#[test]
fn a_message_goes_back_byte_for_byte_to_where_it_was_and_once() {
    let world = World::new();
    let mut null = letter(1, &[]);
    (null.record.key, null.record.value) = (None, None);
    let mut empty = letter(2, &[]);
    (empty.record.key, empty.record.value) = (Some(Vec::new()), Some(Vec::new()));
    let noise: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut binary = letter(3, &[("a", None), ("a", Some(b"")), ("drakkar-stage", Some(b"\xff"))]);
    binary.record.value = Some(noise);
    let letters = [letter(0, &[("a", Some(b"1"))]), null, empty, binary];
    world.letters(letters.clone());

    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stdout.contains("4 replayed"), "{}", ended.stdout);
    let messages = world.read(&world.source);
    assert_eq!(messages.len(), 4);
    for (message, letter) in messages.iter().zip(&letters) {
        assert_eq!(message.partition, 1, "that of the message, not of the key");
        assert_eq!(message.timestamp, Some(1_700_000_000_000));
        let (key, value) = (&letter.record.key, &letter.record.value);
        assert_eq!((&message.key, &message.value), (key, value));
        let (counter, before) = message.headers.split_last().unwrap();
        assert_eq!(before, letter.record.headers);
        assert_eq!(*counter, ("drakkar-replays".to_owned(), Some(b"1".to_vec())));
    }

    let again = world.dlq(&["replay"]).succeeds();
    assert!(again.stdout.contains(" 0 replayed"), "{}", again.stdout);
    assert_eq!(world.read(&world.source).len(), 4);
    world.dlq(&["replay", "--restart", "--to", &world.other]).succeeds();
    assert_eq!(world.read(&world.other).len(), 4);
}

#[test]
fn a_replay_that_stopped_at_its_limit_goes_on_there() {
    let world = World::new();
    world.letters((0..7).map(|number| letter(number, &[])));
    for expected in [3, 6, 7] {
        let ended = world.dlq(&["replay", "--limit", "3"]).succeeds();
        assert_eq!(ended.stdout.contains("This was not all"), expected < 7, "{}", ended.stdout);
        assert_eq!(world.read(&world.source).len(), expected);
    }
}

#[test]
fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[("drakkar-replays", Some(b"3"))])]);
    let ended = world.dlq(&["replay", "--dry-run"]).succeeds();
    assert!(
        ended.stdout.contains(&format!("would be sent to {}\n", world.source)),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains(&format!("would be parked in {}\n", world.parked)),
        "{}",
        ended.stdout
    );
    assert_eq!(world.read(&world.source), []);
    world.dlq(&["park", "--dry-run"]).succeeds();
    assert_eq!(world.read(&world.parked), []);
    assert!(
        world.dlq(&["replay"]).succeeds().stdout.contains("1 replayed"),
        "no progress was made"
    );
}

#[test]
fn a_message_that_was_replayed_too_often_is_parked_whole() {
    let world = World::new();
    let letters = [
        letter(0, &[("drakkar-replays", Some(b"2")), ("a", Some(b"1"))]),
        letter(1, &[("a", Some(b"1")), ("drakkar-replays", Some(b"3"))]),
    ];
    world.letters(letters.clone());
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(
        ended.stdout.contains("1 replayed") && ended.stdout.contains("1 parked in"),
        "{}",
        ended.stdout
    );
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let message = &world.read(&world.source)[0];
    assert_eq!(message.headers, [header("a", "1"), header("drakkar-replays", "3")]);
    let parked = &world.read(&world.parked)[0];
    let (from, before) = parked.headers.split_last().unwrap();
    assert_eq!(before, letters[1].headers(&world.source));
    assert_eq!(*from, header("drakkar-parked-from", &format!("{}:0:1", world.letters)));
    assert_eq!((&parked.key, &parked.value), (&letters[1].record.key, &letters[1].record.value));
    // What is parked can be looked at like any letter.
    let shown = world.dlq_of(&world.parked, &["list"]).succeeds().stdout;
    assert!(shown.contains("replayed 3 times"), "{shown}");
}

#[test]
fn what_was_parked_is_left_out_by_replay_and_parked_once() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[]).class("poison"), letter(2, &[])]);
    for expected in ["1 parked in", "1 left out because they were parked before"] {
        let ended = world.dlq(&["park", "--class", "poison"]).succeeds();
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    }
    assert_eq!(world.read(&world.parked).len(), 1);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(
        ended.stdout.contains("2 replayed") && ended.stdout.contains("1 left out"),
        "{}",
        ended.stdout
    );
    assert_eq!(world.read(&world.source).len(), 2);
}

#[test]
fn a_letter_of_a_topic_that_was_made_anew_is_not_taken_for_the_one_that_was_parked_before() {
    let world = World::new();
    let copy = letter(7, &[]).refused(&[("parked-from", &format!("{}:0:0", world.letters))]);
    world.letters_to(&world.parked, [copy]);
    world.letters([letter(0, &[])]);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stdout.contains("1 replayed"), "{}", ended.stdout);
    assert_eq!(world.read(&world.source).len(), 1);
}

#[test]
fn a_record_of_somebody_else_is_named_and_the_rest_is_replayed() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[]).foreign(), letter(2, &[])]);
    let ended = world.dlq(&["replay"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains(&format!("{}:0:1 is not sent", world.letters)),
        "{}",
        ended.stderr
    );
    assert!(ended.stdout.contains("2 replayed"), "{}", ended.stdout);
}

#[test]
fn a_message_with_a_header_whose_name_is_no_text_is_named_and_never_sent_under_another() {
    let world = World::new();
    // SAFETY: the client copies the name and never reads it as text.
    #[allow(unsafe_code)]
    let name = unsafe { std::str::from_utf8_unchecked(bytes_of_no_text()) };
    world.letters([letter(0, &[(name, Some(b"1"))]), letter(1, &[("na\u{fffd}me", Some(b"1"))])]);
    let shown = world.dlq(&["show", "0:0"]).succeeds().stdout;
    assert!(shown.contains("  na\u{fffd}me = 1\n"), "{shown}");

    let ended = world.dlq(&["replay"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for refused in [":0:0 is not sent: the name of", ":0:1 is not sent: the name of"] {
        assert!(ended.stderr.contains(refused), "{}", ended.stderr);
    }
    assert_eq!(world.read(&world.source), []);
    let ended = world.dlq(&["park"]);
    assert!(ended.stderr.contains(":0:0 is not sent: the name of"), "{}", ended.stderr);
    let parked = world.read(&format!("{}_parked", world.letters));
    assert_eq!(parked.len(), 1, "the other is in its topic as the worker wrote it");
}

fn bytes_of_no_text() -> &'static [u8] {
    b"na\xffme"
}

#[test]
fn a_batch_that_is_refused_for_a_neighbour_is_sent_one_by_one() {
    let world = World::new();
    world.letters((0..5).map(|number| letter(number, &[])));
    world.refuse(RDKafkaApiKey::Produce, &[Refusal::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stdout.contains("5 replayed"), "{}", ended.stdout);
    assert_eq!(world.read(&world.source).len(), 5);
}

#[test]
fn a_letter_that_its_topic_does_not_take_is_named_and_the_rest_is_replayed() {
    let world = World::new();
    world.letters((0..2).map(|number| letter(number, &[])));
    // Both together, then the first of them alone.
    let too_large = Refusal::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    world.refuse(RDKafkaApiKey::Produce, &[too_large, too_large]);
    let ended = world.dlq(&["replay"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(":0:0 is not sent"), "{}", ended.stderr);
    assert_eq!(world.read(&world.source).len(), 1);
}

#[test]
fn what_is_not_confirmed_stops_the_replay_and_is_sent_by_the_next() {
    let world = World::new();
    world.letters((0..5).map(|number| letter(number, &[])));
    world.refuse(RDKafkaApiKey::Produce, &[Refusal::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let ended = world.dlq(&["replay"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains(":0:0: ") && ended.stderr.contains("did not confirm it"),
        "{}",
        ended.stderr
    );
    assert!(world.dlq(&["replay"]).succeeds().stdout.contains("5 replayed"));
    assert_eq!(world.read(&world.source).len(), 5);
}

#[test]
fn progress_of_one_choice_is_not_taken_for_that_of_another() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[]).class("timeout")]);
    world.dlq(&["replay", "--class", "timeout"]).succeeds();
    let other = world.dlq(&["replay"]);
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(other.stderr.contains("--class \"timeout\""), "{}", other.stderr);
    let named = world.dlq(&["replay", "--name", "another"]).succeeds();
    assert!(named.stdout.contains("2 replayed"), "{}", named.stdout);
}

#[test]
fn a_letter_that_comes_while_letters_are_replayed_is_for_the_next_run() {
    let world = World::new();
    world.letters((0..20).map(|number| letter(number, &[])));
    let running = world.begin(&["replay", "--rate", "10"]);
    world.wait_for(&world.source, 3);
    world.letters((20..25).map(|number| letter(number, &[])));
    let ended = running.ended().succeeds();
    assert!(ended.stdout.contains("20 replayed"), "{}", ended.stdout);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stdout.contains("5 replayed"), "{}", ended.stdout);
}

#[test]
fn the_rate_is_kept() {
    let world = World::new();
    world.letters((0..30).map(|number| letter(number, &[])));
    let begun = Instant::now();
    world.dlq(&["replay", "--rate", "15"]).succeeds();
    assert!(Duration::from_millis(1_800) < begun.elapsed(), "{:?}", begun.elapsed());
    assert_eq!(world.read(&world.source).len(), 30);
}

#[test]
fn brokers_that_do_not_answer_are_named_in_bounded_time() {
    // Taken from the system and given back: nobody listens there.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let begun = Instant::now();
    for command in [&["list"][..], &["show", "0:0"], &["stats"], &["replay"], &["park"]] {
        let place = ["--brokers", &free, "--topic", "t_dlq", "--timeout", "1s"];
        let ended = world::drakkar(&[&["dlq"], command, &place].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        let expected = format!("the brokers {free} did not answer within 1s (");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
}

#[test]
fn what_is_asked_for_wrongly_is_refused_before_anything_begins() {
    let refused = |arguments: &[&str], why: &str| {
        let Ended { code, stderr, .. } = world::drakkar(&[&["dlq"], arguments].concat());
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(why), "{arguments:?}: {stderr}");
    };
    refused(&["list"], "--config FILE, or --brokers and --topic");
    refused(&["list", "--topic", "t", "--since", "tomorrow"], "is neither a time");
    refused(&["list", "--topic", "t", "--json", "a=1"], "a JSON pointer begins with");
    refused(&["list", "--config", "/nonexistent"], "/nonexistent");
    refused(&["show", "here", "--topic", "t"], "is not PARTITION:OFFSET");
    refused(&["replay", "--topic", "t", "--to", "t"], "that would never end");
    refused(&["replay", "--topic", "t", "--park-to", "t"], "is where the letters are");
    refused(&["replay", "--topic", "t", "--rate", "0"], "--rate");
}

#[test]
fn the_configuration_says_where_and_a_secret_in_it_is_not_shown() {
    let world = World::new();
    world.letters([letter(0, &[])]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drakkar.yaml");
    let config = |more: &str| {
        let text = format!(
            "kafka: {{brokers: \"{}\", source_topic: {}, client_config: {{fetch.min.bytes: 1{more}}}}}",
            world.address, world.source
        );
        std::fs::write(&path, text).unwrap();
        world::drakkar(&["dlq", "list", "--config", path.to_str().unwrap()])
    };
    let listed = config("").succeeds();
    assert_eq!(listed.stdout.lines().count(), 1, "{listed:?}");
    let wrong = config(", sasl.pasword: hunter2");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(
        wrong.stderr.contains("sasl.pasword") && !wrong.stderr.contains("hunter2"),
        "{wrong:?}"
    );
}

#[test]
fn reading_leaves_no_trace_in_any_group() {
    let world = World::new();
    world.letters([letter(0, &[])]);
    for command in
        [&["list"][..], &["stats"], &["show", "0:0"], &["park"], &["replay", "--dry-run"]]
    {
        world.dlq(command).succeeds();
    }
    assert_eq!(world.committed("drakkar-dlq"), [None; 2]);
    assert_eq!(world.committed(&format!("drakkar-replay.{}", world.letters)), [None; 2]);
    world.dlq(&["replay"]).succeeds();
    assert_eq!(world.committed(&format!("drakkar-replay.{}", world.letters)), [Some(1), Some(0)]);
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    // What the other tests rely on.
    let world = World::new();
    let letter = letter(0, &[("a", None)]);
    world.letters([letter.clone()]);
    let expected = Record { headers: letter.headers(&world.source), ..letter.record };
    assert_eq!(world.read(&world.letters), [expected]);
}
