//! Logging as a worker starts it. One test, because a process has one log.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::time::Duration;

use drakkar_telemetry::{LogIdentity, LogOutput, LoggingConfig, LoggingError, logging};
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, info};

#[test]
fn lines_reach_the_file_of_the_worker_once_the_guard_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("{cluster_name}").join("{worker_id}.log");
    let config = LoggingConfig {
        output: LogOutput::File(template.to_string_lossy().into_owned()),
        ..LoggingConfig::default()
    };
    let identity = LogIdentity {
        service_name: "drakkar",
        worker_id: "worker-1".to_owned(),
        consumer_group: "group".to_owned(),
        cluster_name: "blue".to_owned(),
        version: "0.1.0".to_owned(),
    };

    let guard = logging::init(&config, &identity).unwrap();
    let again = logging::init(&config, &identity);
    assert!(matches!(again, Err(LoggingError::Twice(_))));
    for number in 0..100 {
        info!(category = "kafka", number, "counted");
        debug!("below the level");
    }
    drop(guard); // Waits for a second at most.

    let log = || std::fs::read_to_string(dir.path().join("blue").join("worker-1.log")).unwrap();
    let deadline = Instant::now() + Duration::from_mins(2);
    while log().lines().count() < 100 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let text = log();
    let numbers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|line| assert_eq!(line["cluster_name"], "blue"))
        .map(|line| line["number"].clone())
        .collect();
    assert_eq!(numbers, (0..100).map(Value::from).collect::<Vec<_>>());
    assert_eq!(logging::dropped_lines(), 0);
}
