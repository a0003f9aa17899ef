//! The ledger beside a naive model that searches everything after every step.

mod model;

use drakkar_core::{
    Offset,
    ledger::{Freed, Ledger, TaskKey},
};
use proptest::prelude::*;

use model::{Op, World, op};

fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_settles_early_and_everything_settles_once(ops in ops(120)) {
        let mut world = World::default();
        for op in &ops {
            world.run(op)?;
        }
        world.end_everything()?;
    }

    #[test]
    fn a_hand_over_keeps_what_started_and_never_passes_what_it_dropped(
        before in ops(80),
        after in ops(60),
        late in ops(30),
        lines in prop_oneof![Just(i64::MAX), 1..4_i64],
    ) {
        let mut world = World::default();
        for op in &before {
            world.run(op)?;
        }
        world.hand_over(lines)?;
        for op in &after {
            world.run(op)?;
        }
        world.hand_over(lines)?;
        for op in &late {
            world.run(op)?;
        }
        world.end_everything()?;
    }
}

fn ledger(offsets: std::ops::Range<i64>) -> Ledger<i64> {
    let mut ledger = Ledger::default();
    offsets.for_each(|offset| assert_eq!(ledger.admit(Offset(offset), offset), Ok(())));
    ledger
}

#[test]
fn a_window_that_is_reported_as_arranged_twice_does_not_settle_before_its_tasks() {
    let mut ledger = ledger(0..1);
    let task = ledger.add_task(vec![Offset(0)]).unwrap();
    assert_eq!(ledger.arranged([Offset(0), Offset(0)]), Freed::default());
    assert_eq!(ledger.arranged([Offset(0)]), Freed::default());
    assert_eq!(ledger.finish(task).settled, [0]);
}

#[test]
fn what_arranged_after_its_hand_over_finds_nothing_to_do() {
    let mut ledger = ledger(0..2);
    assert_eq!(ledger.drop_unstarted(|_| None).messages.len(), 2);
    assert!(ledger.add_task(vec![Offset(0)]).is_err());
    assert_eq!(ledger.arranged([Offset(0), Offset(1)]), Freed::default());
    assert_eq!(ledger.watermark().position(), None);
}

#[test]
fn a_window_closes_after_each_of_its_messages_has_closed() {
    let mut ledger = ledger(0..2);
    let tasks = [0, 1].map(|offset| ledger.add_task(vec![Offset(offset)]).unwrap());
    let messages = [0, 1].map(|offset| ledger.close_with(vec![Offset(offset)]).unwrap());
    let window = ledger.close_with(vec![Offset(0), Offset(1)]).unwrap();
    assert_eq!(ledger.arranged([Offset(0), Offset(1)]), Freed::default());
    assert_eq!(ledger.finish(tasks[0]).ready, [messages[0]]);
    assert_eq!(ledger.finish(messages[0]).ended, [Offset(0)]);
    assert_eq!(ledger.finish(window), Freed::default(), "it may not begin yet");
    assert_eq!(ledger.finish(tasks[1]).ready, [messages[1]]);
    assert_eq!(ledger.finish(messages[1]).ready, [window]);
    assert_eq!(ledger.watermark().position(), None, "nothing settles before the window");
    assert_eq!(ledger.finish(window).settled, [0, 1]);
}

#[test]
fn a_hand_over_keeps_a_window_that_has_begun_as_a_whole_and_drops_one_that_has_not() {
    let mut ledger = ledger(0..4);
    let first = ledger.add_task(vec![Offset(0)]).unwrap();
    let windows =
        [[0, 1], [2, 3]].map(|window| ledger.close_with(window.map(Offset).to_vec()).unwrap());
    ledger.mark_started(first);
    let dropped = ledger.drop_unstarted(|_| None);
    assert_eq!(dropped.tasks, [windows[1]]);
    assert_eq!(ledger.open_messages(), 2);
}

/// A chain: every task stands for two neighbours, so one started task keeps them all.
#[test]
fn a_hand_over_of_a_long_chain_of_tasks_keeps_all_of_it() {
    const LENGTH: i64 = 20_000;
    let mut ledger = ledger(0..LENGTH);
    let pairs = (1..LENGTH).map(|offset| vec![Offset(offset - 1), Offset(offset)]);
    let tasks: Vec<TaskKey> = pairs.map(|links| ledger.add_task(links).unwrap()).collect();
    ledger.mark_started(tasks[0]);
    let dropped = ledger.drop_unstarted(|_| None);
    assert!(dropped.messages.is_empty() && dropped.tasks.is_empty());
}
