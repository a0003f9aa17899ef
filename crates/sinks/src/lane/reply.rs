//! Where the outcome of a payload goes: to one who awaits it, or to the mailbox of one who does not.
//!
//! A mailbox takes the outcomes of many payloads without a task of the runtime for each. Whoever drops
//! it waits for none of them any more.

use tokio::sync::{mpsc, oneshot};

use crate::{Receipt, Settled};
use drakkar_core::Payload;

/// How the outcome of one posted payload finds its way back.
pub(crate) struct Return<P> {
    pub to: mpsc::UnboundedSender<Receipt>, // Bounded by what the lane takes.
    pub number: u64,
    /// What a payload that is refused becomes again.
    pub wrap: fn(P) -> Payload,
}

pub(super) enum Reply<P> {
    Awaited(oneshot::Sender<Settled<P>>),
    Posted(Return<P>),
}

impl<P> Reply<P> {
    pub(super) fn send(self, settled: Settled<P>) {
        // A caller that left does not want to know.
        match self {
            Self::Awaited(reply) => drop(reply.send(settled)),
            Self::Posted(Return { to, number, wrap }) => {
                drop(to.send(Receipt { number, settled: settled.map(wrap) }));
            }
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
