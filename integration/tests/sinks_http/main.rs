//! The HTTP sink against an endpoint that misbehaves: what arrives, and what becomes of what does not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails the test")]

mod requests; // what is sent
mod outcomes; // what an answer means
mod outages; // what no answer costs
mod hosts; // who is asked, and who hears a secret

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drakkar_core::{HttpPart, HttpPayload};
use drakkar_integration::{
    SOON,
    http::{Answer, Endpoint, Request},
    sinks::{blocked_after, connect, connect_within, deliver_all, deliver_by_tasks},
    until,
};
use drakkar_sinks::{Refused, Settled, Sinks};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};

const SECRET: &str = "hunter2-0815";

/// The sinks of one section `sinks.http.hook`, which tries again at once and never leaves it alone.
fn section(endpoint: &Endpoint, path: &str, more: Value) -> Value {
    let mut hook = json!({"url": endpoint.url(path)});
    let Value::Object(more) = more else { panic!("keys of the section") };
    hook.as_object_mut().unwrap().extend(more);
    json!({
        "http": {"hook": hook},
        "retry_backoff_initial": "5ms",
        "retry_backoff_max": "50ms",
        "circuit_breaker": {"failure_threshold": 0},
    })
}

async fn sinks(endpoint: &Endpoint, path: &str, more: Value) -> Sinks {
    connect(section(endpoint, path, more)).await.unwrap().sinks
}

fn numbered(number: usize) -> HttpPayload {
    HttpPayload::new(&json!({ "n": number })).unwrap().idempotency_key(format!("key-{number}"))
}

/// The numbers in the bodies of `seen`, which are lines of JSON, with how often each was there.
fn numbers(seen: &[Request]) -> BTreeMap<u64, usize> {
    let mut counted = BTreeMap::new();
    for line in seen
        .iter()
        .flat_map(|request| request.text().lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let value: Value = serde_json::from_str(&line).unwrap();
        *counted.entry(value["n"].as_u64().unwrap()).or_default() += 1;
    }
    counted
}

fn once_each(count: u64) -> BTreeMap<u64, usize> {
    (0..count).map(|number| (number, 1)).collect()
}

#[track_caller]
fn all_confirmed(settled: &[Settled]) {
    assert!(settled.iter().all(|one| *one == Settled::Confirmed), "{settled:?}");
}

fn refused(settled: &[Settled]) -> Vec<(usize, &Refused)> {
    let each = settled.iter().enumerate();
    each.filter_map(|(at, one)| match one {
        Settled::Refused(refused) => Some((at, &**refused)),
        Settled::Confirmed => None,
    })
    .collect()
}

/// Delivers beside the test, which looks on.
fn deliver_beside(sinks: &Sinks, payloads: Vec<HttpPayload>) -> JoinHandle<Vec<Settled>> {
    let sinks = sinks.clone();
    tokio::spawn(async move { deliver_all(&sinks, payloads).await })
}

/// Looks until `is_so`, without standing in the way of the endpoint.
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let look = move || until(what, SOON, || if is_so() { Ok(()) } else { Err("not yet") });
    tokio::task::block_in_place(look);
}

fn wait_held(sinks: &Sinks) {
    wait_for("payloads to be held", || !sinks.held().is_empty());
}

fn shown(request: &Request) -> (String, String) {
    (request.header("content-type").unwrap_or_default().to_owned(), request.text())
}
