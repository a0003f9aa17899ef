//! Who gets the next slot: the lowest [`Rank`], and among equals whoever came first.
//!
//! An ordered map rather than a heap: what is withdrawn leaves at once, so there are no tombstones to
//! purge, and every step costs O(log n).

use std::collections::BTreeMap;

/// Where a job stands in line. The lower, the sooner; the fields count in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// What the handler says.
    pub priority: i64,
    /// When the oldest message of the task was written: the oldest message of all partitions goes
    /// first.
    pub age: u64,
}

/// A place in the queue, unique for its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    rank: Rank,
    arrival: u64,
}

/// What waits for a slot.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: BTreeMap<Place, T>,
    arrivals: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), arrivals: 0 }
    }
}

impl<T> Queue<T> {
    /// Lets `item` wait behind everything of the same rank.
    pub(crate) fn push(&mut self, rank: Rank, item: T) -> Place {
        let place = Place { rank, arrival: self.arrivals };
        self.arrivals += 1;
        self.waiting.insert(place, item);
        place
    }

    /// Lets `item` wait where it was before it was taken.
    pub(crate) fn put_back(&mut self, place: Place, item: T) {
        self.waiting.insert(place, item);
    }

    /// Takes who is next.
    pub(crate) fn pop(&mut self) -> Option<(Place, T)> {
        self.waiting.pop_first()
    }

    /// Takes what waits at `place`, if it still does.
    pub(crate) fn withdraw(&mut self, place: Place) -> Option<T> {
        self.waiting.remove(&place)
    }

    /// Takes everything.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.waiting).into_values()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(priority: i64, age: u64) -> Rank {
        Rank { priority, age }
    }

    #[test]
    fn priority_comes_before_age_and_age_before_arrival() {
        let mut queue = Queue::default();
        for (item, at) in
            [rank(1, 0), rank(0, 9), rank(0, 3), rank(0, 3), rank(-1, 99)].into_iter().enumerate()
        {
            queue.push(at, item);
        }
        let order: Vec<usize> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, [4, 2, 3, 1, 0]);
    }

    #[test]
    fn what_is_withdrawn_is_gone_and_nothing_else() {
        let mut queue = Queue::default();
        let places: Vec<Place> = (0..5).map(|item| queue.push(rank(0, 0), item)).collect();
        assert_eq!(queue.withdraw(places[1]), Some(1));
        assert_eq!(queue.withdraw(places[1]), None);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.pop(), Some((places[0], 0)));
        assert_eq!(queue.withdraw(places[0]), None);
        assert_eq!(queue.clear().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(queue.len(), 0);
    }
}
