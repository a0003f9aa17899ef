//! A place that the user of a sink may not write to holds what is meant for this sink, and nothing else; it
//! goes on by itself when she may.

use drakkar_integration::{Act, Order, SOON, World, until};

use crate::sites::{Mongo, PASSWORD, Postgres, Redis, Rights};

/// Messages to each partition.
const COUNT: u32 = 20;

fn check(site: &dyn Rights) {
    let kind = site.kind();
    let world = World::new(2)
        .with(&format!("sinks.{kind}.site"), site.section(PASSWORD))
        .with(&format!("sinks.{kind}.other"), site.section(PASSWORD))
        .with("sinks.circuit_breaker.failure_threshold", 0); // It would leave the sink alone for a while.
    let worker = world.start();
    let order = |name: &str, number: u32| Order::new(format!("{name}-{number}"), Act::Precomputed);
    // In turns to a partition that needs what is forbidden, and to one that needs another sink.
    world.give((0..2 * COUNT).map(|number| {
        let payload = if number % 2 == 0 {
            site.closed(number)
        } else {
            let mut payload = serde_json::to_value(site.payload(100 + number)).unwrap();
            payload[kind]["sink"] = "other".into();
            serde_json::from_value::<drakkar_core::Payload>(payload).unwrap()
        };
        order("first", number).beside(payload).given()
    }));
    until("the partition beside it to be done", SOON, || match world.commits()[&1] {
        20 => Ok(()),
        few => Err(few),
    });
    let held = until("the probes to name the sink", SOON, || {
        let (_, body) = worker.get("/readyz").unwrap();
        if body.contains(&format!("\"sink\":\"{kind}/site\"")) { Ok(body) } else { Err(body) }
    });
    assert!(!held.contains("other"), "{held}");
    assert_eq!(worker.status("/healthz"), 200, "a restart cures nothing");
    assert_eq!(world.commits()[&0], 0);

    // The whole sink is held: also what may be written, behind what may not.
    world.give((0..2).map(|number| order("second", number).beside(site.payload(number)).given()));
    world.wait_delivered(2 * COUNT as usize + 2);
    assert_eq!((world.commits()[&1], site.written().len()), (20, 20));

    site.allow();
    world.drained();
    let books = world.books();
    books.balance();
    assert_eq!(books.dead, []);
    assert_eq!(site.written_closed(), (0..COUNT).map(|number| 2 * number).collect::<Vec<_>>());
    let beside = (0..COUNT).map(|number| 101 + 2 * number);
    assert_eq!(site.written(), (0..2).chain(beside).collect::<Vec<_>>());
}

#[test]
fn a_table_without_rights_holds_its_sink_and_no_other_until_they_are_given() {
    check(&Postgres::start());
}

#[test]
fn a_collection_without_rights_holds_its_sink_and_no_other_until_they_are_given() {
    check(&Mongo::start());
}

#[test]
fn a_key_without_rights_holds_its_sink_and_no_other_until_they_are_given() {
    check(&Redis::start());
}
