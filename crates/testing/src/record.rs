//! What a test puts into the topic.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use drakkar_core::{Header, Offset, SourceMessage, Timestamp, TopicPartition};
use serde::Serialize;

/// One record for [`World::produce`](crate::World::produce): whatever becomes [`Bytes`] is the value of one.
///
/// ```
/// use drakkar_testing::Record;
///
/// let plain: Record = "whale".into();
/// let full = Record::json(&[1, 2]).key("k").header("trace", "7").created_at(1_700_000_000_000);
/// let deleted = Record::tombstone("k");
/// # drop((plain, full, deleted));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    pub(crate) created: Option<i64>,
}

impl<T: Into<Bytes>> From<T> for Record {
    fn from(value: T) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

impl Record {
    /// A record whose value is `value` as JSON.
    ///
    /// # Panics
    ///
    /// When `value` does not serialise.
    #[must_use]
    #[track_caller]
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(value) => value.into(),
            Err(error) => panic!("the value of a record does not serialise as JSON: {error}"),
        }
    }

    /// A record without a value.
    #[must_use]
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Says when its producer made it, in milliseconds since the Unix epoch. The default is now.
    #[must_use]
    pub fn created_at(mut self, millis: i64) -> Self {
        self.created = Some(millis);
        self
    }

    pub(crate) fn at(self, partition: TopicPartition, offset: i64) -> SourceMessage {
        let Self { key, value, headers, created } = self;
        // A broker, too, leaves no message without.
        let timestamp = Some(Timestamp::Created(created.unwrap_or_else(now)));
        SourceMessage { partition, offset: Offset(offset), timestamp, key, value, headers }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
