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

/// The code that counts: up to Redis 6.2 an error of a command inside of a script is `ERR`, and quoted
/// among its words.
fn code<'a>(class: &'a str, words: &'a str) -> &'a str {
    if class != "ERR" || !words.starts_with("Error running script") {
        return class;
    }
    let quoted = words.split_once(": -").and_then(|(_, quoted)| quoted.split(' ').next());
    let is_code = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
    quoted.filter(is_code).unwrap_or(class)
}

/// Whether the server said anywhere in `answer` that it takes no writes as things are. Where its name
/// leads to may be another one by now, and connections to this one do not show it.
pub(super) fn takes_no_writes(answer: &Value) -> bool {
    match answer {
        Value::Array(answers) => answers.iter().any(takes_no_writes),
        Value::ServerError(error) => matches!(
            code(error.code(), error.details().unwrap_or_default()),
            "READONLY" | "MASTERDOWN" | "LOADING" | "NOREPLICAS" | "MISCONF" | "OOM"
        ),
        _ => false,
    }
}

/// Whether the same command may be accepted later.
fn is_passing(error: &SinkError) -> bool {
    match code(&error.class, &error.message) {
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
            // Inside of a script, up to Redis 6.2.
            "ERR Error running script (call to f_e0): @user_script:1: @user_script: 1: -OOM command not allowed",
            "ERR Error running script (call to f_e0): @user_script:1: @user_script: 1: -READONLY You can't write",
            "ERR Error running script (call to f_e0): @user_script:1: @user_script: 1: -MISCONF Redis is",
            "ERR Error running script (call to f_e0): @user_script:1: @user_script: 1: -NOREPLICAS Not enough",
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
            "ERR Error running script (call to f_e0): @user_script:1: user_script:1: bad",
            "ERR Error running script (call to f_e0): @user_script:1: WRONGTYPE Operation against",
            "ERR Error running script (call to f_e0): @user_script:1: a difference: -7 is too little",
            "ERR value is said: -OOM no script was run",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "MINE what a script says",
        ] {
            check(answer, false);
        }
    }

    #[test]
    fn a_server_that_takes_no_writes_is_known_by_any_of_its_answers() {
        let reply =
            |text: &str| redis::parse_redis_value(format!("{text}\r\n").as_bytes()).unwrap();
        let in_transaction = |text| Value::Array(vec![reply("+OK"), reply(text)]);
        let script =
            "-ERR Error running script (call to f_e0): @user_script: 1: -READONLY You can't";
        for answer in ["-READONLY You can't", "-MASTERDOWN Link", "-NOREPLICAS Not", script] {
            assert!(takes_no_writes(&reply(answer)), "{answer}");
            assert!(takes_no_writes(&in_transaction(answer)), "{answer}");
        }
        for answer in ["+OK", "-WRONGTYPE no list", "-MOVED 1 b:1", "-NOPERM no rights"] {
            assert!(!takes_no_writes(&reply(answer)), "{answer}");
            assert!(!takes_no_writes(&in_transaction(answer)), "{answer}");
        }
    }
}
