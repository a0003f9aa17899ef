//! A sink of the user's own: one for a world, also for the worker that is started after a crash.

use std::sync::Arc;

use drakkar_core::{Delivery, Sink, SinkError};

/// The same sink, for each worker of a world.
pub(crate) struct Own<S>(pub(crate) Arc<S>);

impl<S: Sink> Sink for Own<S> {
    type Payload = S::Payload;

    async fn deliver(&self, batch: &[S::Payload]) -> Vec<Delivery> {
        self.0.deliver(batch).await
    }

    async fn probe(&self) -> Result<(), SinkError> {
        self.0.probe().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
