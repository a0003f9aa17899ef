//! Workers that come and go under load, in order and not: nothing is lost, an orderly change makes no
//! duplicates, and a crash makes no more than it had delivered and not committed.

use std::{collections::BTreeSet, time::Duration};

use drakkar_integration::{Act, SOON, WorkerProcess, World, heavy, until};
use tokio::time::Instant;

/// Partitions of the topics in this file.
const PARTITIONS: i32 = 8;

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
    const COUNT: usize = 6_000;
    let _one = heavy();
    let world = World::new(PARTITIONS);
    let mut first = world.start();
    let produce = world.order_later("joined", COUNT, Act::SleepMs(2));
    world.wait_delivered(COUNT / 10);
    let mut second = world.start();
    wait_assigned(&second, 1);
    world.wait_delivered(world.delivered() + COUNT / 10);
    second.stop();
    world.wait_delivered(COUNT * 8 / 10);
    produce.join().unwrap();
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
    const COUNT: usize = 3_000;
    let _one = heavy();
    let world = World::new(PARTITIONS);
    let mut worker = world.start();
    let produce = world.order_later("termed", COUNT, Act::SleepMs(2));
    world.wait_delivered(COUNT / 6);
    worker.stop();
    world.no_program_survives();
    assert!(world.delivered() < COUNT, "it was to be stopped in the middle");
    produce.join().unwrap();
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
    world.order_many("long", 4, Act::SleepMs(1_500));
    until("four programs to run", SOON, || match world.programs().len() {
        4.. => Ok(()),
        few => Err(format!("{few} run")),
    });
    worker.stop();
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
    world.wait_delivered(BEHIND);
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
    let world = World::new(1);
    let mut worker = world.start();
    world.order([("long", Act::SleepMs(3_600_000))]);
    until("the program to run", SOON, || match world.programs().len() {
        0 => Err("none runs"),
        _ => Ok(()),
    });
    // Some supervisors signal the process and its group: one request that arrives twice.
    worker.terminate();
    worker.terminate();
    worker.wait_for_log("hand-over begins");
    worker.assert_runs();
    let begun = Instant::now();
    until("the second request to be heard", SOON, || {
        worker.terminate();
        match worker.log().matches("asked to stop").count() {
            2 => Ok(()),
            heard => Err(format!("{heard} heard")),
        }
    });
    let ended = worker.wait(SOON);
    assert_eq!(ended.code, Some(130), "{}", ended.log);
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    world.no_program_survives();
    assert_eq!(world.committed(), 0, "its message is still to be processed");
}

#[test]
fn sigkill_under_load_repeats_at_most_what_was_delivered_and_not_committed() {
    const COUNT: usize = 3_000;
    let _one = heavy();
    let world = World::new(PARTITIONS);
    let mut most = 0;
    let produce = world.order_later("killed", COUNT, Act::SleepMs(2));
    for round in 1..=3 {
        let mut worker = world.start();
        world.wait_delivered(round * COUNT / 6);
        worker.kill();
        most += world.unconfirmed(&worker.id);
    }
    produce.join().unwrap();
    let mut last = world.start();
    world.drained();
    last.stop();
    let why = format!("3 crashes had answered {most} messages that were not committed");
    world.books().balance_with(most, &why);
}

#[test]
fn workers_are_killed_stopped_and_joined_over_twenty_thousand_messages_and_none_is_lost() {
    const COUNT: usize = 20_000;
    const KILLS: usize = 3;
    let _one = heavy();
    // Programs are what costs here: most messages need none, so that there can be many of them.
    let world = World::new(PARTITIONS).with("executor.max_executors", 3);
    let mut most = 0;
    let produce = world.order_mixed_later("rolling", COUNT);
    let mut workers = vec![world.start(), world.start()];
    let steps = 2 * KILLS + 1;
    for step in 1..=steps {
        world.wait_delivered(step * COUNT / (steps + 3));
        if step % 2 == 0 {
            // In order: its work is handed over.
            workers.remove(0).stop();
        } else if step < steps {
            let mut killed = workers.remove(0);
            killed.kill();
            most += world.unconfirmed(&killed.id);
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
    let why = format!("{KILLS} crashes had answered {most} messages that were not committed");
    world.books().balance_with(most, &why);
}

#[test]
fn with_kip_848_a_second_worker_joins_and_leaves_under_load_and_nothing_is_lost() {
    const COUNT: usize = 1_500;
    let _one = heavy();
    let world = World::new(4).with("kafka.group_protocol", "consumer");
    let mut first = world.start();
    let produce = world.order_later("smoke", COUNT, Act::SleepMs(5));
    world.wait_delivered(COUNT / 10);
    let mut second = world.start();
    wait_assigned(&second, 1);
    world.wait_delivered(world.delivered() + COUNT / 10);
    second.stop();
    assert!(world.delivered() < COUNT, "it was to leave in the middle");
    produce.join().unwrap();
    world.drained();
    first.stop();
    world.books().balance_with(0, "a hand-over that finishes before its deadline makes none");
}
