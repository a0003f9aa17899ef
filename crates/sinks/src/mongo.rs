//! Documents → a MongoDB database.

use std::time::Duration;

use drakkar_core::{Delivery, MongoPayload, Sink};

use crate::{
    MongoSinkConfig,
    connect::{Connect, ConnectError},
};

/// Documents → a MongoDB database.
pub struct MongoSink {}

impl Connect for MongoSink {
    type Config = MongoSinkConfig;

    async fn connect(at: String, _: &Self::Config, _: Duration) -> Result<Self, ConnectError> {
        Err(ConnectError::Invalid(vec![at]))
    }
}

impl Sink for MongoSink {
    type Payload = MongoPayload;

    async fn deliver(&self, _: &[MongoPayload]) -> Vec<Delivery> {
        Vec::new()
    }
}
