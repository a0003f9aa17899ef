//! A sink that cannot be connected stops the start with its key, and without its secrets.

use std::time::Duration;

use drakkar_integration::{
    OwnServer, SOON,
    sinks::{connect, connect_within},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{PASSWORD, Place, aside, numbered, refused};

/// What is said when `uri` cannot be connected.
async fn said(uri: &str, within: Duration) -> String {
    let place = Place::at(uri.to_owned());
    match connect_within(place.config(json!({})), within).await {
        Ok(_) => panic!("connected"),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_when_the_time_is_over() {
    let server = OwnServer::down("mongo");
    let began = Instant::now();
    let place = Place::on(&server);
    let error = said(&place.uri, Duration::from_secs(4)).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let address = format!("sinks.mongo.m: MongoDB at 127.0.0.1:{}: no answer within", server.port);
    assert!(error.starts_with(&address), "{error}");
    assert!(error.contains("refused") && !error.contains(PASSWORD), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_late_is_waited_for() {
    let server = OwnServer::down("mongo");
    let place = Place::on(&server);
    let config = place.config(json!({}));
    let starting = aside(move || {
        server.restart();
        server
    });
    let (connected, server) = tokio::join!(connect(config), starting);
    let (sinks, _server) = (connected.unwrap().sinks, server);
    assert_eq!(refused(&sinks, [numbered(1)]).await, []);
}

#[tokio::test]
async fn wrong_credentials_are_said_at_once_and_not_repeated() {
    let right = Place::shared().uri;
    for (from, to) in [(PASSWORD, "hunter2-wrong"), ("drakkar:drakkar", "nobody:hunter2-drakkar")] {
        let error = said(&right.replace(from, to), LATE).await;
        assert!(error.starts_with("sinks.mongo.m: MongoDB at 127.0.0.1:"), "{error}");
        assert!(error.contains("we are not let in"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn no_credentials_where_some_are_needed_are_said_at_once() {
    let uri = Place::shared().uri;
    let (_, host) = uri.split_once('@').unwrap();
    let error = said(&format!("mongodb://{host}"), LATE).await;
    assert!(error.contains("we are not let in"), "{error}");
}

#[tokio::test]
async fn a_connection_string_that_is_none_does_not_show_what_it_holds() {
    for uri in [
        "mongodb://user:hunter2/secret@host:1/",
        "mongodb://user:hunter2",
        "mongodb://user:hunter2@host:hunter2/",
        "mongodb://user:hunter2@host:1/?authMechanism=hunter2",
        "mongodb://user:%zzhunter2@host:1/",
    ] {
        let error = said(uri, LATE).await;
        assert!(error.contains("uri is no connection string"), "{uri}: {error}");
        assert!(!error.contains("hunter2"), "{uri}: {error}");
    }
}

#[tokio::test]
async fn a_write_concern_that_confirms_nothing_is_refused() {
    let uri = format!("{}?w=0", Place::shared().uri);
    let error = said(&uri, LATE).await;
    assert!(error.contains("w=0 in uri"), "{error}");
}

#[tokio::test]
async fn the_handler_is_given_the_database() {
    let place = Place::shared();
    let connected = connect(place.config(json!({}))).await.unwrap();
    assert_eq!(refused(&connected.sinks, [numbered(7)]).await, []);
    let database = connected.ready.sink::<mongodb::Database>("m").unwrap();
    assert_eq!(database.list_collection_names().await.unwrap(), ["c"]);
}

/// What is certain is not waited for so long.
const LATE: Duration = Duration::from_mins(5);
