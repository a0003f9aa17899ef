//! How a worker starts, or does not: what it says, how long that takes, which exit code it has, and
//! what it serves over HTTP once it runs.

use std::{
    net::TcpListener,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use drakkar_integration::{Act, Kafka, SOON, WorkerProcess, World, until};
use rdkafka::consumer::Consumer;
use tokio::time::Instant;

/// Where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// Far more than the time-out that these tests set, less than that of their worlds.
const AT_MOST: Duration = Duration::from_mins(1);

/// Starts a worker that must not start; returns what it said, and fails when that took too long.
#[track_caller]
fn refused(world: &World, code: i32) -> String {
    let begun = Instant::now();
    let ended = world.start().wait(SOON);
    let took = begun.elapsed();
    assert_eq!(ended.code, Some(code), "{}", ended.log);
    assert!(took < AT_MOST, "it took {took:?}: {}", ended.log);
    ended.log
}

#[track_caller]
fn says(log: &str, texts: &[&str]) {
    for text in texts {
        assert!(log.contains(text), "{text:?} is not in: {log}");
    }
}

#[test]
fn a_missing_source_topic_is_named_within_the_start_time_out_and_the_exit_code_is_3() {
    let world = World::without_topics(Kafka::shared()).with("kafka.start_timeout", "3s");
    let log = refused(&world, 3);
    says(&log, &["cannot start", &world.source, "Unknown topic"]);
}

#[test]
fn a_wrong_broker_address_is_named_within_the_start_time_out_and_the_exit_code_is_3() {
    let world = World::without_topics(Kafka { servers: NOBODY.to_owned() })
        .with("kafka.start_timeout", "3s");
    let log = refused(&world, 3);
    says(&log, &["cannot start", NOBODY]);
}

#[test]
fn a_broker_that_accepts_and_never_answers_is_named_within_the_start_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let world =
        World::without_topics(Kafka { servers: address.clone() }).with("kafka.start_timeout", "3s");
    let log = refused(&world, 3);
    says(&log, &["cannot start", &address]);
}

#[test]
fn a_sink_with_a_wrong_broker_address_stops_the_start_and_is_named() {
    let world =
        World::new(1).with("kafka.start_timeout", "3s").with("sinks.kafka.results.brokers", NOBODY);
    says(&refused(&world, 3), &["cannot start the sinks", NOBODY, "results"]);
}

#[test]
fn a_wrong_configuration_names_every_wrong_key_and_the_exit_code_is_2() {
    let world = World::without_topics(Kafka::shared())
        .with("kafka.sorce_topic", "x")
        .with("executor.window_size", 0);
    let log = refused(&world, 2);
    says(&log, &["kafka.sorce_topic", "kafka.source_topic", "executor.window_size"]);
}

#[test]
fn a_port_that_is_taken_is_named_and_the_exit_code_is_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let world = World::new(1).with("metrics.port", port);
    let log = refused(&world, 3);
    says(&log, &["cannot start the metrics and probes server", &port.to_string()]);
}

#[test]
fn sigterm_while_it_waits_for_the_broker_ends_a_worker_with_0() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let world = World::without_topics(Kafka { servers: address }).with("kafka.start_timeout", "5m");
    let mut worker = world.start();
    worker.wait_for_log("worker starts");
    worker.stop();
}

#[test]
fn probes_and_metrics_answer_over_http() {
    let world = World::new(2);
    let worker = world.start();
    world.order([("a", Act::Echo), ("b", Act::Fail), ("c", Act::Precomputed)]);
    world.give([drakkar_integration::Given::new("d", "no order")]);
    world.drained();

    let (status, body) = worker.get("/healthz").unwrap();
    assert_eq!((status, body.contains("worker-1")), (200, true), "{body}");
    wait_ready(&worker);
    assert_eq!(worker.status("/nothing"), 404);

    let source = &world.source;
    let all = [
        "drakkar_worker_info{consumer_group=",
        &format!("drakkar_messages_consumed_total{{partition=\"0\",topic=\"{source}\"}} 3"),
        &format!("drakkar_messages_settled_total{{partition=\"1\",topic=\"{source}\"}} 1"),
        &format!("drakkar_message_parse_failures_total{{partition=\"0\",topic=\"{source}\"}} 1"),
        "drakkar_executor_tasks_total{status=\"started\"}",
        "drakkar_executor_tasks_total{status=\"failed\"} 4",
        "drakkar_task_retries_total 3",
        "drakkar_tasks_precomputed_total 1",
        "drakkar_executor_duration_seconds_count",
        "drakkar_executor_spawn_seconds_count",
        "drakkar_executor_queue_wait_seconds_count",
        "drakkar_executor_pool_max 4",
        "drakkar_executor_pool_active",
        "drakkar_host_effective_cpus",
        "drakkar_handler_duration_seconds_count{hook=\"arrange\"}",
        "drakkar_handler_duration_seconds_count{hook=\"on_task_complete\"} 2",
        "drakkar_handler_duration_seconds_count{hook=\"on_error\"} 4",
        "drakkar_sink_payloads_delivered_total{sink_name=\"results\",sink_type=\"kafka\"} 2",
        "drakkar_sink_dlq_messages_total 2",
        "drakkar_dead_letters_total{stage=\"decode\"} 1",
        "drakkar_dead_letters_total{stage=\"execute\"} 1",
        "drakkar_assigned_partitions 2",
        "drakkar_offsets_committed_total{",
        "drakkar_rebalance_events_total{type=\"assign\"}",
        "drakkar_backpressure_active 0",
        "drakkar_total_queued 0",
        "drakkar_batch_duration_seconds_count",
    ];
    // What is counted when the broker has answered comes after the commit that the broker shows.
    until("all series", SOON, || {
        let (_, metrics) = worker.get("/metrics").map_err(|error| error.to_string())?;
        let is_there = |series: &&str| metrics.lines().any(|line| line.starts_with(series));
        match all.iter().find(|series| !is_there(series)) {
            Some(series) => Err(format!("{series} is not in:\n{metrics}")),
            None => Ok(()),
        }
    });
    world.books().balance();
}

#[test]
fn probes_stay_when_metrics_are_switched_off() {
    let world = World::new(1).with("metrics.enabled", false);
    let worker = world.start();
    assert_eq!(worker.status("/healthz"), 200);
    assert_eq!(worker.status("/metrics"), 404);
}

#[test]
fn what_the_client_refuses_is_named_and_the_exit_code_is_2() {
    let world = World::without_topics(Kafka::shared());
    let log = refused(&world.with("kafka.max_poll_interval_ms", 90_000_000), 2);
    says(&log, &["kafka.max_poll_interval_ms: "]);
    // Only the whole shows that these two do not fit.
    let world = World::without_topics(Kafka::shared())
        .with("kafka.client_config", serde_json::json!({"reconnect.backoff.ms": "60000"}));
    let log = refused(&world.with("kafka.start_timeout", "3s"), 2);
    says(&log, &["kafka.client_config: ", "reconnect.backoff.max.ms"]);
}

#[test]
fn a_worker_that_the_group_refuses_is_not_ready() {
    let world = World::new(1);
    // A member that knows none of the ways in which workers share partitions.
    let member: rdkafka::consumer::BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &world.kafka.servers)
        .set("group.id", &world.group)
        .set("partition.assignment.strategy", "range")
        .create()
        .unwrap();
    let (runs, ended) = mpsc::channel::<()>();
    let has_joined = AtomicBool::new(false);
    member.subscribe(&[&world.source]).unwrap();
    thread::scope(|scope| {
        let runs = runs; // Goes with a failure as well, which would else wait for the other thread.
        let has_joined = &has_joined;
        scope.spawn(move || {
            while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
                drop(member.poll(Duration::from_millis(50)));
                let count = member.assignment().map_or(0, |ours| ours.count());
                has_joined.fetch_or(0 < count, Ordering::Relaxed);
            }
            drop(member); // It leaves the group.
        });
        until("the other member to join", SOON, || {
            if has_joined.load(Ordering::Relaxed) { Ok(()) } else { Err("not yet") }
        });
        let worker = world.start();
        worker.wait_for_log("Inconsistent group protocol");
        until("the probes to say why", SOON, || {
            match worker.get("/readyz").map_err(|error| error.to_string())? {
                (503, body) if body.contains("is not a member of its group") => Ok(()),
                (status, body) => Err(format!("{status} {body}")),
            }
        });
        assert_eq!(worker.status("/healthz"), 200);
        drop(runs);
        wait_ready(&worker);
    });
}

#[test]
fn a_worker_for_which_no_partition_is_left_is_ready() {
    for protocol in ["classic", "consumer"] {
        let world = World::new(1).with("kafka.group_protocol", protocol);
        let workers = [world.start(), world.start()];
        workers.iter().for_each(wait_ready);
        let owned = || workers.each_ref().map(|one| one.metric("drakkar_assigned_partitions"));
        until("one to own the partition", SOON, || match owned() {
            [0, 1] | [1, 0] => Ok(()),
            other => Err(format!("{other:?}")),
        });
        workers.iter().for_each(wait_ready);
    }
}

#[track_caller]
fn wait_ready(worker: &WorkerProcess) {
    until("readiness", SOON, || {
        match worker.get("/readyz").map_err(|error| error.to_string())? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status} {body}")),
        }
    });
}
