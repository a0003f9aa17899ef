//! `drakkar dlq replay --to-sink`: payloads that a sink refused, delivered again.

use std::path::PathBuf;

use drakkar::{FilePayload, KafkaPayload, Payload};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Refusal};
use tempfile::TempDir;

use crate::world::{Ended, Letter, Record, World, drakkar, letter};

/// A world, and a configuration with a Kafka sink `results` that writes to its topic `other` and a
/// file sink `lines`.
struct Site {
    world: World,
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { world: World::new(), dir: tempfile::tempdir().unwrap() };
        site.configure("", "");
        site
    }

    /// Writes the configuration, with more Kafka sinks and more kinds of them.
    fn configure(&self, kafka: &str, sinks: &str) {
        let World { address, source, other, .. } = &self.world;
        let lines = self.dir.path().join("lines");
        let lines = lines.display();
        let text = format!(
            "kafka: {{brokers: \"{address}\", source_topic: {source}}}\n\
             sinks:\n  \
               kafka: {{{kafka}results: {{topic: {other}}}}}\n  \
               filesystem: {{lines: {{base_path: \"{lines}\"}}}}\n{sinks}"
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("drakkar.yaml")
    }

    fn replay(&self, more: &[&str]) -> Ended {
        let config = self.config();
        let begin = ["dlq", "replay", "--to-sink", "--config", config.to_str().unwrap()];
        drakkar(&[&begin, more].concat())
    }

    fn line(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.path().join("lines").join(path)).ok()
    }

    /// What the Kafka sink wrote, sorted: the topic has two partitions.
    fn results(&self) -> Vec<String> {
        let records = self.world.read(&self.world.other).into_iter();
        let value = |record: Record| String::from_utf8(record.value.unwrap()).unwrap();
        let mut values: Vec<String> = records.map(value).collect();
        values.sort();
        values
    }
}

/// The letter of message `number`, of which a sink refused this payload.
fn refused(number: usize, payload: impl Into<Payload>) -> Letter {
    let json = json(payload);
    letter(number, &[("own", Some(b"1"))]).refused(&[("payload", &json)])
}

/// A payload as a worker writes it.
fn json(payload: impl Into<Payload>) -> String {
    serde_json::to_string(&payload.into()).unwrap()
}

/// A record for the Kafka sink.
fn record(number: usize) -> Letter {
    refused(number, KafkaPayload::raw(number.to_string()).sink("results"))
}

/// A line that no file sink takes.
fn impossible(number: usize) -> Letter {
    refused(number, FilePayload::json("../out", &"x").unwrap().sink("lines"))
}

#[test]
fn a_payload_arrives_at_its_sink_byte_for_byte_and_once() {
    let site = Site::new();
    let binary = r#"{"kafka": {"sink": "results", "topic": null, "key": {"base64": "/wBr"},
        "value": {"base64": "AP/+"}, "headers": [
            {"name": "a", "value": {"base64": "gA=="}}, {"name": "n", "value": null}]}}"#;
    let line = json(FilePayload::json("a/b.txt", &"grün").unwrap());
    let both = letter(1, &[]).refused(&[("payload", binary), ("payload", &line)]);
    site.world.letters([letter(0, &[]), both]);

    let ended = site.replay(&[]).succeeds();
    assert!(ended.stdout.contains("1 delivered"), "{}", ended.stdout);
    assert!(ended.stdout.contains("1 left out by the filters"), "{}", ended.stdout);
    let records = site.world.read(&site.world.other);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key.as_deref(), Some(&b"\xff\x00k"[..]));
    assert_eq!(records[0].value.as_deref(), Some(&b"\x00\xff\xfe"[..]));
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    assert_eq!(records[0].headers, [header("a", Some(b"\x80")), header("n", None)]);
    assert_eq!(site.line("a/b.txt").as_deref(), Some("\"grün\"\n"));
    assert_eq!(site.world.read(&site.world.source), [], "no task runs again");

    let again = site.replay(&[]).succeeds();
    assert!(again.stdout.contains(" 0 delivered"), "{}", again.stdout);
    assert_eq!(site.world.read(&site.world.other).len(), 1);
}

#[test]
fn a_message_that_is_sent_back_leaves_the_payload_behind() {
    let site = Site::new();
    site.world.letters([record(0)]);
    site.world.dlq(&["replay"]).succeeds();
    let message = &site.world.read(&site.world.source)[0];
    let names: Vec<&str> = message.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["own", "drakkar-replays"]);
}

#[test]
fn a_letter_that_is_parked_keeps_its_payload_and_is_delivered_from_there() {
    let site = Site::new();
    site.world.letters([record(0)]);
    site.world.dlq(&["park"]).succeeds();
    let left_out = site.replay(&[]).succeeds();
    assert!(left_out.stdout.contains("1 left out because they were parked"), "{left_out:?}");
    let ended = site.replay(&["--topic", &site.world.parked]).succeeds();
    assert!(ended.stdout.contains("1 delivered"), "{}", ended.stdout);
    assert_eq!(site.results(), ["0"]);
}

#[test]
fn the_first_payload_that_is_refused_again_stops_and_is_where_the_next_run_begins() {
    let site = Site::new();
    site.world.letters([record(0), impossible(1), record(2)]);
    for _ in 0..2 {
        let ended = site.replay(&[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let named = format!("{}:0:1 is not delivered: filesystem/lines: ", site.world.letters);
        assert!(ended.stderr.contains(&named), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("stopped at {}:0:1", site.world.letters)));
        assert!(ended.stdout.contains("This was not all"), "{}", ended.stdout);
    }
    assert_eq!(site.results()[0], "0");
    assert_eq!(site.results().iter().filter(|value| *value == "0").count(), 1, "it was confirmed");
    let group = format!("drakkar-replay.{}.to-sink", site.world.letters);
    assert_eq!(site.world.committed(&group), [Some(1), Some(0)]);
}

#[test]
fn whoever_keeps_going_is_told_what_was_refused_and_the_rest_is_delivered() {
    let site = Site::new();
    site.world.letters([record(0), impossible(1), record(2), impossible(3), record(4)]);
    let ended = site.replay(&["--keep-going"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for refused in [1, 3] {
        let named = format!("{}:0:{refused} is not delivered: ", site.world.letters);
        assert!(ended.stderr.contains(&named), "{}", ended.stderr);
    }
    assert!(ended.stdout.contains("3 delivered") && ended.stdout.contains("2 refused again"));
    assert_eq!(site.results(), ["0", "2", "4"]);
    assert_eq!(site.world.read(&site.world.letters).len(), 5, "they lie where they lay");
}

#[test]
fn a_sink_that_is_down_stops_whoever_keeps_going_too_and_the_next_run_delivers_everything() {
    let site = Site::new();
    site.world.letters([record(0), record(1), record(2)]);
    let denied = Refusal::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    site.world.refuse(RDKafkaApiKey::Produce, &[denied; 1_000]);
    let group = format!("drakkar-replay.{}.to-sink", site.world.letters);
    for more in [&["--keep-going", "--timeout", "2s"][..], &["--timeout", "2s"]] {
        let ended = site.replay(more);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let letter = format!("stopped at {}:0:0: ", site.world.letters);
        let said = letter + "kafka/results did not take it within 2s: ";
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
        assert!(ended.stderr.contains("the next run begins with it"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("--keep-going"), "it is of no use: {}", ended.stderr);
        assert!(!ended.stdout.contains("refused again"), "{}", ended.stdout);
        assert_eq!(site.world.committed(&group), [Some(0), Some(0)]);
    }
    site.world.refuse_no_more(RDKafkaApiKey::Produce);
    let ended = site.replay(&["--keep-going"]).succeeds();
    assert!(ended.stdout.contains("3 delivered"), "{}", ended.stdout);
    assert_eq!(site.results(), ["0", "1", "2"]);
}

#[test]
fn a_payload_that_cannot_be_read_stops_as_one_that_is_refused_does() {
    let site = Site::new();
    let future = letter(1, &[]).refused(&[("payload", r#"{"sink of the future": {}}"#)]);
    site.world.letters([record(0), future, record(2)]);
    let group = format!("drakkar-replay.{}.to-sink", site.world.letters);
    let named = format!("{}:0:1 is not delivered: its payload cannot be read", site.world.letters);

    let dry = site.replay(&["--dry-run"]);
    assert!(dry.stderr.contains(&named), "{}", dry.stderr);
    assert!(dry.stdout.contains("2 would be delivered"), "{}", dry.stdout);
    for _ in 0..2 {
        let ended = site.replay(&[]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&named), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("stopped at {}:0:1", site.world.letters)));
        assert_eq!(site.world.committed(&group), [Some(1), Some(0)], "it is not passed over");
        assert_eq!(site.results(), ["0"], "what is before it is delivered, once");
    }
    let ended = site.replay(&["--keep-going"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&named), "{}", ended.stderr);
    assert_eq!(site.results(), ["0", "2"]);
    assert_eq!(site.world.committed(&group), [Some(3), Some(0)]);
}

#[test]
fn letters_without_their_payload_are_named_and_those_of_one_payload_deliver_it_once() {
    let site = Site::new();
    site.world.letters([
        record(0),
        letter(1, &[]).refused(&[("payload-with", "orders:0:0")]),
        letter(2, &[]).refused(&[("payload-omitted", "600000")]),
        letter(3, &[]).refused(&[]),
    ]);
    let ended = site.replay(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(":0:2 is not delivered: the payloads (600000 bytes)"));
    assert!(ended.stderr.contains(":0:3 is not delivered: it carries no payload"));
    for line in ["1 delivered", "2 not delivered for want", "1 whose payloads are in the letter"] {
        assert!(ended.stdout.contains(line), "{}", ended.stdout);
    }
    assert_eq!(site.results(), ["0"]);
}

#[test]
fn whoever_names_a_sink_delivers_what_is_for_that_sink_and_nothing_else() {
    let site = Site::new();
    let line = |number: usize| FilePayload::json(format!("{number}.txt"), &number).unwrap();
    // Of two sinks that refused, a letter names the first.
    let both = |number: usize| {
        let record = json(KafkaPayload::raw(number.to_string()));
        let line = json(line(number).sink("lines"));
        let payloads = [("sink", "kafka/results"), ("payload", &*record), ("payload", &line)];
        letter(number, &[]).refused(&payloads)
    };
    site.world.letters([both(0), refused(1, line(1)), record(2), both(3)]);
    let lines = ["--sink", "filesystem/lines", "--name", "lines"];
    let dry = site.replay(&[&lines[..], &["--dry-run"]].concat()).succeeds();
    assert!(!dry.stdout.contains("kafka"), "{}", dry.stdout);
    for expected in ["3 delivered", " 0 delivered"] {
        let ended = site.replay(&lines).succeeds();
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    }
    assert_eq!([0, 1, 3].map(|of| site.line(&format!("{of}.txt")).is_some()), [true; 3]);
    assert_eq!(site.results(), Vec::<String>::new());
    let ended = site.replay(&["--sink", "kafka/results", "--name", "results"]).succeeds();
    assert!(ended.stdout.contains("3 delivered"), "{}", ended.stdout);
    assert_eq!(site.results(), ["0", "2", "3"]);
    assert_eq!(site.line("0.txt").as_deref(), Some("0\n"), "once");
}

#[test]
fn a_dry_run_says_which_sinks_and_delivers_nothing() {
    let site = Site::new();
    site.world.letters([record(0), impossible(1)]);
    let ended = site.replay(&["--dry-run"]).succeeds();
    for sink in
        ["would be delivered to kafka/results\n", "would be delivered to filesystem/lines\n"]
    {
        assert!(ended.stdout.contains(sink), "{}", ended.stdout);
    }
    assert_eq!(site.results(), Vec::<String>::new());
    let limited = site.replay(&["--limit", "1"]).succeeds();
    assert!(limited.stdout.contains("1 delivered"), "{}", limited.stdout);
    assert!(limited.stdout.contains("This was not all"), "{}", limited.stdout);
}

#[test]
fn a_sink_that_is_gone_from_the_configuration_refuses() {
    let site = Site::new();
    site.world.letters([refused(0, KafkaPayload::raw("v").sink("old"))]);
    let ended = site.replay(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("there is no sink sinks.kafka.old"), "{}", ended.stderr);
}

#[test]
fn what_is_asked_for_wrongly_is_refused_before_anything_is_delivered() {
    let site = Site::new();
    site.world.letters([record(0)]);
    for (more, why) in [
        (&["--to", "elsewhere"][..], "cannot be used with"),
        (&["--max-replays", "1"], "cannot be used with"),
    ] {
        let ended = site.replay(more);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
    let without = site.world.dlq(&["replay", "--to-sink"]);
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stderr.contains("--config"), "{}", without.stderr);
    assert_eq!(site.results(), Vec::<String>::new());
}

#[test]
fn brokers_that_are_named_are_reached_without_the_security_of_those_that_letters_were_in() {
    let site = Site::new();
    site.world.letters([record(0)]);
    let dlq = "dlq:\n  brokers: nowhere:1\n  client_config: {client.rack: a}\n  security: \
               {protocol: SASL_PLAINTEXT, sasl_mechanism: PLAIN, sasl_username: u, sasl_password: p}\n";
    site.configure("", dlq);
    let (address, topic) = (site.world.address.clone(), site.world.letters.clone());
    site.replay(&["--brokers", &address, "--topic", &topic]).succeeds();
    assert_eq!(site.results(), ["0"]);
}

#[test]
fn a_sink_that_does_not_answer_is_named_in_bounded_time_and_nothing_is_delivered() {
    let site = Site::new();
    site.world.letters([record(0)]);
    // Taken from the system and given back: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    site.configure(&format!("away: {{topic: t, brokers: \"{free}\"}}, "), "");
    let ended = site.replay(&["--timeout", "2s"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("sinks.kafka.away: "), "{}", ended.stderr);
    assert_eq!(site.results(), Vec::<String>::new());
}

#[test]
fn a_sink_that_cannot_be_opened_is_named_before_anything_is_delivered() {
    let site = Site::new();
    site.world.letters([record(0)]);
    // It lacks its address; that its kind is compiled in is not asked for first.
    site.configure("", "  postgres: {main: {}}\n");
    let ended = site.replay(&[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("sinks.postgres.main"), "{}", ended.stderr);
    assert_eq!(site.results(), Vec::<String>::new());
}
