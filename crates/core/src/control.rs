//! How one run is controlled: what it reads, how long it may take, how it is asked to end, and how much
//! of what it prints is kept.
//!
//! What a task does not say, the `executor:` section does.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use crate::Task;

/// A signal that asks a program to end. Whatever it does about it, SIGKILL follows at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopSignal {
    /// SIGHUP
    Hangup,
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGQUIT; many programs leave a core dump.
    Quit,
    /// SIGTERM, the usual one.
    Terminate,
    /// SIGUSR1
    User1,
    /// SIGUSR2
    User2,
}

/// How many bytes of an output are kept: the first and the last. Everything between is read, discarded and
/// counted in the `dropped` fields of [`Output`](crate::Output).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Bytes from the beginning.
    pub head: usize,
    /// Bytes before the end, which follow the head directly.
    pub tail: usize,
}

/// What one task asks for beside its program and arguments.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Control {
    pub(crate) stdin_file: Option<PathBuf>,
    limit_percent: Option<NonZeroU32>,
    stop: Option<Vec<(StopSignal, Duration)>>,
    stdout: Option<Keep>,
    stderr: Option<Keep>,
    spool_stdout: bool,
}

/// How it is run.
impl Task {
    /// Has the program read the file at `path`, which it gets as its standard input; what was set by
    /// [`Task::stdin`] is forgotten. A relative path starts at the worker's directory.
    ///
    /// A file that is not there or may not be read is a start that fails for good.
    #[must_use]
    pub fn stdin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.said.stdin = None;
        self.said.control.stdin_file = Some(path.into());
        self
    }

    /// Limits the run to `percent` of the median time of the program's recent successful runs, of
    /// those tasks that ask for such a limit (`--timeout 200%` of GNU parallel). Until enough of them
    /// have ended only the limit of [`Task::timeout`] counts, which counts beside it in any case.
    #[must_use]
    pub fn timeout_percent(mut self, percent: NonZeroU32) -> Self {
        self.said.control.limit_percent = Some(percent);
        self
    }

    /// Sets how the program is asked to end: each signal goes to its process group and is followed by the
    /// wait beside it, unless the program ends before; then SIGKILL. The default is SIGTERM and
    /// `executor.kill_grace`; no signal at all means SIGKILL at once.
    #[must_use]
    pub fn stop_with(mut self, steps: impl IntoIterator<Item = (StopSignal, Duration)>) -> Self {
        self.said.control.stop = Some(steps.into_iter().collect());
        self
    }

    /// Sets what is kept of standard output; the default is a head of `executor.max_stdout_bytes`.
    #[must_use]
    pub fn keep_stdout(mut self, keep: Keep) -> Self {
        self.said.control.stdout = Some(keep);
        self
    }

    /// Sets what is kept of standard error; the default is a head of `executor.max_stderr_bytes`.
    #[must_use]
    pub fn keep_stderr(mut self, keep: Keep) -> Self {
        self.said.control.stderr = Some(keep);
        self
    }

    /// Has standard output written to a file below `executor.spool.dir` instead of into memory: all of it, up
    /// to `executor.spool.max_task_bytes`. What comes beyond that is read, discarded and counted; what
    /// [`Task::keep_stdout`] says does not apply.
    ///
    /// The hooks find the file by [`Output::stdout_file`](crate::Output::stdout_file). It lives as long as
    /// the result: until the last hook that sees it is done, which is `on_window_complete` where the handler
    /// has one. To keep it longer, clone [`Output::spooled`](crate::Output), or move the file.
    ///
    /// ```
    /// use drakkar_core::{Collect, HookResult, Task, TaskResult};
    ///
    /// fn task() -> Task {
    ///     Task::new().program("pg_dump").arg("orders").spool_stdout()
    /// }
    ///
    /// async fn on_task_complete(done: &TaskResult) -> HookResult<Collect> {
    ///     if let Some(dump) = done.output.stdout_file() {
    ///         std::fs::rename(dump, "/backup/orders.sql")?; // The same file system.
    ///     }
    ///     Ok(Collect::default())
    /// }
    /// ```
    #[must_use]
    pub fn spool_stdout(mut self) -> Self {
        self.said.control.spool_stdout = true;
        self
    }
}

/// What was set of it.
impl Task {
    /// The file that the program reads.
    #[must_use]
    pub fn stdin_path(&self) -> Option<&PathBuf> {
        self.said.control.stdin_file.as_ref()
    }

    /// The limit as percent of the median, where the task sets one.
    #[must_use]
    pub fn limit_percent(&self) -> Option<NonZeroU32> {
        self.said.control.limit_percent
    }

    /// How the program is asked to end, where the task says so.
    #[must_use]
    pub fn stop_steps(&self) -> Option<&[(StopSignal, Duration)]> {
        self.said.control.stop.as_deref()
    }

    /// What is kept of standard output, where the task says so.
    #[must_use]
    pub fn kept_stdout(&self) -> Option<Keep> {
        self.said.control.stdout
    }

    /// What is kept of standard error, where the task says so.
    #[must_use]
    pub fn kept_stderr(&self) -> Option<Keep> {
        self.said.control.stderr
    }

    /// Whether standard output goes to a file.
    #[must_use]
    pub fn spools_stdout(&self) -> bool {
        self.said.control.spool_stdout
    }
}
