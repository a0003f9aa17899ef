//! A server that is away, slow or killed costs time and no document, and makes none twice.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use drakkar_core::MongoPayload;
use drakkar_integration::{
    OwnServer,
    sinks::{blocked_after, connect},
    until,
};
use mongodb::{Database, bson::doc};
use serde_json::json;

use crate::{LONG, Place, aside, numbered, refused};

/// What is delivered while `trouble` goes on is stored once, all of it.
async fn survives(trouble: impl FnOnce(&OwnServer, &dyn Fn()) + Send + 'static) {
    let server = OwnServer::start("mongo");
    let place = Place::on(&server);
    let (sinks, heard) = place.connect_hasty(json!({"batch": {"max_items": 50}})).await;
    assert_eq!(refused(&sinks, [numbered(-1)]).await, []);
    let saw = heard.clone();
    let troubled = tokio::spawn(aside(move || {
        trouble(&server, &|| until("the sink to hold what it has", LONG, || saw.held()));
        server
    }));
    let mut next = 0;
    while !troubled.is_finished() {
        assert_eq!(refused(&sinks, (next..next + 200).map(numbered)).await, []);
        next += 200;
    }
    let _server = troubled.await.unwrap();
    assert_eq!(refused(&sinks, [numbered(next)]).await, []);
    heard.only_held();
    assert_eq!(heard.held(), Ok(()), "the trouble was felt");
    assert_eq!(place.numbers("c").await, (-1..=next).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_everything_is_held_and_goes_on_by_itself() {
    survives(|server, held| {
        server.stop();
        held();
        server.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_it_writes_stores_each_document_once() {
    survives(|server, held| {
        server.kill();
        held();
        server.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_counts_as_away_and_gets_each_document_once() {
    survives(|server, held| {
        server.signal("STOP");
        held();
        server.signal("CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_whose_answer_was_lost_is_confirmed_when_it_is_sent_again() {
    let server = OwnServer::start("mongo");
    let place = Place::on(&server);
    let (sinks, heard) = place.connect_hasty(json!({})).await;
    // Frozen with the command in its socket: it is carried out after the sink has given up on it.
    let own = MongoPayload::insert("c", &json!({"_id": 1, "n": 1})).unwrap();
    assert_eq!(refused(&sinks, [numbered(0)]).await, []);
    server.signal("STOP");
    let delivered = tokio::spawn(async move { refused(&sinks, [own, numbered(2)]).await });
    let saw = heard.clone();
    let _server = aside(move || {
        until("the sink to give up on the answer", LONG, || saw.held());
        server.signal("CONT");
        server
    })
    .await;
    assert_eq!(delivered.await.unwrap(), []);
    heard.only_held();
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_written_while_a_hook_that_used_connections_blocks_its_thread() {
    let place = Place::shared();
    let connected = connect(place.config(json!({}))).await.unwrap();
    let database = connected.ready.sink::<Database>("m").unwrap().clone();
    let release = blocked_after(async move {
        // More than there are connections, so that every one is in use when the thread stands still.
        let answered = Arc::new(AtomicU32::new(0));
        for _ in 0..20 {
            let (database, answered) = (database.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                while database.run_command(doc! {"ping": 1}).await.is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while answered.load(Ordering::Relaxed) < 1_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let written = refused(&connected.sinks, (0..20).map(numbered));
    assert_eq!(tokio::time::timeout(LONG, written).await.unwrap(), []);
    assert_eq!(place.numbers("c").await, (0..20).collect::<Vec<_>>());
    drop(release);
}
