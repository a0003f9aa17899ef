//! The rules of the house that a machine can keep. A rule nobody checks is a wish.
//!
//! Reads the checkout and `cargo metadata`; starts nothing and needs no server. What it refuses to
//! judge is style: rustfmt and clippy do that.

#![allow(clippy::unwrap_used, reason = "what cannot be read has failed the check")]

mod workspace; // what the others look at
mod crates; // who may use whom
mod files; // how a source file begins, and how long it is
mod listeners; // who may hear the log in a test
mod documents; // links, keys and code in what people read
mod keys; // what can be configured
mod sections; // what the sources say of it
mod configuration; // the page that lists it
mod migration; // the page for those who come from the Python original
mod proofs; // tests that documents name
mod compose; // the world for people with Docker
mod licences; // what may enter the dependency tree
