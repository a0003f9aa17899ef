//! A service that every message needs is down: the dead-letter topic is not flushed, the worker says why
//! it stands still, and it goes on by itself.

use std::time::Duration;

use drakkar_integration::{Act, SOON, WorkerProcess, World, until};
use serde_json::Value;
use tokio::time::Instant;

const LIMIT: usize = 20;

/// Between two tries, where a test counts them.
const INTERVAL: Duration = Duration::from_secs(2);

fn world() -> World {
    World::new(1)
        .with("dlq.max_consecutive", LIMIT)
        .with("dlq.probe_interval", "1s")
        .with("executor.max_retries", 0)
}

/// What the probes say of the only partition, which is held.
#[track_caller]
fn held(worker: &WorkerProcess) -> Value {
    until("the probes to say that the partition is held", SOON, || {
        let (_, body) = worker.get("/healthz").map_err(|error| error.to_string())?;
        let details: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        match &details["details"]["held_partitions"][0] {
            Value::Null => Err(body),
            held => Ok(held.clone()),
        }
    })
}

/// Waits until so many tries have failed.
#[track_caller]
fn wait_tries(worker: &WorkerProcess, count: u64) {
    until("messages to be tried", 3 * SOON, || {
        let held = held(worker);
        if held["failed_tries"].as_u64() < Some(count) { Err(held) } else { Ok(()) }
    });
}

#[test]
fn an_outage_that_every_message_feels_costs_the_limit_and_one_message_per_try() {
    let world = world();
    let begun = Instant::now();
    let mut worker = world.start();
    world.order_many("needs", 300, Act::Licensed);
    let held_by = held(&worker);
    assert_eq!(held_by["reason"], "dlq.max_consecutive");
    assert_eq!(held_by["partition"], format!("{}:0", world.source));
    wait_tries(&worker, 2);
    assert_eq!((worker.status("/healthz"), worker.status("/readyz")), (200, 200));
    let series = format!(
        "drakkar_partition_held{{partition=\"0\",reason=\"max_consecutive\",topic=\"{}\"}}",
        world.source
    );
    assert_eq!(worker.metric(&series), 1);
    let dead = world.books().dead.len();
    let tries = usize::try_from(held(&worker)["failed_tries"].as_u64().unwrap()).unwrap();
    assert!((LIMIT + 2..=LIMIT + tries).contains(&dead), "{dead} dead letters, {tries} tries");

    world.license();
    let seconds = begun.elapsed().as_secs();
    world.drained();
    worker.assert_runs();
    worker.wait_for_log("it is held no longer");
    let books = world.books();
    books.balance();
    let tries = books.dead.len() - LIMIT;
    // One was under way when the licence came, and one more begins in a second that is not over.
    assert!(tries as u64 <= seconds + 2, "{tries} tries in {seconds} s");
    for letter in &books.dead {
        books.given_up(&letter.id(), "execute", "exit_code");
    }
}

#[test]
fn a_restart_is_no_new_allowance() {
    let world = world().with("dlq.probe_interval", INTERVAL.as_secs());
    let mut worker = world.start();
    world.order_many("needs", 100, Act::Licensed);
    wait_tries(&worker, 1);
    worker.stop();
    let before = world.books().dead.len();

    let begun = Instant::now();
    let worker = world.start();
    held(&worker);
    wait_tries(&worker, 1);
    let new = world.books().dead.len() - before;
    let most = 1 + begun.elapsed().as_secs() / INTERVAL.as_secs();
    assert!(1 <= new && new as u64 <= most, "{new} tries, at most {most} in that time");

    world.license();
    world.drained();
    world.books().balance();
}
