//! The values of an object that has just the fields another one had: most rows of a batch are alike, and
//! to compare names as they come is cheaper than to keep them.

use std::borrow::Cow;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The values of `object`, if its fields are `columns`, in this order, and no others.
pub(super) fn values<'a>(object: &'a str, columns: &[Cow<'_, str>]) -> Option<Vec<&'a RawValue>> {
    let mut from = serde_json::Deserializer::from_str(object);
    let values = Alike(columns).deserialize(&mut from).ok()?;
    from.end().ok()?;
    Some(values)
}

struct Alike<'c>(&'c [Cow<'c, str>]);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Alike<'_> {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Alike<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::with_capacity(self.0.len());
        for column in self.0 {
            match map.next_key()? {
                Some(Name(name)) if name == *column => values.push(map.next_value()?),
                _ => return Err(A::Error::custom("another one")),
            }
        }
        match map.next_key::<IgnoredAny>()? {
            None => Ok(values),
            Some(_) => Err(A::Error::custom("one more")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_those_of_an_object_with_just_these_fields_in_this_order() {
        #[track_caller]
        fn check(object: &str, expected: Option<&[&str]>) {
            let values = values(object, &["a".into(), "b".into()]);
            let texts = values.map(|values| values.iter().map(|of| of.get()).collect::<Vec<_>>());
            assert_eq!(texts.as_deref(), expected);
        }
        check(r#"{"a":1,"b":"x\ny"}"#, Some(&["1", r#""x\ny""#]));
        check(r#" { "a" : {"b": 2} , "b" : null } "#, Some(&[r#"{"b": 2}"#, "null"]));
        check(r#"{"\u0061":1,"b":2}"#, Some(&["1", "2"]));
        for other in [
            r#"{"b":1,"a":2}"#,
            r#"{"a":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"b":2,"c":3}"#,
            "{}",
            "[1,2]",
            r#"{"a":1,"b":2}}"#,
        ] {
            check(other, None);
        }
    }
}
