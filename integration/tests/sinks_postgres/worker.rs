//! A real worker process, whose server dies and comes back.

use drakkar_core::PostgresPayload;
use drakkar_integration::{Act, Order, World};
use serde_json::json;

use crate::{faults::own, on_thread};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_database_dies_commits_nothing_that_is_not_in_it_and_goes_on_by_itself() {
    let (server, db) = own().await;
    db.run("CREATE TABLE {s}.t (id text PRIMARY KEY)").await;
    let (dsn, table) = (db.dsn.clone(), db.table("t"));
    let server = on_thread(move || {
        let world = World::new(2)
            .with("sinks.postgres", json!({"db": {"dsn": dsn, "statement_timeout": 2}}))
            .with("sinks.circuit_breaker", json!({"failure_threshold": 0}));
        let worker = world.start();
        let give = |round: usize| {
            world.give((0..100).map(|number| {
                let id = format!("{round}-{number}");
                let row = PostgresPayload::upsert(&table, &json!({"id": id}), &["id"]).unwrap();
                Order::new(id, Act::Precomputed).beside(row).given()
            }));
        };
        give(0);
        world.drained();
        server.kill();
        give(1);
        server.restart();
        world.drained();
        let books = world.books();
        books.balance();
        drop(worker);
        server
    })
    .await;
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 200);
    drop(server);
}
