//! The probes over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test fails by panicking.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::Duration,
};

use drakkar_debug::{Health, HealthSnapshot, MetricsConfig, Probes, ServeError, Server};
use drakkar_telemetry::{
    Metrics,
    prometheus::{
        core::{Collector, Desc},
        proto::MetricFamily,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

struct Patient(Mutex<HealthSnapshot>);

impl Health for Patient {
    fn snapshot(&self) -> HealthSnapshot {
        self.0.lock().unwrap().clone()
    }
}

struct World {
    address: SocketAddr,
    patient: Arc<Patient>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
}

fn local(port: u16) -> MetricsConfig {
    MetricsConfig { host: "127.0.0.1".to_owned(), port, ..MetricsConfig::default() }
}

async fn start(metrics: Option<Arc<Metrics>>) -> World {
    let patient = Arc::new(Patient(Mutex::new(HealthSnapshot {
        alive: Ok(()),
        ready: Ok(()),
        details: json!({ "assigned": 3 }),
    })));
    let server = Server::bind(&local(0)).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let probes = Probes { health: Arc::clone(&patient) as Arc<dyn Health>, metrics };
    let server = tokio::spawn(server.serve(probes, async {
        stopped.await.unwrap();
    }));
    World { address, patient, stop, server }
}

impl World {
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn get_json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    fn becomes(&self, change: impl FnOnce(&mut HealthSnapshot)) {
        change(&mut self.patient.0.lock().unwrap());
    }
}

#[tokio::test]
async fn a_healthy_worker_answers_200_with_details() {
    let world = start(None).await;
    let ok = json!({ "status": "ok", "details": { "assigned": 3 } });
    assert_eq!(world.get_json("/healthz").await, (200, ok.clone()));
    assert_eq!(world.get_json("/readyz").await, (200, ok));
}

#[tokio::test]
async fn each_probe_fails_alone_and_names_its_reason() {
    let world = start(None).await;
    world.becomes(|snapshot| snapshot.ready = Err("sink kafka/results: unreachable".into()));
    let (status, body) = world.get_json("/readyz").await;
    assert_eq!((status, &body["reason"]), (503, &json!("sink kafka/results: unreachable")));
    assert_eq!(world.get("/healthz").await.0, 200);

    world.becomes(|snapshot| snapshot.alive = Err("poll thread ended".into()));
    let (status, body) = world.get_json("/healthz").await;
    assert_eq!((status, &body["reason"]), (503, &json!("poll thread ended")));
}

#[tokio::test]
async fn metrics_are_served_as_text_where_they_are_on_and_the_probes_stay_where_not() {
    let metrics = Arc::new(Metrics::new().unwrap());
    metrics.tasks_started.inc();
    let world = start(Some(metrics)).await;
    let (status, body) = world.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("drakkar_executor_tasks_total{status=\"started\"} 1"), "{body}");

    let world = start(None).await;
    let off = (404, "metrics are off (metrics.enabled)\n".to_owned());
    assert_eq!(world.get("/metrics").await, off);
    assert_eq!(world.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_key() {
    let first = Server::bind(&local(0)).await.unwrap();
    let port = first.address().port();
    let error = Server::bind(&local(port)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "metrics.port: port {port} of 127.0.0.1 is in use by another process; set another one"
        )
    );
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_stop() {
    let world = start(None).await;
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert_eq!(world.get("/healthz").await.0, 200);
    world.stop.send(()).unwrap();
    let ended = timeout(Duration::from_mins(2), world.server).await;
    ended.expect("stops within its grace").unwrap().unwrap();
}

/// A collector of a user's that blocks until its gate goes.
struct Blocking {
    gate: Mutex<Receiver<()>>,
    /// Nobody opened the gate in time.
    overdue: Arc<AtomicBool>,
    entered: Arc<AtomicUsize>,
}

impl Collector for Blocking {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let opened = self.gate.lock().unwrap().recv_timeout(Duration::from_mins(2));
        if opened == Err(RecvTimeoutError::Timeout) {
            self.overdue.store(true, Ordering::SeqCst);
        }
        Vec::new()
    }
}

#[tokio::test]
async fn a_collector_that_blocks_silences_no_probe_and_blocks_one_thread_at_most() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (open, gate) = channel();
    let (overdue, entered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let collector = Blocking {
        gate: Mutex::new(gate),
        overdue: Arc::clone(&overdue),
        entered: Arc::clone(&entered),
    };
    metrics.registry().register(Box::new(collector)).unwrap();
    let world = Arc::new(start(Some(metrics)).await);
    let scrapes: Vec<_> = (0..2)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.get("/metrics").await.0 })
        })
        .collect();
    while entered.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert_eq!(world.get("/healthz").await.0, 200);
    }
    assert!(!overdue.load(Ordering::SeqCst), "a probe waited for the collector");
    assert_eq!(entered.load(Ordering::SeqCst), 1);
    drop(open);
    for scrape in scrapes {
        assert_eq!(scrape.await.unwrap(), 200);
    }
}
