//! What a message tells the test worker to do: the words that tests and worker share.

use drakkar_core::Payload;
use serde::{Deserialize, Serialize};

use crate::kafka::Given;

/// The value of a message, as JSON: `{"id": "a-1", "do": "echo"}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Names the message; its key as well, and the key of its result.
    pub id: String,
    /// What to do.
    #[serde(rename = "do")]
    pub act: Act,
    /// What is delivered beside the result, as it stands.
    #[serde(default)]
    pub beside: Vec<Payload>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// `cat` the value; the result is what it printed.
    Echo,
    /// The same after this many milliseconds.
    SleepMs(u64),
    /// The same once the world has a licence.
    AwaitLicence,
    /// The same without a process.
    Precomputed,
    /// The same, in one task with all others of the window that are to be.
    Together,
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
        Self { id: id.into(), act, beside: Vec::new() }
    }

    /// Has `payload` delivered as well.
    #[must_use]
    pub fn beside(mut self, payload: impl Into<Payload>) -> Self {
        self.beside.push(payload.into());
        self
    }

    /// The record of it, under its id.
    #[must_use]
    pub fn given(&self) -> Given {
        Given::new(self.id.clone(), self.to_value())
    }

    /// The value of the message.
    #[must_use]
    pub fn to_value(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }
}
