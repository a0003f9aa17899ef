//! Sinks of several sections at the start: none waits for another one.

#![cfg(feature = "kafka")]

use std::{os::unix::fs::symlink, path::PathBuf, sync::Arc};

use drakkar_core::kafka_client::Cluster;
use drakkar_mock::{Broker, SOON};
use drakkar_sinks::{CustomSinks, DlqConfig, FileSinkConfig, Identity, Sinks, SinksConfig};
use tempfile::TempDir;

#[tokio::test]
async fn a_directory_that_is_not_there_yet_holds_up_no_other_sink_at_the_start() {
    let temp = TempDir::new().unwrap();
    let [first, second] = ["first", "second"].map(|name| temp.path().join(name));
    symlink(&second, &first).unwrap(); // It can be opened once the second one is there.
    let at = |base_path: PathBuf| FileSinkConfig { base_path, ..FileSinkConfig::default() };
    let filesystem = [("a", first), ("b", second)];
    let config = SinksConfig {
        filesystem: filesystem.map(|(name, path)| (name.to_owned(), at(path))).into(),
        ..SinksConfig::default()
    };
    let broker = Broker::start();
    let started = Sinks::connect(
        &config,
        CustomSinks::default(),
        &DlqConfig::default(),
        &Cluster { brokers: broker.address.clone(), ..Cluster::default() },
        &Identity { group: "group".to_owned(), worker: "worker-1".to_owned() },
        SOON,
        Arc::new(()),
    )
    .await;
    started.unwrap().sinks.close(SOON).await;
}
