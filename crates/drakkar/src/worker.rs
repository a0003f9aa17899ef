//! A worker: its parts are started in the order of dependence and stopped in the direction in which
//! data flows.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use drakkar_core::{Handler, source::SourceCommand};
use drakkar_pipeline::Stop;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::{Config, Loaded, RunError, start::Parts};

/// How long sinks, pool and client each get to close once all partitions were handed over.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Runs a [`Handler`].
///
/// On SIGTERM or SIGINT a worker stops taking messages, finishes what was started within
/// `executor.drain_timeout_seconds`, commits, and leaves the group. A second signal makes it drop the
/// rest at once: those messages will be processed again.
pub struct Worker<H> {
    handler: H,
    loaded: Loaded,
}

impl<H: Handler> Worker<H> {
    /// A worker with the default configuration; see [`Worker::config_file`] and [`Worker::config`].
    pub fn new(handler: H) -> Self {
        Self { handler, loaded: Loaded::default() }
    }

    /// Reads the configuration from `path`; `DRAKKAR_` variables win over it.
    ///
    /// # Errors
    ///
    /// [`RunError::Config`] names each key that is wrong, and where it was read.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Result<Self, RunError> {
        self.loaded = Loaded::read(Some(path.as_ref()))?;
        Ok(self)
    }

    /// Uses `config` as it is; no file and no variable is read.
    ///
    /// # Errors
    ///
    /// [`RunError::Config`] names each key that is wrong.
    pub fn config(mut self, config: Config) -> Result<Self, RunError> {
        config.validate()?;
        self.loaded = Loaded::from(config);
        Ok(self)
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    ///
    /// When a part does not start, or the worker stops although nobody asked it to.
    pub async fn run(self) -> Result<(), RunError> {
        let stop = Stop::default();
        let signals = tokio::spawn(on_signals(stop.clone()));
        let outcome = self.run_with(stop).await;
        signals.abort();
        outcome
    }

    /// Runs until `signal` resolves, then finishes what was started.
    ///
    /// # Errors
    ///
    /// As [`Worker::run`].
    pub async fn run_until(
        self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), RunError> {
        let stop = Stop::default();
        let drain = stop.drain.clone();
        let waiting = tokio::spawn(async move {
            signal.await;
            drain.cancel();
        });
        let outcome = self.run_with(stop).await;
        waiting.abort();
        outcome
    }

    /// The whole `main` of a worker: reads the configuration file named by the first argument, else by
    /// `DRAKKAR_CONFIG`, else `drakkar.yaml`; runs; prints what went wrong; answers with the exit
    /// code that [`RunError::exit_code`] documents.
    ///
    /// ```no_run
    /// # use drakkar::{Handler, HookResult, Message, Pending, Task, Worker};
    /// # struct MyHandler;
    /// # impl Handler for MyHandler {
    /// #     type Input = bytes::Bytes;
    /// #     async fn arrange(&self, _: &[Message<bytes::Bytes>], _: &Pending) -> HookResult<Vec<Task>> { Ok(vec![]) }
    /// # }
    /// fn main() -> std::process::ExitCode {
    ///     Worker::new(MyHandler).main()
    /// }
    /// ```
    pub fn main(self) -> ExitCode {
        let path = std::env::args_os().nth(1).or_else(|| std::env::var_os("DRAKKAR_CONFIG"));
        let path = path.map_or_else(|| PathBuf::from("drakkar.yaml"), PathBuf::from);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let outcome = match runtime {
            Ok(runtime) => runtime.block_on(async { self.config_file(path)?.run().await }),
            Err(error) => Err(RunError::start("the runtime", error)),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::from(&error)
            }
        }
    }

    async fn run_with(self, stop: Stop) -> Result<(), RunError> {
        let drain_timeout = self.loaded.config.executor.drain_timeout_seconds;
        let started = tokio::select! {
            biased;
            () = stop.drain.cancelled() => return Ok(()), // Nothing was begun.
            started = Parts::start(self.handler, &self.loaded) => started?,
        };
        let Parts { pipeline, pool, sinks, control, poll_thread, probes, logs } = started;

        let outcome = pipeline.run(stop.clone(), drain_timeout).await;

        // In the direction of the data: no run, no delivery, then the last commit.
        pool.close().await;
        sinks.close(CLOSE_WITHIN).await;
        control.send(SourceCommand::Close);
        poll_thread.join(CLOSE_WITHIN).await;
        probes.stop().await;
        info!(category = "worker", "stopped");
        drop(logs);
        outcome?;
        if stop.now.is_cancelled() { Err(RunError::Interrupted) } else { Ok(()) }
    }
}

/// The first signal asks to finish, the second to stop now.
async fn on_signals(stop: Stop) {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!(category = "worker", "signals cannot be received; the worker stops only by SIGKILL");
        return;
    };
    for token in [stop.drain, stop.now] {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        info!(category = "worker", signal = name, "asked to stop");
        token.cancel();
    }
}
