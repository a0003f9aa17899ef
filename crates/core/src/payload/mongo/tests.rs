//! What a payload for MongoDB refuses before it is sent, and what it makes of a document.

use std::error::Error;

use serde_json::{Value, json};

use super::*;

fn document(payload: &MongoPayload) -> (Value, bool) {
    let MongoWrite::Insert { document, generated_id, .. } = &payload.write else {
        panic!("{payload:?}");
    };
    (serde_json::from_str(document).unwrap(), *generated_id)
}

#[track_caller]
fn refused(made: Result<MongoPayload, PayloadError>, reason: &str) {
    let error = made.unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains(reason), "{source}");
}

#[test]
fn a_document_without_an_id_gets_one_that_no_other_has() {
    let mut seen = std::collections::BTreeSet::new();
    for what in [json!({}), json!({"n": 1}), json!({"n": 2})] {
        let (stored, generated) = document(&MongoPayload::insert("c", &what).unwrap());
        assert!(generated);
        let id = stored["_id"]["$oid"].as_str().unwrap().to_owned();
        assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(seen.insert(id));
        assert_eq!(stored["n"], what["n"]);
    }
}

#[test]
fn an_id_of_the_documents_own_is_kept() {
    let own = json!({"n": 1, "_id": "mine"});
    let (stored, generated) = document(&MongoPayload::insert("c", &own).unwrap());
    assert_eq!((stored, generated), (own, false));
}

#[test]
fn fields_keep_their_order() {
    #[derive(Serialize)]
    struct Row {
        z: u8,
        a: u8,
    }
    let payload = MongoPayload::replace("c", &Row { z: 1, a: 2 }, &Row { z: 3, a: 4 }).unwrap();
    let MongoWrite::Replace { filter, document, .. } = payload.write else { panic!() };
    assert_eq!((&*filter, &*document), (r#"{"z":1,"a":2}"#, r#"{"z":3,"a":4}"#));
}

#[test]
fn an_empty_filter_is_refused_wherever_there_is_one() {
    let (none, set) = (json!({}), json!({"$set": {"n": 1}}));
    refused(MongoPayload::delete("c", &none), "a filter must not be empty");
    refused(MongoPayload::delete_many("c", &none), "a filter must not be empty");
    refused(MongoPayload::update("c", &none, &set), "a filter must not be empty");
    refused(MongoPayload::update_many("c", &none, &set), "a filter must not be empty");
    refused(MongoPayload::upsert("c", &none, &set), "a filter must not be empty");
    refused(MongoPayload::replace("c", &none, &json!({"n": 1})), "a filter must not be empty");
    refused(MongoPayload::delete("c", &json!("all")), "a filter must be an object");
}

#[test]
fn what_would_be_taken_for_something_else_is_refused() {
    let one = json!({"_id": 1});
    for update in [json!({}), json!({"n": 1}), json!({"$set": {}, "n": 1}), json!([]), json!(1)] {
        refused(MongoPayload::update("c", &one, &update), "an update must be");
    }
    MongoPayload::update("c", &one, &json!([{"$set": {"n": 1}}])).unwrap();
    refused(MongoPayload::replace("c", &one, &json!({"$set": {}})), "must not have update op");
    refused(MongoPayload::insert("c", &json!([1])), "a document must be an object");
    refused(MongoPayload::statement("s", &json!(1)), "parameters must be an object");
}

#[test]
fn a_payload_survives_being_written_and_read() {
    let one = json!({"_id": {"$oid": "0123456789abcdef01234567"}});
    for payload in [
        MongoPayload::insert("c", &json!({"n": 1})).unwrap().sink("archive"),
        MongoPayload::replace_or_insert("c", &one, &json!({"n": 1})).unwrap(),
        MongoPayload::upsert("c", &one, &json!({"$inc": {"n": 1}})).unwrap(),
        MongoPayload::delete_many("c", &one).unwrap(),
        MongoPayload::statement("s", &json!({"a": 1})).unwrap(),
    ] {
        let text = serde_json::to_string(&payload).unwrap();
        assert_eq!(serde_json::from_str::<MongoPayload>(&text).unwrap(), payload);
        assert!(0 < payload.size());
    }
}
