//! What became of a payload, as its caller is told.

use drakkar_core::{Payload, SinkError, SinkName};

/// What became of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Settled<P = Payload> {
    /// The far side has it.
    Confirmed,
    /// It was not accepted, and is not tried again.
    Refused(Box<Refused<P>>),
}

/// A payload that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<P = Payload> {
    /// The payload itself.
    pub payload: P,
    /// Who refused it.
    pub sink: SinkName,
    /// Why; class [`SinkError::UNKNOWN_SINK`] where there is no such sink.
    pub error: SinkError,
    /// How many attempts were made.
    pub attempts: u32,
    /// Whether it was only given up: the sink has not said that it will never take it, but the time for
    /// it is over, or the circuit is open.
    pub is_given_up: bool,
}

impl<P> Settled<P> {
    pub(crate) fn map<Q>(self, payload: impl FnOnce(P) -> Q) -> Settled<Q> {
        match self {
            Self::Confirmed => Settled::Confirmed,
            Self::Refused(refused) => {
                let Refused { payload: back, sink, error, attempts, is_given_up } = *refused;
                let payload = payload(back);
                Settled::Refused(Box::new(Refused { payload, sink, error, attempts, is_given_up }))
            }
        }
    }
}

/// The outcome of a posted payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What the payload was posted under.
    pub number: u64,
    /// What became of it; nothing if its sink ended without an answer, and it may have arrived or not.
    pub settled: Option<Settled>,
}
