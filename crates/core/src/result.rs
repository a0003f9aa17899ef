//! How a task ended.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::Task;

/// What a run printed and how long it took.
///
/// Output is kept up to `executor.max_stdout_bytes` and `executor.max_stderr_bytes`; what a program
/// printed beyond that was read, discarded and counted in the `dropped` fields. A task may
/// [ask for the end as well](crate::Keep): it follows the beginning directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output, byte for byte.
    pub stdout: Bytes,
    /// Standard error, byte for byte.
    pub stderr: Bytes,
    /// Bytes of standard output beyond the capture limit.
    pub stdout_dropped: u64,
    /// Bytes of standard error beyond the capture limit.
    pub stderr_dropped: u64,
    /// Process id; `None` when no process ran (precomputed, unstartable).
    pub pid: Option<u32>,
    /// Time between asking for a slot and getting it.
    pub waited: Duration,
    /// Time the operating system took to start the process.
    pub spawned_in: Duration,
    /// Wall-clock time of the run.
    pub took: Duration,
}

impl Output {
    /// Whether some output is missing because it exceeded a capture limit.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.stdout_dropped > 0 || self.stderr_dropped > 0
    }

    /// Lets the captured output go and counts it as dropped. Answers how many bytes that were.
    pub fn discard(&mut self) -> usize {
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        self.stdout_dropped += stdout.len() as u64;
        self.stderr_dropped += stderr.len() as u64;
        stdout.len() + stderr.len()
    }

    /// Bytes held by the captured output.
    #[must_use]
    pub fn size(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }
}

/// A task that ended with exit code 0.
#[derive(Debug, Clone)]
pub struct TaskResult {
    /// What was asked for.
    pub task: Arc<Task>,
    /// What it printed.
    pub output: Output,
    /// Which attempt this was, from 1.
    pub attempt: u32,
}

impl TaskResult {
    /// Standard output as text; bytes that are not UTF-8 become `U+FFFD`.
    #[must_use]
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.output.stdout)
    }
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The program ended by itself with another exit code than 0.
    #[error("exit code {0}")]
    Exit(i32),
    /// A signal that we did not send ended the program.
    #[error("killed by signal {0}")]
    Signal(i32),
    /// The kernel ended the program, or one of its children, because memory had run out.
    #[error("killed because memory had run out")]
    OutOfMemory,
    /// The program exceeded its time limit and was ended.
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    /// The operating system could not start the program.
    #[error("cannot start {program}: {reason}")]
    Unstartable {
        /// What was to be started.
        program: String,
        /// The operating system's words.
        reason: String,
        /// Whether starting it again can never succeed (no such file, not executable).
        permanent: bool,
    },
    /// The program started, and talking to it failed.
    #[error("lost contact with the process: {0}")]
    Io(String),
    /// The program succeeded, and [`on_task_complete`](crate::Handler::on_task_complete) failed. Only
    /// seen in a [`MessageGroup`](crate::MessageGroup) or a [`WindowGroup`](crate::WindowGroup).
    #[error("on_task_complete failed: {0}")]
    Hook(String),
}

impl Failure {
    /// Whether the same task can never succeed.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Unstartable { permanent: true, .. })
    }

    /// The class as metrics and dead letters name it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Exit(_) => "exit_code",
            Self::Signal(_) => "signal",
            Self::OutOfMemory => "memory",
            Self::TimedOut(_) => "timeout",
            Self::Unstartable { .. } => "unstartable",
            Self::Io(_) => "io",
            Self::Hook(_) => "hook",
        }
    }
}

/// A task that did not end with exit code 0.
#[derive(Debug, Clone)]
pub struct TaskFailure {
    /// What was asked for.
    pub task: Arc<Task>,
    /// Why it failed.
    pub failure: Failure,
    /// What it printed until then.
    pub output: Output,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    /// How many more attempts `executor.max_retries` leaves.
    pub retries_left: u32,
}
