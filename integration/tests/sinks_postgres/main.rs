//! The PostgreSQL sink against a real server: what arrives, what is refused, what is held, and what
//! becomes of it when the server goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers outside of test functions")]

use std::sync::atomic::{AtomicUsize, Ordering};

use drakkar_core::{PostgresPayload, SinkError};
use drakkar_integration::sinks;
use drakkar_sinks::{Settled, Sinks};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, Postgres, postgres::PgPoolOptions};

mod types; // every type arrives as it was given
mod rows; // what is done with rows, and which of them are refused
mod statements; // SQL of the configuration
mod faults; // the server goes away, or is slow
mod start; // what a worker is told before it starts

/// A schema of a test's own, seen by somebody beside the sink.
pub(crate) struct Db {
    pub(crate) dsn: String,
    pub(crate) pool: PgPool,
    pub(crate) schema: String,
}

impl Db {
    /// On the server that all tests share.
    pub(crate) async fn new() -> Self {
        let dsn = std::env::var("DRAKKAR_TEST_POSTGRES").expect("run `integration/services up`");
        Self::on(dsn).await
    }

    pub(crate) async fn on(dsn: String) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("s{}_{next}", std::process::id());
        let pool = PgPoolOptions::new().max_connections(3).connect_lazy(&dsn).unwrap();
        let db = Self { dsn, pool, schema };
        db.run("DROP SCHEMA IF EXISTS {s} CASCADE; CREATE SCHEMA {s}").await;
        db
    }

    /// Executes `sql`, `{s}` being the schema.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = sql.replace("{s}", &self.schema);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }

    /// The only value that `sql` answers with.
    pub(crate) async fn one<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + Send + Unpin,
    {
        let sql = sql.replace("{s}", &self.schema);
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// Everything in `table`, as JSON, in the order of the columns.
    pub(crate) async fn rows(&self, table: &str) -> Vec<Value> {
        let sql = format!("SELECT to_jsonb(t) FROM {}.{table} t ORDER BY t", self.schema);
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.pool).await.unwrap()
    }

    pub(crate) fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.schema)
    }

    /// The section `sinks:` with one sink, which is tried again soon.
    pub(crate) fn config(&self, more: &Value) -> Value {
        let mut sink = json!({"dsn": self.dsn, "pool_min": 0, "statements": {}});
        for (key, value) in more.as_object().unwrap() {
            sink[key] = value.clone();
        }
        json!({"postgres": {"db": sink}, "retry_backoff_max": "200ms",
               "circuit_breaker": {"failure_threshold": 0}})
    }

    /// The sink, connected.
    pub(crate) async fn sinks(&self, more: &Value) -> Sinks {
        sinks::connect(self.config(more)).await.unwrap().sinks
    }
}

/// Does `work`, which blocks, on a thread of its own.
pub(crate) async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (reply, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(reply.send(work())));
    answer.await.expect("the thread panicked")
}

/// Delivers all of it, and expects that nothing is refused.
pub(crate) async fn confirmed(sinks: &Sinks, payloads: Vec<PostgresPayload>) {
    for settled in sinks::deliver_all(sinks, payloads).await {
        assert_eq!(settled, Settled::Confirmed);
    }
}

/// Delivers all of it; the errors of those that are refused, by their place.
pub(crate) async fn refused(
    sinks: &Sinks,
    payloads: Vec<PostgresPayload>,
) -> Vec<(usize, SinkError)> {
    let settled = sinks::deliver_all(sinks, payloads).await.into_iter().enumerate();
    settled
        .filter_map(|(place, settled)| match settled {
            Settled::Confirmed => None,
            Settled::Refused(refused) => Some((place, refused.error)),
        })
        .collect()
}

/// The same, with the class of each error.
pub(crate) async fn classes(sinks: &Sinks, payloads: Vec<PostgresPayload>) -> Vec<(usize, String)> {
    let refused = refused(sinks, payloads).await.into_iter();
    refused.map(|(place, error)| (place, error.class)).collect()
}
