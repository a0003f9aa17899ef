//! From a payload to the commands that carry it out.
//!
//! What Redis does not know how to do is refused here, where it can be said in words. Nothing here
//! knows a connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::{RedisCommand, RedisOnlyIf, RedisPayload, SinkError};
use redis::{Arg, Cmd, cmd};

use crate::RedisSinkConfig;

/// What the configuration says of payloads.
pub(super) struct Encoder {
    prefix: String,
    scripts: BTreeMap<String, Script>,
}

struct Script {
    text: String,
    /// What the server calls it.
    hash: String,
}

/// Scripts that the server is given earlier in the same transaction: it has them then.
pub(super) type Known = BTreeSet<String>;

/// Longest life of a key: what is added to the time of the server must not overflow.
const MAX_TTL: Duration = Duration::from_hours(24 * 365 * 1_000);

impl Encoder {
    pub(super) fn new(config: &RedisSinkConfig) -> Self {
        let script = |text: &String| {
            let hash = redis::Script::new(text).get_hash().to_owned();
            Script { text: text.clone(), hash }
        };
        let scripts = config.scripts.iter().map(|(name, text)| (name.clone(), script(text)));
        Self { prefix: config.key_prefix.clone(), scripts: scripts.collect() }
    }

    /// The key that decides where in a cluster a payload goes.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn routed_by(&self, payload: &RedisPayload) -> Vec<u8> {
        match &payload.command {
            RedisCommand::Publish { channel, .. } => channel.to_vec(),
            RedisCommand::Script { keys, .. } => self.key(keys.first().map_or(&[], |key| key)),
            command => self.key(command.key().map_or(&[], |key| key)),
        }
    }

    /// What carries `payload` out, one after the other; nothing where there is nothing to do. No
    /// argument may be longer than `max_bulk` bytes.
    pub(super) fn encode(
        &self,
        payload: &RedisPayload,
        known: &mut Known,
        max_bulk: usize,
    ) -> Result<Vec<Cmd>, SinkError> {
        check(payload)?;
        let Some(command) = self.command(payload, known)? else {
            return Ok(Vec::new());
        };
        let mut commands = vec![command];
        commands.extend(self.trim(payload));
        commands.extend(self.expiry(payload));
        let is_long = |of: Arg<&[u8]>| matches!(of, Arg::Simple(bytes) if max_bulk < bytes.len());
        let takes_long = |command: &Cmd| command.args_iter().any(is_long);
        if commands.iter().any(takes_long) {
            let text = format!("the server takes {max_bulk} bytes at most (proto-max-bulk-len)");
            return Err(SinkError::new("too_large", text));
        }
        Ok(commands)
    }

    /// What the server knows `key` by.
    pub(super) fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), key].concat()
    }

    fn command(&self, payload: &RedisPayload, known: &mut Known) -> Result<Option<Cmd>, SinkError> {
        let on = |name: &str, key: &Bytes| cmd(name).arg(self.key(key)).take();
        let several = |name: &str, key: &Bytes, of: &[Bytes]| {
            let mut command = on(name, key);
            for of in of {
                command.arg(&of[..]);
            }
            (!of.is_empty()).then_some(command)
        };
        let twos = |name: &str, key: &Bytes, of: &[(Bytes, Bytes)]| {
            let mut command = on(name, key);
            for (first, second) in of {
                command.arg(&first[..]).arg(&second[..]);
            }
            (!of.is_empty()).then_some(command)
        };
        Ok(match &payload.command {
            RedisCommand::Set { key, value } => Some(set(on("SET", key), value, payload)),
            RedisCommand::Delete { key } => Some(on("DEL", key)),
            RedisCommand::Expire { key, after } => {
                Some(on("PEXPIRE", key).arg(millis(*after)).take())
            }
            RedisCommand::IncrBy { key, by } => Some(on("INCRBY", key).arg(*by).take()),
            RedisCommand::HSet { key, fields } => twos("HSET", key, fields),
            RedisCommand::HDel { key, fields } => several("HDEL", key, fields),
            RedisCommand::LPush { key, elements } => several("LPUSH", key, elements),
            RedisCommand::RPush { key, elements } => several("RPUSH", key, elements),
            RedisCommand::LTrim { key, from, to } => {
                Some(on("LTRIM", key).arg(*from).arg(*to).take())
            }
            RedisCommand::SAdd { key, members } => several("SADD", key, members),
            RedisCommand::SRem { key, members } => several("SREM", key, members),
            RedisCommand::ZAdd { key, members } => twos("ZADD", key, members),
            RedisCommand::XAdd { key, fields } => {
                let mut command = on("XADD", key);
                if let Some(count) = payload.max_len {
                    command.arg("MAXLEN").arg(count);
                }
                command.arg("*");
                for (field, value) in fields {
                    command.arg(&field[..]).arg(&value[..]);
                }
                Some(command)
            }
            RedisCommand::Publish { channel, message } => {
                Some(cmd("PUBLISH").arg(&channel[..]).arg(&message[..]).take())
            }
            RedisCommand::Script { name, keys, args } => {
                Some(self.script(name, keys, args, known)?)
            }
            other => return Err(invalid(format!("this sink does not know {other:?}"))),
        })
    }

    /// The first call in a transaction brings the text along, the others name it: so a server that
    /// was restarted, or told to forget its scripts, is no special case.
    fn script(
        &self,
        name: &str,
        keys: &[Bytes],
        args: &[Bytes],
        known: &mut Known,
    ) -> Result<Cmd, SinkError> {
        let Some(script) = self.scripts.get(name) else {
            let configured: Vec<&str> = self.scripts.keys().map(String::as_str).collect();
            let configured =
                if configured.is_empty() { "none".to_owned() } else { configured.join(", ") };
            let text = format!("there is no script {name}; configured: {configured}");
            return Err(SinkError::new("unknown_script", text));
        };
        let mut command = if known.insert(name.to_owned()) {
            cmd("EVAL").arg(&script.text).take()
        } else {
            cmd("EVALSHA").arg(&script.hash).take()
        };
        command.arg(keys.len());
        for key in keys {
            command.arg(self.key(key));
        }
        for argument in args {
            command.arg(&argument[..]);
        }
        Ok(command)
    }

    fn trim(&self, payload: &RedisPayload) -> Option<Cmd> {
        let count = i64::try_from(payload.max_len?).unwrap_or(i64::MAX);
        let (key, from, to) = match &payload.command {
            RedisCommand::LPush { key, .. } => (key, 0, count - 1),
            RedisCommand::RPush { key, .. } => (key, -count, -1),
            _ => return None, // A stream is told when it is added to.
        };
        Some(cmd("LTRIM").arg(self.key(key)).arg(from).arg(to).take())
    }

    fn expiry(&self, payload: &RedisPayload) -> Option<Cmd> {
        let ttl = payload.ttl?;
        match &payload.command {
            RedisCommand::Set { .. } => None, // Is told at once.
            command => Some(cmd("PEXPIRE").arg(self.key(command.key()?)).arg(millis(ttl)).take()),
        }
    }
}

fn set(mut command: Cmd, value: &Bytes, payload: &RedisPayload) -> Cmd {
    command.arg(&value[..]);
    if let Some(only_if) = payload.only_if {
        command.arg(match only_if {
            RedisOnlyIf::Absent => "NX",
            RedisOnlyIf::Present => "XX",
        });
    }
    if let Some(ttl) = payload.ttl {
        command.arg("PX").arg(millis(ttl));
    }
    command
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the options belong to the command.
fn check(payload: &RedisPayload) -> Result<(), SinkError> {
    use RedisCommand::{
        Delete, Expire, HDel, LPush, LTrim, Publish, RPush, SRem, Script, Set, XAdd,
    };
    let command = &payload.command;
    let is_list = matches!(command, LPush { .. } | RPush { .. });
    if payload.only_if.is_some() && !matches!(command, Set { .. }) {
        return Err(invalid("nx and xx are for set"));
    }
    if payload.max_len.is_some() && !is_list && !matches!(command, XAdd { .. }) {
        return Err(invalid("max_len is for lpush, rpush and xadd"));
    }
    if is_list && payload.max_len == Some(0) {
        return Err(invalid("max_len of a list must not be 0; delete it instead"));
    }
    let writes_nothing = matches!(
        command,
        Delete { .. }
            | Expire { .. }
            | HDel { .. }
            | LTrim { .. }
            | SRem { .. }
            | Publish { .. }
            | Script { .. }
    );
    if payload.ttl.is_some() && writes_nothing {
        return Err(invalid("ttl is for commands that write a value to a key"));
    }
    let after = if let Expire { after, .. } = command { Some(*after) } else { None };
    let lives = payload.ttl.or(after);
    if lives.is_some_and(|ttl| millis(ttl) == 0 || MAX_TTL < ttl) {
        return Err(invalid("a key can live from 1 ms to 1 000 years"));
    }
    if let XAdd { fields, .. } = command
        && fields.is_empty()
    {
        return Err(invalid("an entry of a stream needs a field"));
    }
    Ok(())
}

fn invalid(text: impl Into<String>) -> SinkError {
    SinkError::new("invalid_payload", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder() -> Encoder {
        Encoder::new(&RedisSinkConfig {
            key_prefix: "p:".to_owned(),
            scripts: [("bump".to_owned(), "return 1".to_owned())].into(),
            ..RedisSinkConfig::default()
        })
    }

    fn said(payload: &RedisPayload, known: &mut Known) -> Result<Vec<String>, SinkError> {
        let text = |argument: Arg<&[u8]>| match argument {
            Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("no argument is a cursor"),
        };
        let words = |command: &Cmd| command.args_iter().map(text).collect::<Vec<_>>().join(" ");
        let commands = encoder().encode(payload, known, 100)?;
        Ok(commands.iter().map(words).collect())
    }

    #[track_caller]
    fn check(payload: &RedisPayload, commands: &[&str]) {
        assert_eq!(said(payload, &mut Known::new()).unwrap(), commands, "{payload:?}");
    }

    #[track_caller]
    fn refused(payload: &RedisPayload, class: &str) {
        assert_eq!(said(payload, &mut Known::new()).unwrap_err().class, class, "{payload:?}");
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn every_command_says_what_the_payload_means_with_the_prefix_before_its_key() {
        check(&RedisPayload::set("k", "v"), &["SET p:k v"]);
        check(&RedisPayload::set("k", "v").nx().ttl(HOUR), &["SET p:k v NX PX 3600000"]);
        check(&RedisPayload::set("k", "v").xx(), &["SET p:k v XX"]);
        check(&RedisPayload::delete("k"), &["DEL p:k"]);
        check(&RedisPayload::expire("k", HOUR), &["PEXPIRE p:k 3600000"]);
        check(&RedisPayload::incrby("k", -2), &["INCRBY p:k -2"]);
        check(&RedisPayload::hset("k", [("a", "1"), ("b", "2")]), &["HSET p:k a 1 b 2"]);
        check(&RedisPayload::hdel("k", ["a", "b"]), &["HDEL p:k a b"]);
        check(&RedisPayload::ltrim("k", -3, -1), &["LTRIM p:k -3 -1"]);
        check(&RedisPayload::sadd("k", ["a", "b"]), &["SADD p:k a b"]);
        check(&RedisPayload::srem("k", ["a"]), &["SREM p:k a"]);
        check(&RedisPayload::zadd("k", [(1.5, "a")]), &["ZADD p:k 1.5 a"]);
        check(&RedisPayload::xadd("k", [("a", "1")]), &["XADD p:k * a 1"]);
        check(&RedisPayload::xadd("k", [("a", "1")]).max_len(9), &["XADD p:k MAXLEN 9 * a 1"]);
    }

    #[test]
    fn a_channel_is_no_key_and_has_no_prefix() {
        check(&RedisPayload::publish("news", "m"), &["PUBLISH news m"]);
    }

    #[test]
    fn a_list_is_cut_at_the_end_that_is_not_pushed_to() {
        check(&RedisPayload::lpush("k", ["a"]).max_len(3), &["LPUSH p:k a", "LTRIM p:k 0 2"]);
        check(&RedisPayload::rpush("k", ["a"]).max_len(3), &["RPUSH p:k a", "LTRIM p:k -3 -1"]);
    }

    #[test]
    fn what_writes_to_a_key_can_say_how_long_it_lives() {
        check(&RedisPayload::incrby("k", 1).ttl(HOUR), &["INCRBY p:k 1", "PEXPIRE p:k 3600000"]);
        check(
            &RedisPayload::rpush("k", ["a"]).max_len(3).ttl(HOUR),
            &["RPUSH p:k a", "LTRIM p:k -3 -1", "PEXPIRE p:k 3600000"],
        );
    }

    #[test]
    fn a_script_brings_its_text_along_once() {
        let call = RedisPayload::script("bump", ["k"], ["a"]);
        let mut known = Known::new();
        assert_eq!(said(&call, &mut known).unwrap(), ["EVAL return 1 1 p:k a"]);
        let sha = redis::Script::new("return 1").get_hash().to_owned();
        assert_eq!(said(&call, &mut known).unwrap(), [format!("EVALSHA {sha} 1 p:k a")]);
    }

    #[test]
    fn nothing_to_write_is_nothing_to_do() {
        let none: [&str; 0] = [];
        check(&RedisPayload::sadd("k", none).ttl(HOUR), &[]);
        check(&RedisPayload::rpush("k", none).max_len(3), &[]);
    }

    #[test]
    fn what_redis_does_not_know_is_refused() {
        let none: [(&str, &str); 0] = [];
        refused(&RedisPayload::delete("k").ttl(HOUR), "invalid_payload");
        refused(&RedisPayload::incrby("k", 1).nx(), "invalid_payload");
        refused(&RedisPayload::sadd("k", ["a"]).max_len(3), "invalid_payload");
        refused(&RedisPayload::rpush("k", ["a"]).max_len(0), "invalid_payload");
        refused(&RedisPayload::ltrim("k", 0, 9).max_len(3), "invalid_payload");
        refused(&RedisPayload::ltrim("k", 0, 9).ttl(HOUR), "invalid_payload");
        refused(&RedisPayload::xadd("k", none), "invalid_payload");
        refused(&RedisPayload::set("k", "v").ttl(Duration::ZERO), "invalid_payload");
        refused(&RedisPayload::expire("k", Duration::MAX), "invalid_payload");
        refused(&RedisPayload::script("gone", ["k"], ["a"]), "unknown_script");
    }

    #[test]
    fn an_argument_that_is_longer_than_the_server_takes_is_refused() {
        check(&RedisPayload::set("k", vec![b'x'; 100]), &[&format!("SET p:k {}", "x".repeat(100))]);
        refused(&RedisPayload::set("k", vec![b'x'; 101]), "too_large");
        refused(&RedisPayload::sadd("k", [vec![b'x'; 101]]), "too_large");
    }
}
