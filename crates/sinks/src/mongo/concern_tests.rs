//! A write concern that the server cannot meet is the operator's to change, not a payload's fault.

use drakkar_core::Secret;
use serde_json::json;

use super::*;

/// A sink whose server is as `hello` says, and refuses inserts with code 2 and `text`.
async fn connected(hello: &Document, parameters: &str, text: &str) -> Result<MongoSink, String> {
    let refusal = doc! {"ok": 0, "code": 2, "codeName": "BadValue", "errmsg": text};
    let refusal = RawDocumentBuf::try_from(&refusal).unwrap().into_bytes();
    let address = stand_in::start(hello, "insert", refusal);
    let uri = format!("mongodb://{address}/?{parameters}");
    let config = MongoSinkConfig {
        uri: Secret::from(&*uri),
        database: "d".to_owned(),
        ..MongoSinkConfig::default()
    };
    let connected = MongoSink::connect("sinks.mongo.m".to_owned(), &config, SELECTION).await;
    connected.map_err(|error| error.to_string())
}

/// What a server that has `key` in its hello, or is alone, is connected with.
async fn of_set(key: Option<(&str, &str)>, w: &str) -> Result<(), String> {
    let mut hello = stand_in::standalone();
    if let Some((key, value)) = key {
        hello.insert(key, value);
        hello.insert("hosts", ["127.0.0.1:1"].as_slice());
    }
    connected(&hello, &format!("{w}&directConnection=true"), "").await.map(drop)
}

#[tokio::test]
async fn more_members_than_a_server_has_are_refused_at_the_start_with_the_option() {
    let (set, router) = (Some(("setName", "rs0")), Some(("msg", "isdbgrid")));
    for (server, w) in [(None, "w=2"), (None, "w=dc"), (set, "w=51"), (router, "w=51")] {
        let error = of_set(server, w).await.unwrap_err();
        assert!(error.contains("sinks.mongo.m: "), "{error}");
        assert!(error.contains(&format!("{w} in uri")), "{error}");
    }
    for (server, w) in [(None, "w=1"), (None, "w=majority"), (set, "w=2"), (router, "w=dc")] {
        of_set(server, w).await.unwrap();
    }
}

#[tokio::test]
async fn documents_wait_while_the_server_cannot_write_as_it_is_asked_to() {
    let documents = [1, 2].map(|n| MongoPayload::insert("c", &json!({"n": n})).unwrap());
    for text in [
        "cannot use 'j' option when a host does not have journaling enabled",
        "cannot use 'w' > 1 when a host is not replicated",
        "cannot use non-majority 'w' mode \"dc\" when a host is not a member of a replica set",
    ] {
        let sink = connected(&stand_in::standalone(), "journal=true", text).await.unwrap();
        let outcomes = sink.deliver(&documents).await;
        let waits = |of: &Delivery| matches!(of, Delivery::Transient(error) if error.message.contains(text));
        assert!(outcomes.iter().all(waits), "{outcomes:?}");
    }
    let sink =
        connected(&stand_in::standalone(), "w=1", "cannot index parallel arrays").await.unwrap();
    let outcomes = sink.deliver(&documents).await;
    assert!(outcomes.iter().all(|of| matches!(of, Delivery::Permanent(_))), "{outcomes:?}");
}
