//! A command for Redis.

use serde::{Deserialize, Serialize};

/// A command for Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisPayload {
    /// Which `sinks.redis` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
}

impl RedisPayload {
    /// Bytes it occupies, about.
    #[must_use]
    pub fn size(&self) -> usize {
        0
    }
}
