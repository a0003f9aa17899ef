//! `json_lines`: an object per line, text as text and other bytes in base64.
//!
//! ```text
//! request  {"id":7,"args":["-n"],"stdin":"text"}       args_base64, stdin_base64 where not UTF-8
//! answer   {"id":7,"exit_code":0,"stdout":"","stderr":""}       stdout_base64, stderr_base64 likewise
//! ping     {"id":8,"ping":true,"args":[],"stdin":""}
//! ```
//!
//! What an answer leaves out is 0 or empty, what it has beside these is ignored, and so are empty
//! lines.

use std::{borrow::Cow, os::unix::ffi::OsStrExt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{Answer, Garbage, Inbox, Kept, Limits, Request, Unfit};

#[derive(Serialize)]
struct Asked<'a> {
    id: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ping: bool,
    #[serde(flatten)]
    args: Args<'a>,
    #[serde(flatten)]
    stdin: Stdin<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Args<'a> {
    Args(Vec<&'a str>),
    ArgsBase64(Vec<String>),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Stdin<'a> {
    Stdin(&'a str),
    StdinBase64(String),
}

#[derive(Deserialize)]
struct Answered<'a> {
    id: u64,
    #[serde(default)]
    exit_code: i32,
    #[serde(default, borrow)]
    stdout: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    stdout_base64: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    stderr: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    stderr_base64: Option<Cow<'a, str>>,
}

pub(super) fn encode(id: u64, request: Request<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let (args, stdin): (&[_], &[u8]) = match request {
        Request::Task(task) => {
            (task.args(), task.stdin_bytes().map_or(&[], |stdin| stdin.as_ref()))
        }
        Request::Ping => (&[], &[]),
    };
    let texts: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    let coded = || args.iter().map(|arg| STANDARD.encode(arg.as_bytes())).collect();
    let asked = Asked {
        id,
        ping: matches!(request, Request::Ping),
        args: texts.map_or_else(|| Args::ArgsBase64(coded()), Args::Args),
        stdin: match std::str::from_utf8(stdin) {
            Ok(text) => Stdin::Stdin(text),
            Err(_) => Stdin::StdinBase64(STANDARD.encode(stdin)),
        },
    };
    let before = out.len();
    if serde_json::to_writer(&mut *out, &asked).is_err() {
        out.truncate(before);
        return Err(Unfit("it cannot be written as JSON"));
    }
    out.push(b'\n');
    Ok(())
}

pub(super) fn decode(inbox: &mut Inbox, limits: Limits) -> Result<Option<Answer>, Garbage> {
    while let Some(line) = inbox.line(limits.answer)? {
        if !line.trim_ascii().is_empty() {
            return answer(line, limits).map(Some);
        }
    }
    Ok(None)
}

fn answer(line: &[u8], limits: Limits) -> Result<Answer, Garbage> {
    let answered: Answered<'_> =
        serde_json::from_slice(line).map_err(|error| Garbage::Json(described(&error)))?;
    let Answered { id, exit_code, stdout, stdout_base64, stderr, stderr_base64 } = answered;
    Ok(Answer {
        id: Some(id),
        exit_code,
        stdout: kept(stdout, stdout_base64, limits.stdout)?,
        stderr: kept(stderr, stderr_base64, limits.stderr)?,
    })
}

/// What is wrong and where, without what was printed: that may be anything.
fn described(error: &serde_json::Error) -> String {
    format!("{:?} error in JSON at column {}", error.classify(), error.column())
}

fn kept(
    text: Option<Cow<'_, str>>,
    coded: Option<Cow<'_, str>>,
    limit: usize,
) -> Result<Kept, Garbage> {
    match (text, coded) {
        (None, None) => Ok(Kept::default()),
        (Some(text), None) => Ok(Kept::of(text.as_bytes(), limit)),
        (None, Some(coded)) => match STANDARD.decode(coded.as_bytes()) {
            Ok(bytes) => Ok(Kept::of(&bytes, limit)),
            Err(_) => Err(Garbage::Json("what should be base64 is not".to_owned())),
        },
        (Some(_), Some(_)) => Err(Garbage::Json("output as text and in base64".to_owned())),
    }
}
