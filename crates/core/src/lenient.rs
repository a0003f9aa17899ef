//! Numbers where configuration expects text.
//!
//! An environment variable `DRAKKAR_KAFKA__CONSUMER_GROUP=123` arrives as a number, and YAML has
//! opinions of its own: text fields accept numbers and booleans (quote `1.10` to keep its zero). Durations are
//! seconds as a number, or text with a unit (`500ms`, `2m`).

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a number")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
}

/// Reads text; for `#[serde(deserialize_with = "drakkar_core::lenient::text")]`.
///
/// # Errors
///
/// When the value is neither text nor a number nor a boolean.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(Text)
}

#[derive(Deserialize)]
struct Wrapped(#[serde(deserialize_with = "text")] String);

/// Reads text that may be absent or null.
///
/// # Errors
///
/// As [`text`].
pub fn option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
}

/// Reads a list of texts.
///
/// # Errors
///
/// As [`text`], for any element.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<Wrapped>::deserialize(deserializer)?.into_iter().map(|wrapped| wrapped.0).collect())
}

/// Reads a map of texts.
///
/// # Errors
///
/// As [`text`], for any value.
pub fn map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, Wrapped>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(key, wrapped)| (key, wrapped.0)).collect())
}

/// Durations: seconds as a number, or text with a unit; for `#[serde(with = "…::lenient::duration")]`.
pub mod duration {
    use super::{Deserialize, Deserializer, Duration, Wrapped, de};
    use serde::Serializer;

    /// Added to a moment it is still one; clocks and timers give up far beyond it.
    const LONGEST: Duration = Duration::from_hours(365 * 24);

    /// What stands for a duration that could not be read: one that was set by a program and is longer
    /// than any that is accepted.
    pub const TOO_LONG: &str = "longer than 365 days";

    /// Reads a duration.
    ///
    /// # Errors
    ///
    /// When the value is neither a number that is not negative nor a duration in words, or longer
    /// than a year.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let Wrapped(text) = Wrapped::deserialize(deserializer)?;
        let read = match text.parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(de::Error::custom),
            Err(_) => humantime::parse_duration(&text).map_err(|error| {
                de::Error::custom(format!(
                    "{text:?} is not a duration ({error}); write seconds or a unit: 5, 1.5, 500ms, 2m"
                ))
            }),
        }?;
        if LONGEST < read {
            return Err(de::Error::custom(format!("{text:?} is {TOO_LONG}")));
        }
        Ok(read)
    }

    /// Writes a duration with its unit, or [`TOO_LONG`].
    ///
    /// # Errors
    ///
    /// As the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if LONGEST < *value {
            return serializer.serialize_str(TOO_LONG);
        }
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// The same where there may be none; for `#[serde(with = "…::lenient::optional_duration")]`.
pub mod optional_duration {
    use super::{Deserialize, Deserializer, Duration, duration};
    use serde::Serializer;

    #[derive(Deserialize)]
    struct Read(#[serde(with = "duration")] Duration);

    /// Reads a duration that may be null.
    ///
    /// # Errors
    ///
    /// As [`duration::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Read>::deserialize(deserializer)?.map(|read| read.0))
    }

    /// Writes a duration with its unit, or null.
    ///
    /// # Errors
    ///
    /// As the serializer.
    #[allow(clippy::ref_option)] // What serde passes.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Field {
        #[serde(with = "duration")]
        wait: Duration,
    }

    #[track_caller]
    fn check(json: &str, expected: Option<Duration>) {
        let read = serde_json::from_str::<Field>(&format!("{{\"wait\":{json}}}"));
        assert_eq!(read.ok().map(|field| field.wait), expected, "{json}");
    }

    #[test]
    fn a_duration_is_seconds_or_text_with_a_unit() {
        check("5", Some(Duration::from_secs(5)));
        check("0.5", Some(Duration::from_millis(500)));
        check("\"5\"", Some(Duration::from_secs(5)));
        check("\"500ms\"", Some(Duration::from_millis(500)));
        check("-1", None);
        check("\"soon\"", None);
        check("1e18", None);
        check("\"365d\"", Some(Duration::from_hours(365 * 24)));
    }
}
