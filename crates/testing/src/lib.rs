//! Runs a handler through the real pipeline without a broker.
//!
//! [`World`] is the pipeline of a worker with its two ends replaced: messages come from the test, and
//! what would go to Kafka (payloads, dead letters, commits) is recorded. Everything between is the
//! code that runs in production: windows, hooks, slots, retries, batching, the ledger. Programs are
//! real, or [played](WorldBuilder::processes) in tokio's time, which a test may pause then. With the feature
//! `kafka` and the variable `DRAKKAR_TEST_BROKER` the same test reads from a broker and commits to it.
//!
//! `docs/testing.md` is the guide.

mod record; // what a test puts into the topic
mod patience; // how long to wait, and what to say then
mod recorded; // what a sink accepted
mod script; // sinks that record, refuse, fail and dawdle on demand
mod kinds; // one for each kind, or those that the test names
mod own; // one of the user's own
mod processes; // which programs ran, and what is played instead
mod aggregates; // hooks that would never be called
mod source; // the poll thread's side of the channels
#[cfg(feature = "kafka")]
mod broker; // the same side, with a real poll thread and a broker
mod origin; // one of the two
mod place; // where it is, also after a crash
mod state; // what a test sees of a world that does not do what it should
mod running; // the pipeline, until it ends
mod setup; // what it takes to start it, also after a crash
mod builder; // what a world is made of
mod world; // everything together
mod hands; // what only a test that plays the source can do

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use builder::WorldBuilder;
pub use drakkar_core::{
    Cause, DeadLetter, Delivery, FilePayload, HttpPayload, KafkaPayload, MongoPayload, OnInvalid,
    PostgresPayload, RedisPayload, SinkError, SinkKind, Stage, order::Ordering, source::Position,
};
pub use drakkar_executor::{ExecutorConfig, Run, Scripted};
pub use drakkar_pipeline::{AfterError, Periodic, PipelineError, Settings};
pub use drakkar_sinks::SinksConfig;
pub use processes::{Call, Runs, TaskRun};
pub use record::Record;
pub use recorded::Recorded;
pub use script::Script;
pub use source::{Book, HandedOver};
pub use world::{TOPIC, World, Wreck, message};

/// A test that panics with the lock held has failed already; the rest may go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Guides whose examples are tests.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/testing.md")]
    mod testing {}
    #[doc = include_str!("../../../docs/sinks.md")]
    mod sinks {}
}
