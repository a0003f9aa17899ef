//! For programs written in Rust that Drakkar keeps running: reads requests from standard input and
//! writes answers to standard output, until the input ends.
//!
//! ```no_run
//! use drakkar_program::{Answer, serve_frames};
//!
//! fn main() -> std::io::Result<()> {
//!     // What is slow to load is loaded here, once.
//!     serve_frames(|request| Answer::ok(request.stdin.to_ascii_uppercase()))
//! }
//! ```
//!
//! With `executor.programs.upper: {mode: persistent, protocol: frames, ping: true}` every task that
//! says `Task::program("upper")` is answered by it. Pings are answered here. Nothing else may be
//! written to standard output; standard error goes to the log of the worker. One request is served
//! at a time; for more, configure more `instances`.
//!
//! The layouts are specified in `docs/executor.md`.

mod frames; // lengths, then bytes
mod json_lines; // an object per line

use std::{
    borrow::Cow,
    io::{self, BufReader, BufWriter},
};

pub use frames::serve_frames_on;
pub use json_lines::serve_json_lines_on;

/// Bytes per read and per write.
const BUFFER: usize = 64 * 1024;

/// What a task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The arguments of the task.
    pub args: Vec<Cow<'a, [u8]>>,
    /// Its standard input.
    pub stdin: Cow<'a, [u8]>,
}

/// What is answered; the task ends as if a program of its own had printed this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// 0 is success.
    pub exit_code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Answer {
    /// Success.
    #[must_use]
    pub fn ok(stdout: impl Into<Vec<u8>>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    /// Failure, with its reason as error output.
    #[must_use]
    pub fn failed(exit_code: i32, stderr: impl Into<Vec<u8>>) -> Self {
        Self { exit_code, stderr: stderr.into(), ..Self::default() }
    }
}

/// Serves `protocol: frames` until standard input ends.
///
/// # Errors
///
/// When reading or writing fails, or the input is not what Drakkar writes.
pub fn serve_frames(answer: impl FnMut(Request<'_>) -> Answer) -> io::Result<()> {
    let (source, sink) = pipes();
    serve_frames_on(source, sink, answer)
}

/// Serves `protocol: json_lines` until standard input ends.
///
/// # Errors
///
/// When reading or writing fails, or the input is not what Drakkar writes.
pub fn serve_json_lines(answer: impl FnMut(Request<'_>) -> Answer) -> io::Result<()> {
    let (source, sink) = pipes();
    serve_json_lines_on(source, sink, answer)
}

/// Standard output of Rust is flushed at every line end: too often for frames, and we flush ourselves.
fn pipes() -> (BufReader<io::StdinLock<'static>>, BufWriter<io::StdoutLock<'static>>) {
    (
        BufReader::with_capacity(BUFFER, io::stdin().lock()),
        BufWriter::with_capacity(BUFFER, io::stdout().lock()),
    )
}
