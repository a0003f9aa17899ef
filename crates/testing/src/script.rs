//! Sinks that record what they accept, and refuse or hold on demand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drakkar_core::{Delivery, Sink};
use tokio::sync::watch;

type Rule<P> = dyn Fn(&P) -> Delivery + Send + Sync;

/// What a scripted sink accepted, in order.
#[derive(Debug)]
pub struct Recorded<P> {
    accepted: Arc<Mutex<Vec<P>>>,
    changed: Arc<watch::Sender<usize>>,
}

impl<P> Clone for Recorded<P> {
    fn clone(&self) -> Self {
        Self { accepted: Arc::clone(&self.accepted), changed: Arc::clone(&self.changed) }
    }
}

impl<P: Clone> Recorded<P> {
    /// Everything accepted so far.
    #[must_use]
    pub fn all(&self) -> Vec<P> {
        lock(&self.accepted).clone()
    }

    /// How many were accepted so far.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.accepted).len()
    }

    /// Whether none was accepted so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until `count` were accepted.
    pub async fn until(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        // The sender lives as long as `self`.
        drop(changed.wait_for(|accepted| count <= *accepted).await);
    }
}

/// A sink that answers by a rule, which the test may replace while it runs.
pub struct Script<P> {
    rule: Arc<Mutex<Arc<Rule<P>>>>,
    recorded: Recorded<P>,
}

impl<P> Clone for Script<P> {
    fn clone(&self) -> Self {
        Self { rule: Arc::clone(&self.rule), recorded: self.recorded.clone() }
    }
}

impl<P: Clone + Send + Sync + 'static> Script<P> {
    /// A sink that confirms everything.
    #[must_use]
    pub fn confirming() -> Self {
        Self::answering(|_| Delivery::Confirmed)
    }

    /// A sink that answers each payload as `rule` says; what it confirms is recorded.
    pub fn answering(rule: impl Fn(&P) -> Delivery + Send + Sync + 'static) -> Self {
        Self {
            rule: Arc::new(Mutex::new(Arc::new(rule))),
            recorded: Recorded {
                accepted: Arc::default(),
                changed: Arc::new(watch::Sender::new(0)),
            },
        }
    }

    /// From now on it answers as `rule` says.
    pub fn answer(&self, rule: impl Fn(&P) -> Delivery + Send + Sync + 'static) {
        *lock(&self.rule) = Arc::new(rule);
    }

    /// What it accepted.
    #[must_use]
    pub fn recorded(&self) -> Recorded<P> {
        self.recorded.clone()
    }
}

impl<P: Clone + Send + Sync + 'static> Sink for Script<P> {
    type Payload = P;

    async fn deliver(&self, batch: &[P]) -> Vec<Delivery> {
        let rule = Arc::clone(&lock(&self.rule));
        let answers: Vec<Delivery> = batch.iter().map(|payload| rule(payload)).collect();
        let count = {
            let mut accepted = lock(&self.recorded.accepted);
            let confirmed = batch.iter().zip(&answers);
            accepted.extend(
                confirmed
                    .filter(|(_, answer)| **answer == Delivery::Confirmed)
                    .map(|(payload, _)| payload.clone()),
            );
            accepted.len()
        };
        self.recorded.changed.send_replace(count);
        answers
    }
}

/// A test that panics with the lock held has failed already; the rest may go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
