//! The sinks of a configuration, without a worker around them: what they do with payloads, and what
//! they say when they cannot be connected.

use std::{
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use drakkar_core::{Payload, hold::HoldBoard, kafka_client::Cluster, observe::SinkObserver};
use drakkar_sinks::{
    ConnectError, Connected, CustomSinks, DlqConfig, Identity, Settled, Sinks, SinksConfig,
};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{Kafka, SOON};

/// Connects what stands in `config`, as the section `sinks:` of a worker has it.
///
/// # Errors
///
/// As a worker's start.
pub async fn connect(config: Value) -> Result<Connected, ConnectError> {
    connect_within(config, SOON).await
}

/// As [`connect`], for at most `within`.
///
/// # Errors
///
/// As a worker's start.
pub async fn connect_within(config: Value, within: Duration) -> Result<Connected, ConnectError> {
    connect_observed(config, within, Arc::new(())).await
}

/// As [`connect_within`]; `observer` hears what the sinks say.
///
/// # Errors
///
/// As a worker's start.
pub async fn connect_observed(
    config: Value,
    within: Duration,
    observer: Arc<dyn SinkObserver>,
) -> Result<Connected, ConnectError> {
    let config: SinksConfig = serde_json::from_value(config).unwrap();
    let source = Cluster { brokers: Kafka::shared().servers, ..Cluster::default() };
    let identity = Identity { group: "sinks".to_owned(), worker: "worker-1".to_owned() };
    let (dlq, custom) = (DlqConfig::default(), CustomSinks::default());
    Sinks::connect(&config, custom, &dlq, &source, &identity, within, observer).await
}

/// Delivers `payloads`, all at once, and answers when each is settled.
pub async fn deliver_all(
    sinks: &Sinks,
    payloads: impl IntoIterator<Item = impl Into<Payload>>,
) -> Vec<Settled> {
    let hold = Arc::new(HoldBoard::default()).task();
    join_all(payloads.into_iter().map(|payload| sinks.deliver(payload.into(), &hold))).await
}

/// As [`deliver_all`], each by a task of its own, on whatever threads there are.
pub async fn deliver_by_tasks(
    sinks: &Sinks,
    payloads: impl IntoIterator<Item = impl Into<Payload>>,
) -> Vec<Settled> {
    let board = Arc::new(HoldBoard::default());
    let begin = |payload: Payload| {
        let (sinks, hold) = (sinks.clone(), board.task());
        tokio::spawn(async move { sinks.deliver(payload, &hold).await })
    };
    let tasks: Vec<_> = payloads.into_iter().map(|payload| begin(payload.into())).collect();
    join_all(tasks).await.into_iter().map(|ended| ended.expect("a delivery panicked")).collect()
}

/// Does what `hook` does on a runtime of one thread, and then blocks that thread: whatever is left of it there
/// stands still until the answer is dropped.
pub async fn blocked_after(hook: impl Future<Output = ()> + Send + 'static) -> Sender<()> {
    let (blocks, is_blocked) = oneshot::channel();
    let (release, released) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(hook);
        blocks.send(()).unwrap();
        released.recv().unwrap_err(); // Nothing is ever sent.
    });
    is_blocked.await.expect("the hook panicked");
    release
}
