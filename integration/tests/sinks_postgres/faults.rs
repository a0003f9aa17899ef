//! The server goes away, or is slow: rows are held, nothing is refused, and it goes on by itself.

use std::time::Duration;

use drakkar_core::PostgresPayload;
use drakkar_integration::{OwnServer, proc, sinks, wait};
use drakkar_sinks::{Settled, Sinks};
use serde_json::json;
use sqlx::PgPool;
use tokio::{task::JoinHandle, time::Instant};

use crate::{Db, on_thread, rows::held_back};

pub(crate) async fn own() -> (OwnServer, Db) {
    let server = on_thread(|| OwnServer::start("postgres")).await;
    let dsn = format!("postgres://drakkar:tell-nobody@127.0.0.1:{}/postgres", server.port);
    let db = Db::on(dsn).await;
    (server, db)
}

fn delivered(sinks: &Sinks, payloads: Vec<PostgresPayload>) -> JoinHandle<Vec<Settled>> {
    let sinks = sinks.clone();
    tokio::spawn(async move { sinks::deliver_all(&sinks, payloads).await })
}

async fn all_confirmed(deliveries: JoinHandle<Vec<Settled>>) {
    let settled = tokio::time::timeout(wait::SOON, deliveries).await.unwrap().unwrap();
    assert!(settled.iter().all(|settled| *settled == Settled::Confirmed), "{settled:?}");
}

/// Waits until `sql` answers with true.
async fn eventually(db: &Db, what: &str, sql: &str) {
    let deadline = Instant::now() + wait::SOON;
    while !db.one::<bool>(sql).await {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of a statement, where one is to reach it: no other does, on a slow machine either.
const LIMIT: &str = "2s";

/// The sink's connections that wait for a lock.
const WAITS: &str =
    "application_name = 'drakkar' AND wait_event_type = 'Lock' AND query LIKE '%{s}%'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_under_load_and_comes_back_gets_every_row_and_nothing_is_refused() {
    let (server, db) = own().await;
    db.run("CREATE TABLE {s}.t (id int PRIMARY KEY, n int)").await;
    let sinks = db.sinks(&json!({"statement_timeout": LIMIT, "batch": {"max_items": 50}})).await;
    let mut deliveries = Vec::new();
    for round in 0..6 {
        let row = |id: i32| {
            let row = json!({"id": round * 500 + id, "n": round});
            PostgresPayload::upsert(db.table("t"), &row, &["id"]).unwrap()
        };
        deliveries.push(delivered(&sinks, (0..500).map(row).collect()));
        match round {
            1 => server.kill(),
            2 => held_back(&sinks).await,
            3 => server.restart(),
            4 => server.stop(),
            _ => {}
        }
    }
    held_back(&sinks).await;
    server.restart();
    for deliveries in deliveries {
        all_confirmed(deliveries).await;
    }
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 3_000);
    assert!(sinks.held().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_while_no_row_is_for_it_is_noticed_and_so_is_its_return() {
    let (server, db) = own().await;
    let sinks = db.sinks(&json!({})).await;
    server.kill();
    held_back(&sinks).await;
    server.restart();
    let look = move || if sinks.held().is_empty() { Ok(()) } else { Err("it does not answer") };
    on_thread(move || wait::until("the server to be noticed again", wait::SOON, look)).await;
}

#[tokio::test]
async fn a_row_behind_a_lock_is_ended_by_the_server_tried_again_and_lands_once() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int)").await;
    let sinks = db.sinks(&json!({"statement_timeout": LIMIT})).await;
    let mut other = db.pool.begin().await.unwrap();
    let lock = format!("LOCK TABLE {}.t IN ACCESS EXCLUSIVE MODE", db.schema);
    sqlx::query(sqlx::AssertSqlSafe(lock)).execute(&mut *other).await.unwrap();
    let row = |id: i32| PostgresPayload::insert(db.table("t"), &json!({"id": id})).unwrap();
    let deliveries = delivered(&sinks, (0..100).map(row).collect());
    held_back(&sinks).await;
    other.rollback().await.unwrap();
    all_confirmed(deliveries).await;
    // No statement that was given up meanwhile has written them as well.
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 100);
}

#[tokio::test]
async fn a_connection_that_is_killed_mid_batch_leaves_nothing_half_written() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int PRIMARY KEY)").await;
    let sinks = db.sinks(&json!({})).await;
    // Somebody else is about to write row 50: the statement waits for him in its middle.
    let mut other = db.pool.begin().await.unwrap();
    let insert = format!("INSERT INTO {}.t VALUES (50)", db.schema);
    sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *other).await.unwrap();
    let row = |id: i32| PostgresPayload::insert(db.table("t"), &json!({"id": id})).unwrap();
    let deliveries = delivered(&sinks, (0..100).map(row).collect());
    let waits = format!("SELECT 0 < count(*) FROM pg_stat_activity WHERE {WAITS}");
    eventually(&db, "the statement to wait", &waits).await;
    let kill =
        format!("SELECT bool_and(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {WAITS}");
    assert!(db.one::<bool>(&kill).await);
    held_back(&sinks).await;
    other.rollback().await.unwrap();
    all_confirmed(deliveries).await;
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 100);
}

#[tokio::test]
async fn a_write_that_gets_no_answer_is_dropped_and_its_connection_is_not_used_again() {
    // A server of its own: a process that is frozen may hold up all others.
    let (_server, db) = own().await;
    db.run("CREATE TABLE {s}.t (id int PRIMARY KEY, n int)").await;
    let mut config = db.config(&json!({"statement_timeout": LIMIT, "pool_max": 1}));
    config["delivery_timeout_seconds"] = json!(5);
    let sinks = sinks::connect(config).await.unwrap().sinks;
    let row = |id: i32| {
        let row = json!({"id": id, "n": id});
        PostgresPayload::upsert(db.table("t"), &row, &["id"]).unwrap()
    };
    crate::confirmed(&sinks, vec![row(1)]).await;
    let of_sink = "SELECT pid FROM pg_stat_activity WHERE application_name = 'drakkar' \
                   AND query LIKE '%{s}%' AND state = 'idle'";
    let frozen = u32::try_from(db.one::<i32>(of_sink).await).unwrap();
    proc::signal(frozen, "STOP");
    let deliveries = delivered(&sinks, (2..50).map(row).collect());
    held_back(&sinks).await;
    all_confirmed(deliveries).await;
    proc::signal(frozen, "CONT");
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 49);
    let gone = format!("SELECT 0 = count(*) FROM pg_stat_activity WHERE pid = {frozen}");
    eventually(&db, "the connection to be gone", &gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_noticed_before_a_row_is_and_so_is_its_return() {
    let (server, db) = own().await;
    let sinks = db.sinks(&json!({})).await;
    for (setting, held) in [("on", true), ("off", false)] {
        for sql in [
            format!("ALTER SYSTEM SET default_transaction_read_only = {setting}"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            let mut session = db.pool.acquire().await.unwrap();
            sqlx::raw_sql("SET default_transaction_read_only = off")
                .execute(&mut *session)
                .await
                .unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *session).await.unwrap();
        }
        let sinks = sinks.clone();
        let look = move || if sinks.held().is_empty() == held { Err("not yet") } else { Ok(()) };
        on_thread(move || wait::until("the sink to notice", wait::SOON, look)).await;
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_while_a_hook_that_used_connections_blocks_its_thread() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int)").await;
    // Whoever is kept waiting waits for longer than the test.
    let mut config = db.config(&json!({"pool_max": 2, "statement_timeout": "10m"}));
    config["delivery_timeout_seconds"] = json!("1h");
    let connected = sinks::connect(config).await.unwrap();
    let pool = connected.ready.sink::<PgPool>("db").unwrap().clone();
    let release = sinks::blocked_after(async move {
        let used = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        drop(used);
        while pool.num_idle() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let rows: Vec<_> = (0..100)
        .map(|id| PostgresPayload::insert(db.table("t"), &json!({"id": id})).unwrap())
        .collect();
    all_confirmed(delivered(&connected.sinks, rows)).await;
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 100);
    drop(release);
}
