//! How the value of a message becomes what a handler works with.
//!
//! A message that does not decode is handled by `kafka.on_invalid`; it never reaches a hook.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{HookError, SourceMessage};

/// What a message value decodes to.
///
/// Implemented for [`Json`], for [`Bytes`] (a tombstone is empty), and for `Option` of either, where
/// a tombstone is `None`. Implement it for your own type to read another format:
///
/// ```
/// use drakkar_core::{HookError, Input, SourceMessage};
///
/// struct Line(String);
///
/// impl Input for Line {
///     fn decode(message: &SourceMessage) -> Result<Self, HookError> {
///         let value = message.value.as_deref().ok_or("a tombstone has no line")?;
///         Ok(Self(std::str::from_utf8(value)?.to_owned()))
///     }
/// }
/// ```
pub trait Input: Sized + Send + Sync + 'static {
    /// Decodes `message`; key and headers are there to be used as well.
    ///
    /// # Errors
    ///
    /// What is wrong with the message; the text goes into the dead letter.
    fn decode(message: &SourceMessage) -> Result<Self, HookError>;
}

/// What becomes of a message whose value does not decode (`kafka.on_invalid`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// It goes to the dead-letter topic.
    #[default]
    DeadLetter,
    /// It is settled without being processed; counted and logged.
    Skip,
    /// The worker stops with an error that names the message.
    Fail,
}

/// A JSON value; dereferences to `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Input for Json<T> {
    fn decode(message: &SourceMessage) -> Result<Self, HookError> {
        let value = message.value.as_deref().ok_or(
            "the value is null (a tombstone); use `Option<Json<T>>` as input to receive tombstones",
        )?;
        Ok(Self(serde_json::from_slice(value)?))
    }
}

impl Input for Bytes {
    fn decode(message: &SourceMessage) -> Result<Self, HookError> {
        Ok(message.value.clone().unwrap_or_default())
    }
}

impl<T: Input> Input for Option<T> {
    fn decode(message: &SourceMessage) -> Result<Self, HookError> {
        match message.value {
            Some(_) => T::decode(message).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Offset, TopicPartition};

    fn message(value: Option<&'static str>) -> SourceMessage {
        SourceMessage {
            partition: TopicPartition::new("t", 0),
            offset: Offset(0),
            timestamp: None,
            key: None,
            value: value.map(Bytes::from),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_tombstone_is_none_for_an_optional_input() {
        assert_eq!(Option::<Json<u32>>::decode(&message(None)).unwrap(), None);
        assert_eq!(Option::<Json<u32>>::decode(&message(Some("7"))).unwrap(), Some(Json(7)));
    }

    #[test]
    fn a_tombstone_is_empty_for_raw_bytes() {
        assert_eq!(Bytes::decode(&message(None)).unwrap(), Bytes::new());
    }

    #[test]
    fn a_tombstone_is_invalid_where_json_is_required_and_the_error_says_what_to_do() {
        let error = Json::<u32>::decode(&message(None)).unwrap_err().to_string();
        assert!(error.contains("Option<Json<T>>"), "{error}");
    }

    #[test]
    fn an_empty_value_is_not_a_tombstone() {
        assert!(Option::<Json<u32>>::decode(&message(Some(""))).is_err());
        assert_eq!(Option::<Bytes>::decode(&message(Some(""))).unwrap(), Some(Bytes::new()));
    }
}
