//! Tasks of a partition side by side, a line for each program they run: whoever waits for a program that
//! is busy stands in nobody else's way.
//!
//! Each line is a [`Queue`]. They are looked at one by one, there being as many as the configuration has
//! programs, and two more.

use drakkar_core::ledger::TaskKey;
use drakkar_executor::{Place, Queue, Rank, Standing};
use tokio::time::{Duration, Instant};

/// A line: its number.
pub(crate) type Line = usize;

/// The line of the tasks that need no slot.
pub(crate) const PRECOMPUTED: Line = 0;

/// A place in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub line: Line,
    place: Place,
}

/// The lines.
#[derive(Debug)]
pub(crate) struct Lines {
    ageing: Duration,
    lines: Vec<Queue<TaskKey>>,
}

impl Lines {
    /// Empty lines for tasks of so many programs, in which `ageing` is too long to wait.
    pub(crate) fn new(programs: usize, ageing: Duration) -> Self {
        let line = |_| Queue::new(ageing);
        Self { ageing, lines: (0..=programs).map(line).collect() }
    }

    /// Lets a task wait.
    pub(crate) fn push(&mut self, line: Line, rank: Rank, key: TaskKey) -> Spot {
        Spot { line, place: self.lines[line].push(rank, key) }
    }

    /// Takes what waits there, if it still does.
    pub(crate) fn withdraw(&mut self, Spot { line, place }: Spot) -> Option<TaskKey> {
        self.lines[line].withdraw(place)
    }

    /// Who has waited longest.
    pub(crate) fn oldest(&self) -> Option<Spot> {
        let oldest = self.spots(Queue::oldest);
        oldest.min_by_key(|spot| (spot.place.rank().since, spot.place.rank().sequence))
    }

    /// Who of the lines is next at `now`, behind whoever stands at `after`; one of each line.
    pub(crate) fn best(&self, now: Instant, after: Option<Standing>) -> Option<(Standing, Spot)> {
        let best = self.spots(|line| line.best(now));
        let standing = best.map(|spot| (self.standing(spot, now), spot));
        let behind = standing.filter(|(standing, _)| after.is_none_or(|after| after < *standing));
        behind.min_by_key(|(standing, _)| *standing)
    }

    /// Who of one line is last at `now`.
    pub(crate) fn worst(&mut self, line: Line, now: Instant) -> Option<(Standing, Spot)> {
        let place = self.lines[line].worst(now)?;
        let spot = Spot { line, place };
        Some((self.standing(spot, now), spot))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lines.iter().map(Queue::len).sum()
    }

    fn standing(&self, spot: Spot, now: Instant) -> Standing {
        spot.place.rank().standing(self.ageing, now)
    }

    fn spots(&self, of: impl Fn(&Queue<TaskKey>) -> Option<Place>) -> impl Iterator<Item = Spot> {
        let lines = self.lines.iter().enumerate();
        lines.filter_map(move |(line, queue)| Some(Spot { line, place: of(queue)? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_next_is_the_best_of_all_lines_and_behind_it_the_best_of_the_others() {
        let (start, ageing) = (Instant::now(), Duration::from_secs(10));
        let mut lines = Lines::new(2, ageing);
        let mut push = |line, priority, age: u64| {
            let since = start - Duration::from_secs(age);
            lines.push(line, Rank { priority, since, sequence: age }, TaskKey(age))
        };
        let (_, best) = (push(1, 0, 3), push(1, -1, 2));
        let (next, _) = (push(2, 0, 5), push(2, 0, 1));
        assert_eq!(lines.len(), 4);
        let (standing, spot) = lines.best(start, None).unwrap();
        assert_eq!(spot, best);
        let (standing, spot) = lines.best(start, Some(standing)).unwrap();
        assert_eq!(spot, next, "the other one of the first line has to wait for it");
        assert_eq!(lines.best(start, Some(standing)), None);
        assert_eq!(lines.oldest(), Some(next));
        let overdue = start + Duration::from_secs(5);
        assert_eq!(lines.best(overdue, None).map(|(_, spot)| spot), Some(next));
        assert_eq!(
            lines.worst(1, start).map(|(_, spot)| lines.withdraw(spot)),
            Some(Some(TaskKey(3)))
        );
        assert_eq!(lines.worst(0, start), None);
    }
}
