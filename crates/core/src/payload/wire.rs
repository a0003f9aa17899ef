//! Bytes as JSON, readable where they are text and whole where they are not: a string, or
//! `{"base64": "..."}`.
//!
//! For fields: `#[serde(with = "wire")]` on [`Bytes`], `#[serde(with = "wire::option")]` on an
//! `Option` of them, `wire::list` on a `Vec` of them, `wire::pairs` on a `Vec` of two and two.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Shown<T> {
    Text(T),
    Binary { base64: String },
}

fn shown(bytes: &Bytes) -> Shown<&str> {
    match str::from_utf8(bytes) {
        Ok(text) => Shown::Text(text),
        Err(_) => Shown::Binary { base64: STANDARD.encode(bytes) },
    }
}

fn read<E: serde::de::Error>(shown: Shown<String>) -> Result<Bytes, E> {
    match shown {
        Shown::Text(text) => Ok(text.into()),
        Shown::Binary { base64 } => STANDARD.decode(base64).map(Bytes::from).map_err(E::custom),
    }
}

pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    shown(bytes).serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    read(Shown::deserialize(from)?)
}

/// The same where there may be none.
pub(crate) mod option {
    use super::{Bytes, Deserialize, Deserializer, Serialize, Serializer, Shown, read, shown};

    #[allow(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<Bytes>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(shown).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Bytes>, D::Error> {
        Option::<Shown<String>>::deserialize(from)?.map(read).transpose()
    }
}

#[derive(Serialize, Deserialize)]
struct One(#[serde(with = "self")] Bytes);

/// The same for several.
pub(crate) mod list {
    use super::{Bytes, Deserialize, Deserializer, One, Serializer};

    pub(crate) fn serialize<S: Serializer>(list: &[Bytes], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().cloned().map(One))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Bytes>, D::Error> {
        let list = Vec::<One>::deserialize(from)?;
        Ok(list.into_iter().map(|One(bytes)| bytes).collect())
    }
}

/// The same for several that come in twos.
pub(crate) mod pairs {
    use super::{Bytes, Deserialize, Deserializer, One, Serializer};

    type Pair = (Bytes, Bytes);

    pub(crate) fn serialize<S: Serializer>(pairs: &[Pair], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().cloned().map(|(first, second)| (One(first), One(second))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Pair>, D::Error> {
        let pairs = Vec::<(One, One)>::deserialize(from)?;
        Ok(pairs.into_iter().map(|(One(first), One(second))| (first, second)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both(#[serde(with = "super")] Bytes, #[serde(with = "super::option")] Option<Bytes>);

    #[test]
    fn bytes_come_back_as_they_were_and_text_can_be_read() {
        for (bytes, json) in [
            (&b"text"[..], r#"["text",null]"#),
            (b"\xff\xfe", r#"[{"base64":"//4="},null]"#),
            (b"", r#"["",null]"#),
        ] {
            let both = Both(Bytes::from_static(bytes), None);
            assert_eq!(serde_json::to_string(&both).unwrap(), json);
            assert_eq!(serde_json::from_str::<Both>(json).unwrap(), both);
        }
        let both = Both(Bytes::new(), Some(Bytes::from_static(b"\xff")));
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Both>(&json).unwrap(), both);
    }
}
