//! Where the outcome of a payload goes: to one who awaits it, or to the mailbox of one who does not.
//!
//! A mailbox takes the outcomes of many payloads without a task of the runtime for each. Whoever drops
//! it waits for none of them any more. A payload that is let go of without an outcome has a receipt too,
//! which says so: whoever awaits one sees that by itself.

use drakkar_core::Payload;
use tokio::sync::{mpsc, oneshot};

use crate::{Receipt, Settled};

/// How the outcome of one posted payload finds its way back.
pub(crate) struct Return<P> {
    to: mpsc::UnboundedSender<Receipt>, // Bounded by what the lane takes.
    number: u64,
    /// What a payload that is refused becomes again.
    wrap: fn(P) -> Payload,
    answered: bool,
}

impl<P> Return<P> {
    pub(crate) fn new(
        to: &mpsc::UnboundedSender<Receipt>,
        number: u64,
        wrap: fn(P) -> Payload,
    ) -> Self {
        Self { to: to.clone(), number, wrap, answered: false }
    }

    fn send(&mut self, settled: Option<Settled<P>>) {
        self.answered = true;
        let settled = settled.map(|settled| settled.map(self.wrap));
        // A caller that left does not want to know.
        drop(self.to.send(Receipt { number: self.number, settled }));
    }
}

impl<P> Drop for Return<P> {
    fn drop(&mut self) {
        if !self.answered {
            self.send(None);
        }
    }
}

pub(super) enum Reply<P> {
    Awaited(oneshot::Sender<Settled<P>>),
    Posted(Return<P>),
}

impl<P> Reply<P> {
    pub(super) fn send(self, settled: Settled<P>) {
        match self {
            // As above.
            Self::Awaited(reply) => drop(reply.send(settled)),
            Self::Posted(mut back) => back.send(Some(settled)),
        }
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Awaited(reply) => reply.is_closed(),
            Self::Posted(back) => back.to.is_closed(),
        }
    }

    /// Waits until nobody does.
    pub(super) async fn closed(&mut self) {
        match self {
            Self::Awaited(reply) => reply.closed().await,
            Self::Posted(back) => back.to.closed().await,
        }
    }
}
