//! `json_lines`: an object per line, text as text and other bytes in base64.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, Read, Write},
};

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{Answer, BUFFER, Request};

#[derive(Deserialize)]
struct Asked {
    id: u64,
    #[serde(default)]
    ping: bool,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    args_base64: Vec<String>,
    #[serde(default)]
    stdin: String,
    #[serde(default)]
    stdin_base64: String,
}

#[derive(Serialize)]
struct Answered<'a> {
    id: u64,
    exit_code: i32,
    #[serde(flatten)]
    stdout: Stdout<'a>,
    #[serde(flatten)]
    stderr: Stderr<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Stdout<'a> {
    Stdout(&'a str),
    StdoutBase64(String),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Stderr<'a> {
    Stderr(&'a str),
    StderrBase64(String),
}

/// Serves `protocol: json_lines` on any pair of streams.
///
/// # Errors
///
/// When reading or writing fails, or the input is not what Drakkar writes.
pub fn serve_json_lines_on<R: Read>(
    mut source: BufReader<R>,
    mut sink: impl Write,
    mut answer: impl FnMut(Request<'_>) -> Answer,
) -> io::Result<()> {
    let mut line = Vec::new();
    while 0 < source.read_until(b'\n', &mut line)? {
        let asked: Asked = serde_json::from_slice(&line)?;
        let (id, is_ping) = (asked.id, asked.ping);
        let request = request(asked).map_err(io::Error::other)?;
        let answer = if is_ping { Answer::default() } else { answer(request) };
        write_answer(id, &answer, &mut sink)?;
        if !source.buffer().contains(&b'\n') {
            sink.flush()?;
        }
        line.clear();
        line.shrink_to(BUFFER);
    }
    sink.flush()
}

fn request(asked: Asked) -> Result<Request<'static>, DecodeError> {
    let texts = asked.args.into_iter().map(|arg| Ok(arg.into_bytes()));
    let coded = asked.args_base64.into_iter().map(|arg| STANDARD.decode(arg));
    let mut stdin = asked.stdin.into_bytes();
    stdin.extend(STANDARD.decode(asked.stdin_base64)?);
    let args: Result<_, _> = texts.chain(coded).map(|arg| arg.map(Cow::Owned)).collect();
    Ok(Request { args: args?, stdin: stdin.into() })
}

fn write_answer(id: u64, answer: &Answer, sink: &mut impl Write) -> io::Result<()> {
    let Answer { exit_code, stdout, stderr } = answer;
    let answered = Answered {
        id,
        exit_code: *exit_code,
        stdout: std::str::from_utf8(stdout)
            .map_or_else(|_| Stdout::StdoutBase64(STANDARD.encode(stdout)), Stdout::Stdout),
        stderr: std::str::from_utf8(stderr)
            .map_or_else(|_| Stderr::StderrBase64(STANDARD.encode(stderr)), Stderr::Stderr),
    };
    serde_json::to_writer(&mut *sink, &answered)?;
    sink.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let mut out = Vec::new();
        let source = BufReader::with_capacity(7, input.as_bytes());
        let served = serve_json_lines_on(source, &mut out, |request| Answer {
            exit_code: i32::try_from(request.args.len()).unwrap(),
            stdout: request.stdin.into_owned(),
            stderr: request.args.concat(),
        });
        served.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn requests_and_answers_have_the_layout_that_the_documentation_gives() {
        check(
            "{\"id\":7,\"args\":[\"-n\"],\"stdin\":\"text\"}\n",
            "{\"id\":7,\"exit_code\":1,\"stdout\":\"text\",\"stderr\":\"-n\"}\n",
        );
        check(
            "{\"id\":8,\"ping\":true,\"args\":[],\"stdin\":\"\"}\n",
            "{\"id\":8,\"exit_code\":0,\"stdout\":\"\",\"stderr\":\"\"}\n",
        );
        check(
            "{\"id\":9,\"args_base64\":[\"YQ==\",\"/w==\"],\"stdin_base64\":\"/g==\"}\n",
            "{\"id\":9,\"exit_code\":2,\"stdout_base64\":\"/g==\",\"stderr_base64\":\"Yf8=\"}\n",
        );
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let served = serve_json_lines_on(BufReader::new(&b"nonsense\n"[..]), io::sink(), |_| {
            Answer::default()
        });
        assert!(served.is_err());
    }
}
