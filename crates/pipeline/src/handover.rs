//! What is dropped and what is finished when a partition is taken away, or the worker stops.
//!
//! Dropped: every message none of whose tasks has started; the next owner reads it again. Finished,
//! until the deadline: the rest. Not waited for: what waits itself, for a retry or for a sink that is
//! down. Then the fence: exactly what the ledger holds as settled is handed over, and the loop ends.

use drakkar_core::{Handler, ledger::TaskKey, source::SourceCommand};
use drakkar_executor::Ticket;
use tokio::time::Instant;
use tracing::info;

use crate::partition::{Active, Partition, TaskStage};

/// What the supervisor orders a partition to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// Finish what was started, at the latest until `deadline`, and hand over.
    HandOver { deadline: Instant },
    /// The partition is lost: end now, report nothing.
    Fence,
}

/// A hand-over that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub deadline: Instant,
    cut_off: bool,
    dropped: usize,
}

impl<H: Handler> Partition<H> {
    /// Stops intake and drops what has not started. A second order can only shorten the deadline.
    pub(crate) fn begin_drain(&mut self, deadline: Instant) {
        if let Some(drain) = &mut self.drain {
            drain.deadline = drain.deadline.min(deadline);
            return;
        }
        self.shared.sinks.hurry(deadline);
        if let Some(arranging) = self.arranging.take() {
            arranging.abort();
        }
        let mut dropped = self.empty_inbox();
        self.take_back_from_pool();
        let unstarted = self.ledger.drop_unstarted(|offset| self.order.before(offset));
        for key in &unstarted.tasks {
            if let Some(Active { stage: TaskStage::Backlog(place), .. }) = self.tasks.remove(key) {
                self.backlog.withdraw(place);
            }
            self.order.withdraw(*key);
            self.rejected.remove(key);
            self.groups.forget(*key);
        }
        dropped += unstarted.messages.len();
        for held in &unstarted.messages {
            self.unload(1, held.message.size());
        }
        self.drain = Some(Drain { deadline, cut_off: false, dropped });
        info!(category = "kafka", partition = %self.id, dropped,
            finishing = self.ledger.open_messages(), "hand-over begins");
    }

    fn empty_inbox(&mut self) -> usize {
        self.inbox.close();
        let mut dropped = 0;
        while let Ok(message) = self.inbox.try_recv() {
            self.unload(1, message.size());
            dropped += 1;
        }
        dropped
    }

    /// Queued tasks return to the backlog; whatever has started is marked, so that it is finished.
    fn take_back_from_pool(&mut self) {
        let keys: Vec<TaskKey> = self.tasks.keys().copied().collect();
        for key in keys {
            self.take_back_if(key, Ticket::cancel_queued);
        }
        for (&key, active) in &self.tasks {
            if !matches!(active.stage, TaskStage::Waiting | TaskStage::Backlog(_)) {
                self.ledger.mark_started(key);
            }
        }
    }

    /// Whether nothing is left that a hand-over would wait for. Called when all that fits was started:
    /// what still waits for room, waits for what is held.
    pub(crate) fn is_drained(&self) -> bool {
        let Some(drain) = &self.drain else { return false };
        drain.cut_off || (self.pooled == 0 && self.under_way() <= self.board.held_tasks())
    }

    /// The deadline has come.
    pub(crate) fn cut_off(&mut self) {
        if let Some(drain) = &mut self.drain {
            drain.cut_off = true;
            self.shared.metrics.drain_timed_out(self.pooled, self.ledger.open_messages());
        }
    }

    /// The last word of this assignment. The loop ends after it.
    pub(crate) fn hand_over(&mut self) {
        // What has ended already counts.
        self.take_last_receipts();
        while let Some(ended) = self.flows.try_join_next() {
            self.flows_ended(ended);
        }
        // From here on nothing may settle: no hook and no delivery of ours goes on.
        self.flows.abort_all();
        let position = self.position();
        let dropped = self.drain.map_or(0, |drain| drain.dropped);
        let next = position.as_ref().map(|position| position.next);
        self.shared.metrics.partition_revoked(&self.id, next, dropped as u64);
        self.shared.status.left_behind(self.pooled, self.ledger.open_messages());
        self.shared.control.send(SourceCommand::HandOver {
            partition: self.id.clone(),
            epoch: self.epoch,
            position,
        });
    }
}
