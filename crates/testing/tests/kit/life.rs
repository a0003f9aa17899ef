//! What happens to a worker: a rebalance, a crash, a shutdown. In memory, or at a broker.

use std::time::Duration;

use drakkar_testing::{Record, Script, Scripted, World, WorldBuilder};

use crate::handler::{Counted, PerWord, order};

fn counting() -> WorldBuilder<PerWord> {
    World::of(PerWord).processes(|_| Scripted::prints("1"))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_byte_for_byte_and_are_committed() {
    let mut world = counting().start();
    let poison = Record::from("not JSON").key(&b"\xff\x00"[..]).header("trace", &b"\x01"[..]);
    assert_eq!(world.produce(0, poison.created_at(1_700_000_000_123)).0, 0);
    assert_eq!(world.produce(0, Record::tombstone("k")).0, 1);
    assert_eq!(world.produce(0, order(["a"])).0, 2);
    world.committed(0, 3).await;
    assert_eq!(world.committed_offset(0), 3);
    let letter = world.dead_letters.at(0, 0).unwrap();
    assert_eq!(letter.message.key.as_deref(), Some(&b"\xff\x00"[..]));
    assert_eq!(letter.message.header("trace").unwrap(), &b"\x01"[..]);
    assert_eq!(letter.message.timestamp.unwrap().millis(), 1_700_000_000_123);
    assert_eq!(&*letter.message.partition.topic, world.topic());
    assert_eq!(world.dead_letters.at(0, 1).unwrap().message.value, None);
    assert_eq!(world.results.json::<Counted>().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_loses_nothing() {
    let mut world = counting().partitions(4).start();
    for number in 0..40 {
        world.produce(number % 4, order(["a"]));
    }
    world.rebalance().await;
    for number in 0..40 {
        world.produce(number % 4, order(["b"]));
    }
    world.settled().await;
    assert!(world.results.of("a").len() >= 40 && world.results.of("b").len() >= 40);
    world.assert_no_dead_letters();
    assert_eq!((0..4).map(|partition| world.committed_offset(partition)).sum::<i64>(), 80);
}

/// Each rebalance is a hand-over in order: what runs is finished and committed before the partition goes.
#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_and_comes_back_again_and_again_is_handed_over_each_time() {
    let slow = |_: &_| Scripted::prints("1").takes(Duration::from_secs(1));
    let mut world = World::of(PerWord).in_memory().partitions(2).processes(slow).start();
    for round in 1..=3 {
        world.produce(0, order(["a"]));
        world.produce(1, order(["b"]));
        world.runs.started(2 * round).await;
        world.rebalance().await;
        assert_eq!(world.committed_offset(1), i64::try_from(round).unwrap());
    }
    world.settled().await;
    assert_eq!(world.runs.len(), 6, "nothing ran twice");
    assert_eq!(rebalances(&world, "lost"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_handed_over_by_the_worker_that_has_it_and_not_by_the_one_before_a_crash() {
    let slow = |_: &_| Scripted::prints("1").takes(Duration::from_secs(1));
    let mut world = World::of(PerWord).in_memory().processes(slow).start();
    world.produce(0, order(["a"]));
    world.runs.started(1).await;
    world.revoke(0, Duration::from_secs(5)).await;
    world.give_back(0);
    let mut world = world.crash().await.restart(PerWord);
    world.produce(0, order(["b"]));
    world.runs.started(2).await;
    let over = world.revoke(0, Duration::from_secs(5)).await;
    assert_eq!(over.position.unwrap().next.0, 2);
}

/// How often partitions were told this.
fn rebalances(world: &World, what: &str) -> u64 {
    let text = world.metrics.render().unwrap();
    let name = format!("drakkar_rebalance_events_total{{type=\"{what}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_what_was_not_committed_runs_again_and_nothing_else() {
    let mut world = World::of(PerWord)
        .processes(|call| match (&*call.args_text(), call.attempt) {
            ("stuck", _) => Scripted::hangs(),
            _ => Scripted::prints("1"),
        })
        .start();
    world.produce(0, order(["a"]));
    world.committed(0, 1).await;
    world.produce(0, order(["stuck"]));
    world.runs.started(2).await;
    let wreck = world.crash().await;

    let world = wreck.restart(PerWord);
    world.runs.started(3).await;
    assert_eq!(world.runs.of(0).len(), 1, "it was committed");
    let again = world.runs.of(1);
    assert_eq!(again.len(), 2, "it was not");
    assert!(again[0].is_killed() && again[1].attempt == 1, "{again:?}");
    assert_eq!(world.results.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_delivered_and_not_committed_before_a_crash_is_delivered_again() {
    let mut world = World::of(PerWord)
        .processes(|call| match &*call.args_text() {
            "stuck" => Scripted::hangs(),
            _ => Scripted::prints("1"),
        })
        .start();
    // One message, two tasks: it cannot settle while one of them hangs.
    world.produce(0, order(["a", "stuck"]));
    world.results.until(1).await;
    let world = world.crash().await.restart(PerWord);
    world.results.until(2).await;
    assert_eq!(world.results.of("a").len(), 2, "at least once means that");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_crashed_delivers_and_commits_nothing_more() {
    let results = Script::kafka();
    results.begin_outage();
    let mut world = counting().in_memory().results(&results).start();
    world.produce(0, order(["a"]));
    world.not_committed(0, 0, Duration::from_secs(1)).await;
    let book = world.book_handle();
    let wreck = world.crash().await;
    results.end_outage();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(results.recorded().is_empty() && book.lock().unwrap().commits.is_empty());
    let world = wreck.restart(PerWord);
    world.settled().await;
    assert_eq!((world.results.len(), world.runs.len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_crash_does_not_commit_what_is_settled() {
    let mut world = counting()
        .in_memory()
        .settings(|settings| settings.commit.interval = Duration::from_hours(1))
        .start();
    world.produce(0, order(["a"]));
    world.results.until(1).await;
    let wreck = world.crash().await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let world = wreck.restart(PerWord);
    assert_eq!(world.committed_offset(0), 0);
    world.results.until(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_program_that_runs_on_at_the_deadline_of_a_revoke_is_killed() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::hangs()).start();
    world.produce(0, order(["a"]));
    world.runs.started(1).await;
    world.revoke(0, Duration::from_secs(1)).await;
    world.runs.ended(1).await;
    assert!(world.runs.all()[0].is_killed(), "{}", world.runs.all()[0]);
    assert_eq!(world.pool.stats().active, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_what_runs_and_leaves_what_has_not_started() {
    let mut world = World::of(PerWord)
        .executor(|executor| executor.max_executors = std::num::NonZeroUsize::new(1))
        .processes(|_| Scripted::prints("1").takes(Duration::from_millis(300)))
        .start();
    for _ in 0..100 {
        world.produce(0, order(["a"]));
    }
    world.runs.started(1).await;
    world.shutdown().await.unwrap();
    let (delivered, committed) = (world.results.len(), world.committed_offset(0));
    assert!((1..100).contains(&delivered), "{delivered}");
    assert_eq!(i64::try_from(delivered).unwrap(), committed);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_is_read_from_what_is_committed() {
    let mut world = counting().in_memory().start();
    world.produce(0, order(["a"]));
    world.settled().await;
    let over = world.revoke(0, Duration::from_secs(5)).await;
    assert_eq!(over.position.unwrap().next.0, 1);
    world.produce(0, order(["b"]));
    world.give_back(0);
    world.settled().await;
    assert_eq!((world.results.of("a").len(), world.results.of("b").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_broker_offers_says_so_at_one() {
    let mut world = counting().start();
    let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.lose(0)));
    let is_at_broker = std::env::var("DRAKKAR_TEST_BROKER").is_ok();
    assert_eq!(lost.is_err(), is_at_broker);
    if let Err(panic) = lost {
        let words = panic.downcast::<String>().unwrap();
        assert!(words.contains("World::lose") && words.contains("in_memory()"), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn paused_time_at_a_broker_is_refused_at_the_start() {
    let started = std::panic::catch_unwind(|| drop(counting().start()));
    assert_eq!(started.is_err(), std::env::var("DRAKKAR_TEST_BROKER").is_ok());
}

#[test]
fn the_guide_shows_the_handler_that_its_examples_use() {
    let guide = include_str!("../../../../docs/testing.md");
    let shown = guide.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(shown, include_str!("../../guide/handler.in"));
}
