//! The idempotency key that a worker makes of coordinates, as the endpoint sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use drakkar_core::HttpPayload;
use drakkar_integration::{
    Act, Order, SOON, World,
    http::{Answer, Endpoint},
    until,
};
use serde_json::json;
use tokio::runtime::Runtime;

/// Messages with two requests each.
const COUNT: usize = 10;

#[test]
fn a_request_has_the_same_key_whenever_and_by_whomever_it_is_made_and_no_other_has_it() {
    let runtime = Runtime::new().unwrap();
    let endpoint = runtime.block_on(Endpoint::start());
    let known = Mutex::new(BTreeSet::new());
    endpoint.answer(move |request| {
        let is_new = known.lock().unwrap().insert(request.body.clone());
        Answer::status(if is_new { 503 } else { 200 })
    });
    let section = json!({"url": endpoint.url("/in"), "idempotency_prefix": "ours:"});
    let world = World::new(1).with("sinks.http.site", section);
    let mut worker = world.start();
    // Keeps what is behind it from being committed.
    world.order([("first", Act::AwaitLicence)]);
    world.give((0..COUNT).map(|number| {
        let request = |nth: &str| HttpPayload::new(&json!([number, nth])).unwrap().sink("site");
        let order = Order::new(format!("n-{number}"), Act::Precomputed);
        order.beside(request("one")).beside(request("other")).given()
    }));
    let twice = 2 * 2 * COUNT;
    until("each request to be made again", SOON, || match endpoint.seen().len() {
        all if all == twice => Ok(()),
        other => Err(other),
    });
    assert_eq!(world.committed(), 0);
    worker.kill();
    world.license();
    let _next = world.start();
    world.drained();

    let seen = endpoint.seen();
    assert_eq!(seen.len(), twice + 2 * COUNT, "the next worker made them all once more");
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in &seen {
        let key = request.header("idempotency-key").expect("a key").to_owned();
        assert!(key.starts_with("ours:") && key.contains(&world.source), "{key}");
        keys.entry(key).or_default().insert(request.text());
    }
    assert_eq!(keys.len(), 2 * COUNT, "{keys:?}");
    assert!(keys.values().all(|requests| requests.len() == 1), "{keys:?}");
}
