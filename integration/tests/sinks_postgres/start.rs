//! What a worker is told before it starts.

use std::time::Duration;

use drakkar_integration::{OwnServer, SOON, sinks};
use drakkar_sinks::ConnectError;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::Instant;

use crate::{Db, on_thread};

const SECRET: &str = "tell-nobody";

fn at(address: &str) -> Value {
    json!({"postgres": {"db": {"dsn": format!("postgres://drakkar:{address}")}}})
}

async fn error(config: Value, within: Duration) -> String {
    match sinks::connect_within(config, within).await {
        Ok(_) => panic!("connected"),
        Err(error) => {
            let text = format!("{error} {error:?}");
            assert!(text.starts_with("sinks.postgres.db: "), "{text}");
            assert!(matches!(error, ConnectError::Server { .. }), "{text}");
            assert!(!text.contains(SECRET), "{text}");
            text
        }
    }
}

fn shared() -> String {
    let dsn = std::env::var("DRAKKAR_TEST_POSTGRES").unwrap();
    dsn.split_once('@').unwrap().1.to_owned()
}

#[tokio::test]
async fn a_server_that_is_down_is_an_error_in_bounded_time_that_names_the_key() {
    let server = OwnServer::down("postgres");
    let address = format!("{SECRET}@127.0.0.1:{}/postgres", server.port);
    let begun = Instant::now();
    let text = error(at(&address), Duration::from_millis(700)).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(text.contains(&format!("127.0.0.1:{}, database postgres", server.port)), "{text}");
    assert!(text.contains("no answer within 700ms"), "{text}");
}

#[tokio::test]
async fn a_server_that_comes_up_while_we_wait_is_connected() {
    let server = OwnServer::down("postgres");
    let address = format!("{SECRET}@127.0.0.1:{}/postgres", server.port);
    let starting = on_thread(move || {
        server.restart();
        server
    });
    let (connected, server) = tokio::join!(sinks::connect(at(&address)), starting);
    assert!(connected.is_ok());
    drop(server);
}

#[tokio::test]
async fn wrong_credentials_and_a_database_that_does_not_exist_are_said_at_once() {
    let shared = shared();
    let begun = Instant::now();
    let text = error(at(&format!("{SECRET}-else@{shared}")), SOON).await;
    assert!(text.contains("password authentication failed for user \"drakkar\""), "{text}");
    let elsewhere = shared.replace("/postgres", "/nowhere");
    let text = error(at(&format!("{SECRET}@{elsewhere}")), SOON).await;
    assert!(text.contains("database \"nowhere\" does not exist"), "{text}");
    assert!(begun.elapsed() < SOON, "they were tried again and again: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_with_its_key_and_without_its_secret() {
    for (config, begins) in [
        (json!({}), "sinks.postgres.db.dsn: is required"),
        (json!({"dsn": "tell-nobody"}), "sinks.postgres.db.dsn: does not begin with"),
        (
            json!({"dsn": "postgres://u:tell-nobody@h/d", "statements": {"s": "SELECT $1"}}),
            "sinks.postgres.db.statements.s: uses $1",
        ),
        (
            json!({"dsn": "postgres://u:tell-nobody@h/d", "pool_min": 3, "pool_max": 2}),
            "sinks.postgres.db.pool_max: must not be less than",
        ),
        (
            json!({"dsn": "postgres://u:tell-nobody@h/d", "statement_timeout": 29}),
            "sinks.postgres.db.statement_timeout: must not be longer",
        ),
    ] {
        let connected = sinks::connect(json!({"postgres": {"db": config}})).await;
        let Err(error) = connected else { panic!("connected") };
        let text = format!("{error} {error:?}");
        assert!(text.starts_with(begins) && !text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn the_handler_gets_the_pool_under_the_name_of_the_sink() {
    let db = Db::new().await;
    let connected = sinks::connect(db.config(&json!({}))).await.unwrap();
    let pool = connected.ready.sink::<PgPool>("db").unwrap();
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(pool).await.unwrap();
    assert_eq!(one, 1);
    let limit: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(pool).await.unwrap();
    assert_eq!(limit, "10s");
}
