//! What a handler is told of its partitions, against what the broker holds at that moment.

use std::collections::BTreeMap;

use drakkar_integration::{Act, SOON, WorkerProcess, World, journal::Entry, until};

const PARTITIONS: i32 = 4;

/// Messages per partition, of those that were produced before and after the second worker came.
const HALF: usize = 40;

/// Nothing is committed but by a hand-over.
fn world() -> World {
    World::new(PARTITIONS)
        .journalled()
        .with("kafka.commit_interval", "1h")
        .with("kafka.commit_every", 1_000_000)
}

/// The journal of `worker` by assignments: each begins with `on_assign` and ends with `on_revoke`, and
/// has the messages between them. Panics where it is in any other order.
#[track_caller]
fn assignments(world: &World, worker: &WorkerProcess) -> BTreeMap<i32, Vec<Assignment>> {
    let mut all: BTreeMap<i32, Vec<Assignment>> = BTreeMap::new();
    for entry in world.journal(&worker.id) {
        let of = all.entry(entry.partition()).or_default();
        let last = of.last_mut().filter(|last| last.committed.is_none());
        match (entry, last) {
            (Entry::Assign { .. }, None) => of.push(Assignment::default()),
            (Entry::Arrange { offset, .. }, Some(open)) => open.offsets.push(offset),
            (Entry::Revoke { committed, .. }, Some(open)) => open.committed = Some(committed),
            (entry, _) => panic!("{entry:?} out of order: {:?}", world.journal(&worker.id)),
        }
    }
    all
}

#[derive(Debug, Default)]
struct Assignment {
    offsets: Vec<i64>,
    /// On the broker, when `on_revoke` was called.
    committed: Option<i64>,
}

impl Assignment {
    /// Asserts that the final commit was made before `on_revoke`.
    #[track_caller]
    fn assert_committed(&self) {
        assert!(self.committed.is_some(), "on_revoke was not called: {self:?}");
        if let Some(last) = self.offsets.last() {
            assert_eq!(self.committed, Some(last + 1), "{self:?}");
        }
    }
}

#[test]
fn on_assign_precedes_the_first_arrange_and_on_revoke_follows_the_final_commit() {
    let world = world();
    let mut first = world.start();
    world.order_many("before", HALF, Act::Precomputed);
    world.wait_delivered(HALF);
    assert_eq!(world.committed(), 0, "only a hand-over commits here");

    // A rebalance: some partitions go to the second.
    let mut second = world.start();
    until("the second to own partitions", SOON, || {
        let revoked = world.journal(&first.id).into_iter();
        match revoked.filter(|entry| matches!(entry, Entry::Revoke { .. })).count() {
            0 => Err("the first was told of none"),
            _ => Ok(()),
        }
    });
    world.order_many("after", HALF, Act::Precomputed);
    world.wait_delivered(2 * HALF);
    let before_the_stop = assignments(&world, &first);
    let handed_over: Vec<&Assignment> = before_the_stop
        .values()
        .flatten()
        .filter(|assignment| assignment.committed.is_some())
        .collect();
    assert!(!handed_over.is_empty());
    handed_over.into_iter().for_each(Assignment::assert_committed);

    // A stop.
    second.stop();
    first.stop();
    for worker in [&first, &second] {
        let all = assignments(&world, worker);
        assert!(!all.is_empty(), "{} worked on nothing", worker.id);
        all.values().flatten().for_each(Assignment::assert_committed);
    }
    assert_eq!(world.committed(), 2 * HALF);
    assert_eq!(world.delivered(), 2 * HALF, "nothing was done twice");
}
