//! Starts the parts of a worker in the order of dependence: logs, port, source, sinks, pool, pipeline.
//!
//! What fails here fails before a message is read.

use std::{sync::Arc, time::Duration};

use drakkar_core::{Handler, source::SourceCommand};
use drakkar_debug::{Probes, Server};
use drakkar_executor::{Pool, PoolStats};
use drakkar_kafka::{PollThread, Source};
use drakkar_pipeline::{CommitPace, Pipeline, Settings, Status};
use drakkar_sinks::{Identity, Sinks};
use drakkar_telemetry::{LogGuard, LogIdentity, LoggingError, Metrics, logging};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};
use tracing::{info, warn};

use crate::{
    Config, Loaded, RunError, VERSION,
    config::{self, WorkerIdSource},
    health::WorkerHealth,
};

/// How often the gauges of the pool are read.
const POOL_GAUGES_EVERY: Duration = Duration::from_secs(1);

/// A worker that is about to consume.
pub(crate) struct Parts<H: Handler> {
    pub pipeline: Pipeline<H>,
    pub pool: Pool,
    pub sinks: Sinks,
    pub control: drakkar_core::source::SourceControl,
    pub poll_thread: PollThread,
    pub probes: ProbeServer,
    /// Dropped last: it writes what is queued.
    pub logs: Option<LogGuard>,
}

impl<H: Handler> Parts<H> {
    pub(crate) async fn start(handler: H, loaded: &Loaded) -> Result<Self, RunError> {
        let config = &loaded.config;
        let worker = config::resolve_worker_id(config);
        let logs = start_logging(config, &worker.id)?;
        announce(loaded, &worker)?;

        let metrics = Metrics::new().map_err(|error| RunError::start("the metrics", error))?;
        let metrics = Arc::new(metrics);
        metrics.identify(&worker.id, VERSION, &config.kafka.consumer_group);
        let status = Arc::new(Status::default());

        let server = Server::bind(&config.metrics)
            .await
            .map_err(|error| RunError::start("the metrics and probes server", error))?;
        let identity =
            Identity { group: config.kafka.consumer_group.clone(), worker: worker.id.clone() };
        // The brokers first: sinks usually live on the same ones. The group is joined last.
        let source = Source::start(&config.kafka, &worker.id, Arc::clone(&metrics) as _)
            .await
            .map_err(|error| RunError::start("the Kafka source", error))?;
        let sinks = Sinks::connect(
            &config.sinks,
            &config.dlq,
            &config.kafka.cluster(),
            &identity,
            config.kafka.start_timeout,
            Arc::clone(&metrics) as _,
        )
        .await
        .map_err(|error| RunError::start("the sinks", error))?;
        let pool = Pool::start(&config.executor)
            .map_err(|error| RunError::start("the process pool", error))?;
        let health = WorkerHealth {
            worker_id: worker.id.clone(),
            status: Arc::clone(&status),
            sinks: sinks.clone(),
        };
        let probes = ProbeServer::start(server, health, config, &metrics, &pool);
        let pipeline = Pipeline::new(
            handler,
            pool.clone(),
            sinks.clone(),
            metrics,
            settings(config),
            source.events,
            source.control.clone(),
            status,
        );
        source.control.send(SourceCommand::Join);
        Ok(Self {
            pipeline,
            pool,
            sinks,
            control: source.control,
            poll_thread: source.thread,
            probes,
            logs,
        })
    }
}

/// A program that has set a subscriber of its own keeps it.
fn start_logging(config: &Config, worker_id: &str) -> Result<Option<LogGuard>, RunError> {
    let identity = LogIdentity {
        service_name: "drakkar",
        worker_id: worker_id.to_owned(),
        consumer_group: config.kafka.consumer_group.clone(),
        cluster_name: config::resolve_cluster_name(config),
        version: VERSION.to_owned(),
    };
    match logging::init(&config.logging, &identity) {
        Ok(guard) => Ok(Some(guard)),
        Err(LoggingError::Twice(_)) => Ok(None),
        Err(error) => Err(RunError::start("the log", error)),
    }
}

/// Says once who this is and what the configuration asks for in vain; refuses sinks that this build
/// cannot serve.
fn announce(loaded: &Loaded, worker: &config::WorkerId) -> Result<(), RunError> {
    let refused = loaded.refused_sinks();
    if !refused.is_empty() {
        return Err(RunError::MissingSinks(refused));
    }
    for note in &loaded.notes {
        warn!(category = "worker", "{note}");
    }
    if worker.source == WorkerIdSource::Random {
        warn!(
            category = "worker",
            "neither {} nor a host name is set: this worker has a random id, new with every start",
            loaded.config.worker_name_env
        );
    }
    let config = &loaded.config;
    info!(
        category = "worker",
        worker_id_from = %worker.source,
        brokers = config.kafka.brokers,
        topics = ?config.kafka.topics(),
        slots = config.executor.slots(),
        "worker starts"
    );
    Ok(())
}

fn settings(config: &Config) -> Settings {
    let (executor, kafka) = (&config.executor, &config.kafka);
    let window_size = executor.window_size.get();
    Settings {
        window_size,
        max_in_flight: window_size.saturating_mul(executor.max_windows.get()),
        max_in_pool: executor.slots().saturating_mul(executor.backpressure_high_multiplier.get()),
        max_hooks: executor.max_hooks.get(),
        max_result_bytes: executor.max_result_bytes,
        max_retries: executor.max_retries,
        max_replacements: executor.max_replacements,
        backoff: drakkar_core::retry::Backoff {
            initial: executor.retry_backoff_initial,
            max: executor.retry_backoff_max,
        },
        hook_timeout: executor.hook_timeout_seconds,
        on_invalid: kafka.on_invalid,
        commit: CommitPace { interval: kafka.commit_interval, every: kafka.commit_every.get() },
    }
}

/// Probes and metrics, until they are told to stop.
pub(crate) struct ProbeServer {
    serving: JoinHandle<()>,
    /// Ended with this: it holds a handle to the pool, and a pool lives as long as its last handle.
    gauges: JoinSet<()>,
    stop: oneshot::Sender<()>,
}

impl ProbeServer {
    fn start(
        server: Server,
        health: WorkerHealth,
        config: &Config,
        metrics: &Arc<Metrics>,
        pool: &Pool,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let probes = Probes {
            health: Arc::new(health),
            metrics: config.metrics.enabled.then(|| Arc::clone(metrics)),
        };
        let serving = tokio::spawn(async move {
            // Told to stop, or its owner is gone: the same.
            let stopped = async move { drop(stopped.await) };
            if let Err(error) = server.serve(probes, stopped).await {
                warn!(category = "worker", %error, "probes and metrics are no longer served");
            }
        });
        let mut gauges = JoinSet::new();
        gauges.spawn(show_pool(Arc::clone(metrics), pool.clone()));
        Self { serving, gauges, stop }
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        drop(self.gauges);
        if let Err(error) = self.serving.await {
            warn!(category = "worker", %error, "the probe server died");
        }
    }
}

async fn show_pool(metrics: Arc<Metrics>, pool: Pool) {
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.effective_cpus.set(drakkar_executor::effective_cpus());
    let mut tick = tokio::time::interval(POOL_GAUGES_EVERY);
    loop {
        tick.tick().await;
        let PoolStats { slots, active, escaped, paused, taken_back, .. } = pool.stats();
        metrics.memory_paused.set(paused.into());
        metrics.memory_requeued.inc_by(taken_back.saturating_sub(metrics.memory_requeued.get()));
        metrics.escaped_processes.inc_by(escaped.saturating_sub(metrics.escaped_processes.get()));
        metrics.pool_max.set(signed(slots));
        metrics.pool_active.set(signed(active));
    }
}
