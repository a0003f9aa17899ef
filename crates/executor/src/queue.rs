//! Who is next: the best priority, and among equals the oldest; but whoever has waited too long goes
//! first whatever its priority, the oldest before the others.
//!
//! Nearly all come in the order in which they are to go: they stand in a line, one behind the other. For
//! the others there are two ordered indexes rather than a heap: the worst is found as fast as the best.
//! Every step costs O(log n), and of those in the line most cost nothing of the kind. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// What a job has to say for itself. The lower, the sooner; the fields count in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// What the handler says.
    pub priority: i64,
    /// Since when it waits: when its task was arranged.
    pub since: Instant,
    /// Its number among those that were arranged together.
    pub sequence: u64,
}

/// Where a rank stands at a certain time. The lower, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has waited too long: only its age counts.
    Overdue(Instant, u64),
    /// It waits.
    Waiting(Rank),
}

impl Rank {
    /// The rank of a job that begins to wait at `since` and has no priority.
    #[must_use]
    pub fn at(since: Instant) -> Self {
        Self { priority: 0, since, sequence: 0 }
    }

    /// Where it stands at `now` if `ageing` is too long to wait.
    #[must_use]
    pub fn standing(self, ageing: Duration, now: Instant) -> Standing {
        if ageing <= now.saturating_duration_since(self.since) {
            Standing::Overdue(self.since, self.sequence)
        } else {
            Standing::Waiting(self)
        }
    }
}

/// A place in a queue, unique there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    rank: Rank,
    arrival: u64,
}

impl Place {
    /// The rank by which it was given.
    #[must_use]
    pub fn rank(self) -> Rank {
        self.rank
    }

    pub(crate) fn age(self) -> Age {
        Age(self.rank.since, self.rank.sequence, self.arrival, self.rank.priority)
    }
}

/// A place, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age(Instant, u64, u64, i64);

impl Age {
    fn place(self) -> Place {
        let Self(since, sequence, arrival, priority) = self;
        Place { rank: Rank { priority, since, sequence }, arrival }
    }
}

/// What waits for something of which there is too little.
#[derive(Debug)]
pub struct Queue<T> {
    ageing: Duration,
    line: Line<T>,
    /// Those that are not in the line.
    waiting: BTreeMap<Age, T>,
    /// The same places by rank, but for some that are overdue: those have no need of it.
    ranked: BTreeSet<Place>,
    arrivals: u64,
}

impl<T> Queue<T> {
    /// An empty queue, in which `ageing` is too long to wait.
    #[must_use]
    pub fn new(ageing: Duration) -> Self {
        let line = Line { places: VecDeque::new(), taken: 0 };
        Self { ageing, line, waiting: BTreeMap::new(), ranked: BTreeSet::new(), arrivals: 0 }
    }

    /// Lets `item` wait behind everything of the same rank.
    pub fn push(&mut self, rank: Rank, item: T) -> Place {
        let place = Place { rank, arrival: self.arrivals };
        self.arrivals += 1;
        if self.line.admits(place) {
            self.line.places.push_back((place, Some(item)));
        } else {
            self.put_back(place, item);
        }
        place
    }

    /// Lets `item` wait where it was before it was taken.
    pub(crate) fn put_back(&mut self, place: Place, item: T) {
        self.waiting.insert(place.age(), item);
        self.ranked.insert(place);
    }

    /// Who has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<Place> {
        if self.waiting.is_empty() {
            return self.line.first();
        }
        let other = self.waiting.first_key_value().map(|(age, _)| age.place());
        self.line.first().into_iter().chain(other).min_by_key(|place| place.age())
    }

    /// Who is next at `now`.
    #[must_use]
    pub fn best(&self, now: Instant) -> Option<Place> {
        if self.waiting.is_empty() {
            return self.line.first(); // Overdue or not, all the others are behind it.
        }
        let oldest = self.oldest()?;
        match self.standing(oldest, now) {
            Standing::Overdue(..) => Some(oldest),
            // Nobody is overdue, so all are ranked.
            Standing::Waiting(_) => {
                self.line.first().into_iter().chain(self.ranked.first().copied()).min()
            }
        }
    }

    /// Who is last at `now`.
    #[must_use]
    pub fn worst(&mut self, now: Instant) -> Option<Place> {
        let other = self.worst_of_others(now);
        let both = self.line.last().into_iter().chain(other);
        both.max_by_key(|&place| (self.standing(place, now), place.arrival))
    }

    fn worst_of_others(&mut self, now: Instant) -> Option<Place> {
        while let Some(&last) = self.ranked.last() {
            if let Standing::Waiting(_) = self.standing(last, now) {
                return Some(last);
            }
            self.ranked.pop_last();
        }
        self.waiting.last_key_value().map(|(age, _)| age.place())
    }

    /// Takes who is next at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<(Place, T)> {
        let place = self.best(now)?;
        self.withdraw(place).map(|item| (place, item))
    }

    /// What waits at `place`, if it still does.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<&T> {
        self.line.get(place).or_else(|| self.waiting.get(&place.age()))
    }

    /// Takes what waits at `place`, if it still does.
    pub fn withdraw(&mut self, place: Place) -> Option<T> {
        self.line.withdraw(place).or_else(|| {
            self.ranked.remove(&place);
            self.waiting.remove(&place.age())
        })
    }

    /// Takes everything, the oldest first.
    pub fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.ranked.clear();
        self.line.taken = 0;
        let line = self.line.places.drain(..);
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(line.filter_map(|(place, item)| Some((place.age(), item?))));
        all.into_values()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.line.places.len() - self.line.taken + self.waiting.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn standing(&self, place: Place, now: Instant) -> Standing {
        place.rank.standing(self.ageing, now)
    }
}

/// Those of one priority that came in the order of their age, so by rank they are in order as well.
#[derive(Debug)]
struct Line<T> {
    /// The first and the last are there; of those between them some were taken.
    places: VecDeque<(Place, Option<T>)>,
    taken: usize,
}

impl<T> Line<T> {
    fn admits(&self, place: Place) -> bool {
        self.last().is_none_or(|last| last.rank.priority == place.rank.priority && last < place)
    }

    fn first(&self) -> Option<Place> {
        self.places.front().map(|(place, _)| *place)
    }

    fn last(&self) -> Option<Place> {
        self.places.back().map(|(place, _)| *place)
    }

    fn find(&self, place: Place) -> Option<usize> {
        if self.first()? == place {
            return Some(0);
        }
        self.places.binary_search_by_key(&place, |(place, _)| *place).ok()
    }

    fn get(&self, place: Place) -> Option<&T> {
        self.places.get(self.find(place)?)?.1.as_ref()
    }

    fn withdraw(&mut self, place: Place) -> Option<T> {
        let index = self.find(place)?;
        if index == 0 {
            // As nearly always, and there is nothing to tidy up behind it but what was taken before.
            let (_, item) = self.places.pop_front()?;
            while self.places.pop_front_if(|(_, item)| item.is_none()).is_some() {
                self.taken -= 1;
            }
            return item;
        }
        let item = self.places.get_mut(index)?.1.take()?;
        self.taken += 1;
        while self.places.pop_front_if(|(_, item)| item.is_none()).is_some() {
            self.taken -= 1;
        }
        while self.places.pop_back_if(|(_, item)| item.is_none()).is_some() {
            self.taken -= 1;
        }
        if self.places.len() < 2 * self.taken {
            // The first waits for long while those behind it go.
            self.places.retain(|(_, item)| item.is_some());
            self.taken = 0;
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    const AGEING: Duration = Duration::from_mins(1);

    fn rank(born: Instant, priority: i64, since: u64, sequence: u64) -> Rank {
        Rank { priority, since: born + Duration::from_secs(since), sequence }
    }

    /// The order in which these ranks leave when nothing but a second passes between two.
    #[track_caller]
    fn check(ranks: &[(i64, u64)], from: u64, order: &[usize]) {
        let born = Instant::now();
        let mut queue = Queue::new(AGEING);
        for (item, &(priority, since)) in ranks.iter().enumerate() {
            queue.push(rank(born, priority, since, 0), item);
        }
        let mut now = born + Duration::from_secs(from);
        let left: Vec<usize> = std::iter::from_fn(|| {
            let next = queue.pop(now).map(|(_, item)| item);
            now += Duration::from_secs(1);
            next
        })
        .collect();
        assert_eq!(left, order);
    }

    #[test]
    fn priority_comes_before_age_and_age_before_arrival() {
        check(&[(1, 0), (0, 9), (0, 3), (0, 3), (-1, 30)], 30, &[4, 2, 3, 1, 0]);
    }

    #[test]
    fn whoever_has_waited_too_long_goes_first_and_the_oldest_of_them_before_the_others() {
        check(&[(-9, 50), (9, 3), (5, 7), (0, 40)], 70, &[1, 2, 0, 3]);
    }

    #[test]
    fn somebody_gets_overdue_while_others_are_served() {
        check(&[(0, 10), (0, 11), (0, 12), (7, 0)], 58, &[0, 1, 3, 2]);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push { priority: i64, sequence: u64, waits: u64 },
        Pop,
        Worst,
        Withdraw(Index),
        PutBack,
        Pass(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let push = (-2..3_i64, 0..3_u64, 0..90_u64);
        prop_oneof![
            4 => push.prop_map(|(priority, sequence, waits)| Op::Push { priority, sequence, waits }),
            2 => Just(Op::Pop),
            2 => Just(Op::Worst),
            2 => any::<Index>().prop_map(Op::Withdraw),
            1 => Just(Op::PutBack),
            1 => (0..40_u64).prop_map(Op::Pass),
        ]
    }

    /// A list that is sorted whenever it is looked at.
    #[derive(Default)]
    struct Naive(Vec<(Place, usize)>);

    impl Naive {
        fn sort(&mut self, now: Instant) {
            self.0.sort_by_key(|(place, _)| (place.rank.standing(AGEING, now), place.arrival));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_queue_is_a_list_that_is_always_sorted(ops in prop::collection::vec(op(), 0..80)) {
            let mut now = Instant::now() + Duration::from_secs(1_000);
            let (mut queue, mut naive) = (Queue::new(AGEING), Naive::default());
            for (item, op) in ops.into_iter().enumerate() {
                naive.sort(now);
                match op {
                    Op::Push { priority, sequence, waits } => {
                        let since = now - Duration::from_secs(waits);
                        let place = queue.push(Rank { priority, since, sequence }, item);
                        naive.0.push((place, item));
                    }
                    Op::Pop => {
                        let first = (!naive.0.is_empty()).then(|| naive.0.remove(0));
                        prop_assert_eq!(queue.pop(now), first);
                    }
                    Op::Worst => {
                        let last = naive.0.last().map(|(place, _)| *place);
                        prop_assert_eq!(queue.worst(now), last);
                    }
                    Op::Withdraw(pick) if !naive.0.is_empty() => {
                        let (place, item) = naive.0.remove(pick.index(naive.0.len()));
                        prop_assert_eq!(queue.get(place), Some(&item));
                        prop_assert_eq!(queue.withdraw(place), Some(item));
                        prop_assert_eq!(queue.withdraw(place), None);
                    }
                    Op::Withdraw(_) => {}
                    Op::PutBack => {
                        if let Some((place, item)) = queue.pop(now) {
                            queue.put_back(place, item);
                        }
                    }
                    Op::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                let oldest = naive.0.iter().map(|(place, _)| *place).min_by_key(|p| p.age());
                prop_assert_eq!(queue.oldest(), oldest);
                prop_assert_eq!((queue.len(), queue.is_empty()), (naive.0.len(), naive.0.is_empty()));
            }
            prop_assert_eq!(queue.clear().count(), naive.0.len());
            prop_assert!(queue.is_empty() && queue.best(now).is_none() && queue.worst(now).is_none());
        }
    }
}
