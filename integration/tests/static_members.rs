//! Static membership: a worker with a name in the group keeps its partitions while it is away for less
//! than its session, and of two workers with the same name only one works.

use std::collections::BTreeSet;

use drakkar_integration::{Act, Crashes, SOON, WorkerProcess, World, heavy, until, worker::Ended};

/// Half of them for each of two workers.
const PARTITIONS: i32 = 6;

const HALF: usize = 3;

/// Waits until `worker` owns this many partitions, and says which it was given last.
#[track_caller]
fn wait_owns(worker: &WorkerProcess, count: usize) -> BTreeSet<String> {
    until(&format!("{} to own {count} partitions", worker.id), SOON, || {
        match worker.metric("drakkar_assigned_partitions") {
            owned if owned == count => given(&worker.log()).ok_or("its log does not say so".into()),
            owned => Err(format!("it owns {owned}")),
        }
    })
}

/// The partitions in the last line of `log` about an assignment.
fn given(log: &str) -> Option<BTreeSet<String>> {
    let line = log.lines().rfind(|line| line.contains("\"message\":\"assigned\""))?;
    let (_, after) = line.split_once("\"partitions\":\"")?;
    let (partitions, _) = after.split_once('"')?;
    Some(partitions.split(',').map(str::to_owned).collect())
}

/// How many rebalances the worker has seen, empty ones too.
fn rebalances(worker: &WorkerProcess) -> usize {
    let of = |kind| worker.metric(&format!("drakkar_rebalance_events_total{{type=\"{kind}\"}}"));
    ["assign", "revoke", "lost"].map(of).iter().sum()
}

/// What a worker said last, before it ended.
fn last_line(ended: &Ended) -> &str {
    ended.log.lines().last().unwrap_or_default()
}

/// A world whose workers are called in the group as they are called themselves.
fn world() -> World {
    World::new(PARTITIONS)
        .with("kafka.session_timeout_ms", 300_000)
        .with("kafka.group_instance_id", "{worker_id}")
}

#[test]
fn a_worker_that_is_back_within_its_session_takes_up_its_partitions_and_the_others_see_nothing() {
    let _one = heavy();
    let mut world = world();
    let mut stays = world.start();
    wait_owns(&stays, 2 * HALF);
    let mut goes = world.start();
    wait_owns(&stays, HALF);
    let owned = wait_owns(&goes, HALF);
    world.set("kafka.group_instance_id", goes.id.clone());
    let feed = world.feed("static", 2_000, |_| Act::SleepMs(5));
    world.wait_delivered(200); // By then the rebalance is over for both.
    let before = rebalances(&stays);
    let mut crashes = Crashes::default();
    for crash in [false, true] {
        world.wait_delivered(world.delivered() + 200);
        if crash {
            crashes.kill(&world, &mut goes);
        } else {
            goes.stop();
        }
        world.wait_delivered(world.delivered() + 200); // By the one that stays.
        goes = world.start();
        assert_eq!(wait_owns(&goes, HALF), owned, "after a crash: {crash}");
    }
    feed.end();
    world.drained();
    assert_eq!(rebalances(&stays), before, "the other saw a rebalance");
    stays.stop();
    goes.stop();
    crashes.balance(&world);
}

#[test]
fn a_second_worker_of_the_same_name_takes_the_place_of_the_first_which_says_so_and_ends() {
    let _one = heavy();
    let world = world().with("kafka.group_instance_id", "twin");
    let mut first = world.start();
    let feed = world.feed("twins", 500, |_| Act::SleepMs(20));
    world.wait_delivered(200);
    let committed = world.commits();
    let mut second = world.start();
    let ended = first.wait(SOON);
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let said = last_line(&ended);
    assert!(said.contains("kafka.group_instance_id has taken its place"), "{said}");
    wait_owns(&second, 2 * HALF);
    world.wait_delivered(world.delivered() + 200);
    feed.end();
    world.drained();
    second.stop();
    world.no_program_survives();
    let books = world.books();
    let most = books.open_of(&first.id, &committed);
    let why = format!("the first had answered {most} since what it had committed was looked at");
    books.balance_with(most, &why);
}

#[test]
fn a_worker_that_stays_away_for_longer_than_its_session_leaves_its_partitions_to_the_others() {
    let world = world().with("kafka.session_timeout_ms", 8_000);
    let mut stays = world.start();
    wait_owns(&stays, 2 * HALF);
    let mut goes = world.start();
    wait_owns(&stays, HALF);
    wait_owns(&goes, HALF);
    goes.stop();
    world.order_many("left", 60, Act::Echo); // Some to partitions that nobody reads now.
    world.drained();
    wait_owns(&stays, 2 * HALF);
    stays.stop();
    world.books().balance_with(0, "the one that went had stopped in order");
}

#[test]
fn by_kip_848_a_second_worker_of_the_same_name_is_refused_until_the_first_has_stopped() {
    let world =
        world().with("kafka.group_protocol", "consumer").with("kafka.group_instance_id", "twin");
    let mut first = world.start();
    wait_owns(&first, 2 * HALF);
    let ended = world.start().wait(SOON);
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(last_line(&ended).contains("kafka.group_instance_id"), "{}", last_line(&ended));
    first.assert_runs();
    first.stop();
    let mut next = world.start();
    wait_owns(&next, 2 * HALF);
    next.stop();
}
