//! Inbox → window: how much may come in, and what becomes of it at the door.
//!
//! A message that an earlier owner settled settles without running. Everything else is open from here
//! on.

use std::sync::Arc;

use drakkar_core::{DoneMap, Handler, Offset, Pending, SourceMessage};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    arrange::arrange,
    held::Held,
    partition::{Flow, Partition, Window},
};

/// Settled offsets that a partition remembers behind one that is stuck; beyond it takes no more.
const MAX_SPAN: usize = 1_000_000;

impl<H: Handler> Partition<H> {
    /// How many messages the next window may take; 0 while there is no room for one.
    pub(crate) fn window_room(&self) -> usize {
        let settings = &self.shared.settings;
        let may = self.prepared
            && self.inbox_open
            && self.drain.is_none()
            && self.arranging.is_none()
            && self.backlog.len() + self.pooled < settings.max_in_pool
            && self.order.waiting() < settings.max_in_flight
            && self.ledger.watermark().span() < MAX_SPAN;
        let room = settings.max_in_flight.saturating_sub(self.ledger.open_messages());
        let room = room.min(settings.window_size).min(self.room_for_tasks());
        if may { self.gate.room(room) } else { 0 }
    }

    /// For how many messages there is room in memory for what `arrange` makes of them, if it is as much as
    /// in the last window. One at least while there is no task: what it makes is known only then.
    fn room_for_tasks(&self) -> usize {
        let left = self.load.max_bytes().saturating_sub(self.task_bytes);
        match left / self.message_task_bytes.max(1) {
            0 if self.task_bytes == 0 => 1,
            room => room,
        }
    }

    /// Admits what was received and has it arranged.
    pub(crate) fn open_window(&mut self) {
        let window = self.next_window;
        self.metrics.consumed.inc_by(self.incoming.len() as u64);
        let mut messages = Vec::with_capacity(self.incoming.len());
        let mut incoming = std::mem::take(&mut self.incoming);
        for message in incoming.drain(..) {
            let (offset, size) = (message.offset, message.size());
            self.check_log(offset);
            if self.done.contains(offset) {
                self.ledger.admit_settled(offset);
                self.unload(1, size);
                self.clock.settled(1, Instant::now());
                continue;
            }
            let held = Held::new(Arc::clone(&message), window);
            match self.ledger.admit(offset, held) {
                Ok(()) => messages.push(message),
                // The source begins a new assignment where a log goes back. What comes here all the
                // same may be another message under the same offset: nobody may commit past it.
                Err(_) => {
                    self.unload(1, size);
                    self.stop_worker(format!("{}:{offset} came after a later one", self.id));
                }
            }
        }
        self.incoming = incoming; // Keeps its allocation.
        if messages.is_empty() {
            return;
        }
        self.window_is_tried(&messages);
        self.arrange_window(messages);
    }

    /// Has `messages`, which were admitted to it, arranged as the next window.
    pub(crate) fn arrange_window(&mut self, messages: Vec<Arc<SourceMessage>>) {
        let window = self.next_window;
        self.next_window += 1;
        self.windows.insert(window, Window { open: messages.len(), since: Instant::now() });
        let pending = Pending::new(self.tasks.values().map(|a| a.task.id().clone()).collect());
        let shared = Arc::clone(&self.shared);
        self.arranging = Some(self.flows.spawn(async move {
            let plan = Box::new(arrange(&shared, messages, pending).await);
            Flow::Arranged { window, plan }
        }));
    }

    /// Where the first message is below what was committed, the log was cut or made anew: these are other
    /// messages under the offsets that an earlier owner settled, or counted when it gave them up.
    fn check_log(&mut self, offset: Offset) {
        if self.committed.take().is_some_and(|committed| offset < committed) {
            warn!(category = "kafka", partition = %self.id, %offset,
                "reading began below what was committed; what was noted with that is forgotten");
            self.done = DoneMap::default();
            self.count_anew();
        }
    }
}
