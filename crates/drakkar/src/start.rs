//! Starts the parts of a worker in the order of dependence: logs, port, source, sinks, pool, pipeline;
//! then the handler is asked whether it is ready, and the group is joined.
//!
//! What fails here fails before a message is read.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use drakkar_core::{Handler, source::SourceCommand};
use drakkar_debug::Server;
use drakkar_executor::{JobLogConfig, Pool};
use drakkar_kafka::{PollThread, Source, SourceStartError};
use drakkar_pipeline::{CommitPace, Pipeline, Settings, Status};
use drakkar_sinks::{Connected, Identity, Sinks};
use drakkar_telemetry::{
    JobLogGuard, JobLogSettings, LogGuard, LogIdentity, LoggingError, Metrics, logging,
};
use tracing::{info, warn};

use crate::{
    Config, Loaded, RunError, VERSION,
    config::{self, WorkerIdSource},
    extras::Extras,
    health::{self, WorkerHealth},
    probes::ProbeServer,
    sink_threads::SinkThreads,
};

/// A worker that is about to consume.
pub(crate) struct Parts<H: Handler> {
    pub pipeline: Pipeline<H>,
    pub pool: Pool,
    pub sinks: Sinks,
    pub sink_threads: SinkThreads,
    pub control: drakkar_core::source::SourceControl,
    pub poll_thread: PollThread,
    pub probes: ProbeServer,
    pub drain_timeout: Duration,
    /// Writes what is queued when it is dropped.
    pub job_log: Option<JobLogGuard>,
    /// Dropped last: it writes what is queued.
    pub logs: Option<LogGuard>,
}

impl<H: Handler> Parts<H> {
    pub(crate) async fn start(
        handler: H,
        extras: Extras<H>,
        loaded: &Loaded,
    ) -> Result<Self, RunError> {
        let config = &loaded.config;
        let worker = config::resolve_worker_id(config);
        let logs = start_logging(config, &worker.id)?;
        announce(loaded, &worker)?;

        let metrics = Metrics::new().map_err(|error| RunError::start("the metrics", error))?;
        let metrics = Arc::new(metrics);
        metrics.identify(&worker.id, VERSION, &config.kafka.consumer_group);
        let job_log = start_job_log(config, &worker.id, &metrics)?;
        let status = Arc::new(Status::default());

        let server = Server::bind(&config.metrics)
            .await
            .map_err(|error| RunError::start("the metrics and probes server", error))?;
        let health = Arc::new(WorkerHealth {
            worker_id: worker.id.clone(),
            status: Arc::clone(&status),
            metrics: Arc::clone(&metrics),
            config: config.health.clone(),
            connected: OnceLock::new(),
        });
        let mut probes = ProbeServer::start(server, Arc::clone(&health), config, &metrics)
            .map_err(|error| RunError::start("the thread of the probes", error))?;
        let identity =
            Identity { group: config.kafka.consumer_group.clone(), worker: worker.id.clone() };
        // The brokers first: sinks usually live on the same ones. The group is joined last.
        let source = Source::start(&config.kafka, &worker.id, Arc::clone(&metrics) as _)
            .await
            .map_err(|error| match error {
                SourceStartError::Config(text) => loaded.refused(&text).into(),
                error => RunError::start("the Kafka source", error),
            })?;
        let sink_threads = SinkThreads::start()
            .map_err(|error| RunError::start("the threads of the sinks", error))?;
        let cluster = config.kafka.cluster();
        let connect = Sinks::connect(
            &config.sinks,
            extras.sinks,
            &config.dlq,
            &cluster,
            &identity,
            config.kafka.start_timeout,
            Arc::clone(&metrics) as _,
        );
        let Connected { sinks, mut ready } = sink_threads
            .bring(connect)
            .await
            .map_err(|error| RunError::start("the sinks", error))?;
        let pool = Pool::start(&config.executor)
            .map_err(|error| RunError::start("the process pool", error))?;
        let connected = health::Connected { sinks: sinks.clone(), pool: pool.watch() };
        health.connected.get_or_init(|| connected);
        probes.show(pool.clone(), Arc::clone(&status));
        ready.provide(metrics.registry().clone());
        let mut pipeline = Pipeline::new(
            handler,
            pool.clone(),
            sinks.clone(),
            metrics,
            settings(config),
            source.events,
            source.control.clone(),
            status,
        );
        for periodic in extras.periodics {
            pipeline.every(periodic);
        }
        pipeline.ready(ready).await.map_err(|failure| RunError::hook("on_ready", failure))?;
        source.control.send(SourceCommand::Join);
        Ok(Self {
            pipeline,
            pool,
            sinks,
            sink_threads,
            control: source.control,
            poll_thread: source.thread,
            probes,
            drain_timeout: config.executor.drain_timeout_seconds,
            job_log,
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

fn start_job_log(
    config: &Config,
    worker_id: &str,
    metrics: &Arc<Metrics>,
) -> Result<Option<JobLogGuard>, RunError> {
    let JobLogConfig { path, max_bytes } = &config.executor.job_log;
    let Some(path) = path else { return Ok(None) };
    let settings = JobLogSettings {
        path: path.clone(),
        max_bytes: *max_bytes,
        worker: worker_id.to_owned(),
        program: config.executor.binary_path.clone(),
    };
    let started = metrics.log_jobs(settings);
    started.map(Some).map_err(|error| RunError::start("the job log", error))
}

/// Says once who this is and what the configuration asks for in vain; refuses sinks that this build
/// cannot serve, and what a worker with a random id cannot do.
fn announce(loaded: &Loaded, worker: &config::WorkerId) -> Result<(), RunError> {
    let missing = loaded.config.sinks.missing();
    if !missing.is_empty() {
        return Err(RunError::MissingSinks(missing));
    }
    config::require_stable(loaded, worker)?;
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
    let commit = CommitPace { interval: kafka.commit_interval, every: kafka.commit_every.get() };
    Settings::new(executor, kafka.on_invalid, config.dlq.flood(), commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_a_random_id_does_not_start_as_a_static_member() {
        let mut loaded = Loaded::default();
        let worker =
            config::WorkerId { id: "worker-4711".to_owned(), source: WorkerIdSource::Random };
        assert!(announce(&loaded, &worker).is_ok());
        loaded.config.kafka.group_instance_id = Some("{worker_id}".to_owned());
        assert_eq!(announce(&loaded, &worker).unwrap_err().exit_code(), 2);
    }
}
