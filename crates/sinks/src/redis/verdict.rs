//! What an answer of the server means for a payload.
//!
//! A payload is refused only where the command itself is at fault. Everything else is held: memory is
//! freed, a replica is promoted, rights are granted, a server that starts has loaded its data.

use drakkar_core::{Delivery, SinkError};
use redis::{ErrorKind, RedisError, ServerError, Value};

/// What became of a command that was answered like this.
pub(super) fn delivery(answer: &Value) -> Delivery {
    match answer {
        Value::ServerError(error) => refused(error),
        _ => Delivery::Confirmed,
    }
}

fn refused(answer: &ServerError) -> Delivery {
    let error = said(answer);
    if is_passing(&error) { Delivery::Transient(error) } else { Delivery::Permanent(error) }
}

/// What the server said.
pub(super) fn said(answer: &ServerError) -> SinkError {
    SinkError::new(answer.code(), answer.details().unwrap_or("no further words"))
}

/// Whether the same command may be accepted later.
fn is_passing(error: &SinkError) -> bool {
    match &*error.class {
        // The server cannot take any write, or not here, or not now.
        "OOM" | "READONLY" | "LOADING" | "MASTERDOWN" | "MISCONF" | "NOREPLICAS" | "BUSY"
        | "CLUSTERDOWN" | "MOVED" | "ASK" | "TRYAGAIN"
        // It does not let us in any more: somebody has changed that, and can change it back.
        | "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED"
        // The command was not executed, because of another one.
        | "EXECABORT"
        // It was told to forget a script that it was given a moment ago.
        | "NOSCRIPT" => true,
        "ERR" => error.message.contains("max number of clients"),
        // Codes of Redis are upper-case. Else a proxy speaks for a server that is away:
        // `upstream failure`.
        code => code.contains(|c: char| c.is_ascii_lowercase()),
    }
}

/// Why nothing was answered.
pub(super) fn unanswered(address: &str, error: &RedisError) -> SinkError {
    SinkError::new("connection", format!("{address}: {error}"))
}

/// Whether trying to connect again is of no use: credentials, rights, a database that there is not.
pub(super) fn is_final(error: &RedisError) -> bool {
    match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => true,
        Some(code) => !is_passing(&SinkError::new(code, error.detail().unwrap_or_default())),
        None => {
            matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, held: bool) {
        let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        let class = answer.split(' ').next().unwrap();
        match delivery(&value) {
            Delivery::Transient(error) => assert!(held && error.class == class, "{error}"),
            Delivery::Permanent(error) => assert!(!held && error.class == class, "{error}"),
            Delivery::Confirmed => panic!("{answer} counts as delivered"),
        }
    }

    #[test]
    fn what_the_server_may_accept_later_is_held() {
        for answer in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "BUSY Redis is busy running a script.",
            "MISCONF Redis is configured to save RDB snapshots",
            "NOREPLICAS Not enough good replicas to write.",
            "NOAUTH Authentication required.",
            "NOPERM this user has no permissions to run the 'set' command",
            "EXECABORT Transaction discarded because of previous errors.",
            "NOSCRIPT No matching script.",
            "ERR max number of clients reached",
            // What a proxy says.
            "upstream failure",
            "no upstream host",
        ] {
            check(answer, true);
        }
    }

    #[test]
    fn what_is_wrong_with_the_command_is_refused() {
        for answer in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR value is not an integer or out of range",
            "ERR user_script:1: Script attempted to access nonexistent global variable 'x'",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "MINE what a script says",
        ] {
            check(answer, false);
        }
    }
}
