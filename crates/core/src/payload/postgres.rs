//! What a PostgreSQL table is to take.

use serde::{Deserialize, Serialize};

/// What a PostgreSQL table is to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresPayload {
    /// Which `sinks.postgres` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
}

impl PostgresPayload {
    /// Bytes it occupies, about.
    #[must_use]
    pub fn size(&self) -> usize {
        0
    }
}
