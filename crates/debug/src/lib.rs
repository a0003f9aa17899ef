//! What a worker tells over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Everything served here is read from a snapshot or from the metrics; nothing reaches into the
//! pipeline, and a client that is slow or gone delays nobody but itself.

pub mod config; // where to listen
pub mod health; // what the probes answer
pub mod server; // the routes

pub use config::MetricsConfig;
pub use health::{Health, HealthSnapshot};
pub use server::{Probes, ServeError, Server};
