//! Why a process serves no longer, and what follows from it for the tasks it had.

use std::io;

use super::wire::Garbage;

/// Why a process serves no longer.
#[derive(Debug)]
pub(super) enum End {
    /// The program is closed.
    Closed,
    /// It has served its time and has no requests.
    Recycled,
    /// It cannot go on.
    Failed(Trouble),
}

/// What is wrong with a process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("it ended")]
    Ended,
    #[error("it exceeded the time limit of a task")]
    Overdue,
    #[error("it does not answer a ping")]
    Mute,
    #[error("it works on a task that was killed")]
    Killed,
    #[error("it printed {0}")]
    Garbage(#[from] Garbage),
    #[error("it answered what it was not asked")]
    Unasked,
    #[error("the worker panicked over it; please report it")]
    Panicked,
    #[error("talking to it failed: {0}")]
    Io(#[from] io::Error),
}

impl Trouble {
    /// Whether it is known whose doing it was, so that everybody else is known to be innocent.
    pub(super) fn has_culprit(&self) -> bool {
        matches!(self, Self::Overdue | Self::Killed)
    }
}
