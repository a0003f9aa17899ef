//! A request.

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
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
