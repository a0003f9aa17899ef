//! A command on a key of Redis.
//!
//! Constructors say what is done; what a command can be told beside that (how long its key lives, how
//! long its list may get) is said afterwards. A combination that Redis does not know is refused for
//! good by the sink, with its reason.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PayloadError, json};
pub use command::RedisCommand;

mod command; // what Redis is to do

/// One command for a Redis sink.
///
/// ```
/// use std::time::Duration;
///
/// use drakkar_core::RedisPayload;
///
/// let seen = RedisPayload::set("seen:4711", "1").nx().ttl(Duration::from_hours(1));
/// let last = RedisPayload::lpush("matches", ["main.rs:7"]).max_len(100);
/// let total = RedisPayload::incrby("total", 1).sink("counters");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisPayload {
    /// Which `sinks.redis` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// What is done.
    pub command: RedisCommand,
    /// How long the key it writes lives from then on.
    pub ttl: Option<Duration>,
    /// When a value is set at all.
    pub only_if: Option<RedisOnlyIf>,
    /// Elements of a list, or entries of a stream, that are kept.
    pub max_len: Option<u64>,
}

/// When a value is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisOnlyIf {
    /// When there is none: `NX`.
    Absent,
    /// When there is one: `XX`.
    Present,
}

impl RedisPayload {
    fn new(command: RedisCommand) -> Self {
        Self { sink: None, command, ttl: None, only_if: None, max_len: None }
    }

    /// Sets `key` to these bytes.
    #[must_use]
    pub fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::new(RedisCommand::Set { key: key.into(), value: value.into() })
    }

    /// Sets `key` to `value` as JSON.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn set_json(key: impl Into<Bytes>, value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::set(key, json::bytes(value)?))
    }

    /// Deletes `key`, whatever it holds.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::new(RedisCommand::Delete { key: key.into() })
    }

    /// Has `key` end `after` this time, if it exists.
    #[must_use]
    pub fn expire(key: impl Into<Bytes>, after: Duration) -> Self {
        Self::new(RedisCommand::Expire { key: key.into(), after })
    }

    /// Adds `by` to the number at `key`; none counts as 0.
    #[must_use]
    pub fn incrby(key: impl Into<Bytes>, by: i64) -> Self {
        Self::new(RedisCommand::IncrBy { key: key.into(), by })
    }

    /// Sets fields of the hash `key`; others stay.
    #[must_use]
    pub fn hset<F: Into<Bytes>, V: Into<Bytes>>(
        key: impl Into<Bytes>,
        fields: impl IntoIterator<Item = (F, V)>,
    ) -> Self {
        Self::new(RedisCommand::HSet { key: key.into(), fields: pairs(fields) })
    }

    /// Sets the fields of a struct or map in the hash `key`: text as it is, the rest as JSON. A field
    /// that is null is left as it is in the hash.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise, or has no fields.
    pub fn hset_json(key: impl Into<Bytes>, value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::hset(key, fields_of(value)?))
    }

    /// Removes fields of the hash `key`.
    #[must_use]
    pub fn hdel<F: Into<Bytes>>(
        key: impl Into<Bytes>,
        fields: impl IntoIterator<Item = F>,
    ) -> Self {
        Self::new(RedisCommand::HDel { key: key.into(), fields: list(fields) })
    }

    /// Puts elements before the list `key`, one after the other: the last one is its head then.
    #[must_use]
    pub fn lpush<E: Into<Bytes>>(
        key: impl Into<Bytes>,
        elements: impl IntoIterator<Item = E>,
    ) -> Self {
        Self::new(RedisCommand::LPush { key: key.into(), elements: list(elements) })
    }

    /// Puts elements behind the list `key`.
    #[must_use]
    pub fn rpush<E: Into<Bytes>>(
        key: impl Into<Bytes>,
        elements: impl IntoIterator<Item = E>,
    ) -> Self {
        Self::new(RedisCommand::RPush { key: key.into(), elements: list(elements) })
    }

    /// Keeps the elements `from` to `to` of the list `key`, both included; they count from 0, negative
    /// ones from the end: `-100, -1` keeps the last 100.
    #[must_use]
    pub fn ltrim(key: impl Into<Bytes>, from: i64, to: i64) -> Self {
        Self::new(RedisCommand::LTrim { key: key.into(), from, to })
    }

    /// Adds members to the set `key`.
    #[must_use]
    pub fn sadd<M: Into<Bytes>>(
        key: impl Into<Bytes>,
        members: impl IntoIterator<Item = M>,
    ) -> Self {
        Self::new(RedisCommand::SAdd { key: key.into(), members: list(members) })
    }

    /// Removes members of the set `key`.
    #[must_use]
    pub fn srem<M: Into<Bytes>>(
        key: impl Into<Bytes>,
        members: impl IntoIterator<Item = M>,
    ) -> Self {
        Self::new(RedisCommand::SRem { key: key.into(), members: list(members) })
    }

    /// Adds members to the sorted set `key`, each with its score.
    #[must_use]
    pub fn zadd<M: Into<Bytes>>(
        key: impl Into<Bytes>,
        members: impl IntoIterator<Item = (f64, M)>,
    ) -> Self {
        let members = members.into_iter().map(|(score, member)| (score.to_string(), member));
        Self::new(RedisCommand::ZAdd { key: key.into(), members: pairs(members) })
    }

    /// Appends an entry of these fields to the stream `key`; the server gives it its id.
    #[must_use]
    pub fn xadd<F: Into<Bytes>, V: Into<Bytes>>(
        key: impl Into<Bytes>,
        fields: impl IntoIterator<Item = (F, V)>,
    ) -> Self {
        Self::new(RedisCommand::XAdd { key: key.into(), fields: pairs(fields) })
    }

    /// Appends an entry with the fields of a struct or map to the stream `key`, as
    /// [`hset_json`](Self::hset_json) writes them.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise, or has no fields.
    pub fn xadd_json(key: impl Into<Bytes>, value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::xadd(key, fields_of(value)?))
    }

    /// Sends `message` to who listens on `channel` now. The channel has no prefix.
    #[must_use]
    pub fn publish(channel: impl Into<Bytes>, message: impl Into<Bytes>) -> Self {
        Self::new(RedisCommand::Publish { channel: channel.into(), message: message.into() })
    }

    /// Runs the Lua script that the configuration calls `name`.
    #[must_use]
    pub fn script<K: Into<Bytes>, A: Into<Bytes>>(
        name: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::new(RedisCommand::Script { name: name.into(), keys: list(keys), args: list(args) })
    }

    /// Has the key end after this time. For commands that write to a key; one that is written
    /// to again lives that long from then on.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the value only where there is none. It counts as delivered either way.
    #[must_use]
    pub fn nx(mut self) -> Self {
        self.only_if = Some(RedisOnlyIf::Absent);
        self
    }

    /// Sets the value only where there is one already. It counts as delivered either way.
    #[must_use]
    pub fn xx(mut self) -> Self {
        self.only_if = Some(RedisOnlyIf::Present);
        self
    }

    /// Keeps no more than the newest `count`. For lists that are pushed to, and for streams.
    #[must_use]
    pub fn max_len(mut self, count: u64) -> Self {
        self.max_len = Some(count);
        self
    }

    /// Bytes of everything the command carries.
    #[must_use]
    pub fn size(&self) -> usize {
        self.command.size()
    }
}

fn list<T: Into<Bytes>>(of: impl IntoIterator<Item = T>) -> Vec<Bytes> {
    of.into_iter().map(Into::into).collect()
}

fn pairs<A: Into<Bytes>, B: Into<Bytes>>(
    of: impl IntoIterator<Item = (A, B)>,
) -> Vec<(Bytes, Bytes)> {
    of.into_iter().map(|(first, second)| (first.into(), second.into())).collect()
}

fn fields_of(value: &impl Serialize) -> Result<Vec<(String, String)>, PayloadError> {
    let Value::Object(fields) = serde_json::to_value(value)? else {
        let none = "it is no struct and no map, so it has no fields";
        return Err(PayloadError::Json(serde::ser::Error::custom(none)));
    };
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Ok(fields.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_survives_being_written_as_json_and_read_back() {
        let none: [&str; 0] = [];
        for payload in [
            RedisPayload::set("k", vec![0xff]).nx().ttl(Duration::from_millis(1500)).sink("a"),
            RedisPayload::set("k", "v").xx(),
            RedisPayload::delete(vec![0xfe]),
            RedisPayload::expire("k", Duration::from_secs(1)),
            RedisPayload::incrby("k", -3),
            RedisPayload::hset("k", [("a", vec![0xff])]),
            RedisPayload::hdel("k", ["a", "b"]),
            RedisPayload::lpush("k", [vec![0xff], vec![]]).max_len(5),
            RedisPayload::rpush("k", ["a"]),
            RedisPayload::ltrim("k", -5, -1),
            RedisPayload::sadd("k", ["a"]),
            RedisPayload::srem("k", ["a"]),
            RedisPayload::zadd("k", [(1.5, "a"), (f64::INFINITY, "b")]),
            RedisPayload::xadd("k", [("a", "b")]).max_len(7),
            RedisPayload::publish("c", "m"),
            RedisPayload::script("s", ["k"], none),
        ] {
            let json = serde_json::to_string(&payload).unwrap();
            assert_eq!(serde_json::from_str::<RedisPayload>(&json).unwrap(), payload, "{json}");
        }
    }

    #[test]
    fn text_can_be_read_in_the_json_of_a_payload() {
        let json = serde_json::to_value(RedisPayload::hset("k", [("field", "text")])).unwrap();
        let command = serde_json::json!({"op": "hset", "key": "k", "fields": [["field", "text"]]});
        assert_eq!(json["command"], command);
    }

    #[test]
    fn the_fields_of_a_struct_are_text_as_it_is_and_json_otherwise() {
        #[derive(Serialize)]
        struct Hit<'a> {
            file: &'a str,
            lines: Vec<u32>,
            score: f64,
            note: Option<&'a str>,
        }
        let hit = Hit { file: "a b", lines: vec![1, 2], score: 0.5, note: None };
        let payload = RedisPayload::hset_json("k", &hit).unwrap();
        let fields = [("file", "a b"), ("lines", "[1,2]"), ("score", "0.5")];
        assert_eq!(payload, RedisPayload::hset("k", fields));
        RedisPayload::hset_json("k", &[1, 2]).unwrap_err();
    }

    #[test]
    fn the_size_is_that_of_all_it_carries() {
        assert_eq!(RedisPayload::set("key", "value").size(), 8);
        assert_eq!(RedisPayload::hset("k", [("a", "bb"), ("c", "d")]).size(), 6);
        assert_eq!(RedisPayload::script("s", ["k"], ["aa", "b"]).size(), 5);
    }
}
