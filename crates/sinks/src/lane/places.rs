//! How many batches are written at once, and how many of them again.
//!
//! A batch that keeps something gives its place back while it waits for its next attempt, so that what
//! stays refused cannot take all places. What is tried again has half of them at most: the others are
//! for what is new. Where there is one place order is promised, and its batch keeps it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of a lane. Who waits for one gets it in turn.
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// For what is tried again.
    again: Arc<Semaphore>,
    are_kept: bool,
}

/// The right to be written, given back when dropped.
pub(super) struct Place {
    _place: OwnedSemaphorePermit,
    _again: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            again: Arc::new(Semaphore::new(count / 2)),
            are_kept: count < 2,
        }
    }

    /// Whether a batch keeps its place until the last of it is answered.
    pub(super) fn are_kept(&self) -> bool {
        self.are_kept
    }

    pub(super) fn has_free(&self) -> bool {
        0 < self.all.available_permits()
    }

    /// A place, if one is free. Nobody is overtaken: a place somebody waits for is not free.
    pub(super) fn try_take(&self) -> Option<Place> {
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _place: place, _again: None })
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> Place {
        Place { _place: wait(&self.all).await, _again: None }
    }

    /// Waits for a place for what is tried again.
    pub(super) async fn take_again(&self) -> Place {
        let again = wait(&self.again).await;
        Place { _place: wait(&self.all).await, _again: Some(again) }
    }
}

async fn wait(free: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match Arc::clone(free).acquire_owned().await {
        Ok(permit) => permit,
        // Only a closed semaphore errs, and these are never closed.
        Err(_) => std::future::pending().await,
    }
}
