//! What a worker is given beside its handler: work by the clock, and sinks of the user's own.

use std::time::Duration;

use drakkar_core::{Handler, Sink};
use drakkar_pipeline::{AfterError, Periodic};
use drakkar_sinks::CustomSinks;

use crate::{Worker, startup::HookFuture};

/// What was registered.
pub(crate) struct Extras<H> {
    pub periodics: Vec<Periodic<H>>,
    pub sinks: CustomSinks,
}

impl<H> Default for Extras<H> {
    fn default() -> Self {
        Self { periodics: Vec::new(), sinks: CustomSinks::default() }
    }
}

impl<H: Handler> Worker<H> {
    /// Does `work` again and again while the worker runs, the first time after `every`, and each
    /// further time so long after the last run ended. It ends when the worker begins to stop.
    ///
    /// A run is contained like a hook: its time is `executor.hook_timeout_seconds`, and an error, a
    /// panic or a time-out is counted, logged and handled as `after_error` says. It costs no message.
    ///
    /// ```
    /// # use std::{sync::atomic::{AtomicU64, Ordering}, time::Duration};
    /// # use drakkar::{AfterError, Bytes, Handler, HookResult, Message, Pending, Task, Worker};
    /// struct Search {
    ///     stamp: AtomicU64,
    /// }
    /// # impl Handler for Search {
    /// #     type Input = Bytes;
    /// #     async fn arrange(&self, _: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> { Ok(vec![]) }
    /// # }
    ///
    /// let worker = Worker::new(Search { stamp: AtomicU64::new(0) }).periodic(
    ///     "reload",
    ///     Duration::from_secs(60),
    ///     AfterError::Continue,
    ///     |search: &Search| {
    ///         Box::pin(async move {
    ///             search.stamp.fetch_add(1, Ordering::Relaxed);
    ///             Ok(())
    ///         })
    ///     },
    /// );
    /// ```
    #[must_use]
    pub fn periodic(
        mut self,
        name: impl Into<String>,
        every: Duration,
        after_error: AfterError,
        work: impl for<'a> Fn(&'a H) -> HookFuture<'a> + Send + Sync + 'static,
    ) -> Self {
        let periodic = Periodic { name: name.into(), every, after_error, work: Box::new(work) };
        self.extras.periodics.push(periodic);
        self
    }

    /// Adds a sink of your own, which payloads call `name` ([`CustomPayload`](crate::CustomPayload)).
    ///
    /// Batching, retries, the circuit breaker, metrics and dead letters are the worker's;
    /// `sinks.custom.<name>.batch` says how it is written to. An earlier sink of the same name is
    /// replaced.
    ///
    /// ```
    /// # use drakkar::{Bytes, Handler, HookResult, Message, Pending, Task, Worker};
    /// use drakkar::{Delivery, Sink};
    ///
    /// struct Audit;
    ///
    /// impl Sink for Audit {
    ///     type Payload = String;
    ///
    ///     async fn deliver(&self, batch: &[String]) -> Vec<Delivery> {
    ///         batch.iter().map(|line| { println!("{line}"); Delivery::Confirmed }).collect()
    ///     }
    /// }
    /// # struct Search;
    /// # impl Handler for Search {
    /// #     type Input = Bytes;
    /// #     async fn arrange(&self, _: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> { Ok(vec![]) }
    /// # }
    ///
    /// let worker = Worker::new(Search).sink("audit", Audit);
    /// ```
    #[must_use]
    pub fn sink<S: Sink<Payload: Clone>>(mut self, name: &str, sink: S) -> Self {
        self.extras.sinks.register(name, sink);
        self
    }
}
