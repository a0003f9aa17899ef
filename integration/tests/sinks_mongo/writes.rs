//! What is stored, and what is refused without a neighbour noticing.

use drakkar_core::MongoPayload;
use drakkar_integration::sinks::deliver_by_tasks;
use drakkar_sinks::Settled;
use mongodb::bson::{self, Bson, doc};
use serde_json::json;

use crate::{Place, numbered, refused};

#[tokio::test]
async fn documents_have_the_types_that_their_json_stands_for_and_keep_the_order_of_fields() {
    let place = Place::shared();
    let (sinks, _) = place.connect(json!({})).await;
    let all = doc! {
        "_id": bson::oid::ObjectId::new(),
        "z": "text", "y": 1, "x": -1, "w": 5_000_000_000_i64, "v": 1.5, "u": true, "t": Bson::Null,
        "s": bson::DateTime::from_millis(1_700_000_000_000),
        "r": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255] },
        "q": [1, "two", {"three": 3}], "p": {"b": 1, "a": 2},
    };
    let mut json = serde_json::to_value(&all).unwrap();
    // The driver's own type for bytes serialises as an array of numbers.
    json["r"] = json!({"$binary": {"base64": "AP8=", "subType": "00"}});
    let payload = MongoPayload::insert("c", &json).unwrap();
    assert_eq!(refused(&sinks, [payload]).await, []);
    assert_eq!(place.all("c").await, [all]);
    let rest = doc! {
        "_id": 1,
        "timestamp": Bson::Timestamp(bson::Timestamp { time: 1_700_000_000, increment: 7 }),
        "pattern": bson::Regex { pattern: "^a.*z$".try_into().unwrap(), options: "i".try_into().unwrap() },
        "id": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: (0..16).collect() },
    };
    let json = json!({
        "_id": 1,
        "timestamp": {"$timestamp": {"t": 1_700_000_000, "i": 7}},
        "pattern": {"$regularExpression": {"pattern": "^a.*z$", "options": "i"}},
        "id": {"$uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f"},
    });
    assert_eq!(refused(&sinks, [MongoPayload::insert("rest", &json).unwrap()]).await, []);
    assert_eq!(place.all("rest").await, [rest]);
    let ordered = MongoPayload::insert("ordered", &doc! {"_id": 1, "z": 1, "a": 2}).unwrap();
    assert_eq!(refused(&sinks, [ordered]).await, []);
    let stored = place.all("ordered").await;
    assert_eq!(stored[0].keys().collect::<Vec<_>>(), ["_id", "z", "a"]);
}

#[tokio::test]
async fn every_write_does_what_it_is_called_in_the_order_of_payloads() {
    let place = Place::shared();
    let (sinks, _) = place.connect(json!({})).await;
    let by = |id: &str| json!({"_id": id});
    let group = json!({"group": 1});
    let payloads = [
        MongoPayload::insert("c", &json!({"_id": "a", "n": 1, "group": 1})),
        MongoPayload::insert("c", &json!({"_id": "b", "n": 1, "group": 1})),
        MongoPayload::update("c", &by("a"), &json!({"$inc": {"n": 1}})),
        MongoPayload::update_many("c", &group, &json!({"$set": {"seen": true}})),
        MongoPayload::upsert("c", &by("c"), &json!({"$set": {"n": 3}})),
        MongoPayload::upsert("c", &by("c"), &json!({"$inc": {"n": 1}})),
        MongoPayload::replace("c", &by("b"), &json!({"n": 9})),
        MongoPayload::replace("c", &by("nobody"), &json!({"n": 9})),
        MongoPayload::replace_or_insert("c", &by("d"), &json!({"n": 4})),
        MongoPayload::insert("c", &json!({"_id": "e", "group": 2})),
        MongoPayload::insert("c", &json!({"_id": "f", "group": 2})),
        MongoPayload::insert("c", &json!({"_id": "g"})),
        MongoPayload::delete("c", &by("g")),
        MongoPayload::delete_many("c", &json!({"group": 2})),
    ];
    assert_eq!(refused(&sinks, payloads.map(Result::unwrap)).await, []);
    let expected = [
        doc! {"_id": "a", "n": 2, "group": 1, "seen": true},
        doc! {"_id": "b", "n": 9},
        doc! {"_id": "c", "n": 4},
        doc! {"_id": "d", "n": 4},
    ];
    assert_eq!(place.all("c").await, expected);
}

#[tokio::test]
async fn a_statement_is_filled_in_and_a_parameter_cannot_widen_it() {
    let place = Place::shared();
    let (sinks, _) = place
        .connect(json!({"statements": {
            "seen": {"collection": "c", "op": "upsert", "filter": {"_id": ":id"},
                     "update": {"$set": {"at": ":at"}, "$inc": {"n": 1}}},
            "forget": {"collection": "c", "op": "delete_one", "filter": {"_id": ":id"}},
        }}))
        .await;
    let at = json!({"$date": "2023-11-14T22:13:20Z"});
    let payloads = [
        MongoPayload::statement("seen", &json!({"id": 1, "at": at})),
        MongoPayload::statement("seen", &json!({"id": 1, "at": at})),
        MongoPayload::statement("seen", &json!({"id": 2, "at": at})),
        MongoPayload::statement("forget", &json!({"id": {"$ne": null}})),
        MongoPayload::statement("forget", &json!({})),
        MongoPayload::statement("drop", &json!({})),
        MongoPayload::statement("forget", &json!({"id": 2})),
    ];
    let wrong = [(3, "wrong_parameter"), (4, "wrong_parameter"), (5, "unknown_statement")];
    let classes = refused(&sinks, payloads.map(Result::unwrap)).await;
    assert_eq!(classes, wrong.map(|(place, class)| (place, class.to_owned())));
    let date = bson::DateTime::from_millis(1_700_000_000_000);
    assert_eq!(place.all("c").await, [doc! {"_id": 1, "at": date, "n": 2}]);
}

/// Good and bad writes side by side, in one batch.
async fn only_the_bad_ones_are_refused(ordered: bool) {
    let place = Place::shared();
    let (sinks, heard) =
        place.connect(json!({"ordered": ordered, "batch": {"linger": "200ms"}})).await;
    let taken = MongoPayload::insert("c", &json!({"_id": "taken", "n": -1})).unwrap();
    assert_eq!(refused(&sinks, [taken]).await, []);
    let mut payloads: Vec<MongoPayload> = (0..100).map(numbered).collect();
    let bad = [
        (3, "DuplicateKey", MongoPayload::insert("c", &json!({"_id": "taken", "n": 0}))),
        (4, "DuplicateKey", MongoPayload::insert("c", &json!({"_id": "taken", "n": 0}))),
        (50, "invalid_document", MongoPayload::insert("c", &json!({"at": {"$date": "soon"}}))),
        (
            70,
            "BSONObjectTooLarge",
            MongoPayload::insert("c", &json!({"text": "x".repeat(17 << 20)})),
        ),
    ];
    let expected: Vec<(usize, String)> =
        bad.iter().map(|(place, class, _)| (*place, (*class).to_owned())).collect();
    for (place, _, payload) in bad {
        payloads[place] = payload.unwrap();
    }
    assert_eq!(refused(&sinks, payloads).await, expected);
    let good: Vec<i32> = (-1..100).filter(|n| ![3, 4, 50, 70].contains(n)).collect();
    assert_eq!(place.numbers("c").await, good);
    let heard = heard.0.lock().unwrap();
    // On a slow machine some may wait for the next write, because those before them took long.
    let again = heard.iter().find(|(error, held)| *held && error.class != "slow");
    assert!(again.is_none(), "nothing was tried again: {again:?}");
}

#[tokio::test]
async fn a_write_that_is_refused_costs_no_other() {
    only_the_bad_ones_are_refused(true).await;
}

#[tokio::test]
async fn a_write_that_is_refused_costs_no_other_without_order_either() {
    only_the_bad_ones_are_refused(false).await;
}

#[tokio::test]
async fn an_update_that_makes_no_sense_is_refused_and_those_around_it_are_carried_out() {
    let place = Place::shared();
    // One by one: of several, this server calls the first the bad one, whichever it is.
    let (sinks, _) = place.connect(json!({"batch": {"max_items": 1}})).await;
    let by = |id: i32| json!({"_id": id});
    let count =
        |id, by_what| MongoPayload::upsert("c", &by(id), &json!({"$inc": {"n": by_what}})).unwrap();
    let unknown = MongoPayload::update("c", &by(1), &json!({"$frobnicate": {"n": 1}})).unwrap();
    let wrong = MongoPayload::update("c", &by(1), &json!({"$inc": {"n": "one"}})).unwrap();
    let payloads = [count(1, 1), unknown, count(2, 2), wrong, count(3, 3)];
    let classes = refused(&sinks, payloads).await;
    let expected = [(1, "FailedToParse".to_owned()), (3, "TypeMismatch".to_owned())];
    assert_eq!(classes, expected);
    assert_eq!(place.numbers("c").await, [1, 2, 3]);
}

#[tokio::test]
async fn a_document_that_is_sent_again_is_stored_once() {
    let place = Place::shared();
    let (sinks, _) = place.connect(json!({})).await;
    let generated = numbered(1);
    let own = MongoPayload::insert("c", &json!({"n": 2, "_id": "own"})).unwrap();
    let other = MongoPayload::insert("c", &json!({"n": 3, "_id": "own"})).unwrap();
    let again = [generated.clone(), own.clone(), generated, own, other];
    assert_eq!(refused(&sinks, again).await, [(4, "DuplicateKey".to_owned())]);
    assert_eq!(place.numbers("c").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_at_once_are_written_together() {
    let place = Place::shared();
    let (sinks, heard) = place.connect(json!({})).await;
    let settled = deliver_by_tasks(&sinks, (0..1_000).map(numbered)).await;
    assert!(settled.iter().all(|one| *one == Settled::Confirmed), "{settled:?}");
    assert_eq!(place.numbers("c").await, (0..1_000).collect::<Vec<_>>());
    heard.only_held();
}
