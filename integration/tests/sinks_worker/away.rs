//! A server that dies below a worker: nothing is committed that it does not have, the probes say so, and it
//! goes on by itself. With the breaker as it ships.

use std::path::Path;

use drakkar_integration::{Act, Order, SOON, WorkerProcess, World, until};

use crate::sites::{Broker, Files, Http, Mongo, Mortal, PASSWORD, Postgres, Redis};

/// Numbers of each round; the first begins above those that sites refuse.
const COUNT: u32 = 100;

fn world(site: &dyn Mortal) -> World {
    World::new(2)
        .with(&format!("sinks.{}.site", site.kind()), site.section(PASSWORD))
        .with("health.sink_window", "1s")
}

fn give(world: &World, site: &dyn Mortal, numbers: std::ops::Range<u32>) {
    world.give(numbers.map(|number| {
        let order = Order::new(format!("n-{number}"), Act::Precomputed);
        order.beside(site.payload(number)).given()
    }));
}

/// Waits until `/readyz` answers with this status, and why.
#[track_caller]
fn readyz(worker: &WorkerProcess, status: u16, why: &str) {
    until(&format!("/readyz to be {status}"), SOON, || match worker.get("/readyz").unwrap() {
        (found, body) if found == status && body.contains(why) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn trips(worker: &WorkerProcess, kind: &str) -> usize {
    let labels = format!("sink_name=\"site\",sink_type=\"{kind}\"");
    worker.metric(&format!("drakkar_sink_circuit_trips_total{{{labels}}}"))
}

fn check(site: &dyn Mortal) {
    let kind = site.kind();
    let world = world(site);
    let mut worker = world.start();
    give(&world, site, COUNT..2 * COUNT);
    world.drained();
    readyz(&worker, 200, "");

    site.die();
    give(&world, site, 2 * COUNT..3 * COUNT);
    world.wait_delivered(2 * COUNT as usize); // What goes elsewhere is not held up.
    let why = format!("sink {kind}/site has accepted nothing for");
    readyz(&worker, 503, &why);
    until("the breaker to open", SOON, || match trips(&worker, kind) {
        0 => Err("it is closed"),
        _ => Ok(()),
    });
    assert_eq!(worker.status("/healthz"), 200, "a restart cures nothing");
    assert_eq!(world.committed(), COUNT as usize, "what it does not have is not committed");

    site.rise();
    world.drained();
    readyz(&worker, 200, "");
    worker.assert_runs();
    let books = world.books();
    books.balance();
    assert_eq!(books.dead, []);
    assert_eq!(site.kept(), (COUNT..3 * COUNT).collect::<Vec<_>>(), "each is there once");
}

#[test]
fn while_a_broker_is_down_nothing_is_committed_that_it_does_not_have_and_readyz_is_503() {
    check(&Broker::start());
}

#[test]
fn while_a_database_is_down_nothing_is_committed_that_it_does_not_have_and_readyz_is_503() {
    check(&Postgres::start());
}

#[test]
fn while_a_document_store_is_down_nothing_is_committed_that_it_does_not_have_and_readyz_is_503() {
    check(&Mongo::start());
}

#[test]
fn while_a_store_of_keys_is_down_nothing_is_committed_that_it_does_not_have_and_readyz_is_503() {
    check(&Redis::start());
}

#[test]
fn while_an_endpoint_is_down_nothing_is_committed_that_it_does_not_have_and_readyz_is_503() {
    check(&Http::start());
}

#[test]
fn while_a_directory_is_away_nothing_is_committed_that_it_does_not_have_and_readyz_is_503() {
    check(&Files::start());
}

#[test]
fn a_server_that_goes_away_while_nothing_is_for_it_makes_the_worker_unready_until_it_is_back() {
    let sites: [&dyn Mortal; 2] = [&Mongo::start(), &Broker::start()];
    let mut world = World::new(1).with("health.sink_window", "1s");
    for site in sites {
        world.set(&format!("sinks.{}.site", site.kind()), site.section(PASSWORD));
    }
    let worker = world.start();
    readyz(&worker, 200, "");
    for site in sites {
        site.die();
    }
    for site in sites {
        readyz(&worker, 503, &format!("\"sink\":\"{}/site\"", site.kind()));
    }
    for site in sites {
        site.rise();
    }
    readyz(&worker, 200, "");
}

#[test]
fn where_an_open_breaker_dead_letters_the_letters_have_the_payloads_and_they_arrive_later_once() {
    let site = Postgres::start();
    let world =
        world(&site).with("sinks.circuit_breaker.on_open", "dead_letter").with("dlq.max_ratio", 0);
    let mut worker = world.start();
    give(&world, &site, 100..110);
    world.drained();
    site.die();
    give(&world, &site, 110..140);
    world.drained(); // Nothing waits for it.
    assert!(0 < trips(&worker, "postgres"));
    let letters = world.books().dead;
    assert_eq!(letters.len(), 30);
    for letter in &letters {
        let why = ["drakkar-stage", "drakkar-sink"].map(|name| letter.header(name));
        assert_eq!(why.map(Option::unwrap), ["deliver", "postgres/site"], "{letter:?}");
        assert!(letter.header("drakkar-payload").is_some(), "{letter:?}");
    }

    site.rise();
    // While the breaker tries it, something may still be refused.
    let config = world.config_file("by-hand");
    readyz(&worker, 200, "");
    worker.stop();
    delivers(&config, " 30 delivered");
    delivers(&config, " 0 delivered");
    assert_eq!(site.kept(), (100..140).collect::<Vec<_>>());
    world.books().balance_with(30, "the result of what a sink refused is there");
}

#[track_caller]
fn delivers(config: &Path, text: &str) {
    let (code, said) = crate::replay::replay(config, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(text), "{text:?} is not in: {said}");
}
