//! Bytes are bytes: what values, keys and headers go through a worker unharmed, and what becomes of
//! those that do not decode.

use std::fs;

use drakkar_core::FilePayload;
use drakkar_integration::{Act, Given, Order, Record, SOON, World};

/// As large as the default limit of a broker leaves room for, with our headers.
const MEGABYTE: usize = 1_000_000;

/// Bytes that are no text and do not repeat soon.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[test]
fn a_tombstone_is_an_ordinary_message() {
    let world = World::new(1);
    let _worker = world.start();
    world.order([("before", Act::Echo)]);
    world.give([Given::tombstone("gone")]);
    world.order([("after", Act::Echo)]);
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.result("gone").value.as_deref(), Some(&b"tombstone"[..]));
}

#[test]
fn a_default_build_reads_whatever_its_producers_compress_with() {
    let world = World::new(1).raw();
    let _worker = world.start();
    let codecs = ["gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let given = Given::new(codec, "again and again ".repeat(1_000));
        world.kafka.produce_compressed(&world.source, codec, [given]);
    }
    world.drained();
    let books = world.books();
    books.balance();
    for codec in codecs {
        let value = books.result(codec).value.clone().unwrap();
        assert_eq!(value.len(), 16_000, "{codec}");
    }
}

#[test]
fn a_tombstone_that_is_dead_lettered_is_still_a_tombstone() {
    // Orders are optional in this handler, so only a sink that is not there makes it fail.
    let mut world = World::new(1);
    world.set("sinks.kafka", serde_json::json!({}));
    let _worker = world.start();
    world.give([Given::tombstone("gone")]);
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.letter("gone").value, None);
    books.given_up("gone", "deliver", "unknown_sink");
}

#[test]
fn an_empty_value_is_not_a_tombstone() {
    let world = World::new(1).raw();
    let _worker = world.start();
    world.give([Given::new("empty", "")]);
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.result("empty").value.as_deref(), Some(&b""[..]));
}

#[test]
fn an_empty_value_where_json_is_wanted_is_dead_lettered_empty() {
    let world = World::new(1);
    let _worker = world.start();
    world.give([Given::new("empty", "")]);
    world.order([("after", Act::Echo)]);
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.letter("empty").value.as_deref(), Some(&b""[..]));
    books.given_up("empty", "decode", "invalid_value");
}

#[test]
fn a_megabyte_goes_through_a_program_byte_for_byte() {
    let world = World::new(1).raw();
    let _worker = world.start();
    let value = noise(MEGABYTE);
    world.give([Given::new("large", value.clone())]);
    world.drained();
    let books = world.books();
    books.balance();
    assert!(books.result("large").value.as_deref() == Some(&value[..]), "the value is another");
}

#[test]
fn a_megabyte_is_dead_lettered_byte_for_byte() {
    let world = World::new(1);
    let _worker = world.start();
    let value = noise(MEGABYTE);
    world.give([Given::new("large", value.clone())]);
    world.drained();
    let books = world.books();
    books.balance();
    assert!(books.letter("large").value.as_deref() == Some(&value[..]), "the value is another");
}

#[test]
fn invalid_json_is_dead_lettered_and_its_neighbours_are_not() {
    let world = World::new(2);
    let _worker = world.start();
    world.order([("a", Act::Echo), ("b", Act::Echo)]);
    world.give([Given::new("broken", "{\"id\": "), Given::new("other", "{\"id\": 7}")]);
    world.order([("c", Act::Echo), ("d", Act::Echo)]);
    world.drained();
    let books = world.books();
    books.balance();
    for id in ["broken", "other"] {
        books.given_up(id, "decode", "invalid_value");
    }
    assert_eq!((books.results.len(), books.dead.len()), (4, 2));
}

#[test]
fn invalid_json_is_skipped_counted_and_logged_where_that_is_configured() {
    let world = World::new(1).with("kafka.on_invalid", "skip");
    let worker = world.start();
    world.order([("a", Act::Echo)]);
    world.give([Given::new("broken", "{\"id\": ")]);
    world.order([("b", Act::Echo)]);
    world.drained();
    let books = world.books().without(["broken"]);
    books.balance();
    assert_eq!((books.results.len(), books.dead.len()), (2, 0));
    let skipped = worker.metric("drakkar_messages_skipped_total{reason=\"invalid\"}");
    assert_eq!(skipped, 1);
    worker.wait_for_log(&format!("{}:0:1", world.source));
}

#[test]
fn invalid_json_stops_the_worker_where_that_is_configured_and_nothing_after_it_is_committed() {
    let mut world = World::new(1).with("kafka.on_invalid", "fail");
    world.order([("a", Act::Echo)]);
    let mut worker = world.start();
    world.drained();
    world.give([Given::new("broken", "{\"id\": ")]);
    world.order([("b", Act::Echo)]);
    let ended = worker.wait(SOON);
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let coordinates = format!("{}:0:1", world.source);
    let last = ended.log.rsplit("the worker stopped").next().unwrap();
    assert!(last.contains(&coordinates), "{coordinates} is not in: {last}");
    assert_eq!(
        world.committed(),
        1,
        "the message that stopped the worker is still to be processed"
    );

    world.set("kafka.on_invalid", "dead_letter");
    let _worker = world.start();
    world.drained();
    let books = world.books();
    books.balance_with(1, "the message after it may have been delivered before the stop");
    books.given_up("broken", "decode", "invalid_value");
}

#[test]
fn a_dead_letter_is_the_original_record_with_the_reason_behind_its_headers() {
    let world = World::new(1);
    let worker = world.start();
    let headers = vec![
        ("trace", Some(b"\x00\xff\xfe".to_vec())),
        ("empty", Some(Vec::new())),
        ("null", None),
        ("trace", Some(b"again".to_vec())),
        ("drakkar-stage", Some(b"a former life".to_vec())),
    ];
    let value = Order::new("odd", Act::Fail).to_value();
    let key = vec![0xff, 0x00, b'k'];
    world.give([Given { key: Some(key.clone()), value: Some(value.clone()), headers }]);
    world.drained();

    let books = world.books();
    books.balance();
    let source = world.kafka.read(&world.source).remove(0);
    let [letter] = books.dead.as_slice() else { panic!("{:?}", books.dead) };
    assert_eq!((letter.key.as_ref(), letter.value.as_ref()), (Some(&key), Some(&value)));
    let (original, ours) = letter.headers.split_at(source.headers.len());
    assert_eq!(original, source.headers);
    reasons(ours, &world, &source, &worker.id);
}

/// Our headers, in their order; the id of the task is not known beforehand.
#[track_caller]
fn reasons(headers: &[(String, Option<Vec<u8>>)], world: &World, source: &Record, worker: &str) {
    let text = |value: &Option<Vec<u8>>| {
        String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
    };
    let headers: Vec<(&str, String)> =
        headers.iter().map(|(name, value)| (&**name, text(value))).collect();
    let task = &headers[4].1;
    assert!(task.starts_with("task-"), "{task}");
    let timestamp = source.timestamp.map(|millis| millis.to_string()).unwrap_or_default();
    let expected: Vec<(&str, &str)> = vec![
        ("drakkar-stage", "execute"),
        ("drakkar-error-class", "exit_code"),
        ("drakkar-error-message", "exit code 3; stderr: out of luck"),
        ("drakkar-attempt", "4"),
        ("drakkar-task", task),
        ("drakkar-original-topic", &world.source),
        ("drakkar-original-partition", "0"),
        ("drakkar-original-offset", "0"),
        ("drakkar-original-timestamp", &timestamp),
        ("drakkar-group", &world.group),
        ("drakkar-worker", worker),
    ];
    let found: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_record_without_a_key_is_dead_lettered_without_a_key() {
    let world = World::new(1);
    let _worker = world.start();
    let value = Order::new("keyless", Act::Fail).to_value();
    world.give([Given { value: Some(value), ..Given::default() }]);
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.dead[0].key, None);
}

#[test]
fn results_reach_the_topic_and_the_file_once_each() {
    let world = World::new(4);
    let _worker = world.start();
    let orders = (0..200).map(|number| {
        let id = format!("both-{number:03}");
        let line = FilePayload::json("results.jsonl", &id).unwrap();
        Order::new(id, Act::Echo).beside(line).given()
    });
    world.give(orders);
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.results.len(), 200);
    let file = fs::read_to_string(world.files().join("results.jsonl")).unwrap();
    let mut ids: Vec<&str> = file.lines().collect();
    ids.sort_unstable();
    let expected: Vec<String> = (0..200).map(|number| format!("\"both-{number:03}\"")).collect();
    assert_eq!(ids, expected);
}

#[test]
fn several_topics_are_read_under_their_prefix_and_each_has_a_dead_letter_topic_of_its_own() {
    let world = World::new(1);
    let prefix = &world.group.clone();
    let topics = ["-one", "-two"].map(|name| format!("{prefix}{name}"));
    for topic in &topics {
        world.kafka.create_topic(topic, 2);
        world.kafka.create_topic(&format!("{topic}_dlq"), 1);
    }
    let world = world.reading(&["-one", "-two"]).with("kafka.topic_prefix", &**prefix);
    let _worker = world.start();
    for topic in &topics {
        let good = (0..20).map(|number| {
            let id = format!("{topic}-{number}");
            Given::new(id.clone(), Order::new(id, Act::Echo).to_value())
        });
        world.kafka.produce(topic, good.chain([Given::new("broken", "no order")]));
    }
    world.wait_delivered(40);
    for topic in &topics {
        world.drained_of(topic);
        let answered = world.kafka.read(&world.results).into_iter().filter(|result| {
            result.header("source").is_some_and(|source| source.starts_with(topic))
        });
        assert_eq!(answered.count(), 20, "results of {topic}");
        let letters = world.kafka.read(&format!("{topic}_dlq"));
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!(letters[0].header("drakkar-original-topic").as_ref(), Some(topic));
    }
}
