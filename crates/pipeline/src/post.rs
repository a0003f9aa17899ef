//! What a task led to is posted to the sinks, and the receipts come to the loop of its partition.
//!
//! Most payloads are confirmed. So nothing of the runtime waits for each: the loop keeps how many
//! receipts a task waits for. Only what finds no room at once, or is refused, goes on beside the loop, as
//! [`crate::deliver`] says. Dropped with the loop; what was posted and not written is given up by then.

use std::{collections::hash_map::Entry, sync::Arc};

use drakkar_core::{
    Cause, Handler, Payload, SourceMessage, hold::Hold, ledger::TaskKey, numbered::NumberedMap,
};
use drakkar_sinks::{Receipt, Refused, Settled};
use tokio::sync::mpsc;

use crate::{
    collect::Ended,
    deliver::{Origin, appeal, deliver_each, identify, joined},
    execute::Weight,
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
    /// Receipts and flows that are waited for.
    awaited: usize,
    given_up: Vec<Cause>,
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

    /// Whether there are receipts without waiting.
    fn receive_now(&mut self) -> bool {
        while let Ok(receipt) = self.receipts.try_recv() {
            self.received.push(receipt);
        }
        !self.received.is_empty()
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
        if self.is_cut_off() {
            return; // Whoever owns the partition next delivers it.
        }
        let Some(active) = self.tasks.get(&key) else { return };
        let task = Arc::clone(&active.task);
        identify(&mut payloads, || Origin::Task(&task).words(&self.messages_of(key)));
        let hold = self.board.task();
        let mut awaited = 0;
        let mut payloads = payloads.into_iter();
        // Behind one that must wait the others do: they keep their order.
        let waits = payloads.find_map(|payload| {
            awaited += 1;
            self.shared.sinks.post(payload, &hold, &self.deliveries.mailbox, key.0).err()
        });
        if let Some(waits) = waits {
            let payloads = std::iter::once(waits).chain(payloads).collect();
            let (shared, hold) = (Arc::clone(&self.shared), Arc::clone(&hold));
            let messages = self.messages_of(key);
            self.deliveries.flows += 1;
            self.flows.spawn(async move {
                let id = Some(task.id());
                let given_up = deliver_each(&shared, payloads, id, &messages, &hold).await;
                Flow::Delivered { key, given_up }
            });
        }
        let delivering = Delivering { hold, held_bytes, ended, awaited, given_up: Vec::new() };
        self.deliveries.tasks.insert(key, delivering);
    }

    /// Books the receipts that have come.
    pub(crate) fn take_receipts(&mut self) {
        let mut received = std::mem::take(&mut self.deliveries.received);
        for Receipt { number, settled } in received.drain(..) {
            let key = TaskKey(number);
            match settled {
                Settled::Confirmed => self.delivered(key, Vec::new()),
                Settled::Refused(refused) => self.refused(key, refused),
            }
        }
        self.deliveries.received = received;
    }

    /// The same for those that need not be waited for.
    pub(crate) fn take_receipts_now(&mut self) {
        if self.deliveries.receive_now() {
            self.take_receipts();
        }
    }

    fn refused(&mut self, key: TaskKey, refused: Box<Refused>) {
        let (Some(active), Some(delivering)) =
            (self.tasks.get(&key), self.deliveries.tasks.get(&key))
        else {
            return;
        };
        let (task, hold) = (Arc::clone(&active.task), Arc::clone(&delivering.hold));
        let (shared, messages) = (Arc::clone(&self.shared), self.messages_of(key));
        self.deliveries.flows += 1;
        self.flows.spawn(async move {
            let cause = appeal(&shared, refused, Some(task.id()), &messages, &hold).await;
            Flow::Delivered { key, given_up: Vec::from_iter(cause) }
        });
    }

    /// A flow that delivered for a task has ended.
    pub(crate) fn delivery_ended(&mut self, key: TaskKey, given_up: Vec<Cause>) {
        self.deliveries.flows -= 1;
        self.delivered(key, given_up);
    }

    /// Something that a task led to was confirmed, or given up; when it was the last, the task ends.
    fn delivered(&mut self, key: TaskKey, given_up: Vec<Cause>) {
        let Entry::Occupied(mut entry) = self.deliveries.tasks.entry(key) else { return };
        let delivering = entry.get_mut();
        delivering.given_up.extend(given_up);
        delivering.awaited -= 1;
        if delivering.awaited == 0 {
            let Delivering { held_bytes, ended, given_up, .. } = entry.remove();
            let ended = match joined(given_up) {
                None => ended,
                Some(cause) => ended.given_up::<H>(cause),
            };
            self.collected(key, held_bytes, ended);
        }
    }

    /// How much runs beside the loop; a task that waits for its sinks counts once.
    pub(crate) fn under_way(&self) -> usize {
        self.flows.len() - self.deliveries.flows + self.deliveries.tasks.len()
    }

    pub(crate) fn messages_of(&self, key: TaskKey) -> Vec<Arc<SourceMessage>> {
        self.ledger.messages_of(key).map(|held| Arc::clone(&held.message)).collect()
    }
}
