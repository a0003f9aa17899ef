//! What a sink refused is delivered to it by `drakkar dlq replay --to-sink` once the cause is gone: that
//! alone, and once.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Command, Stdio},
};

use drakkar_integration::{Act, Order, SOON, World, proc, until, worker::built};

use crate::sites::{Http, Mongo, Mortal, PASSWORD, Postgres, Redis, Site, Store, UNLUCKY};

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

/// Numbers whose letters a replay is interrupted among.
const MANY: u32 = 100;

/// Starts a replay of 20 letters a second, and returns when the site has `count` numbers.
fn replay_until(config: &Path, site: &dyn Store, count: usize) -> Child {
    let mut command = Command::new(built("drakkar"));
    let words = ["dlq", "replay", "--to-sink", "--rate", "20", "--timeout", "3s", "--config"];
    command.args(words).arg(config).env_clear();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("numbers to be delivered", SOON, || match site.written().len() {
        some if count <= some => Ok(()),
        few => Err(few),
    });
    child
}

#[track_caller]
fn ends(child: Child, code: Option<i32>) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), code, "{said}");
    said
}

#[test]
fn a_replay_to_a_sink_goes_on_where_a_signal_a_kill_or_the_loss_of_the_sink_ended_it() {
    let site = Http::start();
    (0..MANY).for_each(|number| site.obstruct(number));
    let mut world = World::new(1).with("dlq.max_consecutive", 0).with("dlq.max_ratio", 0);
    world.set("sinks.http.site", site.section(PASSWORD));
    world.set("sinks.circuit_breaker.failure_threshold", 0);
    let mut worker = world.start();
    world.give((0..MANY).map(|number| {
        let order = Order::new(format!("n-{number}"), Act::Precomputed);
        order.beside(site.payload(number)).given()
    }));
    world.drained();
    worker.stop();
    assert!(site.written().is_empty());
    (0..MANY).for_each(|number| site.mend(number));
    let config = world.config_file("replay");

    let child = replay_until(&config, &site, 10);
    proc::signal(child.id(), "INT");
    let said = ends(child, Some(130));
    assert!(said.contains("This was not all"), "{said}");
    let before = site.written().len();
    assert!(said.contains(&format!(" {before} delivered")), "{said}");

    let mut child = replay_until(&config, &site, before + 10);
    child.kill().unwrap();
    ends(child, None);
    let written = site.written();
    let distinct = BTreeSet::from_iter(&written).len();
    assert_eq!(written.len(), distinct, "what a signal ended is not repeated: {written:?}");

    let child = replay_until(&config, &site, site.written().len() + 10);
    site.die();
    let said = ends(child, Some(1));
    assert!(said.contains("http/site") && said.contains("stopped at"), "{said}");
    site.rise();

    says(&config, &[], 0, &[" delivered"]);
    let written = site.written();
    let distinct: Vec<u32> = BTreeSet::from_iter(written.clone()).into_iter().collect();
    assert_eq!(distinct, (0..MANY).collect::<Vec<_>>(), "all of them");
    // Two batches of a second each were under way when they were ended, of at most 20.
    let repeated = written.len() - distinct.len();
    assert!(repeated <= 40, "{repeated} were delivered again");
    says(&config, &[], 0, &[" 0 delivered"]);
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
