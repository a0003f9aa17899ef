//! The threads that sinks are written on: a runtime of their own.
//!
//! A hook that blocks keeps no delivery waiting, and a sink of the worker's own that blocks keeps no
//! hook waiting.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::context::TokioContext;

use crate::pulse::Pulse;

/// Sinks are closed before it is dropped: what is still on its threads then is not waited for.
pub(crate) struct SinkThreads {
    handle: Handle,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    _pulse: Pulse,
}

impl SinkThreads {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().thread_name("drakkar-sinks").enable_all().build()?;
        let handle = runtime.handle().clone();
        let pulse = Pulse::start(handle.clone())?;
        Ok(Self { handle, runtime: Some(runtime), _pulse: pulse })
    }

    /// What `connect` starts, lanes and connections, stays on these threads.
    pub(crate) async fn bring<T>(&self, connect: impl Future<Output = T>) -> T {
        TokioContext::new(connect, self.handle.clone()).await
    }
}

impl Drop for SinkThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // To wait is forbidden on a thread of another runtime.
        }
    }
}
