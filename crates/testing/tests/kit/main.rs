//! The kit itself: what it offers works, and it fails where the handler, or the test, is wrong.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod handler; // one that words count with `wc`, in many ways
mod processes; // programs that are played
mod production; // as a worker would
mod counted; // by metrics, and by the configuration
mod sinks; // sinks that fail and dawdle
mod kinds; // every kind of them
mod alike; // a world is told what a worker is
mod life; // rebalance, crash, shutdown
mod hooks; // the hooks around the messages
mod failing; // what a test sees when it fails
