//! A JSON object as text, and where its fields are.
//!
//! Where a field begins and ends is noted while it is written, so that whoever needs the values does not read
//! the text again.

use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    io::{self, Write},
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::{self, Error as _, SerializeMap},
};
use serde_json::{ser::Formatter, value::RawValue};

use super::PayloadError;

thread_local! {
    static SCRATCH: Cell<(Vec<u8>, Vec<Ends>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Longest memory that is kept for the next object, in bytes.
const KEPT: usize = 64 << 10;

/// A JSON object as text, exactly as it was serialised: no number passes through a float.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonObject {
    /// Without a blank between its parts.
    text: Box<str>,
    ends: Box<[Ends]>,
}

/// Where the name of a field and its value end. A name begins behind the brace or comma that follows what
/// is before it, a value behind a colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    name: u32,
    value: u32,
}

impl JsonObject {
    /// `value` as an object.
    ///
    /// # Errors
    ///
    /// When it does not serialise, or as something else than an object.
    pub fn new(value: &impl Serialize) -> Result<Self, PayloadError> {
        // A value that makes another one while it is written finds none, and leaves its own.
        let (mut text, mut ends) = SCRATCH.take();
        text.clear();
        ends.clear();
        let length = Cell::new(0);
        let marks = Marks { length: &length, ends: &mut ends, depth: 0, name: 0 };
        let to = Counted { text: &mut text, length: &length };
        value.serialize(&mut serde_json::Serializer::with_formatter(to, marks))?;
        let written = str::from_utf8(&text).map_err(serde_json::Error::custom)?;
        let made = Self::of(written, &ends)?;
        if text.capacity() <= KEPT {
            SCRATCH.set((text, ends));
        }
        Ok(made)
    }

    fn of(text: &str, ends: &[Ends]) -> Result<Self, serde_json::Error> {
        if !text.starts_with('{') {
            return Err(serde_json::Error::custom("expected a struct or a map"));
        }
        if u32::try_from(text.len()).is_err() {
            return Err(serde_json::Error::custom("4 GiB are the most that an object may have"));
        }
        if ends.is_empty() && text != "{}" {
            return serde_json::from_str(text); // It came as text, and is read to be written again.
        }
        Ok(Self { text: text.into(), ends: ends.into() })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Each field's name, and its value as JSON, in the order in which they were serialised.
    #[must_use]
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (Cow<'_, str>, &str)> {
        let mut from = 1;
        self.ends.iter().map(move |ends| {
            let (name, value) = (ends.name as usize, ends.value as usize);
            let field = (unquoted(&self.text[from..name]), &self.text[name + 1..value]);
            from = value + 1;
            field
        })
    }
}

/// A name as it was before it was written.
fn unquoted(name: &str) -> Cow<'_, str> {
    match name.get(1..name.len().saturating_sub(1)) {
        Some(inside) if !inside.contains('\\') => Cow::Borrowed(inside),
        // Written by us: it is read without fail.
        _ => serde_json::from_str(name).map_or(Cow::Borrowed(name), Cow::Owned),
    }
}

/// Knows how much was written.
struct Counted<'a> {
    text: &'a mut Vec<u8>,
    length: &'a Cell<usize>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline] // Called for every quote and comma, from the crate of whoever serialises.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.text.extend_from_slice(bytes);
        self.length.set(self.text.len());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes without blanks, and notes where the fields of the outermost object end.
struct Marks<'a> {
    length: &'a Cell<usize>,
    ends: &'a mut Vec<Ends>,
    depth: u32,
    /// Where the last name ended.
    name: u32,
}

impl Marks<'_> {
    /// What is too long is refused when all of it is written.
    fn here(&self) -> u32 {
        u32::try_from(self.length.get()).unwrap_or(u32::MAX)
    }
}

impl Formatter for Marks<'_> {
    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.depth += 1;
        to.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.depth -= 1;
        to.write_all(b"}")
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        if self.depth == 1 {
            self.name = self.here();
        }
        Ok(())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        if self.depth == 1 {
            self.ends.push(Ends { name: self.name, value: self.here() });
        }
        Ok(())
    }
}

impl Serialize for JsonObject {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.text).map_err(ser::Error::custom)?;
        raw.serialize(to)
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&from.deserialize_map(Fields(Vec::new()))?).map_err(de::Error::custom)
    }
}

/// The fields of an object that came as text: values as they stand there.
struct Fields(Vec<(String, Box<RawValue>)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(field) = map.next_entry()? {
            self.0.push(field);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(value: &impl Serialize, fields: &[(&str, &str)]) {
        let object = JsonObject::new(value).unwrap();
        assert_eq!(object.text(), serde_json::to_string(value).unwrap());
        let found: Vec<_> = object.fields().collect();
        let expected: Vec<_> = fields.iter().map(|(name, of)| (Cow::from(*name), *of)).collect();
        assert_eq!(found, expected);
        let back: JsonObject = serde_json::from_str(object.text()).unwrap();
        assert_eq!(back, object, "what is read is as what was written");
    }

    #[derive(Serialize)]
    struct Row<'a> {
        id: u64,
        #[serde(flatten)]
        more: BTreeMap<&'a str, serde_json::Value>,
        last: Option<&'a str>,
    }

    #[test]
    fn every_field_is_found_again_with_its_value_as_it_was_written() {
        check(&json!({}), &[]);
        check(&json!({"a": 1}), &[("a", "1")]);
        check(
            &json!({"a\"\n,:": "{}", "": [{"b": 1}, {}]}),
            &[("", r#"[{"b":1},{}]"#), ("a\"\n,:", r#""{}""#)],
        );
        let more = [("deep", json!({"x": {"y": {}}})), ("text", json!("ä\\"))].into();
        check(
            &Row { id: 7, more, last: None },
            &[("id", "7"), ("deep", r#"{"x":{"y":{}}}"#), ("text", r#""ä\\""#), ("last", "null")],
        );
    }

    #[test]
    fn an_object_that_comes_as_text_is_taken_apart_and_keeps_its_values() {
        let text = r#" { "a" : 1.10 , "b" : { "c" : 1e400 } , "a" : null } "#;
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        for object in [JsonObject::new(&raw).unwrap(), serde_json::from_str(text).unwrap()] {
            assert_eq!(object.text(), r#"{"a":1.10,"b":{ "c" : 1e400 },"a":null}"#);
            let fields: Vec<_> = object.fields().collect();
            let expected = [("a", "1.10"), ("b", r#"{ "c" : 1e400 }"#), ("a", "null")];
            assert_eq!(fields, expected.map(|(name, of)| (Cow::from(name), of)));
        }
    }

    #[test]
    fn what_is_no_object_is_refused_and_so_is_what_fails_in_the_middle() {
        struct Fails(&'static str);
        impl Serialize for Fails {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom(self.0))
            }
        }
        for other in [json!([{"a": 1}]), json!(7), json!(null), json!("{}")] {
            assert!(JsonObject::new(&other).is_err(), "{other}");
        }
        assert!(JsonObject::new(&BTreeMap::from([("a", Fails("no"))])).is_err());
        check(&json!({"next": 1}), &[("next", "1")]);
    }

    #[test]
    fn an_object_may_be_made_while_another_is_written() {
        struct Outer;
        impl Serialize for Outer {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let inner = JsonObject::new(&json!({"in": 1})).map_err(ser::Error::custom)?;
                BTreeMap::from([("x", inner)]).serialize(to)
            }
        }
        check(&Outer, &[("x", r#"{"in":1}"#)]);
        check(
            &json!({"big": "x".repeat(2 * KEPT)}),
            &[("big", &format!("\"{}\"", "x".repeat(2 * KEPT)))],
        );
    }
}
