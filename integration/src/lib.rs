//! Drakkar as a user runs it: real processes against real servers, in `tests/`.
//!
//! This library is what those tests share. A [`World`] is one test's topics, group and directory; it
//! starts workers ([`WorkerProcess`]), feeds them and closes the [`Books`]: every message that was
//! produced must be in an output or in the dead-letter topic, read back from the broker and not
//! from what a worker says of itself. Everything here panics when it cannot do its work: it is used
//! by tests only. Nothing sleeps for a fixed time; [`wait::until`] looks until a deadline.
//!
//! The code in the README is compiled here, as a documentation test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test harness: what goes wrong here must stop the test where it happens"
)]

pub mod wait; // conditions with a deadline
pub mod order; // what a message tells the test worker to do
pub mod journal; // a handler that writes down when it is asked
pub mod kafka; // topics, records, offsets, as somebody outside sees them
pub mod home; // where a test's own servers live, and die
pub mod broker; // a broker of a test's own
pub mod cluster; // three of them
pub mod server; // a database of a test's own
pub mod http; // an endpoint that misbehaves on demand
pub mod proc; // what the operating system knows of processes
pub mod worker; // one worker process
pub mod books; // who got what
pub mod crashes; // what a crash excuses
pub mod feed; // messages that keep coming
pub mod sinks; // sinks without a worker around them
pub mod world; // all of it, for one test

pub use books::Books;
pub use broker::OwnBroker;
pub use cluster::{Cluster, Node};
pub use crashes::Crashes;
pub use feed::Feed;
pub use kafka::{Given, Kafka, Record};
pub use order::{Act, Order};
pub use server::OwnServer;
pub use wait::{SOON, until};
pub use worker::WorkerProcess;
pub use world::{World, heavy};

/// The code of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
