//! The offset below which everything is settled.
//!
//! Tasks finish out of order; Kafka stores one number per partition. A [`Watermark`] bridges the two:
//! it moves past an offset once that offset and every earlier one that was delivered to us is
//! settled. Offsets that were never delivered (compaction, transaction markers) are no obstacle.
//! It does no I/O and has no clock; every step costs O(log n) however much is stuck.

use std::collections::VecDeque;

use crate::Offset;

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: Offset,
    settled: bool,
}

/// Which offsets of one assignment are settled.
#[derive(Debug, Default)]
pub struct Watermark {
    /// From the first unsettled offset on, ascending.
    entries: VecDeque<Entry>,
    /// The last offset that was begun.
    last: Option<Offset>,
    /// What may be committed.
    position: Option<Offset>,
    unsettled: usize,
}

impl Watermark {
    /// A message was delivered to us. `false` if it, or a later one, was delivered before.
    pub fn begin(&mut self, offset: Offset) -> bool {
        if self.last.is_some_and(|last| offset <= last) {
            return false;
        }
        self.last = Some(offset);
        self.entries.push_back(Entry { offset, settled: false });
        self.unsettled += 1;
        true
    }

    /// A message is settled. Unknown and repeated offsets change nothing.
    pub fn settle(&mut self, offset: Offset) {
        let Some(index) = self.find(offset) else { return };
        if std::mem::replace(&mut self.entries[index].settled, true) {
            return;
        }
        self.unsettled -= 1;
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.position = self.entries.pop_front().map(|entry| entry.offset.next());
        }
    }

    fn find(&self, offset: Offset) -> Option<usize> {
        // Where the log has no gaps, it is as far from the first as its offset is.
        let distance = offset.0.checked_sub(self.entries.front()?.offset.0)?;
        let guess = usize::try_from(distance).ok()?;
        match self.entries.get(guess) {
            Some(entry) if entry.offset == offset => Some(guess),
            _ => self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok(),
        }
    }

    /// What may be committed: every delivered offset below it is settled. Never goes back.
    #[must_use]
    pub fn position(&self) -> Option<Offset> {
        self.position
    }

    /// Settled offsets above [`Self::position`], ascending.
    pub fn settled_above(&self) -> impl Iterator<Item = Offset> {
        self.entries.iter().filter(|entry| entry.settled).map(|entry| entry.offset)
    }

    /// The first offset that is not settled, of those delivered.
    #[must_use]
    pub fn first_unsettled(&self) -> Option<Offset> {
        self.entries.front().map(|entry| entry.offset)
    }

    /// The last offset that was delivered.
    #[must_use]
    pub fn last(&self) -> Option<Offset> {
        self.last
    }

    /// How many delivered offsets are not settled.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// How many offsets are remembered: unsettled ones and settled ones behind them.
    #[must_use]
    pub fn span(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(settled: &[i64], positions: &[Option<i64>]) {
        let mut mark = Watermark::default();
        (10..13).for_each(|offset| assert!(mark.begin(Offset(offset))));
        let moved: Vec<Option<i64>> = settled
            .iter()
            .map(|&offset| {
                mark.settle(Offset(offset));
                mark.position().map(|position| position.0)
            })
            .collect();
        assert_eq!(moved, positions);
    }

    #[test]
    fn it_moves_with_every_offset_settled_in_order() {
        check(&[10, 11, 12], &[Some(11), Some(12), Some(13)]);
    }

    #[test]
    fn a_gap_holds_it_back_until_it_is_filled() {
        check(&[12, 11, 10], &[None, None, Some(13)]);
    }

    #[test]
    fn settling_twice_or_settling_the_unknown_changes_nothing() {
        check(&[10, 10, 99, 11], &[Some(11), Some(11), Some(11), Some(12)]);
    }

    #[test]
    fn an_offset_that_was_delivered_before_is_refused() {
        let mut mark = Watermark::default();
        assert!(mark.begin(Offset(5)));
        assert!(!mark.begin(Offset(5)));
        assert!(!mark.begin(Offset(4)));
        assert_eq!(mark.unsettled(), 1);
    }

    #[test]
    fn offsets_that_were_never_delivered_are_no_obstacle() {
        let mut mark = Watermark::default();
        for offset in [3, 7, 20] {
            assert!(mark.begin(Offset(offset)));
        }
        mark.settle(Offset(7));
        assert_eq!(mark.settled_above().collect::<Vec<_>>(), [Offset(7)]);
        mark.settle(Offset(3));
        assert_eq!(mark.position(), Some(Offset(8)));
        assert_eq!(mark.first_unsettled(), Some(Offset(20)));
    }
}
