//! A worker: its parts are started in the order of dependence and stopped in the direction in which
//! data flows.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use drakkar_core::{Handler, source::SourceCommand};
use drakkar_pipeline::{ANSWER_WITHIN, Stop};
use drakkar_telemetry::{JOB_LOG_WITHIN, LOG_WITHIN};
use tokio::{
    runtime::{Handle, Runtime},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Config, Loaded, RunError,
    extras::Extras,
    probes::PROBES_WITHIN,
    pulse::Pulse,
    start::Parts,
    startup::{self, HookFuture, OnStartup},
};

/// How long sinks get to close once all partitions were handed over.
const SINKS_WITHIN: Duration = Duration::from_secs(10);

/// What the last commits get in any case, also when finishing took all the time there was.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// How long the client gets to leave the group and to close after them.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// How long the last `on_revoke` hooks may take together.
const HOOKS_WITHIN: Duration = Duration::from_secs(10);

/// What may take its time besides: partitions that a hook keeps from ending, probes, spool, job log, log,
/// threads.
const REST_WITHIN: [Duration; 6] =
    [ANSWER_WITHIN, PROBES_WITHIN, SPOOL_WITHIN, JOB_LOG_WITHIN, LOG_WITHIN, ABANDON_AFTER];

/// How long the disk gets to remove what was spooled.
const SPOOL_WITHIN: Duration = Duration::from_secs(2);

/// How long a thread that a hook blocks is waited for at the very end.
const ABANDON_AFTER: Duration = Duration::from_secs(1);

/// How soon a repeated signal is taken for the same one.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

impl Config {
    /// How long a stop of the worker may take, from the signal on: tasks that were started, programs that
    /// are ended, what sinks hold, the last commit, the last hooks. Whoever would kill it has to wait for
    /// longer. Only what hangs takes all the time it has.
    #[must_use]
    pub fn stopping(&self) -> Duration {
        let executor = &self.executor;
        let programs = executor.drain_timeout_seconds.saturating_add(executor.ending());
        [SINKS_WITHIN, COMMIT_WITHIN, LEAVE_WITHIN, HOOKS_WITHIN]
            .into_iter()
            .chain(REST_WITHIN)
            .fold(programs, Duration::saturating_add)
    }
}

/// Runs a [`Handler`].
///
/// On SIGTERM or SIGINT a worker stops taking messages, finishes what was started within
/// `executor.drain_timeout_seconds`, commits, and leaves the group. A second signal, half a second later or
/// more, makes it drop the rest at once: those messages will be processed again.
pub struct Worker<H> {
    handler: H,
    loaded: Loaded,
    startup: Option<OnStartup<H>>,
    pub(crate) extras: Extras<H>,
}

impl<H: Handler> Worker<H> {
    /// A worker with the default configuration; see [`Worker::config_file`] and [`Worker::config`].
    pub fn new(handler: H) -> Self {
        Self { handler, loaded: Loaded::default(), startup: None, extras: Extras::default() }
    }

    /// Has `hook` called once, when the configuration is read and before anything is built from it:
    /// no log is open yet, no port taken, no broker asked. It may change the configuration, which is
    /// checked again, and the handler, which is shared from then on. Only the last hook counts.
    ///
    /// An error, a panic, or no answer within `executor.hook_timeout_seconds` (as read): the worker
    /// does not start.
    ///
    /// ```
    /// # use drakkar::{Bytes, Config, Handler, HookResult, Message, Pending, Task, Worker};
    /// struct Search {
    ///     slots: usize,
    /// }
    /// # impl Handler for Search {
    /// #     type Input = Bytes;
    /// #     async fn arrange(&self, _: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> { Ok(vec![]) }
    /// # }
    ///
    /// let worker = Worker::new(Search { slots: 0 }).on_startup(|search: &mut Search, config: &mut Config| {
    ///     Box::pin(async move {
    ///         search.slots = config.executor.slots();
    ///         config.kafka.source_topic = std::fs::read_to_string("topic")?;
    ///         Ok(())
    ///     })
    /// });
    /// ```
    #[must_use]
    pub fn on_startup(
        mut self,
        hook: impl for<'a> FnOnce(&'a mut H, &'a mut Config) -> HookFuture<'a> + Send + 'static,
    ) -> Self {
        self.startup = Some(Box::new(hook));
        self
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
    /// A runtime that is dropped waits for threads that a hook or a disk blocks, for as long as that takes:
    /// only [`Worker::main`], or a runtime that ends by [`Runtime::shutdown_timeout`], ends a stop in
    /// bounded time. `#[tokio::main]` does not.
    ///
    /// # Errors
    ///
    /// When a part does not start, or the worker stops although nobody asked it to.
    pub async fn run(self) -> Result<(), RunError> {
        let stop = Stop::default();
        // They are listened to before anything begins: one that comes earlier ends the process.
        let signals = tokio::spawn(on_signals(stop.clone(), next_signal(), next_signal));
        let outcome = self.run_with(stop).await;
        signals.abort();
        outcome
    }

    /// Runs until `signal` resolves, then finishes what was started. What [`Worker::run`] says of runtimes
    /// counts here as well.
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
    /// #     type Input = drakkar::Bytes;
    /// #     async fn arrange(&self, _: &[Message<drakkar::Bytes>], _: &Pending) -> HookResult<Vec<Task>> { Ok(vec![]) }
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
            Ok(runtime) => run_on(runtime, async { self.config_file(path)?.run().await }),
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

    async fn start(self) -> Result<Parts<H>, RunError> {
        let Self { handler, loaded, startup, extras } = self;
        let (handler, loaded) = match startup {
            Some(hook) => startup::ask(hook, handler, loaded).await?,
            None => (handler, loaded),
        };
        Parts::start(handler, extras, &loaded).await
    }

    async fn run_with(self, stop: Stop) -> Result<(), RunError> {
        let _pulse =
            Pulse::start(Handle::current()).map_err(|error| RunError::start("a thread", error))?;
        let started = tokio::select! {
            biased;
            () = stop.drain.cancelled() => return Ok(()), // Nothing was begun.
            started = self.start() => started?,
        };
        let Parts {
            mut pipeline,
            pool,
            sinks,
            sink_threads: _alive, // Hooks may use the connections of sinks to the end.
            control,
            poll_thread,
            probes,
            drain_timeout,
            job_log,
            logs,
        } = started;

        let asked = tokio::spawn(asked_at(stop.clone()));
        let outcome = pipeline.run(stop.clone(), drain_timeout).await;

        // In the direction of the data: no run, no delivery, then the last commit.
        tokio::select! {
            () = pool.close() => {}
            // Asked twice: nobody waits for steps that a task asks for.
            () = async {
                stop.now.cancelled().await;
                pool.close_soon().await;
            } => {}
        }
        let spool = pool.spool();
        drop(pool);
        // What they hold is of partitions that were handed over: it is confirmed to nobody.
        tokio::select! {
            () = sinks.close(SINKS_WITHIN) => {}
            () = asked_twice(&stop) => {
                warn!(category = "worker", "sinks did not close in time; what they hold is given up");
            }
        }
        let left = time_left(asked, drain_timeout).await;
        let within = if stop.now.is_cancelled() { COMMIT_WITHIN } else { left.max(COMMIT_WITHIN) };
        control.send(SourceCommand::Close { within });
        tokio::select! {
            () = poll_thread.join(within + LEAVE_WITHIN) => {}
            // Asked twice: it gets what the last commits get in any case, from now on.
            () = async {
                stop.now.cancelled().await;
                sleep(COMMIT_WITHIN + LEAVE_WITHIN).await;
            } => {
                warn!(category = "worker", "the consumer did not close in time; left behind");
            }
        }
        // Nothing will be committed any more: the handler hears of its last partitions.
        tokio::select! {
            () = pipeline.close(HOOKS_WITHIN) => {}
            () = asked_twice(&stop) => {}
        }
        probes.stop().await;
        if let Some(spool) = spool
            && timeout(SPOOL_WITHIN, spool.gone()).await.is_err()
        {
            warn!(category = "worker", "spooled files are left; the next worker removes them");
        }
        drop(job_log);
        info!(category = "worker", "stopped");
        drop(logs);
        outcome?;
        if stop.now.is_cancelled() { Err(RunError::Interrupted) } else { Ok(()) }
    }
}

/// A moment after a second signal: nobody waits for hooks any more.
async fn asked_twice(stop: &Stop) {
    stop.now.cancelled().await;
    sleep(ABANDON_AFTER).await;
}

/// Runs `work` and ends the runtime in bounded time, even if a hook still blocks one of its threads.
fn run_on<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(ABANDON_AFTER);
    outcome
}

/// When the stop was asked for.
async fn asked_at(stop: Stop) -> Instant {
    stop.drain.cancelled().await;
    Instant::now()
}

/// What is left of `drain_timeout` since the stop was asked for; nothing when it was not.
async fn time_left(asked: JoinHandle<Instant>, drain_timeout: Duration) -> Duration {
    // A stop that was asked for is known by now; otherwise this ends the wait for one.
    asked.abort();
    asked.await.map_or(Duration::ZERO, |at| drain_timeout.saturating_sub(at.elapsed()))
}

/// The first signal asks to finish, the next to stop now.
///
/// Whoever signals a process and its group (`timeout` of coreutils, some supervisors) sends twice what
/// is meant once: a repeat within [`SAME_SIGNAL`] does not count.
async fn on_signals<S>(stop: Stop, first: S, next: impl FnOnce() -> S)
where
    S: Future<Output = &'static str>,
{
    ask(first.await, &stop.drain);
    sleep(SAME_SIGNAL).await;
    ask(next().await, &stop.now);
}

fn ask(signal: &str, token: &CancellationToken) {
    info!(category = "worker", signal, "asked to stop");
    token.cancel();
}

/// The name of the next signal from now on, not only from when this is first awaited.
fn next_signal() -> impl Future<Output = &'static str> + Send {
    let listeners = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut term), Ok(mut int)) = listeners else {
            let text = "signals cannot be received; the worker stops only by SIGKILL";
            warn!(category = "worker", "{text}");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::{sync::broadcast, task::yield_now, time::advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_is_repeated_at_once_is_one_request_and_a_later_one_is_another() {
        let (sender, receiver) = broadcast::channel(8);
        let heard =
            |mut signals: broadcast::Receiver<_>| async move { signals.recv().await.unwrap() };
        let (stop, signals) = (Stop::default(), sender.clone());
        let next = move || heard(signals.subscribe());
        tokio::spawn(on_signals(stop.clone(), heard(receiver), next));
        for (wait, is_another) in [
            (Duration::ZERO, false),
            (Duration::from_millis(1), false),
            (SAME_SIGNAL * 9 / 10, false),
            (SAME_SIGNAL / 5, true),
        ] {
            advance(wait).await;
            yield_now().await;
            drop(sender.send("SIGTERM")); // Nobody listens for a moment after the first.
            yield_now().await;
            let asked = (stop.drain.is_cancelled(), stop.now.is_cancelled());
            assert_eq!(asked, (true, is_another), "after another {wait:?}");
        }
    }

    #[tokio::test]
    async fn a_signal_that_comes_before_anybody_waits_for_it_is_heard() {
        let signal = next_signal();
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(signal.await, "SIGTERM");
    }

    #[test]
    fn a_hook_that_blocks_its_thread_does_not_keep_the_process_from_ending() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let (started, start) = tokio::sync::oneshot::channel::<()>();
        let begun = Instant::now();
        run_on(runtime, async {
            tokio::spawn(async move {
                drop(started);
                // Until the test ends, or for longer than it may take.
                assert!(blocked.recv_timeout(Duration::from_mins(4)).is_err());
            });
            start.await.unwrap_err();
        });
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
        drop(release);
    }
}
