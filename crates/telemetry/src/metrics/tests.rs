//! What a scrape shows.

use std::{sync::Arc, time::Duration};

use drakkar_core::{
    Cause, DeadLetter, DeliveryFailure, Failure, KafkaPayload, Offset, Output, Precomputed,
    SinkError, SinkKind, SinkName, SourceMessage, Stage, Task, TaskFailure, TaskResult,
    TopicPartition,
    observe::{SinkObserver, SourceObserver},
};

use super::*;
use crate::SkipReason;

fn orders(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

#[track_caller]
fn check(metrics: &Metrics, lines: &[&str]) {
    let text = metrics.render().unwrap();
    for line in lines {
        assert!(text.lines().any(|shown| shown == *line), "no line {line:?} in\n{text}");
    }
}

fn message() -> SourceMessage {
    SourceMessage {
        partition: orders(3),
        offset: Offset(7),
        timestamp: None,
        key: None,
        value: None,
        headers: Vec::new(),
    }
}

fn failure(failure: Failure, output: Output) -> TaskFailure {
    TaskFailure { task: Arc::new(Task::new()), failure, output, attempt: 1, retries_left: 2 }
}

#[test]
fn the_worker_says_who_it_is() {
    let metrics = Metrics::new().unwrap();
    metrics.identify("worker-1", "0.1.0", "group");
    check(
        &metrics,
        &[r#"drakkar_worker_info{consumer_group="group",version="0.1.0",worker_id="worker-1"} 1"#],
    );
}

#[test]
fn totals_are_the_sum_of_what_the_partitions_hold() {
    let metrics = Metrics::new().unwrap();
    metrics.partition(&orders(0)).queue_size.set(3);
    metrics.partition(&orders(1)).queue_size.set(4);
    check(
        &metrics,
        &[
            r#"drakkar_partition_queue_size{partition="0",topic="orders"} 3"#,
            "drakkar_total_queued 7",
        ],
    );
    metrics.forget_partition(&orders(0));
    check(&metrics, &["drakkar_total_queued 4"]);
}

#[test]
fn gauges_of_a_partition_go_with_it_and_counters_stay() {
    let metrics = Metrics::new().unwrap();
    metrics.rebalanced("assign", &[orders(0), orders(1)]);
    let handles = metrics.partition(&orders(0));
    handles.consumed.inc_by(5);
    handles.queue_size.set(5);
    handles.task_bytes.set(5);
    handles.done_map_left_out.set(5);
    metrics.lag(&orders(0), 9);
    metrics.paused(&orders(0), true);
    check(&metrics, &["drakkar_assigned_partitions 2", "drakkar_backpressure_active 1"]);

    metrics.rebalanced("revoke", &[orders(0)]);
    metrics.forget_partition(&orders(0));
    metrics.partition_revoked(&orders(0), Some(Offset(3)), 2);
    handles.queue_size.set(1);

    check(
        &metrics,
        &[
            r#"drakkar_messages_consumed_total{partition="0",topic="orders"} 5"#,
            r#"drakkar_messages_dropped_at_revoke_total{partition="0",topic="orders"} 2"#,
            "drakkar_assigned_partitions 1",
            "drakkar_backpressure_active 0",
            "drakkar_total_queued 0",
        ],
    );
    let text = metrics.render().unwrap();
    assert!(!text.contains("drakkar_offset_lag{"), "{text}");
    assert!(!text.contains("drakkar_partition_queue_size{"), "{text}");
    assert!(!text.contains("drakkar_partition_task_bytes{"), "{text}");
    assert!(!text.contains("drakkar_done_map_left_out{"), "{text}");
}

#[test]
fn a_precomputed_task_is_counted_but_not_timed() {
    let metrics = Metrics::new().unwrap();
    let task = Arc::new(Task::new().precomputed(Precomputed::default()));
    metrics.task_started();
    metrics.task_completed(&TaskResult { task, output: Output::default(), attempt: 1 });
    check(
        &metrics,
        &[
            r#"drakkar_executor_tasks_total{status="started"} 1"#,
            r#"drakkar_executor_tasks_total{status="completed"} 1"#,
            "drakkar_tasks_precomputed_total 1",
            "drakkar_executor_duration_seconds_count 0",
            "drakkar_executor_queue_wait_seconds_count 0",
        ],
    );
}

#[test]
fn a_failed_run_is_timed_like_any_other() {
    let metrics = Metrics::new().unwrap();
    let output = Output {
        pid: Some(1),
        took: Duration::from_secs(2),
        stdout_dropped: 1,
        ..Output::default()
    };
    metrics.task_failed(&orders(0), &failure(Failure::TimedOut(Duration::from_secs(2)), output));
    let unstartable = Failure::Unstartable {
        program: "nope".into(),
        reason: "no such file".into(),
        permanent: true,
    };
    metrics.task_failed(&orders(0), &failure(unstartable, Output::default()));
    check(
        &metrics,
        &[
            r#"drakkar_executor_tasks_total{status="failed"} 2"#,
            "drakkar_executor_duration_seconds_count 1",
            r#"drakkar_executor_duration_seconds_bucket{le="2"} 1"#,
            "drakkar_executor_timeouts_total 1",
            r#"drakkar_executor_output_truncated_total{stream="stdout"} 1"#,
            r#"drakkar_executor_output_truncated_total{stream="stderr"} 0"#,
        ],
    );
}

#[test]
fn messages_that_end_without_a_result_are_counted_by_reason_and_stage() {
    let metrics = Metrics::new().unwrap();
    metrics.message_skipped(&message(), None, SkipReason::OnError);
    metrics.message_skipped(&message(), Some("a name"), SkipReason::Invalid);
    let cause = Cause::new(Stage::Decode, "json", "expected value");
    metrics.message_dead_lettered(&DeadLetter { message: Arc::new(message()), cause }, |_| None);
    metrics.hook_failed(Hook::Arrange, Some(&orders(0)), "panic", "index out of bounds");
    check(
        &metrics,
        &[
            r#"drakkar_messages_skipped_total{reason="on_error"} 1"#,
            r#"drakkar_messages_skipped_total{reason="invalid"} 1"#,
            r#"drakkar_dead_letters_total{stage="decode"} 1"#,
            r#"drakkar_handler_hook_errors_total{hook="arrange"} 1"#,
            r#"drakkar_handler_hook_errors_total{hook="on_error"} 0"#,
        ],
    );
}

#[test]
fn the_dead_letter_topic_is_a_sink_with_counters_of_its_own() {
    let metrics = Metrics::new().unwrap();
    let results = SinkName::new(SinkKind::Kafka, "results");
    let letters = SinkName::new(SinkKind::DeadLetter, "dlq");
    let down = SinkError::new("AllBrokersDown", "all brokers are down");
    metrics.batch(&results, 10, Duration::from_millis(4));
    metrics.refused(&results, &down, true);
    metrics.refused(&results, &down, false);
    metrics.batch(&letters, 2, Duration::from_millis(4));
    metrics.refused(&letters, &down, true);
    check(
        &metrics,
        &[
            r#"drakkar_sink_payloads_delivered_total{sink_name="results",sink_type="kafka"} 10"#,
            r#"drakkar_sink_deliver_duration_seconds_count{sink_name="results",sink_type="kafka"} 1"#,
            r#"drakkar_sink_deliver_errors_total{sink_name="results",sink_type="kafka"} 2"#,
            r#"drakkar_sink_delivery_retries_total{sink_name="results",sink_type="kafka"} 1"#,
            "drakkar_sink_dlq_messages_total 2",
            "drakkar_dlq_send_failures_total 1",
        ],
    );
}

#[test]
fn kafka_events_are_counted() {
    let metrics = Metrics::new().unwrap();
    metrics.rebalanced("assign", &[orders(0)]);
    metrics.rebalanced("lost", &[orders(0)]);
    metrics.committed(&orders(0), 12);
    metrics.commit_refused("rebalance in progress");
    metrics.client_error("broker transport failure");
    metrics.rewound(&orders(0), 12, 3);
    metrics.drain_timed_out(&orders(0), true, 2, 5);
    metrics.drain_timed_out(&orders(1), false, 1, 1);
    metrics.stopped(2, 5);
    check(
        &metrics,
        &[
            r#"drakkar_rebalance_events_total{type="assign"} 1"#,
            r#"drakkar_rebalance_events_total{type="lost"} 1"#,
            "drakkar_assigned_partitions 0",
            r#"drakkar_offsets_committed_total{partition="0",topic="orders"} 1"#,
            "drakkar_commit_failures_total 1",
            "drakkar_consumer_errors_total 1",
            "drakkar_log_rewinds_total 1",
            "drakkar_drain_timeout_hit_total 1",
            "drakkar_inflight_at_stop 2",
            "drakkar_uncommitted_offsets_at_stop 5",
        ],
    );
}

#[test]
fn every_metric_is_described() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.render().unwrap();
    let helped = text.lines().filter(|line| line.starts_with("# HELP drakkar_")).count();
    let typed = text.lines().filter(|line| line.starts_with("# TYPE drakkar_")).count();
    assert_eq!(helped, typed);
    assert!(20 < helped, "{text}");
}

#[test]
fn a_program_is_shown_as_it_is_and_its_totals_only_grow() {
    let metrics = Metrics::new().unwrap();
    let mut view = ProgramView { ready: 2, queued: 3, failures: 4, ..ProgramView::default() };
    metrics.program("convert", &view);
    view = ProgramView { is_crash_looping: true, in_flight: 1, failures: 6, ..view };
    metrics.program("convert", &view);
    check(
        &metrics,
        &[
            r#"drakkar_program_processes{program="convert"} 2"#,
            r#"drakkar_program_in_flight{program="convert"} 1"#,
            r#"drakkar_program_queued{program="convert"} 3"#,
            r#"drakkar_program_crash_loop{program="convert"} 1"#,
            r#"drakkar_program_failures_total{program="convert"} 6"#,
            r#"drakkar_program_starts_total{program="convert"} 0"#,
            r#"drakkar_program_recycled_total{program="convert"} 0"#,
            r#"drakkar_program_requeued_total{program="convert"} 0"#,
            r#"drakkar_program_stderr_suppressed_total{program="convert"} 0"#,
        ],
    );
}

#[test]
fn a_task_of_a_process_that_stays_has_a_run_time_and_no_spawn_time() {
    let metrics = Metrics::new().unwrap();
    let output = Output { pid: Some(7), took: Duration::from_millis(1), ..Output::default() };
    let task = Arc::new(Task::new());
    metrics.task_completed(&TaskResult { task, output, attempt: 1 });
    check(
        &metrics,
        &["drakkar_executor_spawn_seconds_count 0", "drakkar_executor_duration_seconds_count 1"],
    );
}

/// What both versions of the original show, and dashboards ask for: all of it but what belongs to its cache and
/// its recorder.
const OF_THE_ORIGINAL: [&str; 32] = [
    "drakkar_assigned_partitions",
    "drakkar_backpressure_active",
    "drakkar_batch_duration_seconds",
    "drakkar_consumer_errors_total",
    "drakkar_consumer_idle_seconds_total",
    "drakkar_dlq_send_failures_total",
    "drakkar_executor_duration_seconds",
    "drakkar_executor_idle_slot_seconds_total",
    "drakkar_executor_pool_active",
    "drakkar_executor_priority_fn_errors_total",
    "drakkar_executor_tasks_total",
    "drakkar_executor_timeouts_total",
    "drakkar_handler_duration_seconds",
    "drakkar_messages_consumed_total",
    "drakkar_offset_lag",
    "drakkar_offsets_committed_total",
    "drakkar_partition_queue_size",
    "drakkar_periodic_task_duration_seconds",
    "drakkar_periodic_task_runs_total",
    "drakkar_rebalance_events_total",
    "drakkar_sink_circuit_open",
    "drakkar_sink_circuit_trips_total",
    "drakkar_sink_deliver_duration_seconds",
    "drakkar_sink_deliver_errors_total",
    "drakkar_sink_deliveries_skipped_total",
    "drakkar_sink_delivery_retries_total",
    "drakkar_sink_dlq_messages_total",
    "drakkar_sink_payloads_delivered_total",
    "drakkar_task_retries_total",
    "drakkar_tasks_precomputed_total",
    "drakkar_total_queued",
    "drakkar_worker_info",
];

#[test]
fn no_metric_of_the_original_is_missing() {
    let metrics = Metrics::new().unwrap();
    metrics.identify("worker-1", "0.1.0", "group");
    metrics.rebalanced("assign", &[orders(0)]);
    metrics.partition(&orders(0)).queue_size.set(1);
    metrics.lag(&orders(0), 9);
    metrics.committed(&orders(0), 12);
    metrics.periodic_ran("reload", Duration::ZERO, None);
    let (sinks, sink) = (&metrics.sinks, SinkName::new(SinkKind::Kafka, "results"));
    let counters = [sinks.skipped(&sink), sinks.trips(&sink), sinks.retries(&sink)];
    let more = [sinks.delivered(&sink), sinks.errors(&sink)];
    counters.iter().chain(&more).for_each(IntCounter::inc);
    sinks.circuit(&sink).set(0.0);
    sinks.duration(&sink).observe(1.0);
    let shown = metrics.render().unwrap();
    let missing = |name: &&&str| !shown.contains(&format!("# TYPE {name} "));
    let missing: Vec<_> = OF_THE_ORIGINAL.iter().filter(missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn names_that_only_payloads_give_make_no_series() {
    let metrics = Metrics::new().unwrap();
    let refused = |name: &str, class: &str| DeliveryFailure {
        sink: SinkName::new(SinkKind::Kafka, name),
        payload: KafkaPayload::raw("v").into(),
        error: SinkError::new(class, "no"),
        messages: Vec::new(),
        task: None,
        attempt: 1,
        retries_left: 0,
    };
    for n in 0..1_000 {
        let failed = refused(&format!("n{n}"), SinkError::UNKNOWN_SINK);
        metrics.delivery_retried(&failed, Duration::ZERO);
        metrics.delivery_skipped(&failed, |_| None);
    }
    let known = refused("known", "MessageSizeTooLarge");
    metrics.delivery_skipped(&known, |_| None);
    check(
        &metrics,
        &[
            r#"drakkar_sink_delivery_retries_total{sink_name="",sink_type="kafka"} 1000"#,
            r#"drakkar_sink_deliveries_skipped_total{sink_name="",sink_type="kafka"} 1000"#,
            r#"drakkar_sink_deliveries_skipped_total{sink_name="known",sink_type="kafka"} 1"#,
        ],
    );
    let shown = metrics.render().unwrap();
    assert_eq!(shown.lines().filter(|line| line.contains("sink_name=")).count(), 3);
}

#[test]
fn a_free_slot_is_idle_only_while_messages_wait_and_the_worker_only_while_there_are_none() {
    let metrics = Metrics::new().unwrap();
    let second = Duration::from_secs(1);
    metrics.idled(second * 3, 2, 1, 5);
    metrics.idled(second, 2, 5, 5); // As many tasks run as there are messages.
    metrics.idled(second * 2, 4, 0, 0);
    check(
        &metrics,
        &["drakkar_executor_idle_slot_seconds_total 6", "drakkar_consumer_idle_seconds_total 2"],
    );
}
