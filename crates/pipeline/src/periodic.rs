//! Work by the clock: what a handler does every so often, beside its messages.
//!
//! A run begins the interval after the one before ended: runs of one piece of work never overlap, and
//! a worker that has just started has done none. All of it ends when the worker begins to stop. A run
//! is contained like any hook; it concerns no message, so a failure costs none.

use std::{pin::Pin, sync::Arc, time::Duration};

use drakkar_core::{Handler, HookResult};
use drakkar_telemetry::Hook;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::info;

use crate::{partition::Shared, poll::Pipeline};

/// What is done every so often.
pub struct Periodic<H> {
    /// What the log calls it.
    pub name: String,
    /// Between the end of a run and the beginning of the next.
    pub every: Duration,
    /// What happens after a run that failed.
    pub after_error: AfterError,
    /// One run.
    pub work: Box<Work<H>>,
}

/// One run of periodic work.
pub type Work<H> = dyn for<'a> Fn(&'a H) -> Pin<Box<dyn Future<Output = HookResult<()>> + Send + 'a>>
    + Send
    + Sync;

/// What happens after a run of periodic work that failed (an error, a panic, a time-out).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AfterError {
    /// It runs again.
    #[default]
    Continue,
    /// It never runs again in this process. The worker goes on.
    Stop,
}

impl<H: Handler> Pipeline<H> {
    /// Does `periodic` while the pipeline runs.
    pub fn every(&mut self, periodic: Periodic<H>) {
        self.periodics.push(periodic);
    }

    /// Starts what was registered. It ends with what this returns.
    pub(crate) fn start_periodics(&mut self) -> JoinSet<()> {
        let mut clockwork = JoinSet::new();
        for periodic in self.periodics.drain(..) {
            clockwork.spawn(run(Arc::clone(&self.shared), periodic));
        }
        clockwork
    }
}

async fn run<H: Handler>(shared: Arc<Shared<H>>, periodic: Periodic<H>) {
    let Periodic { name, every, after_error, work } = periodic;
    loop {
        sleep(every).await;
        let begun = Instant::now();
        // Called inside: the closure may panic before there is anything to wait for.
        let call = async { work(&shared.handler).await };
        let done = shared.ask(Hook::Periodic, None, call).await;
        let error = done.err().map(|failure| failure.to_string());
        shared.metrics.periodic_ran(&name, begun.elapsed(), error.as_deref());
        if error.is_some() && after_error == AfterError::Stop {
            info!(category = "handler", name, "periodic work is not done again");
            return;
        }
    }
}
