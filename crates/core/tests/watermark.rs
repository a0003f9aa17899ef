//! The watermark beside a naive model: a sorted map that is searched from its beginning every time.

use std::collections::BTreeMap;

use drakkar_core::{Offset, watermark::Watermark};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    /// Deliver the offset that lies this far behind the last one.
    Deliver(i64),
    /// Deliver an offset that was delivered, or skipped, before.
    DeliverAgain(i64),
    /// Settle one of those delivered, whether settled or not.
    Settle(prop::sample::Index),
    /// Settle any number at all.
    SettleUnknown(i64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let gap = prop_oneof![4 => Just(1_i64), 1 => 2..50_i64];
    let op = prop_oneof![
        5 => gap.prop_map(Op::Deliver),
        1 => (0..60_i64).prop_map(Op::DeliverAgain),
        6 => any::<prop::sample::Index>().prop_map(Op::Settle),
        1 => (-5..400_i64).prop_map(Op::SettleUnknown),
    ];
    prop::collection::vec(op, 0..200)
}

/// What was delivered, and whether it is settled.
#[derive(Debug, Default)]
struct Model(BTreeMap<i64, bool>);

impl Model {
    fn last(&self) -> Option<i64> {
        self.0.keys().next_back().copied()
    }

    fn first_unsettled(&self) -> Option<i64> {
        self.0.iter().find(|(_, settled)| !**settled).map(|(&offset, _)| offset)
    }

    fn position(&self) -> Option<i64> {
        let below = self.first_unsettled().unwrap_or(i64::MAX);
        self.0.range(..below).next_back().map(|(offset, _)| offset + 1)
    }

    fn settled_above(&self) -> Vec<Offset> {
        let from = self.first_unsettled().unwrap_or(i64::MAX);
        self.0.range(from..).filter(|(_, settled)| **settled).map(|(&o, _)| Offset(o)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_says_what_a_search_from_the_beginning_would_say(start in 0..100_i64, ops in ops()) {
        let mut mark = Watermark::default();
        let mut model = Model::default();
        let mut before = None;
        for op in ops {
            match op {
                Op::Deliver(gap) => {
                    let offset = model.last().map_or(start, |last| last + gap);
                    prop_assert!(mark.begin(Offset(offset)));
                    model.0.insert(offset, false);
                }
                Op::DeliverAgain(back) => {
                    if let Some(last) = model.last() {
                        prop_assert!(!mark.begin(Offset(last - back)));
                    }
                }
                Op::Settle(index) => {
                    if !model.0.is_empty() {
                        let (&offset, _) = model.0.iter().nth(index.index(model.0.len())).unwrap();
                        mark.settle(Offset(offset));
                        model.0.insert(offset, true);
                    }
                }
                Op::SettleUnknown(offset) => {
                    mark.settle(Offset(offset));
                    model.0.entry(offset).and_modify(|settled| *settled = true);
                }
            }
            let position = mark.position();
            prop_assert!(before <= position, "went back from {before:?} to {position:?}");
            before = position;
            prop_assert_eq!(position, model.position().map(Offset));
            prop_assert_eq!(mark.first_unsettled(), model.first_unsettled().map(Offset));
            prop_assert_eq!(mark.settled_above().collect::<Vec<_>>(), model.settled_above());
            prop_assert_eq!(mark.unsettled(), model.0.values().filter(|settled| !**settled).count());
            prop_assert_eq!(mark.span(), mark.unsettled() + mark.settled_above().count());
        }
    }

    #[test]
    fn once_all_is_settled_in_any_order_everything_may_be_committed(
        order in prop::collection::btree_set(0..10_000_i64, 1..300)
            .prop_flat_map(|offsets| {
                let ascending: Vec<i64> = offsets.into_iter().collect();
                (Just(ascending.clone()), Just(ascending).prop_shuffle())
            }),
    ) {
        let (delivered, settled) = order;
        let mut mark = Watermark::default();
        for &offset in &delivered {
            prop_assert!(mark.begin(Offset(offset)));
        }
        for &offset in &settled {
            mark.settle(Offset(offset));
        }
        prop_assert_eq!(mark.position(), delivered.last().map(|&last| Offset(last).next()));
        prop_assert_eq!((mark.unsettled(), mark.span()), (0, 0));
    }
}

#[test]
#[expect(clippy::disallowed_types, reason = "measures real cost; there is no time to pause")]
fn a_hundred_thousand_settled_behind_a_stuck_offset_do_not_make_settling_slower() {
    const CHUNK: i64 = 1_000;
    const CHUNKS: i64 = 100;
    let mut mark = Watermark::default();
    (0..=CHUNK * CHUNKS).for_each(|offset| assert!(mark.begin(Offset(offset))));
    let mut settle = |chunk: i64| {
        let started = std::time::Instant::now();
        (1..=CHUNK).for_each(|n| mark.settle(Offset(chunk * CHUNK + n)));
        assert_eq!(mark.position(), None, "offset 0 is stuck");
        started.elapsed()
    };
    let first = settle(0);
    // A binary search never comes near twelve times the first chunk; a search from the beginning is
    // there for good after a dozen chunks. A busy machine slows single chunks, not many in a row.
    let mut slow_in_a_row = 0;
    for chunk in 1..CHUNKS {
        slow_in_a_row = if settle(chunk) < 12 * first { 0 } else { slow_in_a_row + 1 };
        assert!(slow_in_a_row < 10, "chunk {chunk} is more than twelve times as slow as the first");
    }
}
