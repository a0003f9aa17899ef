//! What settling promises, against a server that is a few lines of code.

use drakkar_core::PostgresPayload;
use proptest::prelude::*;
use serde_json::json;

use super::{super::plan::plan, *};

/// A table: takes good rows, refuses bad ones, and knows what it was asked.
#[derive(Default)]
struct Table {
    /// Rows at fault, by their number.
    bad: Vec<usize>,
    /// The statement that does not answer, by how many there were before.
    silent_from: Option<usize>,
    /// More rows than these take too long.
    most: Option<usize>,
    asked: usize,
    rows: Vec<usize>,
}

impl Execute for Table {
    async fn execute(&mut self, _: &Work<'_>, items: &[Item<'_>]) -> Said {
        let before = self.asked;
        self.asked += 1;
        if self.silent_from.is_some_and(|from| from <= before) {
            return Said::Later(SinkError::new("connection", "gone"));
        }
        if self.most.is_some_and(|most| most < items.len()) {
            return Said::TooSlow(SinkError::new("57014", "slow"));
        }
        if items.iter().any(|item| self.bad.contains(&item.index)) {
            return Said::AtFault(SinkError::new("23514", "bad"));
        }
        self.rows.extend(items.iter().map(|item| item.index));
        Said::Done
    }
}

/// As many rows; the table changes every `every` rows.
fn batch(count: usize, every: usize) -> Vec<PostgresPayload> {
    (0..count)
        .map(|number| {
            let table = format!("t{}", number / every % 2);
            PostgresPayload::insert(table, &json!({"n": number})).unwrap()
        })
        .collect()
}

fn settled(batch: &[PostgresPayload], most: &Most, table: &mut Table) -> Vec<Delivery> {
    let statements = std::collections::BTreeMap::new();
    let plan = plan(batch, &statements);
    futures_util::FutureExt::now_or_never(settle(plan, batch.len(), most, table)).unwrap()
}

proptest! {
    #[test]
    fn every_row_is_answered_as_it_was_written_in_order_and_once(
        count in 1..200_usize,
        every in 1..70_usize,
        bad in prop::collection::vec(0..200_usize, 0..8),
        silent_from in prop::option::of(0..40_usize),
    ) {
        let batch = batch(count, every);
        let mut table = Table { bad, silent_from, ..Table::default() };
        let outcomes = settled(&batch, &Most::default(), &mut table);
        let confirmed: Vec<usize> = (0..count)
            .filter(|index| outcomes[*index] == Delivery::Confirmed)
            .collect();
        prop_assert_eq!(&confirmed, &table.rows);
        let mut waits = false;
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Delivery::Permanent(_) => prop_assert!(table.bad.contains(&index)),
                Delivery::Confirmed => prop_assert!(!table.bad.contains(&index)),
                Delivery::Transient(_) => prop_assert!(table.silent_from.is_some()),
            }
            // Nothing is written behind what has to wait.
            prop_assert!(!waits || matches!(outcome, Delivery::Transient(_)));
            waits |= matches!(outcome, Delivery::Transient(_));
        }
    }
}

#[test]
fn one_bad_row_of_a_thousand_costs_a_few_statements() {
    let mut table = Table { bad: vec![617], ..Table::default() };
    let outcomes = settled(&batch(1_000, 1_000), &Most::default(), &mut table);
    assert!(matches!(&outcomes[617], Delivery::Permanent(error) if error.class == "23514"));
    assert_eq!(table.rows.len(), 999);
    assert!(table.asked <= 21, "{}", table.asked);
}

#[test]
fn rows_that_take_too_long_together_are_written_in_smaller_pieces_until_they_do_not() {
    let (batch, most) = (batch(100, 100), Most::default());
    let mut table = Table { most: Some(30), ..Table::default() };
    let mut attempts = 1;
    while settled(&batch, &most, &mut table).contains(&Delivery::Confirmed).eq(&false) {
        attempts += 1;
    }
    assert_eq!(attempts, 3);
    // Fast again: pieces grow back.
    let mut table = Table::default();
    assert!(
        settled(&batch, &most, &mut table).iter().all(|outcome| *outcome == Delivery::Confirmed)
    );
    assert_eq!(table.rows, (0..100).collect::<Vec<_>>());
    let mut table = Table::default();
    drop(settled(&batch, &most, &mut table));
    assert_eq!(table.asked, 1);
}
