//! Every kind of sink is played: it records, it is down, it refuses, it takes its time.

use std::time::Duration;

use drakkar::{
    Collect, FilePayload, Handler, HookResult, Json, KafkaPayload, Message, Payload, Pending,
    Precomputed, Task, TaskResult,
};
use drakkar_testing::{Delivery, Record, Recorded, Script, SinkError, Stage, World, WorldBuilder};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Delivers the payload that a message is.
struct Forward;

impl Handler for Forward {
    type Input = Json<Payload>;

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message: &Message<Self::Input>| {
            let stdout = message.value.clone().unwrap_or_default();
            Task::for_message(message).precomputed(Precomputed { stdout, ..Precomputed::default() })
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let mut collect = Collect::new();
        collect.push(serde_json::from_slice::<Payload>(&done.output.stdout)?);
        Ok(collect)
    }
}

/// A payload of this kind for the sink of this name.
fn payload(kind: &str, sink: Option<&str>) -> Record {
    let read = |payload: Value| serde_json::from_str(&json!({kind: payload}).to_string()).unwrap();
    let mut payload: Payload = match kind {
        "kafka" => KafkaPayload::raw("v").into(),
        "filesystem" => FilePayload::json("a", &"v").unwrap().into(),
        "postgres" => read(json!({"write": {"insert": {"table": "t", "row": {"id": 1}}}})),
        "mongo" => read(json!({"write": {"insert":
            {"collection": "c", "document": "{\"_id\": 1}", "generated_id": false}}})),
        "redis" => read(json!({"command": {"op": "set", "key": "k", "value": "v"}})),
        "http" => read(json!({"params": {}, "query": [], "headers": [], "body": "empty"})),
        other => panic!("{other}"),
    };
    if let Some(sink) = sink {
        payload.name_sink(sink);
    }
    Record::json(&payload)
}

fn world() -> WorldBuilder<Forward> {
    World::of(Forward).in_memory()
}

#[tokio::test(start_paused = true)]
async fn there_is_a_sink_of_every_kind_and_it_records() {
    let mut world = world().start();
    for kind in ["kafka", "filesystem", "postgres", "mongo", "redis", "http"] {
        world.produce(0, payload(kind, None));
    }
    world.settled().await;
    world.assert_no_dead_letters();
    let accepted = [
        world.results.len(),
        world.files.len(),
        world.postgres.len(),
        world.mongo.len(),
        world.redis.len(),
        world.http.len(),
    ];
    assert_eq!(accepted, [1; 6]);
}

/// What is true of a sink of any kind, that `add` puts into the place of the usual one.
async fn check<P: Clone + Send + Sync + std::fmt::Debug + 'static>(
    kind: &str,
    add: fn(WorldBuilder<Forward>, &str, &Script<P>) -> WorldBuilder<Forward>,
    first: fn(&World) -> &Recorded<P>,
) {
    let (one, other) = (Script::confirming(), Script::confirming());
    let mut world = add(add(world(), "one", &one), "other", &other).start();

    other.take(Duration::from_secs(20));
    let begun = Instant::now();
    world.produce(0, payload(kind, Some("other")));
    world.settled().await;
    assert!(Duration::from_secs(20) <= begun.elapsed(), "{kind}: it takes its time");
    assert_eq!(
        (first(&world).len(), other.recorded().len()),
        (0, 1),
        "{kind}: {:?}",
        other.recorded()
    );

    one.begin_outage();
    world.produce(0, payload(kind, Some("one")));
    world.not_committed(0, 1, Duration::from_mins(10)).await;
    one.end_outage();
    world.settled().await;
    assert_eq!((first(&world).len(), one.recorded().len()), (1, 1), "{kind}");

    one.answer(|_| Delivery::Permanent(SinkError::new("Bad", "no")));
    world.produce(0, payload(kind, Some("one")));
    world.settled().await;
    let cause = world.dead_letters.only().cause;
    assert_eq!((cause.stage, cause.class.as_str()), (Stage::Deliver, "Bad"));
    assert_eq!(cause.sink.unwrap().to_string(), format!("{kind}/one"));
}

#[tokio::test(start_paused = true)]
async fn a_sink_of_any_kind_fails_refuses_and_dawdles_by_the_name_that_the_test_gives_it() {
    check("kafka", WorldBuilder::kafka_sink, |world| &world.results).await;
    check("filesystem", WorldBuilder::file_sink, |world| &world.files).await;
    check("postgres", WorldBuilder::postgres_sink, |world| &world.postgres).await;
    check("mongo", WorldBuilder::mongo_sink, |world| &world.mongo).await;
    check("redis", WorldBuilder::redis_sink, |world| &world.redis).await;
    check("http", WorldBuilder::http_sink, |world| &world.http).await;
}
