//! What a partition keeps of a message while it is open, beside what it waits for.

use std::sync::Arc;

use drakkar_core::SourceMessage;

/// What is kept of an open message.
#[derive(Debug)]
pub(crate) struct Held {
    pub message: Arc<SourceMessage>,
    pub window: u64,
    /// Whether a dead letter was written for it.
    pub given_up: bool,
    /// Whether nothing is to be done for it (filtered, skipped): that it settles shows nothing.
    pub idle: bool,
    /// What its tasks have come to so far.
    pub fate: Fate,
}

/// What the tasks of a message have come to.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Nothing yet.
    Open,
    /// `on_error` skipped all that have ended. How the handler calls the message.
    Skipped(Option<String>),
    /// One of them has succeeded.
    Succeeded,
}

impl Held {
    pub(crate) fn new(message: Arc<SourceMessage>, window: u64) -> Self {
        Self { message, window, given_up: false, idle: false, fate: Fate::Open }
    }

    /// One of its tasks was skipped.
    pub(crate) fn skip(&mut self, label: Option<String>) {
        if matches!(self.fate, Fate::Open) {
            self.fate = Fate::Skipped(label);
        }
    }
}
