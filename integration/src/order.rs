//! What a message tells the test worker to do: the words that tests and worker share.

use serde::{Deserialize, Serialize};

/// The value of a message, as JSON: `{"id": "a-1", "do": "echo"}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Names the message; its key as well, and the key of its result.
    pub id: String,
    /// What to do.
    #[serde(rename = "do")]
    pub act: Act,
    /// Whether the result goes to the file sink, too.
    #[serde(default)]
    pub file: bool,
    /// The table of the PostgreSQL sink that gets a row with the id, if any.
    #[serde(default)]
    pub row: Option<String>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// `cat` the value; the result is what it printed.
    Echo,
    /// The same after this many milliseconds.
    SleepMs(u64),
    /// The same without a process.
    Precomputed,
    /// Exit with 3.
    Fail,
    /// Exit with 7 on the first attempt, `cat` on the second.
    FailOnce,
    /// Exit with 9 until the world has a licence, then `cat` the value.
    Licensed,
    /// Do not end; the task has a short time limit.
    Hang,
    /// The same, and ignore SIGTERM.
    IgnoreTerm,
    /// Leave children behind that hold the pipes open.
    Fork,
    /// The same, from sessions of their own.
    Escape,
    /// The same, and do not end.
    EscapeAndHang,
    /// Print a gibibyte; the result says how much was kept and how much was not.
    PrintGibibyte,
    /// Close standard input without reading the eight megabytes that are written to it.
    CloseStdin,
    /// Run a program that does not exist.
    Missing,
    /// Run a file that is not executable.
    NotExecutable,
    /// Send the result to a sink that is not configured.
    UnknownSink,
    /// Return an error from `on_task_complete`.
    HookError,
    /// Panic in `on_task_complete`.
    HookPanic,
    /// Return an error from `arrange`.
    ArrangeError,
    /// Panic in `arrange`.
    ArrangePanic,
    /// Arrange no task for the message.
    Nothing,
    /// Arrange a task that stands for a message outside of the window.
    Foreign,
}

impl Order {
    /// The order `id` to do `act`.
    pub fn new(id: impl Into<String>, act: Act) -> Self {
        Self { id: id.into(), act, file: false, row: None }
    }

    /// Has the result written to the file sink as well.
    #[must_use]
    pub fn with_file(mut self) -> Self {
        self.file = true;
        self
    }

    /// Has a row written to `table` as well.
    #[must_use]
    pub fn with_row(mut self, table: impl Into<String>) -> Self {
        self.row = Some(table.into());
        self
    }

    /// The value of the message.
    #[must_use]
    pub fn to_value(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }
}
