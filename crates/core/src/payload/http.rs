//! A request.

use serde::{Deserialize, Serialize};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpPayload {
    /// Which `sinks.http` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
}

impl HttpPayload {
    /// Bytes it occupies, about.
    #[must_use]
    pub fn size(&self) -> usize {
        0
    }
}
