//! The MongoDB sink against a server that speaks MongoDB's protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what goes wrong in a test must stop it where it happens"
)]

mod writes; // what is stored, what is refused
mod outages; // a server that is away, slow, killed
mod start; // what is said when it cannot be connected

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use drakkar_core::{MongoPayload, Payload, SinkError, SinkName, observe::SinkObserver};
use drakkar_integration::{
    OwnServer, SOON,
    sinks::{connect_observed, deliver_all},
};
use drakkar_sinks::{Settled, Sinks};
use futures_util::TryStreamExt;
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};
use serde_json::{Value, json};

/// What must never be shown; `integration/mongo/server` has it too.
const PASSWORD: &str = "drakkar-test-secret";

/// A database of a test's own.
struct Place {
    uri: String,
    database: String,
}

impl Place {
    /// On the server that all tests share.
    fn shared() -> Self {
        Self::at(std::env::var("DRAKKAR_TEST_MONGO").expect("integration/services env"))
    }

    fn on(server: &OwnServer) -> Self {
        Self::at(format!("mongodb://drakkar:{PASSWORD}@127.0.0.1:{}/", server.port))
    }

    fn at(uri: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { uri, database: format!("test_{}_{count}", std::process::id()) }
    }

    /// A collection, as somebody outside sees it.
    async fn collection(&self, name: &str) -> Collection<Document> {
        let client = Client::with_uri_str(&self.uri).await.unwrap();
        client.database(&self.database).collection(name)
    }

    /// All of a collection, by `_id`.
    async fn all(&self, name: &str) -> Vec<Document> {
        let found = self.collection(name).await.find(doc! {}).sort(doc! {"_id": 1}).await;
        found.unwrap().try_collect().await.unwrap()
    }

    /// The values of `n`, in order.
    async fn numbers(&self, name: &str) -> Vec<i32> {
        let mut numbers: Vec<i32> =
            self.all(name).await.iter().map(|found| found.get_i32("n").unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// `sinks.mongo.m`, with `more`.
    fn config(&self, more: Value) -> Value {
        let mut mongo = json!({"uri": self.uri, "database": self.database});
        let Value::Object(more) = more else { panic!("{more}") };
        mongo.as_object_mut().unwrap().extend(more);
        json!({
            "mongo": {"m": mongo},
            "retry_backoff_max": "200ms",
            "delivery_timeout_seconds": "60s", // Not every write may be made twice.
            "circuit_breaker": {"failure_threshold": 0},
        })
    }

    async fn connect(&self, more: Value) -> (Sinks, Arc<Heard>) {
        connected(self.config(more)).await
    }

    /// A sink that soon gives up on a server that does not answer.
    async fn connect_hasty(&self, more: Value) -> (Sinks, Arc<Heard>) {
        let mut config = self.config(more);
        config["delivery_timeout_seconds"] = json!(3);
        connected(config).await
    }
}

async fn connected(config: Value) -> (Sinks, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let connected = connect_observed(config, SOON, heard.clone()).await;
    (connected.unwrap().sinks, heard)
}

/// What the sink said when it could not write, for now and for good.
#[derive(Default)]
struct Heard(Mutex<Vec<(SinkError, bool)>>);

impl SinkObserver for Heard {
    fn refused(&self, _: &SinkName, error: &SinkError, held: bool) {
        self.0.lock().unwrap().push((error.clone(), held));
    }
}

impl Heard {
    /// Whether something is held by now.
    fn held(&self) -> Result<(), &'static str> {
        let heard = self.0.lock().unwrap();
        if heard.iter().any(|(_, held)| *held) { Ok(()) } else { Err("nothing was refused") }
    }

    /// Nothing was given up, and no secret was said.
    #[track_caller]
    fn only_held(&self) {
        for (error, held) in &*self.0.lock().unwrap() {
            assert!(*held, "{error}");
            assert!(!error.to_string().contains(PASSWORD), "{error}");
        }
    }
}

fn numbered(n: i32) -> MongoPayload {
    MongoPayload::insert("c", &json!({"n": n})).unwrap()
}

/// Delivers at once; the class of each that was refused for good, by its place.
async fn refused(
    sinks: &Sinks,
    payloads: impl IntoIterator<Item = impl Into<Payload>>,
) -> Vec<(usize, String)> {
    let settled = deliver_all(sinks, payloads).await.into_iter().enumerate();
    let classes = settled.filter_map(|(place, settled)| match settled {
        Settled::Confirmed => None,
        Settled::Refused(refused) => Some((place, refused.error.class)),
    });
    classes.collect()
}

/// Does `work`, which blocks, on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    answer.await.unwrap()
}

/// Longer than a test may need for what it waits for.
const LONG: Duration = SOON;
