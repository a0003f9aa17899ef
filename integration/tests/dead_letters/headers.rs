//! What a letter says of what it does not have: payloads that are in another letter or too large, and a value
//! that its topic does not take. Those that every letter has are in `values.rs`.

use std::collections::BTreeSet;

use drakkar_core::KafkaPayload;

use super::*;

/// A payload that is refused for good: there is no such partition.
fn hopeless(value: String) -> KafkaPayload {
    KafkaPayload::raw(value).sink("results").partition(99)
}

/// The headers about payloads, by name.
fn about_payloads(letter: &Record) -> Vec<(&str, String)> {
    let about = letter.headers.iter().filter(|(name, _)| name.starts_with("drakkar-payload"));
    about.map(|(name, _)| (&**name, letter.header(name).unwrap())).collect()
}

#[test]
fn payloads_of_several_messages_are_in_one_letter_and_the_others_say_in_which() {
    let world = World::new(1).with("dlq.max_consecutive", 0).with("dlq.max_ratio", 0);
    let order = |n: usize| Order::new(format!("n-{n}"), Act::Together).beside(hopeless("v".into()));
    world.give((0..200).map(|number| order(number).given()));
    let _worker = world.start();
    world.drained();
    let letters = world.kafka.read(&world.dead);
    assert_eq!(letters.len(), 200);
    let place = |letter: &Record| {
        let part = |name: &str| letter.header(&format!("drakkar-original-{name}")).unwrap();
        format!("{}:{}:{}", part("topic"), part("partition"), part("offset"))
    };
    // How many messages a task had is the window's to say.
    let (mut with_payload, mut others) = (BTreeSet::new(), Vec::new());
    for letter in &letters {
        match &about_payloads(letter)[..] {
            [("drakkar-payload", payload)] => {
                assert!(payload.contains("\"partition\":99"), "{payload}");
                with_payload.insert(place(letter));
            }
            [("drakkar-payload-with", other)] => others.push(other.clone()),
            more => panic!("{more:?}"),
        }
    }
    assert!(!others.is_empty(), "no task had several messages");
    assert!(others.iter().all(|other| with_payload.contains(other)), "{others:?}");
}

#[test]
fn payloads_that_are_too_large_are_not_in_the_letter_which_says_how_large_they_are() {
    let world = World::new(1);
    let _worker = world.start();
    let payload = hopeless("x".repeat(600_000));
    world.give([Order::new("large", Act::Precomputed).beside(payload).given()]);
    world.drained();
    let letters = world.kafka.read(&world.dead);
    let [letter] = &letters[..] else { panic!("{} letters", letters.len()) };
    let there = about_payloads(letter);
    let [("drakkar-payload-omitted", bytes)] = &there[..] else { panic!("{there:?}") };
    let bytes: usize = bytes.parse().unwrap();
    assert!((600_000..1_000_000).contains(&bytes), "{bytes}");
    assert!(
        letter.value.as_ref().is_some_and(|value| 600_000 < value.len()),
        "the message is whole"
    );
}

#[test]
fn a_letter_that_its_topic_does_not_take_is_written_without_its_value_and_says_how_long_that_was() {
    let world = World::new(1).with("dlq.on_too_large", "skip_value");
    let _worker = world.start();
    let length = 1_048_400; // Just short of what the brokers take.
    let headers = vec![("a", Some(b"1".to_vec()))];
    world.give([Given { headers, ..Given::new("large", vec![b'x'; length]) }]);
    world.drained();
    let letters = world.kafka.read(&world.dead);
    let [letter] = &letters[..] else { panic!("{} letters", letters.len()) };
    assert_eq!((letter.id(), letter.value.as_deref()), ("large".to_owned(), Some(&b""[..])));
    let header = |name: &str| letter.header(name).unwrap();
    assert_eq!(header("drakkar-value-omitted"), length.to_string());
    assert_eq!(["a", "drakkar-original-offset"].map(header), ["1", "0"]);
}
