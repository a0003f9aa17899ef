//! One MongoDB database: `sinks.mongo.<name>`.

use serde::{Deserialize, Serialize};

use super::BatchConfig;

/// One MongoDB database: `sinks.mongo.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MongoSinkConfig {
    /// How payloads are written together.
    pub batch: BatchConfig,
}

impl MongoSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
    }
}
