//! A password of a sink is in no log line, no probe, no metric, no dead letter and no word of a command: not
//! when it is wrong, not when nobody answers, and not when payloads are refused in the middle of a run.

use std::process::Command;

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use drakkar_integration::{Act, Order, SOON, World, until, worker::built};
use serde_json::Value;

use crate::sites::{Broker, Http, Mongo, PASSWORD, Postgres, Redis, Site, UNLUCKY};

/// How each password of these tests begins, also when it is encoded for an address, or cut.
const MARK: &str = "hunter2";

/// Fails where `text` shows the secret: as it is, encoded for an address, or as base64, which looks
/// different after one and after two other bytes.
#[track_caller]
fn hides_it(what: &str, text: &str) {
    let encoded = (0..3).map(|before| {
        let all = BASE64.encode([&b"xx"[..before], MARK.as_bytes()].concat());
        // Its ends depend on the neighbours.
        let from = [0, 2, 3][before];
        all[from..all.trim_end_matches('=').len() - 1].to_owned()
    });
    for form in [MARK.to_owned()].into_iter().chain(encoded) {
        let found = text.lines().find(|line| line.contains(&form));
        assert!(found.is_none(), "{what} shows the secret ({form}): {found:?}");
    }
}

/// A worker with this section does not start, and says why.
fn refused_at_start(world: &World, kind: &str, what: &str) {
    let ended = world.start().wait(SOON);
    assert_eq!(ended.code, Some(3), "{what}: {}", ended.log);
    let key = format!("sinks.{kind}.site");
    assert!(ended.log.contains(&key), "{what}: {key} is not in {}", ended.log);
    hides_it(what, &ended.log);
}

fn check(site: &dyn Site) {
    let kind = site.kind();
    let key = format!("sinks.{kind}.site");
    let mut world = World::new(1)
        .with("sinks.circuit_breaker.failure_threshold", 2)
        .with("sinks.circuit_breaker.cooldown_seconds", 1)
        .with("executor.max_retries", 0)
        .variable("RUST_LOG", "trace"); // Also what the drivers say.
    world.set("kafka.start_timeout", "3s");
    world.set(&key, site.away());
    refused_at_start(&world, kind, "a start without an answer");
    // An endpoint is not asked at the start: no request is harmless.
    if kind != "http" {
        world.set(&key, site.section("hunter2/wrong"));
        refused_at_start(&world, kind, "a start with a wrong password");
    }
    commands_hide_it(&world);
    world.set("kafka.start_timeout", "2m");
    world.set(&key, site.section(PASSWORD));
    refused_under_way(&world, site);
    letters_hide_it(&world, &format!("{kind}/site"));
}

/// What people run by hand, with the same configuration.
fn commands_hide_it(world: &World) {
    let config = world.config_file("by-hand");
    let replay = ["dlq", "replay", "--to-sink", "--timeout", "3s", "--config"];
    for command in [&["check"][..], &replay] {
        let mut run = Command::new(built("drakkar"));
        let output = run.args(command).arg(&config).env_clear().output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.is_empty(), "{command:?} says nothing");
        hides_it(command[0], &String::from_utf8_lossy(&said));
    }
}

/// A worker that was let in meets a payload that is refused, and then is not let in any more for a while.
fn refused_under_way(world: &World, site: &dyn Site) {
    let mut worker = world.start();
    let give = |number: u32| {
        let order = Order::new(format!("n-{number}"), Act::Precomputed);
        world.give([order.beside(site.payload(number)).given()]);
    };
    (0..=UNLUCKY).for_each(give);
    world.drained();
    site.set_password("something else");
    (UNLUCKY + 1..UNLUCKY + 4).for_each(give);
    let sink = format!("{{sink_name=\"site\",sink_type=\"{}\"}}", site.kind());
    until("the breaker to open", SOON, || {
        match worker.metric(&format!("drakkar_sink_circuit_trips_total{sink}")) {
            0 => Err("it is closed"),
            _ => Ok(()),
        }
    });
    for path in ["/metrics", "/healthz", "/readyz"] {
        hides_it(path, &worker.get(path).unwrap().1);
    }
    site.set_password(PASSWORD);
    world.drained();
    worker.stop();
    assert!(worker.log().contains("payload not accepted"), "the log says nothing of it");
    hides_it("the log", &worker.log());
}

/// The only dead letter is that of the payload which `sink` refused.
fn letters_hide_it(world: &World, sink: &str) {
    let books = world.books();
    books.balance_with(1, "the result of what a sink refused is there");
    let [letter] = &books.dead[..] else { panic!("{:?}", books.dead) };
    assert_eq!(letter.header("drakkar-sink").as_deref(), Some(sink));
    for (name, value) in &letter.headers {
        hides_it(name, &String::from_utf8_lossy(value.as_deref().unwrap_or_default()));
    }
}

#[test]
fn the_password_of_a_kafka_sink_is_shown_nowhere() {
    check(&Broker::start());
}

#[test]
fn the_password_of_a_postgresql_sink_is_shown_nowhere() {
    check(&Postgres::start());
}

#[test]
fn the_password_of_a_mongodb_sink_is_shown_nowhere() {
    check(&Mongo::start());
}

#[test]
fn the_password_of_a_redis_sink_is_shown_nowhere() {
    check(&Redis::start());
}

#[test]
fn user_path_query_and_headers_of_an_http_sink_are_shown_nowhere() {
    check(&Http::start());
}

#[test]
fn the_password_of_a_proxy_is_shown_nowhere() {
    check(&Http::proxied());
}

#[test]
fn the_password_of_the_dead_letters_is_shown_nowhere() {
    let site = Broker::start();
    let mut world = World::new(1).variable("RUST_LOG", "trace");
    world.set("executor.max_retries", 0);
    let set = |world: &mut World, section: Value| {
        for key in ["brokers", "security"] {
            world.set(&format!("dlq.{key}"), section[key].clone());
        }
        world.set("dlq.topic", section["topic"].clone());
    };
    world.set("kafka.start_timeout", "3s");
    for section in [site.away(), site.section("hunter2/wrong")] {
        set(&mut world, section);
        let ended = world.start().wait(SOON);
        assert_eq!(ended.code, Some(3), "{}", ended.log);
        assert!(ended.log.contains("dlq"), "{}", ended.log);
        hides_it("the log of a start", &ended.log);
        commands_hide_it(&world);
    }
    world.set("kafka.start_timeout", "2m");
    set(&mut world, site.section(PASSWORD));
    commands_hide_it(&world);
    let mut worker = world.start();
    world.order([("bad", Act::Fail)]);
    world.drained();
    for path in ["/metrics", "/healthz", "/readyz"] {
        hides_it(path, &worker.get(path).unwrap().1);
    }
    worker.stop();
    hides_it("the log", &worker.log());
    let [letter] = &site.records()[..] else { panic!("{:?}", site.records()) };
    hides_it("a letter", &format!("{letter:?}"));
    for (name, value) in &letter.headers {
        hides_it(name, &String::from_utf8_lossy(value.as_deref().unwrap_or_default()));
    }
}

#[test]
fn a_secret_is_found_in_each_of_its_forms() {
    let basic = BASE64.encode(format!("eve:{PASSWORD}"));
    let plain = BASE64.encode(format!("\0eve\0{PASSWORD}"));
    for text in [PASSWORD, "a hunter2%2F0815 b", &BASE64.encode(PASSWORD), &basic, &plain] {
        let found = std::panic::catch_unwind(|| hides_it("a text", text));
        assert!(found.is_err(), "{text}");
    }
    hides_it("a text", "eve:*** and eHh4eHh4eHg=");
}
