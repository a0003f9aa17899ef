//! What is written to a persistent program and what it prints, as bytes. Pure: no process is here.
//!
//! Bytes arrive in pieces of any size: [`Inbox`] keeps what is not a whole answer yet. Every length
//! that a program claims is checked before anything is done with it. `docs/executor.md` specifies the
//! layouts; `crates/program` is the other side.

mod outbox; // requests that wait for the pipe
mod inbox; // bytes that have arrived
mod frames; // lengths, then bytes
mod json_lines; // an object per line
mod lines; // the line is all there is
#[cfg(test)]
mod tests;

use bytes::Bytes;
use drakkar_core::{Failure, Task};

use crate::Protocol;

pub(super) use inbox::Inbox;
pub(super) use outbox::Outbox;

/// What a process is asked.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    /// To do this.
    Task(&'a Task),
    /// To show that it lives.
    Ping,
}

/// What a process answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// To which request; `None` where the protocol has no ids.
    pub(super) id: Option<u64>,
    pub(super) exit_code: i32,
    pub(super) stdout: Kept,
    pub(super) stderr: Kept,
}

/// Output, up to its limit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    pub(super) dropped: u64,
}

impl Kept {
    /// Copies what is kept: results are budgeted by their length and must not hold a whole buffer.
    fn of(bytes: &[u8], limit: usize) -> Self {
        let kept = bytes.len().min(limit);
        Self { bytes: Bytes::copy_from_slice(&bytes[..kept]), dropped: (bytes.len() - kept) as u64 }
    }
}

/// How much of an answer is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of standard output.
    pub(super) stdout: usize,
    /// Of standard error.
    pub(super) stderr: usize,
    /// Of everything, as it is printed: more is [`Garbage`].
    pub(super) answer: usize,
}

/// A task that cannot be asked in this protocol, whatever process is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(pub(super) &'static str);

impl Unfit {
    /// What becomes of such a task of `program`.
    pub(super) fn failure(self, program: &str) -> Failure {
        let (program, reason) = (program.to_owned(), self.to_string());
        Failure::Unstartable { program, reason, permanent: true }
    }
}

/// What was printed is no answer, and where the next one begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbage {
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
    #[error("a frame that does not hold what it says it holds")]
    Frame,
    #[error("a line that is no answer: {0}")]
    Json(String),
}

/// Refuses what can be given to a process only at its start.
pub(super) fn check(task: &Task) -> Result<(), Unfit> {
    if !task.env_vars().is_empty() {
        return Err(Unfit("a persistent program cannot be given the environment of a task"));
    }
    if task.dir().is_some() {
        return Err(Unfit("a persistent program cannot be given the working directory of a task"));
    }
    if task.stdin_path().is_some() {
        return Err(Unfit("a persistent program cannot be given a file as input"));
    }
    if task.spools_stdout() {
        return Err(Unfit("a persistent program cannot be asked to spool its output"));
    }
    Ok(())
}

impl Protocol {
    /// Appends a request to `out`, which is as it was if that fails.
    pub(super) fn encode(
        self,
        id: u64,
        request: Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        match self {
            Self::JsonLines => json_lines::encode(id, request, out),
            Self::Frames => frames::encode(id, request, out),
            Self::Lines => lines::encode(request, out),
        }
    }

    /// Takes the next whole answer, if there is one.
    pub(super) fn decode(
        self,
        inbox: &mut Inbox,
        limits: Limits,
    ) -> Result<Option<Answer>, Garbage> {
        match self {
            Self::JsonLines => json_lines::decode(inbox, limits),
            Self::Frames => frames::decode(inbox, limits),
            Self::Lines => lines::decode(inbox, limits),
        }
    }
}
