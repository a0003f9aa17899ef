//! SQL of the configuration.

use drakkar_core::PostgresPayload;
use drakkar_integration::{SOON, sinks, until};
use serde_json::{Value, json};

use crate::{Db, classes, confirmed, on_thread};

fn call(name: &str, params: &Value) -> PostgresPayload {
    PostgresPayload::statement(name, params).unwrap()
}

async fn stock() -> Db {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE {s}.stock (id int PRIMARY KEY, n int CHECK (0 <= n), tags text[], doc jsonb, \
         at timestamptz); INSERT INTO {s}.stock (id, n) SELECT g, 10 FROM generate_series(1, 20) g",
    )
    .await;
    db
}

#[tokio::test]
async fn a_statement_gets_its_parameters_by_name_with_the_types_that_the_server_expects() {
    let db = stock().await;
    let sql = "UPDATE {s}.stock SET n = n - :by, tags = :tags, doc = :doc, at = :at::timestamptz \
               -- :not 'this\n WHERE id = ANY(:ids) AND ':by' = $$:by$$;"
        .replace("{s}", &db.schema);
    let sinks = db.sinks(&json!({"statements": {"take": sql}})).await;
    let params = json!({
        "by": 3, "tags": ["a", "b'"], "doc": {"a": null}, "at": "2026-01-01T00:00:00Z", "ids": [1, 2],
        "more": "is not asked for",
    });
    confirmed(&sinks, vec![call("take", &params)]).await;
    let taken = "SELECT count(*) FROM {s}.stock WHERE n = 7 AND tags = '{a,b''}' \
                 AND doc = '{\"a\": null}' AND at = '2026-01-01T00:00:00Z' AND id IN (1, 2)";
    assert_eq!(db.one::<i64>(taken).await, 2);
}

#[tokio::test]
async fn of_many_calls_only_the_one_at_fault_is_refused_and_the_others_are_done_once() {
    let db = stock().await;
    let sql = "UPDATE {s}.stock SET n = n - :by WHERE id = :id".replace("{s}", &db.schema);
    let sinks = db.sinks(&json!({"statements": {"take": sql}})).await;
    let by = |id: i32| if id == 13 { 11 } else { 4 };
    let calls = (1..=20).map(|id| call("take", &json!({"id": id, "by": by(id)})));
    assert_eq!(classes(&sinks, calls.collect()).await, [(12, "23514".to_owned())]);
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.stock WHERE n = 6").await, 19);
    assert_eq!(db.one::<i32>("SELECT n FROM {s}.stock WHERE id = 13").await, 10);
}

#[tokio::test]
async fn a_value_is_never_sql() {
    let db = stock().await;
    let sql = "UPDATE {s}.stock SET tags = ARRAY[:tag] WHERE id = 1".replace("{s}", &db.schema);
    let sinks = db.sinks(&json!({"statements": {"tag": sql}})).await;
    let evil = "'] ; DROP TABLE stock; --";
    confirmed(&sinks, vec![call("tag", &json!({"tag": evil}))]).await;
    assert_eq!(db.one::<String>("SELECT tags[1] FROM {s}.stock WHERE id = 1").await, evil);
}

#[tokio::test]
async fn a_type_that_was_changed_meanwhile_does_not_cost_a_payload() {
    let db = stock().await;
    let sql = "UPDATE {s}.stock SET n = :n WHERE id = 1".replace("{s}", &db.schema);
    let sinks = db.sinks(&json!({"statements": {"set": sql}})).await;
    confirmed(&sinks, vec![call("set", &json!({"n": 1}))]).await;
    db.run("ALTER TABLE {s}.stock ALTER n TYPE bigint").await;
    confirmed(&sinks, vec![call("set", &json!({"n": 5_000_000_000_i64}))]).await;
    assert_eq!(db.one::<i64>("SELECT n FROM {s}.stock WHERE id = 1").await, 5_000_000_000);
}

#[tokio::test]
async fn a_statement_that_the_server_does_not_understand_stops_the_start() {
    let db = stock().await;
    let config = db.config(&json!({"statements": {"wrong": "UPDATE SET"}}));
    let Err(error) = sinks::connect(config).await else { panic!("connected") };
    let text = error.to_string();
    assert!(text.starts_with("sinks.postgres.db: ") && text.contains("\"wrong\""), "{text}");
    assert!(text.contains("syntax error") && !text.contains("tell-nobody"), "{text}");
    // A table that does not exist yet may come.
    let late = db.config(&json!({"statements": {"late": "DELETE FROM nowhere.late"}}));
    assert!(sinks::connect(late).await.is_ok());
}

#[tokio::test]
async fn a_statement_that_a_migration_has_broken_holds_its_payloads_until_it_works_again() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int, n int)").await;
    let sql = format!("INSERT INTO {} (id, n) VALUES (:id, :n)", db.table("t"));
    let sinks = db.sinks(&json!({"statements": {"add": sql}})).await;
    let add = |id: i32| call("add", &json!({"id": id, "n": 1}));
    confirmed(&sinks, vec![add(1)]).await;
    db.run("ALTER TABLE {s}.t RENAME COLUMN n TO m").await;
    let held = {
        let sinks = sinks.clone();
        let payloads = vec![add(2), add(3)];
        tokio::spawn(async move { confirmed(&sinks, payloads).await })
    };
    let waited = sinks.clone();
    on_thread(move || {
        until("the sink to hold", SOON, || match waited.held() {
            held if held.is_empty() => Err("nothing is held"),
            _ => Ok(()),
        });
    })
    .await;
    db.run("ALTER TABLE {s}.t RENAME COLUMN m TO n").await;
    held.await.unwrap();
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 3);
}
