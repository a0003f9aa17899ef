//! Runs a handler through the real pipeline without a broker.
//!
//! [`World`] is the pipeline of a worker with its two ends replaced: messages come from the test, and
//! what would go to Kafka (payloads, dead letters, commits) is recorded. Everything between is the
//! code that runs in production, real subprocesses included. Time is tokio's, so a test of precomputed
//! tasks may pause it.

mod script; // sinks that record, refuse and hold on demand
mod source; // the poll thread's side of the channels
mod world; // everything together

pub use script::{Recorded, Script};
pub use source::{Book, HandedOver};
pub use world::{TOPIC, World, WorldBuilder, message};
