//! When each hook is called, and what becomes of messages when one misbehaves.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod witness; // writes down what it is asked
mod partitions; // on_ready, on_assign, on_revoke
mod refusals; // on_delivery_error
mod messages; // decode
mod blocked; // a thread that is not given back
mod remains; // what panics when a hook is over
mod wholes; // the same for a message or a window as a whole
