//! Three brokers that come and go under load: the workers stay, go on with what is left, lose nothing and
//! repeat nothing.

use drakkar_integration::{Act, Cluster, Node, SOON, WorkerProcess, World, until};

/// Partitions of the topics in this file: of each topic every broker leads some.
const PARTITIONS: i32 = 6;

/// Messages that are produced ahead of what is committed.
const AHEAD: i64 = 200;

/// Most need a program, one in twenty fails for good and becomes a dead letter.
fn mixed(number: usize) -> Act {
    if number.is_multiple_of(20) { Act::Fail } else { Act::SleepMs(40) }
}

/// A broker that goes costs seconds, and on a slow machine far more; no session is to end by that.
fn world(cluster: &Cluster) -> World {
    World::on(cluster.kafka(), PARTITIONS)
        .with("kafka.session_timeout_ms", 300_000)
        .with("kafka.heartbeat_interval_ms", 1_000)
}

/// Waits until work is done and committed that was not before.
#[track_caller]
fn wait_progress(world: &World) {
    let committed = world.committed();
    world.wait_delivered(world.delivered() + 100);
    until("commits to go on", SOON, || match world.committed() {
        more if committed + 100 <= more => Ok(()),
        few => Err(format!("{few} are committed, {committed} were before")),
    });
}

/// Waits until brokers other than `gone` lead every partition of `topics`.
#[track_caller]
fn wait_led_by_others(cluster: &Cluster, topics: [&str; 3], gone: Node) {
    for topic in topics {
        until(&format!("others to lead {topic}"), SOON, || {
            let leaders = cluster.leaders(topic);
            if leaders.contains(&gone) { Err(format!("{leaders:?}")) } else { Ok(()) }
        });
    }
}

/// Nothing that happened to the brokers was worth a word to an orchestrator, or a rebalance beyond
/// those that workers brought about.
#[track_caller]
fn assert_undisturbed(worker: &mut WorkerProcess) {
    worker.assert_runs();
    assert_eq!(worker.status("/healthz"), 200, "a restart cures nothing");
    assert_eq!(worker.metric("drakkar_rebalance_events_total{type=\"lost\"}"), 0);
}

/// The worker, which is alone, still has what it was given first.
#[track_caller]
fn assert_no_rebalance(worker: &WorkerProcess) {
    assert_eq!(worker.metric("drakkar_rebalance_events_total{type=\"assign\"}"), 1);
    assert_eq!(worker.metric("drakkar_rebalance_events_total{type=\"revoke\"}"), 0);
}

#[test]
fn when_the_broker_that_coordinates_the_group_stops_or_dies_the_worker_goes_on_with_the_next_one() {
    let cluster = Cluster::take();
    let world = world(&cluster);
    let mut worker = world.start();
    let feed = world.feed("moved", AHEAD, |_| Act::SleepMs(20));
    let mut last = String::new();
    wait_progress(&world);
    for take_away in [Cluster::stop, Cluster::kill] {
        let coordinator = cluster.coordinator(&world.group);
        take_away(&cluster, coordinator);
        until("another coordinator", SOON, || match cluster.coordinator(&world.group) {
            same if same == coordinator => Err(format!("{same:?}")),
            _ => Ok(()),
        });
        wait_progress(&world);
        assert_undisturbed(&mut worker);
        assert_no_rebalance(&worker);
        cluster.heal();
        wait_progress(&world);
        last = cluster.address(coordinator);
    }
    worker.wait_for_log(&format!("GroupCoordinator: {last}: Disconnected")); // It was the right one.
    feed.end();
    world.drained();
    worker.stop();
    world.no_program_survives();
    world.books().balance_with(0, "the next coordinator knew the group and its commits");
}

#[test]
fn a_worker_that_is_stopped_when_the_coordinator_of_its_group_has_just_died_commits_all_the_same() {
    let cluster = Cluster::take();
    let world = world(&cluster);
    let mut worker = world.start();
    let feed = world.feed("stopped", AHEAD, |_| Act::SleepMs(20));
    wait_progress(&world);
    cluster.kill(cluster.coordinator(&world.group));
    worker.stop();
    let mut next = world.start();
    wait_progress(&world);
    feed.end();
    world.drained();
    next.stop();
    world.books().balance_with(0, "the last commit waited for the next coordinator");
}

#[test]
fn when_a_broker_that_leads_partitions_stops_or_dies_and_comes_back_nothing_is_lost_or_repeated() {
    let cluster = Cluster::take();
    let world = world(&cluster);
    let topics = [world.source.as_str(), &world.results, &world.dead];
    let mut worker = world.start();
    let feed = world.feed("led", AHEAD, mixed);
    wait_progress(&world);
    for take_away in [Cluster::stop, Cluster::kill] {
        let leader = cluster.leaders(&world.source)[0];
        for topic in topics {
            assert!(cluster.leaders(topic).contains(&leader), "{leader:?} leads none of {topic}");
        }
        take_away(&cluster, leader);
        wait_led_by_others(&cluster, topics, leader);
        wait_progress(&world);
        assert_undisturbed(&mut worker);
        assert_no_rebalance(&worker);
        cluster.heal();
        wait_progress(&world);
    }
    feed.end();
    world.drained();
    worker.stop();
    world.no_program_survives();
    world.books().balance_with(0, "what was not confirmed was sent again, with the same number");
}

#[test]
fn while_all_brokers_are_restarted_in_turn_workers_go_on_come_and_leave_and_nothing_is_repeated() {
    let cluster = Cluster::take();
    let world = world(&cluster);
    let topics = [world.source.as_str(), &world.results, &world.dead];
    let mut workers = vec![world.start(), world.start()];
    let feed = world.feed("rolled", AHEAD, mixed);
    wait_progress(&world);
    for node in Node::ALL {
        cluster.stop(node);
        wait_led_by_others(&cluster, topics, node);
        wait_progress(&world);
        if workers.len() == 2 {
            workers.push(world.start());
        } else {
            workers.remove(0).stop();
        }
        wait_progress(&world);
        cluster.heal();
    }
    feed.end();
    world.drained();
    for worker in &mut workers {
        assert_undisturbed(worker);
        worker.stop();
    }
    world.no_program_survives();
    world.books().balance_with(0, "one broker at a time was away");
}

#[test]
fn while_all_workers_are_replaced_in_turn_nothing_is_lost_or_repeated() {
    let cluster = Cluster::take();
    let world = world(&cluster);
    let mut workers = [world.start(), world.start(), world.start()];
    let feed = world.feed("replaced", AHEAD, mixed);
    wait_progress(&world);
    for worker in &mut workers {
        worker.stop();
        *worker = world.start();
        until("the new worker to own partitions", SOON, || {
            match worker.metric("drakkar_assigned_partitions") {
                0 => Err("it owns none"),
                _ => Ok(()),
            }
        });
        wait_progress(&world);
    }
    feed.end();
    world.drained();
    for worker in &mut workers {
        assert_undisturbed(worker);
        worker.stop();
    }
    world.no_program_survives();
    world.books().balance_with(0, "a hand-over that finishes before its deadline makes none");
}
