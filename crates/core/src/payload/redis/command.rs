//! What Redis is to do: one variant per command, its keys without the prefix of the sink.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::payload::wire;

/// What a command does. `key_prefix` of the sink stands before every key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as Redis names them")]
pub enum RedisCommand {
    /// `SET`
    Set {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire")]
        value: Bytes,
    },
    /// `DEL`
    Delete {
        #[serde(with = "wire")]
        key: Bytes,
    },
    /// `PEXPIRE`
    Expire {
        #[serde(with = "wire")]
        key: Bytes,
        after: Duration,
    },
    /// `INCRBY`
    IncrBy {
        #[serde(with = "wire")]
        key: Bytes,
        by: i64,
    },
    /// `HSET`
    HSet {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::pairs")]
        fields: Vec<(Bytes, Bytes)>,
    },
    /// `HDEL`
    HDel {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::list")]
        fields: Vec<Bytes>,
    },
    /// `LPUSH`
    LPush {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::list")]
        elements: Vec<Bytes>,
    },
    /// `RPUSH`
    RPush {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::list")]
        elements: Vec<Bytes>,
    },
    /// `LTRIM`
    LTrim {
        #[serde(with = "wire")]
        key: Bytes,
        from: i64,
        to: i64,
    },
    /// `SADD`
    SAdd {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::list")]
        members: Vec<Bytes>,
    },
    /// `SREM`
    SRem {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::list")]
        members: Vec<Bytes>,
    },
    /// `ZADD`, scores first and as text
    ZAdd {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::pairs")]
        members: Vec<(Bytes, Bytes)>,
    },
    /// `XADD`
    XAdd {
        #[serde(with = "wire")]
        key: Bytes,
        #[serde(with = "wire::pairs")]
        fields: Vec<(Bytes, Bytes)>,
    },
    /// `PUBLISH`; a channel is no key and has no prefix
    Publish {
        #[serde(with = "wire")]
        channel: Bytes,
        #[serde(with = "wire")]
        message: Bytes,
    },
    /// `EVALSHA` of a script that the configuration names
    Script {
        name: String,
        #[serde(with = "wire::list")]
        keys: Vec<Bytes>,
        #[serde(with = "wire::list")]
        args: Vec<Bytes>,
    },
}

impl RedisCommand {
    /// The key it is about; `None` for a message and for a script, which has any number of them.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        match self {
            Self::Set { key, .. }
            | Self::Delete { key }
            | Self::Expire { key, .. }
            | Self::IncrBy { key, .. }
            | Self::HSet { key, .. }
            | Self::HDel { key, .. }
            | Self::LPush { key, .. }
            | Self::RPush { key, .. }
            | Self::LTrim { key, .. }
            | Self::SAdd { key, .. }
            | Self::SRem { key, .. }
            | Self::ZAdd { key, .. }
            | Self::XAdd { key, .. } => Some(key),
            Self::Publish { .. } | Self::Script { .. } => None,
        }
    }

    pub(super) fn size(&self) -> usize {
        let list = |of: &[Bytes]| of.iter().map(Bytes::len).sum::<usize>();
        let pairs =
            |of: &[(Bytes, Bytes)]| of.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>();
        let carried = match self {
            Self::Set { value, .. } => value.len(),
            Self::Delete { .. }
            | Self::Expire { .. }
            | Self::IncrBy { .. }
            | Self::LTrim { .. } => 0,
            Self::HSet { fields: of, .. }
            | Self::XAdd { fields: of, .. }
            | Self::ZAdd { members: of, .. } => pairs(of),
            Self::HDel { fields: of, .. }
            | Self::LPush { elements: of, .. }
            | Self::RPush { elements: of, .. }
            | Self::SAdd { members: of, .. }
            | Self::SRem { members: of, .. } => list(of),
            Self::Publish { channel, message } => channel.len() + message.len(),
            Self::Script { name, keys, args } => name.len() + list(keys) + list(args),
        };
        self.key().map_or(0, Bytes::len) + carried
    }
}
