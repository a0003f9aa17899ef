//! Things that are down for a while: what cannot be delivered is held, the worker stays, and goes on by
//! itself when they are back.

use std::{sync::mpsc, thread};

use drakkar_integration::{
    Act, Given, Kafka, Order, OwnBroker, SOON, WorkerProcess, World, heavy, until,
};
use serde_json::json;

/// A world whose topics exist but for one.
fn world_without(dead: bool, results: bool) -> World {
    let world = World::without_topics(Kafka::shared());
    world.kafka.create_topic(&world.source, 2);
    if !dead {
        world.kafka.create_topic(&world.dead, 1);
    }
    if !results {
        world.kafka.create_topic(&world.results, 1);
    }
    // Else the client believes for half a minute that the brokers are about to make it.
    let sceptical = json!({"topic.metadata.propagation.max.ms": "1000"});
    world
        .with("sinks.kafka.results.client_config", sceptical.clone())
        .with("dlq.client_config", sceptical)
}

#[test]
fn while_the_dead_letter_topic_is_missing_its_message_is_held_and_when_it_is_there_nothing_is_lost()
{
    let world = world_without(true, false);
    let mut worker = world.start();
    world.order([("good-1", Act::Echo), ("good-2", Act::Echo)]);
    world.order([("bad-1", Act::Fail), ("bad-2", Act::ArrangePanic)]);
    world.order([("good-3", Act::Echo), ("good-4", Act::Echo)]);
    world.wait_delivered(4);
    until("the messages before to be committed", SOON, || match world.committed() {
        2 => Ok(()),
        other => Err(other),
    });
    let refused = worker.metric("drakkar_dlq_send_failures_total");

    let held = until("the probes to say what is held", SOON, || {
        let (_, body) = worker.get("/readyz").unwrap();
        if body.contains("held_sinks\":[{") { Ok(body) } else { Err(body) }
    });
    assert!(held.contains("dlq"), "{held}");
    until("refused attempts to be counted", SOON, || {
        match worker.metric("drakkar_dlq_send_failures_total") {
            some if some >= refused + 2 => Ok(()),
            few => Err(few),
        }
    });
    assert_eq!(worker.status("/healthz"), 200, "a restart cures nothing");
    assert_eq!(world.committed(), 2, "a message whose dead letter is not confirmed is not settled");

    world.kafka.create_topic(&world.dead, 1);
    world.drained();
    worker.assert_runs();
    let books = world.books();
    books.balance();
    books.given_up("bad-1", "execute", "exit_code");
    books.given_up("bad-2", "arrange", "hook_panic");
}

#[test]
fn sigterm_while_a_dead_letter_is_held_loses_nothing() {
    let world = world_without(true, false).with("executor.drain_timeout_seconds", 2);
    let mut worker = world.start();
    world.order([("good", Act::Echo), ("bad", Act::Fail)]);
    world.wait_delivered(1);
    until("the dead letter to be refused", SOON, || {
        match worker.metric("drakkar_dlq_send_failures_total") {
            some if some >= 1 => Ok(()),
            few => Err(few),
        }
    });
    worker.stop();
    assert_eq!(world.committed(), 1);

    world.kafka.create_topic(&world.dead, 1);
    let _next = world.start();
    world.drained();
    world.books().balance();
}

#[test]
fn while_a_sink_topic_is_missing_results_are_held_and_when_it_is_there_nothing_is_lost() {
    let world = world_without(false, true);
    let mut worker = world.start();
    world.order_many("held", 50, Act::Echo);
    until("refused attempts to be counted", SOON, || {
        let series =
            "drakkar_sink_delivery_retries_total{sink_name=\"results\",sink_type=\"kafka\"}";
        match worker.metric(series) {
            some if some >= 1 => Ok(()),
            few => Err(few),
        }
    });
    assert_eq!(world.committed(), 0);

    world.kafka.create_topic(&world.results, 1);
    world.drained();
    worker.assert_runs();
    world.books().balance();
}

/// A broker of its own, and what happened to the worker while it went and came.
struct Outage {
    broker: OwnBroker,
    world: World,
    worker: WorkerProcess,
}

impl Outage {
    fn new(session_ms: u32) -> Self {
        let broker = OwnBroker::start();
        let world = World::on(broker.kafka(), 4).with("kafka.session_timeout_ms", session_ms);
        let worker = world.start();
        Self { broker, world, worker }
    }

    /// Takes the broker away under load and brings it back.
    fn round(&mut self, name: &str, count: usize, away: fn(&OwnBroker)) {
        let Self { broker, world, worker } = self;
        let produce = world.order_later(name, count, Act::SleepMs(2));
        world.wait_delivered(world.delivered() + count / 5);
        let errors = worker.metric("drakkar_consumer_errors_total");
        away(broker);
        until("the worker to notice", SOON, || {
            match worker.metric("drakkar_consumer_errors_total") {
                more if more > errors => Ok(()),
                same => Err(format!("{same} errors are counted")),
            }
        });
        worker.assert_runs();
        assert_eq!(worker.status("/healthz"), 200, "a restart cures nothing");
        broker.restart();
        assert!(produce.join().is_ok(), "not everything could be produced");
        world.drained_within(4 * SOON);
        worker.assert_runs();
    }

    /// What the worker gave back unsettled when its partitions were lost: it may do that again.
    fn dropped(&self) -> usize {
        let series = "drakkar_messages_dropped_at_revoke_total";
        let of = |partition| {
            format!("{series}{{partition=\"{partition}\",topic=\"{}\"}}", self.world.source)
        };
        (0..4).map(|partition| self.worker.metric(&of(partition))).sum()
    }

    fn end(mut self) {
        let dropped = self.dropped();
        let lost = self.worker.metric("drakkar_rebalance_events_total{type=\"lost\"}");
        let why = match lost {
            0 => "the session was long enough".to_owned(),
            times => format!(
                "the session ran out {times} times; {dropped} messages were under way then, and all \
                 that had been written of them without being committed was written again"
            ),
        };
        self.worker.stop();
        self.world.no_program_survives();
        self.world.books().balance_with(dropped, &why);
    }
}

#[test]
fn a_broker_that_stops_and_starts_within_the_session_costs_no_message_and_makes_no_duplicate() {
    let _one = heavy();
    let mut outage = Outage::new(300_000);
    for round in ["first", "second"] {
        outage.round(round, 1_500, OwnBroker::stop);
    }
    assert_eq!(outage.dropped(), 0, "the session was long enough");
    outage.end();
}

#[test]
fn a_broker_that_is_killed_for_longer_than_the_session_costs_no_message() {
    let _one = heavy();
    let mut outage = Outage::new(2_000);
    outage.round("only", 1_500, OwnBroker::kill);
    outage.end();
}

#[test]
fn a_worker_that_is_stopped_while_the_broker_is_away_ends_in_bounded_time() {
    let broker = OwnBroker::start();
    let world = World::on(broker.kafka(), 2).with("executor.drain_timeout_seconds", 3);
    let mut worker = world.start();
    world.order_many("first", 50, Act::Echo);
    world.drained();
    broker.stop();
    worker.terminate();
    let ended = worker.wait(SOON);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    broker.restart();
    world.books().balance();
}

#[test]
fn a_worker_that_is_paused_longer_than_its_session_loses_its_partitions_and_no_message() {
    let world = World::new(2).with("kafka.session_timeout_ms", 6_000);
    let worker = world.start();
    world.order_many("first", 100, Act::Echo);
    world.drained();
    worker.signal("STOP");
    let (sender, done) = mpsc::channel();
    let (kafka, source) = (world.kafka.clone(), world.source.clone());
    thread::spawn(move || {
        let orders = (0..400).map(|number| {
            let id = format!("second-{number}");
            Given::new(id.clone(), Order::new(id, Act::Echo).to_value())
        });
        kafka.produce(&source, orders);
        sender.send(()).unwrap();
    });
    done.recv_timeout(SOON).unwrap();
    let mut other = world.start();
    world.drained(); // By the other: the first does not run.
    worker.signal("CONT");
    world.order_many("third", 100, Act::SleepMs(1));
    world.drained();
    other.assert_runs();
    // The first finds out that it is no member any more, and works again when the other leaves.
    other.stop();
    world.order_many("fourth", 100, Act::Echo);
    world.drained();
    let why = "what it had fetched it may deliver before it hears that it is no member any more";
    world.books().balance_with(400, why);
}
