//! What is dropped and what is finished when a partition is taken away, or the worker stops.
//!
//! Dropped: every message none of whose tasks has started; the next owner reads it again. Finished,
//! until the deadline: the rest. Not waited for: what waits itself, for a retry or for a sink that is
//! down. Then the fence: exactly what the ledger holds as settled is handed over, and the loop ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use drakkar_core::{Handler, ledger::TaskKey, source::SourceCommand};
use drakkar_executor::Ticket;
use tokio::time::Instant;
use tracing::info;

use crate::partition::{Active, Partition, TaskStage};

/// What the supervisor orders a partition to do.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Finish what was started, and hand over.
    HandOver(Until),
    /// The partition is lost: end now, report nothing.
    Fence,
}

/// How long the partitions of one revoke or stop may take.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    deadline: Instant,
    /// Whether one of them was cut off. `None`: they end now because somebody wishes so.
    timed_out: Option<Arc<AtomicBool>>,
}

impl Until {
    /// At the latest then, which is to be counted.
    pub(crate) fn deadline(deadline: Instant) -> Self {
        Self { deadline, timed_out: Some(Arc::default()) }
    }

    pub(crate) fn now() -> Self {
        Self { deadline: Instant::now(), timed_out: None }
    }
}

/// A hand-over that is under way.
#[derive(Debug)]
pub(crate) struct Drain {
    until: Until,
    cut_off: bool,
    dropped: usize,
}

impl Drain {
    pub(crate) fn deadline(&self) -> Instant {
        self.until.deadline
    }
}

impl<H: Handler> Partition<H> {
    /// Stops intake and drops what has not started. A second order can only shorten the deadline.
    pub(crate) fn begin_drain(&mut self, until: Until) {
        if let Some(drain) = &mut self.drain {
            if until.deadline < drain.until.deadline {
                drain.until = until;
            }
            return;
        }
        self.shared.sinks.hurry(until.deadline);
        if let Some(arranging) = self.arranging.take() {
            arranging.abort();
        }
        let mut dropped = self.empty_inbox();
        self.take_back_from_pool();
        let unstarted = self.ledger.drop_unstarted(|offset| self.order.before(offset));
        for key in &unstarted.tasks {
            if let Some(Active { stage: TaskStage::Backlog(place), .. }) = self.forget_task(*key) {
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
        self.drain = Some(Drain { until, cut_off: false, dropped });
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
        let Some(drain) = &mut self.drain else { return };
        drain.cut_off = true;
        if let Some(timed_out) = &drain.until.timed_out {
            let first = !timed_out.swap(true, Ordering::Relaxed);
            let unsettled = self.ledger.open_messages();
            self.shared.metrics.drain_timed_out(&self.id, first, self.pooled, unsettled);
        }
    }

    /// Messages of this assignment that the next owner has to read, so far.
    fn unsettled(&self) -> usize {
        let dropped = self.drain.as_ref().map_or(0, |drain| drain.dropped);
        dropped + self.ledger.open_messages() + self.inbox.len()
    }

    /// The partition is lost. The loop ends after it.
    pub(crate) fn lost(&self) {
        let unsettled = self.unsettled();
        self.shared.metrics.partition_lost(&self.id, unsettled as u64);
        self.shared.status.left_behind(self.pooled, unsettled);
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
        let dropped = self.drain.as_ref().map_or(0, |drain| drain.dropped);
        let next = position.as_ref().map(|position| position.next);
        self.shared.metrics.partition_revoked(&self.id, next, dropped as u64);
        self.shared.status.left_behind(self.pooled, self.unsettled());
        self.shared.control.send(SourceCommand::HandOver {
            partition: self.id.clone(),
            epoch: self.epoch,
            position,
        });
    }
}
