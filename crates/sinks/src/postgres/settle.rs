//! Runs → one outcome per payload: in order, each run whole or in halves until the payload at fault
//! stands alone.
//!
//! Pure but for whoever executes. What is confirmed was written once; behind what has to wait nothing
//! is written; a payload at fault delays nobody.

use std::{future::Future, ops::Range};

use drakkar_core::{Delivery, SinkError};

use super::{
    plan::{Item, Plan, Run, Work},
    verdict::Said,
};
use crate::most::Most;

/// Who executes statements; each is written whole or not at all.
pub(super) trait Execute {
    /// Writes `items` of a run.
    fn execute(&mut self, work: &Work<'_>, items: &[Item<'_>])
    -> impl Future<Output = Said> + Send;
}

/// Writes what was planned for a batch of `count` payloads.
pub(super) async fn settle(
    plan: Plan<'_>,
    count: usize,
    most: &Most,
    executor: &mut impl Execute,
) -> Vec<Delivery> {
    let mut outcomes: Vec<Option<Delivery>> = vec![None; count];
    for (index, error) in plan.refused {
        outcomes[index] = Some(Delivery::Permanent(error));
    }
    let mut held = None;
    for run in &plan.runs {
        if let Err(error) = in_order(run, most, executor, &mut outcomes).await {
            held = Some(error);
            break;
        }
    }
    let held = held.unwrap_or_else(|| SinkError::new("bug", "a payload was forgotten"));
    let waits = || Delivery::Transient(held.clone());
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(waits)).collect()
}

/// Writes a run; `Err` when what is left of it, and all behind it, has to wait.
async fn in_order(
    run: &Run<'_>,
    most: &Most,
    executor: &mut impl Execute,
    outcomes: &mut [Option<Delivery>],
) -> Result<(), SinkError> {
    let mut pieces = pieces(run.items.len(), most.get());
    while let Some(piece) = pieces.pop() {
        let items = &run.items[piece.clone()];
        match executor.execute(&run.work, items).await {
            Said::Done => {
                most.was_fine(items.len());
                for item in items {
                    outcomes[item.index] = Some(Delivery::Confirmed);
                }
            }
            Said::AtFault(error) => match items {
                [item] => outcomes[item.index] = Some(Delivery::Permanent(error)),
                _ => pieces.extend(halves(piece)),
            },
            Said::TooSlow(error) => {
                most.was_too_many(items.len());
                return Err(error);
            }
            Said::Later(error) => return Err(error),
        }
    }
    Ok(())
}

/// Pieces of at most `most`; the first one last, to be taken first.
fn pieces(count: usize, most: usize) -> Vec<Range<usize>> {
    let pieces = (0..count).step_by(most.max(1));
    pieces.map(|from| from..(from + most).min(count)).rev().collect()
}

fn halves(piece: Range<usize>) -> [Range<usize>; 2] {
    let middle = usize::midpoint(piece.start, piece.end);
    [middle..piece.end, piece.start..middle]
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
