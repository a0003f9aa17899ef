//! The job log and the metrics of runs, of a worker as users run it. The broker is librdkafka's own,
//! inside this process.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use drakkar::{
    Bytes, Config, Handler, HookResult, Message, OnError, Pending, Ready, Task, TaskFailure,
    Worker,
    prometheus::{Registry, TextEncoder},
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};

const SOON: Duration = Duration::from_mins(1);

/// Runs each message as a script, and tries none again.
struct Scripts(Arc<OnceLock<Registry>>);

impl Handler for Scripts {
    type Input = Bytes;

    async fn on_ready(&self, ready: &Ready) -> HookResult<()> {
        let registry = ready.get::<Registry>().ok_or("no registry")?;
        self.0.set(registry.clone()).map_err(|_| "twice".into())
    }

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let script = |message: &Message<Bytes>| {
            Task::for_message(message)
                .arg("-c")
                .arg(String::from_utf8_lossy(&message.input).as_ref())
        };
        Ok(window.iter().map(script).collect())
    }

    async fn on_error(&self, _: &TaskFailure) -> HookResult<OnError> {
        Ok(OnError::Skip)
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_has_its_line_in_the_job_log_also_one_that_is_cut_off_and_its_part_in_a_scrape() {
    let cluster = drakkar_mock::cluster(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    let mut config = Config::default();
    config.kafka.brokers = cluster.bootstrap_servers();
    config.kafka.source_topic = String::from("orders");
    config.kafka.startup_align_enabled = false;
    config.kafka.client_config.insert("fetch.wait.max.ms".to_owned(), "10".to_owned());
    config.metrics.host = String::from("127.0.0.1");
    config.metrics.port = 0;
    config.executor.binary_path = Some("/bin/sh".into());
    config.executor.max_stdout_bytes = 3;
    config.executor.max_executors = 2.try_into().ok();
    config.executor.drain_timeout_seconds = Duration::from_millis(500);
    config.executor.job_log.path = Some(path.clone());
    let registry = Arc::new(OnceLock::new());
    let worker = Worker::new(Scripts(Arc::clone(&registry))).config(config).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(worker.run_until(async { drop(stopped.await) }));

    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    let hangs = format!(": >{}; exec sleep 1000", dir.path().join("hangs").display());
    for script in ["printf 12345", "exit 7", &hangs] {
        let record = BaseRecord::<(), _>::to("orders").partition(0).payload(script);
        producer.send(record).unwrap();
    }
    producer.flush(SOON).unwrap();
    let deadline = Instant::now() + SOON;
    while lines(&path).len() < 2 || !dir.path().join("hangs").exists() {
        assert!(Instant::now() < deadline && !running.is_finished(), "{:?}", lines(&path));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let scrape = TextEncoder::new().encode_to_string(&registry.get().unwrap().gather()).unwrap();
    for line in [
        "drakkar_executor_queue_wait_seconds_count 2",
        "drakkar_executor_spawn_seconds_count 2",
        "drakkar_executor_duration_seconds_count 2",
        r#"drakkar_executor_output_truncated_total{stream="stdout"} 1"#,
        "drakkar_job_log_dropped_total 0",
    ] {
        assert!(scrape.lines().any(|shown| shown == line), "no {line:?} in\n{scrape}");
    }
    drop(stop);
    running.await.unwrap().unwrap();

    let lines = lines(&path);
    let of = |offset: i64| {
        let coordinates = serde_json::json!([format!("orders:0:{offset}")]);
        lines.iter().find(|line| line["messages"] == coordinates).unwrap()
    };
    let (done, failed, cut_off) = (of(0), of(1), of(2));
    assert_eq!(lines.len(), 3);
    assert_eq!((&done["outcome"], &done["exit_code"]), (&"ok".into(), &0.into()));
    assert_eq!((&done["stdout_bytes"], &done["stdout_truncated"]), (&5.into(), &true.into()));
    assert_eq!((&failed["outcome"], &failed["exit_code"]), (&"exit_code".into(), &7.into()));
    assert_eq!(
        (&cut_off["outcome"], &cut_off["reason"]),
        (&"cancelled".into(), &"shutdown".into())
    );
    assert_eq!((&cut_off["exit_code"], &cut_off["signal"]), (&Value::Null, &Value::Null));
    for line in &lines {
        assert_eq!((&line["program"], &line["attempt"]), (&"/bin/sh".into(), &1.into()));
        assert!(line["pid"].is_u64() && line["run_seconds"].is_f64(), "{line}");
        assert!(line["user_seconds"].is_f64() && line["system_seconds"].is_f64(), "{line}");
        assert!(line["started"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}
