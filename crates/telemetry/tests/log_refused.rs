//! Logging to a disk that is full. One test, because a process has one log.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::time::Duration;

use drakkar_telemetry::{LogIdentity, LogOutput, LoggingConfig, Metrics, logging};
use tokio::time::Instant;
use tracing::info;

#[test]
fn lines_that_a_full_disk_refuses_are_counted_in_the_metric() {
    let config = LoggingConfig {
        output: LogOutput::File("/dev/full".to_owned()),
        ..LoggingConfig::default()
    };
    let identity = LogIdentity {
        service_name: "drakkar",
        worker_id: "worker-1".to_owned(),
        consumer_group: "group".to_owned(),
        cluster_name: String::new(),
        version: "0.1.0".to_owned(),
    };

    let guard = logging::init(&config, &identity).unwrap();
    for _ in 0..3 {
        info!("refused");
    }
    drop(guard); // Waits until the thread has tried, for a second at most.

    let metrics = Metrics::new().unwrap();
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let shown = metrics.render().unwrap();
        if shown.contains("\ndrakkar_log_lines_dropped_total 3\n") {
            return;
        }
        assert!(Instant::now() < deadline, "{shown}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
