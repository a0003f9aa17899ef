//! The poll thread when something is wrong: each test has a broker of its own, or none.

mod world;

use std::{sync::Arc, time::Duration};

use drakkar_core::{
    TopicPartition,
    observe::SourceObserver,
    source::{SourceCommand, SourceEvent},
};
use drakkar_kafka::{KafkaConfig, Source, SourceStartError};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::time::{Instant, timeout};
use world::{Broker, Heard, Member, SOON, position};

/// The error that starting with `config` ends with.
async fn start_fails(config: &KafkaConfig) -> SourceStartError {
    let start = Source::start(config, "trouble", Arc::new(()));
    let Ok(started) = timeout(SOON, start).await else { panic!("it waits for ever") };
    let Err(error) = started else { panic!("it started") };
    error
}

#[tokio::test]
async fn a_wrong_address_is_a_clear_error_in_bounded_time() {
    let config = KafkaConfig {
        brokers: "127.0.0.1:1".to_owned(),      // Nobody listens there.
        start_timeout: Duration::from_secs(10), // So long that it has been heard why.
        ..KafkaConfig::default()
    };
    let error = start_fails(&config).await;
    assert!(matches!(error, SourceStartError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("kafka.brokers") && text.contains(&config.brokers), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_missing_topic_is_a_clear_error_in_bounded_time() {
    let broker = Broker::start();
    let mut config = broker.topic("there", 1);
    config.source_topic = "not-there".to_owned();
    config.start_timeout = Duration::from_secs(1);
    let error = start_fails(&config).await;
    assert!(matches!(&error, SourceStartError::Topic { topic, .. } if topic == "not-there"));
    let text = error.to_string();
    assert!(text.contains("kafka.source_topic") && text.contains("create it"), "{text}");
}

#[tokio::test]
async fn a_property_that_librdkafka_refuses_is_named_but_its_value_is_not() {
    let mut config = KafkaConfig::default();
    config.client_config.insert("no.such.thing".to_owned(), "hunter2".to_owned());
    let error = start_fails(&config).await;
    let text = error.to_string();
    assert!(text.starts_with("kafka.client_config.no.such.thing"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_commit_that_a_rebalance_refuses_is_made_again() {
    let broker = Broker::start();
    let config = broker.shared("refused", 1);
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    broker.with(|cluster| {
        let refusal = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        ];
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refusal);
    });
    member.commit(&assigned[0], 5, "kept");
    member.hears(|heard| matches!(heard, Heard::Refused(_)).then_some(())).await;
    let next = member
        .hears(|heard| match heard {
            Heard::Committed(_, next) => Some(*next),
            _ => None,
        })
        .await;
    assert_eq!(next, 5);
    member.close().await;
    let mut next = Member::start(&config).await;
    assert_eq!(next.assigned().await[0].committed, Some(position(5, "kept")));
    next.close().await;
}

#[tokio::test]
async fn a_done_map_that_the_broker_finds_too_long_does_not_hold_the_offset_back() {
    let broker = Broker::start();
    let config = broker.shared("long", 1);
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    broker.with(|cluster| {
        let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE];
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refusal);
    });
    member.commit(&assigned[0], 5, "a map that is too long");
    member.hears(|heard| matches!(heard, Heard::Committed(_, 5)).then_some(())).await;
    member.close().await;
    let mut next = Member::start(&config).await;
    assert_eq!(next.assigned().await[0].committed, Some(position(5, "")));
    next.close().await;
}

/// How often the coordinator will not say what was committed.
fn silent(broker: &Broker, times: usize) {
    broker.with(move |cluster| {
        let refusals = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; times];
        cluster.request_errors(RDKafkaApiKey::OffsetFetch, &refusals);
    });
}

#[tokio::test]
async fn a_partition_is_not_begun_before_it_is_known_what_was_settled_there() {
    let broker = Broker::start();
    let config = broker.shared("unread", 1);
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    member.commit(&assigned[0], 5, "settled ahead, and held");
    member.hears(|heard| matches!(heard, Heard::Committed(_, 5)).then_some(())).await;
    member.close().await;
    silent(&broker, 3);
    let mut next = Member::start(&config).await;
    let again = next.assigned().await;
    assert_eq!(again[0].committed, Some(position(5, "settled ahead, and held")));
    next.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_for_a_session_is_given_up_and_does_not_hold_the_partition_for_ever() {
    let broker = Broker::start();
    let config = broker.shared("unreadable", 1);
    silent(&broker, 1_000);
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    assert_eq!(assigned[0].committed, None);
    member.close().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_does_not_wait_to_read_what_was_committed() {
    let broker = Broker::start();
    let config = broker.topic("stopped", 1);
    silent(&broker, 100_000);
    let mut member = Member::start(&config).await;
    member.hears(|heard| matches!(heard, Heard::Trouble(_)).then_some(())).await;
    member.close().await;
}

#[tokio::test]
async fn a_broker_that_is_away_for_a_while_is_not_fatal() {
    let broker = Broker::start();
    let config = broker.topic("away", 1);
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    broker.produce("away", 0, ["before".to_owned()]);
    assert_eq!(member.take(&mut assigned[0]).await.offset.0, 0);

    broker.with(|cluster| cluster.broker_down(1).unwrap());
    member.hears(|heard| matches!(heard, Heard::Trouble(_)).then_some(())).await;
    member.commit(&assigned[0], 1, "");
    broker.with(|cluster| cluster.broker_up(1).unwrap());

    broker.produce("away", 0, ["after".to_owned()]);
    assert_eq!(member.take(&mut assigned[0]).await.offset.0, 1);
    member.hears(|heard| matches!(heard, Heard::Committed(_, 1)).then_some(())).await;
    member.close().await;
}

#[tokio::test]
async fn partitions_are_lost_without_a_commit_when_the_group_forgets_us() {
    let broker = Broker::start();
    let config = broker.shared("lost", 1);
    let mut member = Member::start(&config).await;
    let assigned = member.assigned().await;
    broker.with(|cluster| cluster.broker_down(1).unwrap());
    let event = member.event().await;
    let SourceEvent::Lost { partitions } = event else { panic!("not lost: {event:?}") };
    assert_eq!(partitions, [TopicPartition::new("lost", 0)]);
    assert_eq!(member.released().await, partitions);
    // What is asked for the lost assignment comes too late.
    member.commit(&assigned[0], 9, "too late");
    broker.with(|cluster| cluster.broker_up(1).unwrap());
    let again = member.assigned().await;
    assert_eq!(again[0].committed, None);
    assert!(assigned[0].epoch < again[0].epoch);
    member.close().await;
}

#[tokio::test]
async fn a_log_that_goes_back_is_read_again_and_nothing_of_before_is_committed() {
    let broker = Broker::start();
    let config = broker.shared("back", 1);
    broker.produce("back", 0, (0..10).map(|number| number.to_string()));
    let mut member = Member::start(&config).await;
    let mut assigned = member.assigned().await;
    for _ in 0..10 {
        member.take(&mut assigned[0]).await;
    }
    member.commit(&assigned[0], 4, "done: 6");
    let committed = |heard: &Heard| match heard {
        Heard::Committed(_, next) => Some(*next),
        _ => None,
    };
    assert_eq!(member.hears(committed).await, 4);

    // To the client it looks like a topic that was deleted and made anew: it begins at the start.
    broker.with(|cluster| {
        let error = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE];
        cluster.request_errors(RDKafkaApiKey::Fetch, &error);
    });
    let partition = TopicPartition::new("back", 0);
    let event = member.event().await;
    let SourceEvent::Lost { partitions } = event else { panic!("not lost: {event:?}") };
    assert_eq!(partitions, *std::slice::from_ref(&partition));
    assert_eq!(member.released().await, partitions);
    let mut again = member.assigned().await;
    assert!(assigned[0].epoch < again[0].epoch);
    assert_eq!(again[0].committed, None, "nobody settled anything of this log");
    assert!(assigned[0].inbox.recv().await.is_none(), "a message arrived for the old assignment");
    let rewound = |heard: &Heard| match heard {
        Heard::Rewound(partition, next, from) => Some((partition.clone(), *next, *from)),
        _ => None,
    };
    assert_eq!(member.hears(rewound).await, (partition, 10, 0));
    assert_eq!(member.hears(committed).await, 0, "the group must not keep the old offset");

    member.commit(&assigned[0], 10, "of the old log");
    for expected in 0..10 {
        assert_eq!(member.take(&mut again[0]).await.offset.0, expected);
    }
    member.commit(&again[0], 6, "");
    assert_eq!(member.hears(committed).await, 6);
    broker.produce("back", 0, ["new".to_owned()]);
    assert_eq!(member.take(&mut again[0]).await.offset.0, 10, "it happened once");
    let rest = member.close().await;
    assert!(!rest.iter().any(|heard| matches!(heard, Heard::Rewound(..))), "{rest:?}");
    let mut next = Member::start(&config).await;
    assert_eq!(next.assigned().await[0].committed, Some(position(6, "")));
    next.close().await;
}

/// Dies at the worst moment: when the group waits for an answer.
struct Fragile;

impl SourceObserver for Fragile {
    fn rebalanced(&self, kind: &'static str, _: &[TopicPartition]) {
        assert_ne!(kind, "revoke", "out of order");
    }
}

#[tokio::test]
async fn a_panic_of_the_poll_thread_is_told_and_does_not_hold_the_group() {
    let broker = Broker::start();
    let config = broker.shared("panic", 2);
    let mut source = Source::start(&config, "fragile", Arc::new(Fragile)).await.unwrap();
    source.control.send(SourceCommand::Join);
    let first = timeout(SOON, source.events.recv()).await.unwrap();
    assert!(matches!(first, Some(SourceEvent::Assigned(_))), "{first:?}");

    let mut second = Member::start(&config).await;
    let failure = loop {
        match timeout(SOON, source.events.recv()).await.unwrap() {
            Some(SourceEvent::Failed(failure)) => break failure.to_string(),
            Some(_) => {}
            None => panic!("it died in silence"),
        }
    };
    assert!(failure.contains("panicked") && failure.contains("out of order"), "{failure}");
    let begun = Instant::now();
    source.join(SOON).await;
    assert!(begun.elapsed() < SOON, "the consumer did not close");
    let mut ours = second.assigned().await;
    while ours.len() < 2 {
        ours.extend(second.assigned().await);
    }
    second.close().await;
}
