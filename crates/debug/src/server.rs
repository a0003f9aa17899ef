//! Listens and routes.
//!
//! Binding is a step of its own, so that a port in use stops the worker before it joins its group.

use std::{future::Future, io, net::SocketAddr, sync::Arc, thread, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use drakkar_telemetry::Metrics;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    time::timeout,
};
use tracing::{info, warn};

use crate::{Health, MetricsConfig, health};

/// How long requests under way may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// How long a scrape may take, with the wait for the one before: as long as Prometheus usually waits.
const SCRAPE_WITHIN: Duration = Duration::from_secs(10);

/// What is served.
#[derive(Clone)]
pub struct Probes {
    /// Answers `/healthz` and `/readyz`.
    pub health: Arc<dyn Health>,
    /// Answers `/metrics`; `None` where `metrics.enabled` is false.
    pub metrics: Option<Arc<Metrics>>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another process has the port.
    #[error("metrics.port: port {port} of {host} is in use by another process; set another one")]
    PortInUse {
        /// `metrics.host`
        host: String,
        /// `metrics.port`
        port: u16,
    },
    /// The address cannot be listened on.
    #[error("metrics.host, metrics.port: cannot listen on {host}:{port}")]
    Bind {
        /// `metrics.host`
        host: String,
        /// `metrics.port`
        port: u16,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The listening socket failed while in use.
    #[error("the server of metrics and probes ended")]
    Serve(#[source] io::Error),
}

/// A server that has its port and waits to be told what to serve. It may be served by another runtime
/// than the one it was bound on.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    ///
    /// When the port is in use or the address is not ours.
    pub async fn bind(config: &MetricsConfig) -> Result<Self, ServeError> {
        let MetricsConfig { host, port, .. } = config.clone();
        let bound = TcpListener::bind((host.as_str(), port)).await;
        let listening =
            bound.and_then(|listener| Ok((listener.local_addr()?, listener.into_std()?)));
        match listening {
            Ok((address, listener)) => Ok(Self { listener, address }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(ServeError::PortInUse { host, port })
            }
            Err(source) => Err(ServeError::Bind { host, port, source }),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `probes` until `shutdown` resolves; requests under way get a second to end.
    ///
    /// # Errors
    ///
    /// When the listening socket fails.
    pub async fn serve(
        self,
        probes: Probes,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        info!(
            category = "worker",
            address = %self.address,
            metrics = probes.metrics.is_some(),
            "serving probes and metrics"
        );
        let listener = TcpListener::from_std(self.listener).map_err(ServeError::Serve)?;
        let (stopping, stopped) = oneshot::channel::<()>();
        let graceful = async move {
            shutdown.await;
            drop(stopping);
        };
        let serving = axum::serve(listener, router(probes)).with_graceful_shutdown(graceful);
        tokio::select! {
            ended = serving => ended.map_err(ServeError::Serve),
            () = overdue(stopped) => Ok(()),
        }
    }
}

/// Resolves a second after the sender of `stopped` is gone.
async fn overdue(stopped: oneshot::Receiver<()>) {
    // Nothing is ever sent: the error is the signal.
    if stopped.await.is_err() {
        tokio::time::sleep(GRACE).await;
    }
}

#[derive(Clone)]
struct Served {
    probes: Probes,
    /// Metrics are gathered by one scrape at a time.
    gathering: Arc<Semaphore>,
}

fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Served { probes, gathering: Arc::new(Semaphore::new(1)) })
}

async fn healthz(State(Served { probes, .. }): State<Served>) -> Response {
    let snapshot = probes.health.snapshot();
    health::answer(snapshot.alive, &snapshot.details)
}

async fn readyz(State(Served { probes, .. }): State<Served>) -> Response {
    let snapshot = probes.health.snapshot();
    health::answer(snapshot.ready, &snapshot.details)
}

async fn metrics(State(Served { probes, gathering }): State<Served>) -> Response {
    let Some(metrics) = probes.metrics else {
        return (StatusCode::NOT_FOUND, "metrics are off (metrics.enabled)\n").into_response();
    };
    match timeout(SCRAPE_WITHIN, gathered(metrics, gathering)).await {
        Ok(Ok(text)) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
                .into_response()
        }
        Ok(Err(error)) => {
            warn!(category = "worker", error, "metrics cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        Err(_) => {
            warn!(category = "worker", "a scrape takes too long: does a collector block?");
            (StatusCode::SERVICE_UNAVAILABLE, "gathering takes too long\n").into_response()
        }
    }
}

/// The metrics as text. On a thread of its own: a collector of the user's may block, and the probes are
/// to answer all the same.
async fn gathered(metrics: Arc<Metrics>, gathering: Arc<Semaphore>) -> Result<String, String> {
    let turn = gathering.acquire_owned().await.map_err(|error| error.to_string())?;
    let (told, rendered) = oneshot::channel();
    let gather = move || {
        // Nobody may wait for it any more.
        drop(told.send(metrics.render()));
        drop(turn); // Not before, or there would be a thread for every scrape.
    };
    let thread = thread::Builder::new().name("drakkar-scrape".to_owned());
    thread.spawn(gather).map_err(|error| format!("no thread for a scrape: {error}"))?;
    match rendered.await {
        Ok(rendered) => rendered.map_err(|error| error.to_string()),
        Err(_) => Err("a collector panicked".to_owned()),
    }
}
