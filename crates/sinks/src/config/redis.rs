//! One Redis server: `sinks.redis.<name>`.

use serde::{Deserialize, Serialize};

use super::BatchConfig;

/// One Redis server: `sinks.redis.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSinkConfig {
    /// How payloads are written together.
    pub batch: BatchConfig,
}

impl RedisSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
    }
}
