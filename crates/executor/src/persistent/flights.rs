//! Which requests one process has and has not answered, and who is to blame when it fails. Pure.
//!
//! Ids are never used twice in the life of a process, so an answer that comes late, twice or unasked
//! finds nobody. The clock of a request runs while it is the oldest: a program that takes one request
//! after the other is not charged for the time it spent on earlier ones.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// One request on its way.
#[derive(Debug)]
pub(super) struct Flight<T> {
    id: u64,
    pub(super) limit: Duration,
    pub(super) sent: Instant,
    pub(super) item: T,
}

/// Who pays for a failure of the process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blame<T> {
    /// It was its doing.
    pub(super) charged: Option<T>,
    /// Bystanders, from the oldest to the youngest.
    pub(super) others: Vec<T>,
}

/// The requests of one process, from the oldest to the youngest.
#[derive(Debug)]
pub(super) struct Flights<T> {
    waiting: VecDeque<Flight<T>>,
    next_id: u64,
    /// Since when the first of `waiting` is the first.
    oldest_since: Instant,
}

impl<T> Flights<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), next_id: 1, oldest_since: now }
    }

    /// The id for the next request.
    pub(super) fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// A request with the latest id is on its way.
    pub(super) fn sent(&mut self, id: u64, item: T, limit: Duration, now: Instant) {
        if self.waiting.is_empty() {
            self.oldest_since = now;
        }
        self.waiting.push_back(Flight { id, limit, sent: now, item });
    }

    /// The request that was answered; without an id the oldest. `None`: nobody waits for that.
    pub(super) fn answered(&mut self, id: Option<u64>, now: Instant) -> Option<Flight<T>> {
        let at = match id {
            None => 0,
            Some(id) => self.waiting.binary_search_by_key(&id, |flight| flight.id).ok()?,
        };
        let flight = self.waiting.remove(at)?;
        if at == 0 {
            self.oldest_since = now;
        }
        Some(flight)
    }

    /// When the oldest request is overdue, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let oldest = self.waiting.front()?;
        self.oldest_since.checked_add(oldest.limit)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|flight| &flight.item)
    }

    /// The time of the oldest is over: it pays.
    pub(super) fn overdue(self) -> Blame<Flight<T>> {
        let mut waiting = self.waiting.into_iter();
        Blame { charged: waiting.next(), others: waiting.collect() }
    }

    /// The process failed: who was alone in it pays. Among several nobody knows whose doing it was.
    pub(super) fn failed(self) -> Blame<Flight<T>> {
        if self.waiting.len() == 1 { self.overdue() } else { self.ended() }
    }

    /// We ended the process: nobody pays.
    pub(super) fn ended(self) -> Blame<Flight<T>> {
        Blame { charged: None, others: self.waiting.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flights(items: &[char], now: Instant) -> Flights<char> {
        let mut flights = Flights::new(now);
        for &item in items {
            let id = flights.next_id();
            flights.sent(id, item, SECOND, now);
        }
        flights
    }

    fn items(blame: Blame<Flight<char>>) -> (Option<char>, String) {
        let others = blame.others.into_iter().map(|flight| flight.item).collect();
        (blame.charged.map(|flight| flight.item), others)
    }

    #[tokio::test]
    async fn an_answer_finds_its_request_once_and_an_unknown_one_finds_nobody() {
        let now = Instant::now();
        let mut flights = flights(&['a', 'b', 'c'], now);
        let mut answered = |id| flights.answered(id, now).map(|flight| flight.item);
        assert_eq!(answered(Some(2)), Some('b'));
        assert_eq!(answered(Some(2)), None, "twice");
        assert_eq!(answered(Some(4)), None, "never sent");
        assert_eq!(answered(None), Some('a'));
        assert_eq!(answered(Some(3)), Some('c'));
        assert_eq!(answered(None), None);
    }

    #[tokio::test]
    async fn an_id_is_never_used_twice() {
        let now = Instant::now();
        let mut flights = flights(&['a'], now);
        flights.answered(Some(1), now).unwrap();
        assert_eq!(flights.next_id(), 2);
        assert_eq!(flights.next_id(), 3, "also where the one before was not sent");
    }

    #[tokio::test]
    async fn the_clock_of_a_request_runs_while_it_is_the_oldest() {
        let start = Instant::now();
        let mut flights = flights(&['a', 'b', 'c'], start);
        assert_eq!(flights.deadline(), Some(start + SECOND));
        flights.answered(Some(2), start + SECOND / 2).unwrap();
        assert_eq!(flights.deadline(), Some(start + SECOND), "it was not the oldest");
        flights.answered(Some(1), start + SECOND / 2).unwrap();
        assert_eq!(flights.deadline(), Some(start + SECOND * 3 / 2));
        flights.answered(Some(3), start + SECOND).unwrap();
        assert_eq!(flights.deadline(), None);
        let id = flights.next_id();
        flights.sent(id, 'd', SECOND, start + SECOND * 9);
        assert_eq!(flights.deadline(), Some(start + SECOND * 10));
    }

    #[tokio::test]
    async fn a_request_may_take_for_ever() {
        let now = Instant::now();
        let mut flights = Flights::new(now);
        let id = flights.next_id();
        flights.sent(id, 'a', Duration::MAX, now);
        assert_eq!(flights.deadline(), None);
    }

    #[tokio::test]
    async fn who_was_alone_is_charged_and_who_was_in_company_is_not() {
        let now = Instant::now();
        assert_eq!(items(flights(&['a'], now).failed()), (Some('a'), String::new()));
        assert_eq!(items(flights(&['a', 'b'], now).failed()), (None, "ab".to_owned()));
        assert_eq!(items(flights(&['a', 'b'], now).overdue()), (Some('a'), "b".to_owned()));
        assert_eq!(items(flights(&['a', 'b'], now).ended()), (None, "ab".to_owned()));
        assert_eq!(items(flights(&[], now).failed()), (None, String::new()));
    }
}
