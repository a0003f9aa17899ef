//! What runs beside a partition loop and reports back: hooks and deliveries.
//!
//! Dropping it aborts all of it. A hook that is being executed at that moment goes on until it waits
//! or returns; the tracker of the assignment knows of it for as long.

use std::future::Future;

use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::task::TaskTracker;

/// A [`JoinSet`] whose tasks are tracked to their very end.
pub(crate) struct Flows<T> {
    running: JoinSet<T>,
    present: TaskTracker,
}

impl<T: Send + 'static> Flows<T> {
    pub(crate) fn new(present: TaskTracker) -> Self {
        Self { running: JoinSet::new(), present }
    }

    pub(crate) fn spawn(&mut self, flow: impl Future<Output = T> + Send + 'static) -> AbortHandle {
        self.running.spawn(self.present.track_future(flow))
    }

    pub(crate) async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.running.join_next().await
    }

    pub(crate) fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.running.try_join_next()
    }

    pub(crate) fn abort_all(&mut self) {
        self.running.abort_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }
}
