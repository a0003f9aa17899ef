//! When a partition is held for its dead letters, and when it goes on.

use std::{collections::VecDeque, time::Duration};

use drakkar_core::flood::{Admission, Flood, FloodLimits, FloodMark, FloodReason, RECENT};
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(1);

fn limits(max_consecutive: u32, max_ratio: f64) -> FloodLimits {
    FloodLimits { max_consecutive, max_ratio, probe_interval: INTERVAL }
}

fn fresh(limits: FloodLimits) -> Flood {
    Flood::resume(limits, FloodMark::default(), START)
}

/// Gives messages up until one must wait; how many were sent.
fn fill(flood: &mut Flood) -> usize {
    (0..10_000).take_while(|_| flood.admit(1, START) == Admission::Send).count()
}

fn reason(flood: &Flood) -> Option<FloodReason> {
    flood.hold().map(|hold| hold.reason)
}

#[test]
fn exactly_as_many_in_a_row_as_the_limit_says_are_sent() {
    let mut flood = fresh(limits(100, 0.0));
    for _ in 0..99 {
        assert_eq!(flood.admit(1, START), Admission::Send);
        assert_eq!(reason(&flood), None);
    }
    assert_eq!(flood.admit(1, START), Admission::Send);
    assert_eq!(
        reason(&flood),
        Some(FloodReason::Consecutive),
        "the one that reaches it is the last"
    );
    assert_eq!(flood.admit(1, START), Admission::Wait);
}

#[test]
fn one_success_begins_a_new_row() {
    let mut flood = fresh(limits(3, 0.0));
    for _ in 0..10 {
        assert_eq!(flood.admit(2, START), Admission::Send);
        flood.succeeded();
    }
    assert_eq!(fill(&mut flood), 3);
}

#[test]
fn half_of_the_last_thousand_is_the_ratio_whatever_their_order() {
    let mut flood = fresh(limits(0, 0.5));
    for _ in 0..499 {
        assert_eq!(flood.admit(1, START), Admission::Send);
        flood.succeeded();
    }
    assert_eq!(reason(&flood), None);
    assert_eq!(flood.admit(1, START), Admission::Send);
    assert_eq!(reason(&flood), Some(FloodReason::Ratio));
}

#[test]
fn what_is_older_than_the_last_thousand_does_not_count() {
    let mut flood = fresh(limits(0, 0.5));
    (0..499).for_each(|_| assert_eq!(flood.admit(1, START), Admission::Send));
    (0..RECENT).for_each(|_| flood.succeeded());
    assert_eq!(flood.mark(), FloodMark::default());
    assert_eq!(fill(&mut flood), 500);
}

#[test]
fn zero_is_off() {
    let mut flood = fresh(limits(0, 0.0));
    assert_eq!(fill(&mut flood), 10_000);
    assert_eq!(flood.mark(), FloodMark::default());
    assert_eq!(flood.next_try(), None);
}

#[test]
fn messages_that_stand_or_fall_together_are_sent_together_or_not_at_all() {
    let mut flood = fresh(limits(5, 0.0));
    assert_eq!(flood.admit(3, START), Admission::Send);
    assert_eq!(flood.admit(3, START), Admission::Wait, "two of them would fit");
    assert_eq!(flood.mark().consecutive, 3);
    assert_eq!(reason(&flood), Some(FloodReason::Consecutive));
}

#[test]
fn a_message_that_was_counted_before_may_be_sent_at_any_time() {
    let mut flood = fresh(limits(1, 0.0));
    assert_eq!(fill(&mut flood), 1);
    assert_eq!(flood.admit(0, START), Admission::Send);
}

#[test]
fn a_held_partition_is_tried_once_an_interval() {
    let mut flood = fresh(limits(1, 0.0));
    assert_eq!(flood.next_try(), None);
    fill(&mut flood);
    assert_eq!(flood.next_try(), Some(START + INTERVAL));
    flood.begin_try();
    assert_eq!(flood.next_try(), None, "one is being tried");
    assert_eq!(flood.admit(1, START), Admission::Wait);
    let later = START + 3 * INTERVAL;
    flood.try_failed(1, later);
    assert_eq!(flood.next_try(), Some(later + INTERVAL));
    assert_eq!(flood.hold().unwrap().failed_tries, 1);
}

#[test]
fn a_success_that_was_under_way_does_not_lift_a_hold() {
    let mut flood = fresh(limits(1, 0.0));
    fill(&mut flood);
    flood.succeeded();
    assert_eq!(flood.admit(1, START), Admission::Wait);
}

#[test]
fn after_a_hold_a_tenth_of_the_limit_is_free_and_a_success_frees_the_row() {
    let mut flood = fresh(limits(100, 0.0));
    fill(&mut flood);
    flood.begin_try();
    flood.try_succeeded();
    assert_eq!(fill(&mut flood), 10);
    flood.begin_try();
    flood.try_succeeded();
    flood.succeeded();
    assert_eq!(fill(&mut flood), 100);
}

#[test]
fn after_a_hold_a_tenth_of_the_ratio_is_free() {
    let mut flood = fresh(limits(0, 0.5));
    assert_eq!(fill(&mut flood), 500);
    flood.begin_try();
    flood.try_succeeded();
    assert_eq!(fill(&mut flood), 50);
}

#[test]
fn a_limit_of_one_can_be_lifted() {
    let mut flood = fresh(limits(1, 0.001));
    assert_eq!(fill(&mut flood), 1);
    flood.begin_try();
    flood.try_succeeded();
    assert_eq!(reason(&flood), None);
    assert_eq!(fill(&mut flood), 1);
}

#[test]
fn a_hold_is_taken_over_by_the_next_owner_who_waits_as_long_before_the_first_try() {
    let mut flood = fresh(limits(100, 0.5));
    fill(&mut flood);
    let next = Flood::resume(limits(100, 0.5), flood.mark(), Duration::ZERO);
    assert_eq!(reason(&next), Some(FloodReason::Consecutive));
    assert_eq!(next.next_try(), Some(INTERVAL));
    assert_eq!(next.mark(), flood.mark());
}

#[test]
fn a_hold_by_a_limit_that_was_switched_off_is_not_taken_over() {
    let mut flood = fresh(limits(100, 0.5));
    fill(&mut flood);
    let next = Flood::resume(limits(0, 0.5), flood.mark(), START);
    assert_eq!(reason(&next), None);
}

#[test]
fn a_limit_that_was_lowered_below_what_is_counted_holds_at_once() {
    let mut flood = fresh(limits(100, 0.0));
    assert_eq!(flood.admit(50, START), Admission::Send);
    let next = Flood::resume(limits(20, 0.0), flood.mark(), START);
    assert_eq!(reason(&next), Some(FloodReason::Consecutive));
}

#[derive(Debug, Clone, Copy)]
enum Event {
    GivenUp,
    Succeeded,
    /// Ends the try that is under way, or begins one.
    Try {
        succeeds: bool,
    },
    HandOver,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::GivenUp),
        3 => Just(Event::Succeeded),
        1 => any::<bool>().prop_map(|succeeds| Event::Try { succeeds }),
        1 => Just(Event::HandOver),
    ];
    prop::collection::vec(event, 0..1_000)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Beside a plain list of what was sent. Only successes and lifted holds make room, and hand-overs
    /// never do.
    #[test]
    fn no_order_of_events_sends_more_in_a_row_than_the_limit(
        events in events(),
        max in 1..40_u32,
    ) {
        let limits = limits(max, 0.0);
        let mut flood = fresh(limits);
        let mut row = 0;
        let mut now = START;
        for event in events {
            now += Duration::from_millis(1);
            let held = flood.hold().is_some();
            match event {
                Event::GivenUp => {
                    let sent = flood.admit(1, now) == Admission::Send;
                    prop_assert_eq!(sent, !held);
                    row += u32::from(sent);
                    prop_assert_eq!(flood.hold().is_some(), held || max <= row);
                    prop_assert!(held || row <= max, "{} in a row", row);
                }
                Event::Succeeded => {
                    flood.succeeded();
                    row = 0;
                    prop_assert_eq!(flood.hold().is_some(), held, "only a try lifts");
                }
                Event::Try { succeeds } => {
                    let due = flood.next_try();
                    prop_assert_eq!(due.is_some(), held);
                    let Some(due) = due else { continue };
                    now = now.max(due);
                    flood.begin_try();
                    if succeeds {
                        flood.try_succeeded();
                        prop_assert!(flood.hold().is_none());
                        row = row.min(max - (max / 10).max(1));
                    } else {
                        flood.try_failed(1, now);
                        row += 1;
                        prop_assert_eq!(flood.next_try(), Some(now + INTERVAL));
                    }
                }
                Event::HandOver => {
                    flood = Flood::resume(limits, flood.mark(), now);
                    prop_assert_eq!(flood.hold().is_some(), held);
                }
            }
        }
    }

    /// Beside the last outcomes written out.
    #[test]
    fn the_ratio_is_reached_when_the_last_thousand_say_so(
        // Rows of the same outcome, so that the window fills.
        rows in prop::collection::vec((any::<bool>(), 1..400_usize), 0..12),
        max_ratio in 0.01..=1.0_f64,
    ) {
        let mut flood = fresh(limits(0, max_ratio));
        let mut recent: VecDeque<bool> = VecDeque::new();
        for dead in rows.into_iter().flat_map(|(dead, count)| std::iter::repeat_n(dead, count)) {
            let share = |recent: &VecDeque<bool>| {
                let dead = recent.iter().filter(|dead| **dead).count();
                f64::from(u32::try_from(dead).unwrap()) / 1_000.0
            };
            if dead {
                prop_assert_eq!(flood.admit(1, START), Admission::Send);
            } else {
                flood.succeeded();
            }
            recent.push_back(dead);
            if recent.len() > RECENT {
                recent.pop_front();
            }
            prop_assert_eq!(flood.hold().is_some(), max_ratio <= share(&recent));
            if flood.hold().is_some() {
                break;
            }
        }
    }

    #[test]
    fn what_is_carried_to_the_next_owner_is_what_it_goes_on_with(
        outcomes in prop::collection::vec(any::<bool>(), 0..2_500),
        max in 0..200_u32,
        max_ratio in 0.0..=1.0_f64,
    ) {
        let limits = limits(max, max_ratio);
        let mut flood = fresh(limits);
        for dead in outcomes {
            if dead {
                let held = flood.hold().is_some();
                prop_assert_eq!(flood.admit(1, START) == Admission::Wait, held);
            } else {
                flood.succeeded();
            }
        }
        let mut next = Flood::resume(limits, flood.mark(), START);
        prop_assert_eq!(next.mark(), flood.mark());
        prop_assert_eq!(next.hold().map(|hold| hold.reason), flood.hold().map(|hold| hold.reason));
        if flood.hold().is_none() && max_ratio == 0.0 {
            prop_assert_eq!(fill(&mut next), fill(&mut flood));
        }
    }
}
