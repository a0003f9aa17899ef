//! Sinks of every kind below a real worker process: what it says of them and to whom, whom it keeps
//! waiting, and that what they refused can be delivered later.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails the test")]

mod sites; // servers with a user of their own
mod secrets; // what is said, and never shown
mod away; // a server that dies and comes back
mod rights; // one place of a server that may not be written to
mod keys; // what an endpoint knows a request by
mod replay; // `drakkar dlq replay --to-sink`
