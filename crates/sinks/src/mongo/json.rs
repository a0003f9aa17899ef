//! JSON → BSON: fields in their order, whole numbers as the smallest type that holds them, extended
//! JSON as the types it stands for.
//!
//! Only an object that is nothing but one value of extended JSON is taken for one: beside other
//! fields, `$date` is a field like any other, and the server says what it thinks of it.

use drakkar_core::SinkError;
use mongodb::bson::{Bson, Document};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// The object `json`, which is `what`.
pub(super) fn document(what: &str, json: &str) -> Result<Document, SinkError> {
    match value(what, json)? {
        Bson::Document(document) => Ok(document),
        _ => Err(invalid(what, "is no object")),
    }
}

/// Any value.
pub(super) fn value(what: &str, json: &str) -> Result<Bson, SinkError> {
    match serde_json::from_str::<Value>(json) {
        Ok(Value(value)) => Ok(value),
        Err(error) => Err(invalid(what, &format!("cannot be written as BSON: {error}"))),
    }
}

fn invalid(what: &str, why: &str) -> SinkError {
    SinkError::new("invalid_document", format!("{what} {why}"))
}

struct Value(Bson);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue).map(Value)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Bson;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bson, E> {
        Ok(i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Bson, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Err(E::custom(format!(
                "{value} is larger than a 64-bit integer of MongoDB; use $numberDecimal"
            ))),
        }
    }

    fn visit_f64<E>(self, value: f64) -> Result<Bson, E> {
        Ok(Bson::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Bson, E> {
        Ok(Bson::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Bson, E> {
        Ok(Bson::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bson, A::Error> {
        let mut array = Vec::new();
        while let Some(Value(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Bson::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Bson, A::Error> {
        let mut document = Document::new();
        while let Some((key, Value(value))) = fields.next_entry::<String, _>()? {
            document.insert(key, value);
        }
        if let Some(text) = number(&document) {
            return self.visit_number(text);
        }
        if is_extended(&document) { extended(&document) } else { Ok(Bson::Document(document)) }
    }
}

impl AnyValue {
    fn visit_number<E: Error>(self, text: &str) -> Result<Bson, E> {
        if let Ok(whole) = text.parse() {
            return self.visit_i64(whole);
        }
        if let Ok(large) = text.parse() {
            return self.visit_u64(large);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => self.visit_f64(number),
            _ => Err(E::custom("number out of range")),
        }
    }
}

/// The text of a number, which comes as this object wherever a crate of the program turns on
/// `serde_json/arbitrary_precision`.
fn number(document: &Document) -> Option<&str> {
    if document.len() != 1 {
        return None;
    }
    document.get_str("$serde_json::private::Number").ok()
}

/// The types of extended JSON, by the key that tells them; `$code` runs on the server and is none.
const TYPES: [&str; 12] = [
    "$oid",
    "$date",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$regularExpression",
    "$timestamp",
    "$minKey",
    "$maxKey",
];

fn is_extended(document: &Document) -> bool {
    let mut keys = document.keys();
    keys.next().is_some_and(|key| TYPES.contains(&key.as_str())) && keys.next().is_none()
}

/// The library knows the forms; it is asked only about objects that are nothing else, because it
/// would drop what stands beside.
fn extended<E: Error>(document: &Document) -> Result<Bson, E> {
    let json = serde_json::to_string(document).map_err(E::custom)?;
    serde_json::from_str(&json).map_err(E::custom)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Decimal128, doc, oid::ObjectId};

    use super::*;

    #[track_caller]
    fn reads(json: &str, expected: &Document) {
        assert_eq!(document("it", json).unwrap(), *expected, "{json}");
    }

    #[test]
    fn whole_numbers_take_the_smallest_type_and_fractions_are_doubles() {
        reads(r#"{"a": 1, "b": -1}"#, &doc! {"a": 1_i32, "b": -1_i32});
        reads(
            r#"{"a": 2147483648, "b": -2147483649}"#,
            &doc! {
                "a": 2_147_483_648_i64, "b": -2_147_483_649_i64
            },
        );
        reads(r#"{"a": 1.0, "b": 1e3}"#, &doc! {"a": 1.0, "b": 1000.0});
    }

    #[test]
    fn numbers_are_the_same_where_another_crate_has_them_read_at_any_precision() {
        let it = |number| format!(r#"{{"a": [{{"$serde_json::private::Number": "{number}"}}]}}"#);
        reads(&it("-1"), &doc! {"a": [-1_i32]});
        reads(&it("2147483648"), &doc! {"a": [2_147_483_648_i64]});
        reads(&it("1.0"), &doc! {"a": [1.0]});
        reads(&it("1e3"), &doc! {"a": [1000.0]});
        let refused = |number| document("it", &it(number)).unwrap_err().message;
        assert!(refused("18446744073709551615").contains("$numberDecimal"));
        assert!(refused("1e400").contains("out of range"));
    }

    #[test]
    fn extended_json_becomes_the_types_it_stands_for() {
        let id = ObjectId::parse_str("0123456789abcdef01234567").unwrap();
        reads(r#"{"_id": {"$oid": "0123456789abcdef01234567"}}"#, &doc! {"_id": id});
        let long = doc! {"n": 5_i64};
        reads(r#"{"n": {"$numberLong": "5"}}"#, &long);
        let decimal: Decimal128 = "12.5".parse().unwrap();
        reads(r#"{"n": {"$numberDecimal": "12.5"}}"#, &doc! {"n": decimal});
        let date = mongodb::bson::DateTime::from_millis(1_700_000_000_000);
        reads(r#"{"d": {"$date": "2023-11-14T22:13:20Z"}}"#, &doc! {"d": date});
        reads(r#"{"d": {"$date": {"$numberLong": "1700000000000"}}}"#, &doc! {"d": date});
        reads(r#"{"d": {"$date": 1700000000000}}"#, &doc! {"d": date});
        let binary = document("it", r#"{"b": {"$binary": {"base64": "AAE=", "subType": "00"}}}"#);
        assert_eq!(binary.unwrap().get_binary_generic("b").unwrap(), &vec![0, 1]);
    }

    #[test]
    fn what_the_types_of_the_driver_serialise_to_comes_back_as_it_was() {
        let all = doc! {
            "id": ObjectId::new(),
            "at": mongodb::bson::DateTime::from_millis(-1),
            "when": mongodb::bson::Timestamp { time: 1, increment: 2 },
            "raw": mongodb::bson::Binary::from(mongodb::bson::Uuid::new()),
        };
        reads(&serde_json::to_string(&all).unwrap(), &all);
    }

    #[test]
    fn a_type_beside_other_fields_is_a_field_and_nothing_is_dropped() {
        reads(r#"{"a": 1, "$date": "x"}"#, &doc! {"a": 1, "$date": "x"});
        reads(r#"{"q": {"$oid": "x", "b": 1}}"#, &doc! {"q": {"$oid": "x", "b": 1}});
        reads(r#"{"$set": {"z": 1, "a": 2}}"#, &doc! {"$set": {"z": 1, "a": 2}});
    }

    #[test]
    fn what_has_no_bson_is_refused_and_says_what_it_was() {
        let message = |json| document("the document", json).unwrap_err().message;
        assert!(message(r#"{"a": {"$oid": "x"}}"#).starts_with("the document cannot be written"));
        assert!(message(r#"{"a": 18446744073709551615}"#).contains("$numberDecimal"));
        assert_eq!(message("[]"), "the document is no object");
    }
}
