//! How far a command has come, on a line that is redrawn where somebody watches.

use std::{io::IsTerminal, time::Duration};

use tokio::time::Instant;

use crate::say::draw;

/// Shortest time between two pictures.
const STILL: Duration = Duration::from_millis(100);

/// The line.
pub(super) struct Bar {
    total: u64,
    shown: Instant,
}

impl Bar {
    /// Of so many steps.
    pub(super) fn new(total: u64) -> Self {
        Self { total, shown: Instant::now() }
    }

    /// Shows that so many steps are left.
    pub(super) fn show(&mut self, left: u64, text: impl FnOnce() -> String) {
        if self.shown.elapsed() < STILL || !std::io::stderr().is_terminal() {
            return;
        }
        self.shown = Instant::now();
        let total = self.total;
        let done = total.saturating_sub(left);
        let filled = usize::try_from(20 * done / total.max(1)).unwrap_or(20);
        draw(&format!("[{:<20}] {done}/{total} | {}", "#".repeat(filled), text()));
    }
}

/// Removes the line.
pub(super) fn clear() {
    if std::io::stderr().is_terminal() {
        draw("");
    }
}
