//! The end: the last commits, then everything is given back.

use std::{thread, time::Duration};

use drakkar_core::source::SourceFailure;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{IDLE, Poller, Queue};

/// How long the last commits may take.
const LAST_COMMITS: Duration = Duration::from_secs(5);

impl Poller<'_> {
    /// Commits what was handed over, bounded, and gives up what is still being handed over.
    ///
    /// The consumer itself is closed by whoever owns it.
    pub(super) fn close(mut self) -> Result<(), SourceFailure> {
        self.quiesce();
        self.hurry_commits();
        let deadline = Instant::now() + LAST_COMMITS;
        while !self.commits.all_done() {
            let now = Instant::now();
            if deadline <= now {
                warn!(category = "kafka", "the last commits were not confirmed; read again later");
                break;
            }
            self.commit();
            if self.receive()? == Queue::Empty {
                let wait = self.idle().min(deadline - now).min(IDLE);
                thread::park_timeout(wait);
            }
        }
        self.give_up_now();
        info!(category = "kafka", "leaving the group");
        Ok(())
    }
}
