//! What a MongoDB collection is to take.

use serde::{Deserialize, Serialize};

/// What a MongoDB collection is to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MongoPayload {
    /// Which `sinks.mongo` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
}

impl MongoPayload {
    /// Bytes it occupies, about.
    #[must_use]
    pub fn size(&self) -> usize {
        0
    }
}
