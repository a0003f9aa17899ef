//! Commands → a Redis server.

use std::time::Duration;

use drakkar_core::{Delivery, RedisPayload, Sink};

use crate::{
    RedisSinkConfig,
    connect::{Connect, ConnectError},
};

/// Commands → a Redis server.
pub struct RedisSink {}

impl Connect for RedisSink {
    type Config = RedisSinkConfig;

    async fn connect(at: String, _: &Self::Config, _: Duration) -> Result<Self, ConnectError> {
        Err(ConnectError::Invalid(vec![at]))
    }
}

impl Sink for RedisSink {
    type Payload = RedisPayload;

    async fn deliver(&self, _: &[RedisPayload]) -> Vec<Delivery> {
        Vec::new()
    }
}
