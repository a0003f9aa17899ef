//! Workers that come and go under load, in order and not: nothing is lost, an orderly change makes no
//! duplicates, and a crash makes no more than it had delivered and not committed.

use std::collections::BTreeSet;

use drakkar_integration::{Act, Crashes, SOON, WorkerProcess, World, heavy, until};

/// Partitions of the topics in this file.
const PARTITIONS: i32 = 8;

/// Messages that are produced ahead of what is committed: whatever a test does, it does under load.
const AHEAD: i64 = 500;

/// Until a worker that was killed is missed, and not one that merely stands still for a moment.
const SHORT_SESSION: u32 = 10_000;

/// Waits until `worker` has processed something.
#[track_caller]
fn wait_works(worker: &WorkerProcess) {
    until(&format!("{} to work", worker.id), SOON, || {
        match worker.metric("drakkar_executor_tasks_total{status=\"completed\"}") {
            0 => Err("it has done nothing"),
            _ => Ok(()),
        }
    });
}

#[track_caller]
fn wait_assigned(worker: &WorkerProcess, least: usize) {
    until(&format!("{} to own partitions", worker.id), SOON, || {
        match worker.metric("drakkar_assigned_partitions") {
            owned if owned >= least => Ok(()),
            owned => Err(format!("it owns {owned}")),
        }
    });
}

#[test]
fn a_second_worker_joins_and_leaves_under_load_without_a_duplicate() {
    const SOME: usize = 600;
    let _one = heavy();
    let world = World::new(PARTITIONS);
    let mut first = world.start();
    let feed = world.feed("joined", AHEAD, |_| Act::SleepMs(2));
    world.wait_delivered(SOME);
    let mut second = world.start();
    wait_works(&second);
    world.wait_delivered(world.delivered() + SOME);
    second.stop();
    world.wait_delivered(world.delivered() + SOME);
    feed.end();
    world.drained();
    first.stop();
    let books = world.books();
    let workers: BTreeSet<Option<String>> =
        books.results.iter().map(|result| result.header("worker")).collect();
    assert_eq!(workers.len(), 2, "both must have worked: {workers:?}");
    books.balance_with(0, "a hand-over that finishes before its deadline makes none");
}

#[test]
fn sigterm_under_load_finishes_what_was_started_and_commits_exactly_what_was_delivered() {
    let _one = heavy();
    let world = World::new(PARTITIONS);
    let mut worker = world.start();
    let feed = world.feed("termed", AHEAD, |_| Act::SleepMs(2));
    world.wait_delivered(500);
    worker.stop();
    world.no_program_survives();
    feed.end();
    assert_ne!(world.lag(), Ok(0), "it was to be stopped in the middle");
    let mut next = world.start();
    world.drained();
    next.stop();
    world.books().balance_with(0, "what was delivered before the stop was committed by it");
}

#[test]
fn sigterm_while_the_group_waits_for_a_dead_member_commits_what_was_delivered_all_the_same() {
    const COUNT: usize = 2_000;
    let _one = heavy();
    // Longer than any wait that is not told how long it may be.
    let world = World::new(PARTITIONS).with("kafka.session_timeout_ms", 15_000);
    let mut first = world.start();
    let mut dead = world.start();
    wait_assigned(&dead, 1);
    world.order_many("before", 100, Act::Echo);
    world.drained();
    dead.kill();
    // From here until the session of the dead one ends, the group is busy with letting this one in.
    let mut third = world.start();
    third.wait_for_log("joining the group");
    world.order_many("meanwhile", COUNT, Act::SleepMs(2));
    world.wait_delivered(100 + COUNT / 8);
    first.stop();
    world.drained();
    third.stop();
    world
        .books()
        .balance_with(0, "nothing was open when the one died, and the other stopped in order");
}

#[test]
fn sigterm_while_long_tasks_run_waits_for_them() {
    let _one = heavy();
    let world = World::new(1);
    let mut worker = world.start();
    world.order_many("long", 4, Act::AwaitLicence);
    until("four programs to run", SOON, || {
        let programs = world.programs(); // And what they themselves have started.
        match programs.iter().filter(|(_, command)| command.starts_with("/bin/sh")).count() {
            4 => Ok(()),
            few => Err(format!("{few} run")),
        }
    });
    worker.terminate();
    worker.wait_for_log("hand-over begins");
    worker.assert_runs();
    world.license();
    assert_eq!(worker.wait(SOON).code, Some(0));
    assert_eq!((world.delivered(), world.committed()), (4, 4));
    world.books().balance();
}

#[test]
fn what_was_settled_behind_a_message_that_is_stuck_is_not_done_again_by_the_next_worker() {
    const BEHIND: usize = 300;
    let _one = heavy();
    let world = World::new(1).with("executor.drain_timeout_seconds", 1);
    let mut worker = world.start();
    world.order([("stuck", Act::AwaitLicence)]);
    world.order_many("behind", BEHIND, Act::Echo);
    let settled = "drakkar_messages_settled_total{partition=\"0\",topic=";
    let settled = format!("{settled}\"{}\"}}", world.source);
    until("what is behind it to be settled", SOON, || match worker.metric(&settled) {
        BEHIND => Ok(()),
        few => Err(few),
    });
    worker.stop();
    assert_eq!(world.committed(), 0, "the first message is not settled");
    world.license();
    let mut next = world.start();
    world.drained();
    next.stop();
    world.books().balance_with(0, "the commit said which later offsets were settled");
}

#[test]
fn a_second_signal_ends_a_worker_at_once_with_exit_code_130() {
    let _one = heavy();
    let world = World::new(1).with("executor.drain_timeout_seconds", "1h");
    let mut worker = world.start();
    world.order([("long", Act::SleepMs(3_600_000))]);
    until("the program to run", SOON, || match world.programs().len() {
        0 => Err("none runs"),
        _ => Ok(()),
    });
    worker.terminate();
    worker.wait_for_log("hand-over begins");
    worker.assert_runs();
    until("the second request to be heard", SOON, || {
        worker.terminate();
        match worker.log().matches("asked to stop").count() {
            2 => Ok(()),
            heard => Err(format!("{heard} heard")),
        }
    });
    let ended = worker.wait(SOON);
    assert_eq!(ended.code, Some(130), "{}", ended.log);
    world.no_program_survives();
    assert_eq!(world.committed(), 0, "its message is still to be processed");
}

#[test]
fn sigkill_under_load_repeats_at_most_what_was_delivered_and_not_committed() {
    let _one = heavy();
    let world = World::new(PARTITIONS).with("kafka.session_timeout_ms", SHORT_SESSION);
    let mut crashes = Crashes::default();
    let feed = world.feed("killed", AHEAD, |_| Act::SleepMs(2));
    for _ in 0..3 {
        let mut worker = world.start();
        world.wait_delivered(world.delivered() + 500);
        crashes.kill(&world, &mut worker);
    }
    let mut last = world.start();
    wait_works(&last);
    feed.end();
    world.drained();
    last.stop();
    crashes.balance(&world);
}

#[test]
fn workers_are_killed_stopped_and_joined_over_twenty_thousand_messages_and_none_is_lost() {
    const COUNT: usize = 20_000;
    const KILLS: usize = 3;
    let _one = heavy();
    // Programs are what costs here: most messages need none, so that there can be many of them.
    let world = World::new(PARTITIONS)
        .with("executor.max_executors", 3)
        .with("kafka.session_timeout_ms", SHORT_SESSION);
    let mut crashes = Crashes::default();
    let produce = world.order_mixed_later("rolling", COUNT);
    let mut workers = vec![world.start(), world.start()];
    let steps = 2 * KILLS + 1;
    for step in 1..=steps {
        world.wait_delivered(step * COUNT / (steps + 3));
        if step % 2 == 0 {
            // In order: its work is handed over.
            workers.remove(0).stop();
        } else if step < steps {
            crashes.kill(&world, &mut workers.remove(0));
        }
        workers.push(world.start());
        if step == KILLS {
            workers.push(world.start());
        }
    }
    produce.join().unwrap();
    world.drained();
    for worker in &mut workers {
        worker.stop();
    }
    world.no_program_survives();
    crashes.balance(&world);
}

#[test]
fn with_kip_848_a_second_worker_joins_and_leaves_under_load_and_nothing_is_lost() {
    const SOME: usize = 150;
    let _one = heavy();
    let world = World::new(4).with("kafka.group_protocol", "consumer");
    let mut first = world.start();
    let feed = world.feed("smoke", AHEAD, |_| Act::SleepMs(5));
    world.wait_delivered(SOME);
    let mut second = world.start();
    wait_works(&second);
    world.wait_delivered(world.delivered() + SOME);
    second.stop();
    world.wait_delivered(world.delivered() + SOME);
    feed.end();
    world.drained();
    first.stop();
    world.books().balance_with(0, "a hand-over that finishes before its deadline makes none");
}
