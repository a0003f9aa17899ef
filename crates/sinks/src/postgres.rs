//! Rows → a PostgreSQL database.

use std::time::Duration;

use drakkar_core::{Delivery, PostgresPayload, Sink};

use crate::{
    PostgresSinkConfig,
    connect::{Connect, ConnectError},
};

/// Rows → a PostgreSQL database.
pub struct PostgresSink {}

impl Connect for PostgresSink {
    type Config = PostgresSinkConfig;

    async fn connect(at: String, _: &Self::Config, _: Duration) -> Result<Self, ConnectError> {
        Err(ConnectError::Invalid(vec![at]))
    }
}

impl Sink for PostgresSink {
    type Payload = PostgresPayload;

    async fn deliver(&self, _: &[PostgresPayload]) -> Vec<Delivery> {
        Vec::new()
    }
}
