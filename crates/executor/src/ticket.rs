//! What is left in the hands of whoever submitted a job: to take it back, or to have it ended.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    CancelReason,
    fair::Spot,
    persistent,
    slots::{Control, Shared},
};

/// A claim on a submitted job. Dropping it changes nothing.
pub struct Ticket(pub(crate) Claim);

pub(crate) enum Claim {
    /// On a process of its own.
    Slot { spot: Option<Spot>, control: Arc<Control>, shared: Arc<Shared> },
    /// On an answer of a persistent program.
    Program(persistent::Claim),
}

impl Ticket {
    /// Takes the job back. `true`: it is not running and never will, and `done` is dropped uncalled.
    #[must_use]
    pub fn cancel_queued(&self) -> bool {
        match &self.0 {
            Claim::Slot { spot, shared, .. } => {
                spot.and_then(|spot| shared.withdraw(spot)).is_some()
            }
            Claim::Program(claim) => claim.cancel_queued(),
        }
    }

    /// The same for who will submit the task again. What was in a persistent process that failed by
    /// nobody knows whose doing stays: it has to run alone, and would do so no longer.
    #[must_use]
    pub fn recall(&self) -> bool {
        match &self.0 {
            Claim::Slot { .. } => self.cancel_queued(),
            Claim::Program(claim) => claim.recall(),
        }
    }

    /// Whether a process was started or asked, even if that has ended since.
    #[must_use]
    pub fn has_started(&self) -> bool {
        match &self.0 {
            Claim::Slot { control, .. } => control.started.load(Ordering::Acquire),
            Claim::Program(claim) => claim.has_started(),
        }
    }

    /// Takes the job back, or terminates its process group (TERM, grace, KILL) without waiting for
    /// it; other tasks in a persistent process are put back. `done` is dropped uncalled, unless the
    /// program ended by itself, or answered, first.
    pub fn kill(&self, reason: CancelReason) {
        match &self.0 {
            Claim::Slot { control, .. } => {
                // Before the look: a runner that is putting the job back sees one or the other.
                control.unwanted.set(reason).ok(); // The first reason stays.
                if !self.cancel_queued() {
                    control.kill.notify_one();
                }
            }
            Claim::Program(claim) => claim.kill(reason),
        }
    }
}
