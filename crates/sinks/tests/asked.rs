//! What sinks answer when they are asked whether they are there.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

use std::fs;

use drakkar_core::Sink;
use drakkar_sinks::{FileSink, FileSinkConfig};
use tempfile::TempDir;

#[tokio::test]
async fn a_directory_is_there_while_files_can_be_made_in_it_and_none_is_left_behind() {
    let base = TempDir::new().unwrap();
    let base_path = base.path().join("out");
    let config = FileSinkConfig { base_path: base_path.clone(), ..FileSinkConfig::default() };
    let sink = FileSink::open(&config, "worker-1").unwrap();
    assert_eq!(sink.probe().await, Ok(()));
    assert_eq!(fs::read_dir(&base_path).unwrap().count(), 0);
    fs::remove_dir(&base_path).unwrap();
    assert_eq!(sink.probe().await.unwrap_err().class, "NotFound");
}
