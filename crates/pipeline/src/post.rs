//! What a task led to is posted to the sinks, and the receipts come to the loop of its partition.
//!
//! Most payloads are confirmed. So nothing of the runtime waits for each: the loop keeps how many
//! receipts a task waits for. Only what finds no room at once, or is refused, goes on beside the loop, as
//! [`crate::deliver`] says. The mailbox of the receipts belongs to one assignment: when it closes, what was
//! posted and is not being written is given up, and what is said of the rest is heard by nobody.

use std::{collections::hash_map::Entry, sync::Arc};

use drakkar_core::{
    Cause, Handler, Payload, SourceMessage,
    hold::{self, Hold},
    ledger::{Freed, TaskKey},
    numbered::NumberedMap,
};
use drakkar_sinks::{Receipt, Refused, Settled};
use tokio::sync::mpsc;

use crate::{
    collect::Ended,
    deliver::{Origin, appeal, deliver_each, identify, joined},
    execute::Weight,
    held::Held,
    partition::{Flow, Partition},
};

/// What the ended tasks of one partition led to, on its way to sinks.
pub(crate) struct Deliveries {
    mailbox: mpsc::UnboundedSender<Receipt>, // Bounded by what was posted.
    receipts: mpsc::UnboundedReceiver<Receipt>,
    received: Vec<Receipt>,
    tasks: NumberedMap<TaskKey, Delivering>,
    /// Flows that deliver for these tasks.
    flows: usize,
}

/// A task that has ended but for the confirmation of what it led to.
struct Delivering {
    hold: Arc<Hold>,
    held_bytes: Weight,
    /// What becomes of it when all is confirmed.
    ended: Ended,
    /// Payloads that are neither confirmed nor given up.
    awaited: usize,
    given_up: Vec<Cause>,
    /// Something of it will never be answered; a hand-over does not wait for that.
    lost: Option<hold::Held>,
}

/// Most receipts taken at a time.
const RECEIPTS: usize = 1_024;

impl Deliveries {
    pub(crate) fn new() -> Self {
        let (mailbox, receipts) = mpsc::unbounded_channel();
        let (received, tasks) = (Vec::new(), NumberedMap::default());
        Self { mailbox, receipts, received, tasks, flows: 0 }
    }

    /// Waits for receipts. Nothing is lost by not waiting to the end.
    pub(crate) async fn receive(&mut self) {
        self.receipts.recv_many(&mut self.received, RECEIPTS).await;
    }

    /// Takes the receipts that have come. There will be no more, and nothing that was posted begins.
    fn close(&mut self) {
        self.receipts.close();
        while let Ok(receipt) = self.receipts.try_recv() {
            self.received.push(receipt);
        }
    }

    /// The sink of something ended without an answer: what nobody confirms never counts as settled.
    fn lost(&mut self, key: TaskKey) {
        if let Some(Delivering { hold, lost, .. }) = self.tasks.get_mut(&key) {
            lost.get_or_insert_with(|| hold::Held::begin(hold));
        }
    }
}

impl<H: Handler> Partition<H> {
    /// Hands over what a task led to; it ends as `ended` says when all of it is confirmed.
    pub(crate) fn deliver(
        &mut self,
        key: TaskKey,
        held_bytes: Weight,
        mut payloads: Vec<Payload>,
        ended: Ended,
    ) {
        let Some(active) = self.tasks.get(&key) else { return };
        let task = Arc::clone(&active.task);
        identify(&mut payloads, || {
            Origin::Task(&task).words(&self.messages_of(key).collect::<Vec<_>>())
        });
        let hold = self.board.task();
        let awaited = payloads.len();
        let mut payloads = payloads.into_iter();
        // Behind one that must wait the others do: they keep their order.
        let waits = payloads.find_map(|payload| {
            self.shared.sinks.post(payload, &hold, &self.deliveries.mailbox, key.0).err()
        });
        if let Some(waits) = waits {
            let payloads: Vec<_> = std::iter::once(waits).chain(payloads).collect();
            let (shared, hold) = (Arc::clone(&self.shared), Arc::clone(&hold));
            let messages: Vec<_> = self.messages_of(key).collect();
            self.deliveries.flows += 1;
            self.flows.spawn(async move {
                let id = Some(task.id());
                let delivered = payloads.len();
                let given_up = deliver_each(&shared, payloads, id, &messages, &hold).await;
                Flow::Delivered { key, delivered, given_up }
            });
        }
        let (given_up, lost) = (Vec::new(), None);
        let delivering = Delivering { hold, held_bytes, ended, awaited, given_up, lost };
        self.deliveries.tasks.insert(key, delivering);
    }

    /// Books the receipts that have come.
    pub(crate) fn take_receipts(&mut self) {
        let mut received = std::mem::take(&mut self.deliveries.received);
        let mut freed = Freed::default();
        for Receipt { number, settled } in received.drain(..) {
            let key = TaskKey(number);
            match settled {
                Some(Settled::Confirmed) => self.delivered(key, 1, Vec::new(), &mut freed),
                Some(Settled::Refused(refused)) => self.refused(key, refused),
                None => self.deliveries.lost(key),
            }
        }
        self.deliveries.received = received;
        self.freed(freed);
    }

    /// Books the last of them.
    pub(crate) fn take_last_receipts(&mut self) {
        self.deliveries.close();
        self.take_receipts();
    }

    fn refused(&mut self, key: TaskKey, refused: Box<Refused>) {
        let (Some(active), Some(delivering)) =
            (self.tasks.get(&key), self.deliveries.tasks.get(&key))
        else {
            return;
        };
        let (task, hold) = (Arc::clone(&active.task), Arc::clone(&delivering.hold));
        let (shared, messages) =
            (Arc::clone(&self.shared), self.messages_of(key).collect::<Vec<_>>());
        self.deliveries.flows += 1;
        self.flows.spawn(async move {
            let cause = appeal(&shared, refused, Some(task.id()), &messages, &hold).await;
            Flow::Delivered { key, delivered: 1, given_up: Vec::from_iter(cause) }
        });
    }

    /// A flow that delivered for a task has ended.
    pub(crate) fn delivery_ended(
        &mut self,
        key: TaskKey,
        delivered: usize,
        given_up: Vec<Cause>,
        freed: &mut Freed<Held>,
    ) {
        self.deliveries.flows -= 1;
        self.delivered(key, delivered, given_up, freed);
    }

    /// So many payloads of a task were confirmed, or given up; with the last of them, the task ends.
    fn delivered(
        &mut self,
        key: TaskKey,
        delivered: usize,
        given_up: Vec<Cause>,
        freed: &mut Freed<Held>,
    ) {
        let Entry::Occupied(mut entry) = self.deliveries.tasks.entry(key) else { return };
        let delivering = entry.get_mut();
        delivering.given_up.extend(given_up);
        delivering.awaited -= delivered;
        if delivering.awaited == 0 {
            let Delivering { held_bytes, ended, given_up, .. } = entry.remove();
            self.collected(key, held_bytes, ended.delivered::<H>(joined(given_up)), freed);
        }
    }

    /// How much runs beside the loop; a task that waits for its sinks counts once.
    pub(crate) fn under_way(&self) -> usize {
        self.flows.len() - self.deliveries.flows + self.deliveries.tasks.len()
    }

    pub(crate) fn messages_of(&self, key: TaskKey) -> impl Iterator<Item = Arc<SourceMessage>> {
        self.ledger.messages_of(key).map(|held| Arc::clone(&held.message))
    }
}
