//! How a task ended.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::{SpooledFile, Task};

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
    /// Bytes of standard output beyond the capture limit, or beyond `executor.spool.max_task_bytes`.
    pub stdout_dropped: u64,
    /// Bytes of standard error beyond the capture limit.
    pub stderr_dropped: u64,
    /// Where standard output was written to, of a task that [asked for it](Task::spool_stdout); then
    /// [`Output::stdout`] is empty.
    pub spooled: Option<SpooledFile>,
    /// Process id; `None` when no process ran (precomputed, unstartable).
    pub pid: Option<u32>,
    /// When the run began, by the clock of the machine; `None` when no process ran.
    pub started_at: Option<SystemTime>,
    /// Time between asking for a slot and getting it.
    pub waited: Duration,
    /// Time the operating system took to start the process.
    pub spawned_in: Duration,
    /// Wall-clock time of the run.
    pub took: Duration,
    /// What the program used; measured only for `executor.job_log`.
    pub usage: Usage,
}

/// What a program used, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most resident memory it was seen with, in bytes, without that of its children. Unknown where it
    /// ended before the first look.
    pub max_rss: Option<u64>,
    /// Processor time of the program itself and of the children it waited for.
    pub user: Option<Duration>,
    /// The same, spent in the kernel.
    pub system: Option<Duration>,
}

impl Output {
    /// The file that holds standard output, of a task that [asked for it](Task::spool_stdout).
    #[must_use]
    pub fn stdout_file(&self) -> Option<&Path> {
        self.spooled.as_ref().map(SpooledFile::path)
    }

    /// Bytes of standard output that are there, in memory or in a file.
    #[must_use]
    pub fn stdout_len(&self) -> u64 {
        self.stdout.len() as u64 + self.spooled.as_ref().map_or(0, SpooledFile::len)
    }

    /// Whether some output is missing because it exceeded a capture limit.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.stdout_dropped > 0 || self.stderr_dropped > 0
    }

    /// Lets the captured output go and counts it as dropped, but for what is in a file. Answers how many
    /// bytes that were.
    pub fn discard(&mut self) -> usize {
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        self.stdout_dropped += stdout.len() as u64;
        self.stderr_dropped += stderr.len() as u64;
        stdout.len() + stderr.len()
    }

    /// Bytes of memory held by the captured output.
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
