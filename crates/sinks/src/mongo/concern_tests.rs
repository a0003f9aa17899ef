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

#[tokio::test]
async fn more_members_than_a_server_alone_can_have_are_refused_at_the_start_with_the_option() {
    for w in ["w=2", "w=dc"] {
        let alone = connected(&stand_in::standalone(), w, "").await;
        let error = alone.err().unwrap();
        assert!(
            error.contains("sinks.mongo.m") && error.contains(&format!("{w} in uri")),
            "{error}"
        );
        for (key, value) in [("setName", "rs0"), ("msg", "isdbgrid")] {
            let mut hello = stand_in::standalone();
            hello.insert(key, value);
            hello.insert("hosts", ["127.0.0.1:1"].as_slice());
            let parameters = format!("{w}&directConnection=true");
            connected(&hello, &parameters, "").await.map(drop).unwrap();
        }
    }
    for w in ["w=1", "w=majority"] {
        connected(&stand_in::standalone(), w, "").await.map(drop).unwrap();
    }
    let error = connected(&stand_in::standalone(), "w=51", "").await.err().unwrap();
    assert!(error.contains("w=51 in uri"), "{error}");
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
