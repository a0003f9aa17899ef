//! The order of messages beside a naive model that looks at everything whenever something starts.

mod model;

use bytes::Bytes;
use drakkar_core::{
    Offset,
    ledger::TaskKey,
    order::{Order, Ordering},
};
use proptest::prelude::*;

use model::{Aggregates, Op, World, op};

fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..most)
}

fn mode() -> impl Strategy<Value = Ordering> {
    prop_oneof![1 => Just(Ordering::Unordered), 4 => Just(Ordering::Key), 2 => Just(Ordering::Partition)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_may_start_starts_and_nothing_else_and_everything_ends(
        mode in mode(),
        (messages, windows) in any::<(bool, bool)>(),
        ops in ops(80),
    ) {
        let mut world = World::new(mode, Aggregates { messages, windows });
        for op in &ops {
            world.run(op)?;
        }
        world.end_everything()?;
    }

    #[test]
    fn what_a_hand_over_keeps_ends_and_waits_for_nothing_that_was_dropped(
        mode in mode(),
        (messages, windows) in any::<(bool, bool)>(),
        before in ops(60),
        after in ops(40),
    ) {
        let mut world = World::new(mode, Aggregates { messages, windows });
        for op in &before {
            world.run(op)?;
        }
        world.hand_over()?;
        for op in &after {
            world.run(op)?;
        }
        world.end_everything()?;
    }
}

/// An order by key; messages from offset 0 on with these keys are its first window.
fn order(keys: &[&'static str], tasks: &[&[Offset]]) -> Order {
    let mut order = Order::new(Ordering::Key);
    enter(&mut order, 0, keys, tasks);
    order
}

fn enter(order: &mut Order, from: i64, keys: &[&'static str], tasks: &[&[Offset]]) {
    let keys: Vec<Option<Bytes>> = keys
        .iter()
        .map(|key| (!key.is_empty()).then(|| Bytes::from_static(key.as_bytes())))
        .collect();
    let window = (from..).map(Offset).zip(keys.iter().map(Option::as_ref));
    order.enter(window, tasks.iter().copied());
}

/// Which of the messages may start, by the number of their task.
fn free(order: &mut Order, count: i64) -> Vec<i64> {
    let task = |offset: i64| TaskKey(offset.unsigned_abs());
    (0..count).filter(|&offset| order.may_start(task(offset), &[Offset(offset)])).collect()
}

#[test]
fn messages_of_a_key_wait_for_each_other_and_those_without_for_nobody() {
    let mut order = order(&["a", "b", "a", "", "", "a"], &[]);
    assert_eq!(free(&mut order, 6), [0, 1, 3, 4]);
    assert_eq!(order.settled(Offset(1)), []);
    assert_eq!(order.settled(Offset(0)), [TaskKey(2)]);
    assert_eq!(order.settled(Offset(2)), [TaskKey(5)]);
}

#[test]
fn a_message_that_settles_ahead_of_its_turn_lets_nobody_pass() {
    let mut order = order(&["a", "a", "a"], &[]);
    assert_eq!(free(&mut order, 3), [0]);
    assert_eq!(order.settled(Offset(1)), []);
    assert_eq!(order.settled(Offset(0)), [TaskKey(2)]);
}

#[test]
fn a_task_for_messages_of_two_keys_waits_in_both_lines() {
    let both = [Offset(2), Offset(3)];
    let mut order = order(&["a", "b", "a", "b"], &[&both]);
    assert!(!order.may_start(TaskKey(9), &both));
    assert_eq!(order.settled(Offset(0)), []);
    assert_eq!(order.settled(Offset(1)), [TaskKey(9)]);
}

#[test]
fn messages_that_one_task_stands_for_start_together_when_the_first_of_them_may() {
    let both = [Offset(1), Offset(2)];
    let mut order = order(&["a", "a", "a", "a"], &[&both]);
    assert_eq!(free(&mut order, 4), [0]);
    assert_eq!(order.settled(Offset(0)), [TaskKey(1), TaskKey(2)]);
    assert!(order.may_start(TaskKey(9), &both));
    assert_eq!(order.settled(Offset(1)), []);
    assert_eq!(order.settled(Offset(2)), [TaskKey(3)]);
}

#[test]
fn tasks_that_cross_do_not_wait_for_each_other_and_others_keep_their_order() {
    let (outer, inner) = ([Offset(1), Offset(4)], [Offset(2), Offset(3)]);
    let mut order = order(&["b", "a", "a", "b", "b", "a"], &[&outer, &inner]);
    assert_eq!(free(&mut order, 6), [0, 1, 2]);
    assert!(!order.may_start(TaskKey(8), &outer) && !order.may_start(TaskKey(9), &inner));
    assert_eq!(order.settled(Offset(0)), [3, 4, 8, 9].map(TaskKey));
    assert_eq!(order.settled(Offset(2)), []);
    assert_eq!(order.settled(Offset(1)), [TaskKey(5)]);
}

/// Two circles in one line: those of the second wait until the first has no message left that is not
/// on theirs as well.
#[test]
fn a_circle_behind_a_circle_waits_for_it() {
    let (first, second) = ([Offset(0), Offset(1)], [Offset(1), Offset(2)]);
    let mut order = order(&["a", "a", "a"], &[&first, &second]);
    assert!(order.may_start(TaskKey(8), &first));
    assert!(!order.may_start(TaskKey(9), &second));
    assert_eq!(order.settled(Offset(0)), [TaskKey(9)]);
}

#[test]
fn a_window_that_settles_as_a_whole_goes_on_when_its_messages_end_and_holds_later_ones() {
    let mut order = order(&["a", "a"], &[]);
    enter(&mut order, 2, &["a"], &[]);
    assert_eq!(free(&mut order, 3), [0]);
    assert_eq!(order.ended(Offset(0)), [TaskKey(1)]);
    assert_eq!(order.ended(Offset(1)), []);
    assert_eq!(order.settled(Offset(0)), []);
    assert_eq!(order.settled(Offset(1)), [TaskKey(2)]);
}

#[test]
fn a_line_as_long_as_a_large_window_with_one_task_for_all_costs_no_stack_and_little_time() {
    const LENGTH: i64 = 200_000;
    let all: Vec<Offset> = (0..LENGTH).map(Offset).collect();
    let neighbours: Vec<[Offset; 2]> = (1..LENGTH).map(|at| [Offset(at - 1), Offset(at)]).collect();
    let key = Bytes::from_static(b"a");
    for tasks in [vec![&*all], neighbours.iter().map(|pair| &pair[..]).collect()] {
        let mut order = Order::new(Ordering::Key);
        order.enter(all.iter().map(|&offset| (offset, Some(&key))), tasks.iter().copied());
        for (task, links) in (0..).map(TaskKey).zip(&tasks) {
            order.may_start(task, links);
        }
        for &offset in &all {
            order.settled(offset);
        }
        assert!(order.is_empty());
    }
}

#[test]
fn what_is_withdrawn_is_not_heard_of_again() {
    let mut order = order(&["a", "a"], &[]);
    assert_eq!(free(&mut order, 2), [0]);
    order.withdraw(TaskKey(1));
    assert_eq!(order.waiting(), 0);
    assert_eq!(order.settled(Offset(0)), []);
}
