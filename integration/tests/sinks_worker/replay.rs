//! What a sink refused is delivered to it by `drakkar dlq replay --to-sink` once the cause is gone: that
//! alone, and once.

use std::{path::Path, process::Command};

use drakkar_integration::{Act, Order, World, worker::built};

use crate::sites::{Http, Mongo, PASSWORD, Postgres, Redis, Store, UNLUCKY};

/// Exit code and everything that the command said.
pub(crate) fn replay(config: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(built("drakkar"));
    command.args(["dlq", "replay", "--to-sink", "--timeout", "2m", "--config"]).arg(config);
    let output = command.args(more).env_clear().output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[track_caller]
fn says(config: &Path, more: &[&str], code: i32, texts: &[&str]) {
    let (found, said) = replay(config, more);
    assert_eq!(found, Some(code), "{said}");
    for text in texts {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
}

fn check(site: &dyn Store) {
    let others = [5, 7]; // beside the one that is refused everywhere
    for number in others {
        site.obstruct(number);
    }
    let world = World::new(1).with(&format!("sinks.{}.site", site.kind()), site.section(PASSWORD));
    let mut worker = world.start();
    world.give((0..10).map(|number| {
        let order = Order::new(format!("n-{number}"), Act::Precomputed);
        order.beside(site.payload(number)).given()
    }));
    world.drained();
    worker.stop();
    let landed: Vec<u32> = (0..10).filter(|n| ![UNLUCKY, 5, 7].contains(n)).collect();
    assert_eq!(site.written(), landed);
    assert_eq!(world.books().dead.len(), 3);

    let config = world.config_file("replay");
    says(&config, &[], 1, &[" 0 delivered", "1 refused again", "stopped at"]);
    assert_eq!(site.written(), landed, "the first stops it");

    for number in others {
        site.mend(number);
    }
    says(&config, &["--keep-going"], 1, &[" 2 delivered", "1 refused again"]);
    let all_but_one: Vec<u32> = (0..10).filter(|n| *n != UNLUCKY).collect();
    assert_eq!(site.written(), all_but_one, "each once");
    says(&config, &[], 0, &[" 0 delivered"]);
    assert_eq!(site.written(), all_but_one);

    // The one that was passed over, by its key.
    site.mend(UNLUCKY);
    let chosen = ["--key", &format!("n-{UNLUCKY}"), "--name", "rest"];
    says(&config, &chosen, 0, &[" 1 delivered"]);
    assert_eq!(site.written(), (0..10).collect::<Vec<_>>());
    says(&config, &chosen, 0, &[" 0 delivered"]);
    assert_eq!(world.kafka.read(&world.source).len(), 10, "no task runs again");
}

#[test]
fn rows_that_were_refused_are_delivered_when_their_cause_is_gone_and_once() {
    check(&Postgres::start());
}

#[test]
fn documents_that_were_refused_are_delivered_when_their_cause_is_gone_and_once() {
    check(&Mongo::start());
}

#[test]
fn commands_that_were_refused_are_delivered_when_their_cause_is_gone_and_once() {
    check(&Redis::start());
}

#[test]
fn requests_that_were_refused_are_delivered_when_their_cause_is_gone_and_once() {
    check(&Http::start());
}
