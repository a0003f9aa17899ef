//! The end: the last commits, then everything is given back.

use std::{thread, time::Duration};

use drakkar_core::source::SourceFailure;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Poller, Queue};

impl Poller<'_> {
    /// Commits what was handed over, for at most `within`. What the group takes back meanwhile is given up
    /// as at any other time, and in the end what is still being handed over.
    ///
    /// A commit can take long: while the group waits for a member that has died, the coordinator
    /// answers our request to join again first, and what we sent behind it only then.
    ///
    /// The consumer itself is closed by whoever owns it.
    pub(super) fn close(mut self, within: Duration) -> Result<(), SourceFailure> {
        self.quiesce();
        self.hurry_commits();
        let deadline = Instant::now() + within;
        while !self.commits.all_done() {
            let now = Instant::now();
            if deadline <= now {
                warn!(category = "kafka", "the last commits were not confirmed; read again later");
                break;
            }
            let queue = self.receive()?;
            // Nobody works on what comes or goes now: the group need not wait for the rest.
            self.begin_awaited();
            self.commit();
            self.hand_over();
            if queue == Queue::Empty {
                thread::park_timeout(self.idle().min(deadline - now));
            }
        }
        // Unanswered, the client would never close.
        self.begin_awaited();
        self.give_up_now();
        if self.config.group_instance_id.is_none() {
            info!(category = "kafka", "leaving the group");
        } else {
            info!(
                category = "kafka",
                "going; the group keeps our partitions until our session ends"
            );
        }
        Ok(())
    }
}
