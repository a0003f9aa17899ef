//! The Redis sink against real servers: what each command leaves there, what a fault holds or refuses,
//! and that nothing is lost or put out of order by one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod commands; // what each of them leaves in the server
mod start; // who is let in, and what is said to who is not
mod refusals; // what concerns one payload of many
mod relay; // a way to a server that can be slow
mod faults; // servers that are away, slow, full or no primary
mod cluster; // three nodes

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use drakkar::RedisPayload;
use drakkar_integration::{OwnServer, SOON, sinks, until};
use drakkar_sinks::{Refused, Settled, Sinks};
use redis::{Connection, FromRedisValue};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

/// What every server of these tests wants.
const PASSWORD: &str = "drakkar-test";

/// The server that all tests share.
fn shared() -> String {
    std::env::var("DRAKKAR_TEST_REDIS").expect(
        "DRAKKAR_TEST_REDIS: run `integration/test`, or `integration/services up` and \
         `eval \"$(integration/services env)\"`",
    )
}

fn url(server: &OwnServer) -> String {
    format!("redis://:{PASSWORD}@127.0.0.1:{}/0", server.port)
}

/// A key of this test alone.
fn fresh(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{name}:{}:{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A sink that tries again at once, so that tests need not wait for it. It has patience with a server that
/// is slow: what it gave up on and sent again would be there twice.
fn config(url: &str, more: &Value) -> Value {
    let mut sink = json!({"url": url});
    sink.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "redis": {"r": sink},
        "retry_backoff_max": "200ms",
        "circuit_breaker": {"failure_threshold": 0},
        "delivery_timeout_seconds": 60,
    })
}

/// A sink that soon gives up on a server that does not answer.
async fn hasty(url: &str, more: &Value) -> Sinks {
    let mut config = config(url, more);
    config["delivery_timeout_seconds"] = json!(2);
    sinks::connect(config).await.unwrap().sinks
}

async fn sink(url: &str) -> Sinks {
    sink_with(url, &json!({})).await
}

async fn sink_with(url: &str, more: &Value) -> Sinks {
    sinks::connect(config(url, more)).await.unwrap().sinks
}

/// What somebody else sees.
struct Outside(Connection);

impl Outside {
    fn of(url: &str) -> Self {
        let connected = || redis::Client::open(url)?.get_connection();
        Self(until("a connection", SOON, connected))
    }

    fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.0).unwrap()
    }

    fn tell(&mut self, words: &[&str]) {
        let _: redis::Value = self.ask(words);
    }

    fn list(&mut self, key: &str) -> Vec<String> {
        self.ask(&["LRANGE", key, "0", "-1"])
    }
}

async fn delivered(sinks: &Sinks, payloads: Vec<RedisPayload>) {
    for settled in sinks::deliver_all(sinks, payloads).await {
        assert_eq!(settled, Settled::Confirmed);
    }
}

/// Delivers in the background.
fn delivering(sinks: &Sinks, payloads: Vec<RedisPayload>) -> JoinHandle<Vec<Settled>> {
    let sinks = sinks.clone();
    tokio::spawn(async move { sinks::deliver_all(&sinks, payloads).await })
}

/// Waits until the sink holds something.
async fn holds(sinks: &Sinks) {
    let looked = async {
        while sinks.held().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, looked).await.expect("the sink holds nothing");
}

async fn ends_well(delivering: JoinHandle<Vec<Settled>>) {
    let settled = timeout(SOON, delivering).await.expect("it recovers by itself").unwrap();
    assert!(settled.iter().all(|of| *of == Settled::Confirmed), "{settled:?}");
}

fn refused(settled: &Settled) -> &Refused {
    match settled {
        Settled::Refused(refused) => refused,
        Settled::Confirmed => panic!("it was accepted"),
    }
}

/// `count` pushes to one list.
fn pushes(key: &str, count: u32) -> Vec<RedisPayload> {
    (0..count).map(|number| RedisPayload::rpush(key.to_owned(), [number.to_string()])).collect()
}

fn numbers(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}
