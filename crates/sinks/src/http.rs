//! Requests → an HTTP endpoint.

use std::time::Duration;

use drakkar_core::{Delivery, HttpPayload, Sink};

use crate::{
    HttpSinkConfig,
    connect::{Connect, ConnectError},
};

/// Requests → an HTTP endpoint.
pub struct HttpSink {}

impl Connect for HttpSink {
    type Config = HttpSinkConfig;

    async fn connect(at: String, _: &Self::Config, _: Duration) -> Result<Self, ConnectError> {
        Err(ConnectError::Invalid(vec![at]))
    }
}

impl Sink for HttpSink {
    type Payload = HttpPayload;

    async fn deliver(&self, _: &[HttpPayload]) -> Vec<Delivery> {
        Vec::new()
    }
}
