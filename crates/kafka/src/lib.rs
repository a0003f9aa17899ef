//! The poll thread: consumes, routes, commits and answers rebalances.
//!
//! One thread of the operating system owns the Kafka consumer. It polls without ever waiting for
//! anybody else: a message goes into the inbox of its partition, a partition that holds too much is
//! paused, and what the pipeline asks for ([`drakkar_core::source::SourceCommand`]) is done between
//! two polls. It runs no user code and decides nothing about messages.
//!
//! Start with [`Source::start`]. Inside, read `poll` first: its loop is the table of contents.

mod config; // the `kafka:` section
mod source; // starting and joining the thread
mod start; // is the cluster there, do the topics exist
mod align; // when to join the group
mod poll; // the loop
mod context; // what the client calls back
mod native; // what the safe client lacks
mod assignment; // which partitions are ours
pub mod message; // borrowed from the client -> owned
mod rebalance; // which partitions are being handed over
mod commit; // what is committed, what is on its way
mod lag; // how far behind we are

pub use config::{GroupProtocol, KafkaConfig};
pub use source::{PollThread, Source, SourceStartError};
