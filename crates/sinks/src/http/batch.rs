//! One batch: which of its requests is sent next, and what an answer means for those behind it.
//!
//! Requests to an address that refuses for now hold what else is meant for it, so that nothing is
//! overtaken; other addresses are served. A batch that takes long is answered when its time is up,
//! for nothing new joins it and nothing of it is dropped before.

use std::collections::HashMap;

use drakkar_core::{Delivery, SinkError};
use reqwest::Url;
use tokio::time::Instant;

/// Payloads that are one request, by their places in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub url: Url,
    pub places: Vec<usize>,
}

/// What is left of a batch.
pub(super) struct Batch {
    /// The next one last.
    groups: Vec<Group>,
    /// Why nothing more is sent.
    down: Option<SinkError>,
    /// Why nothing more is sent to an address.
    held: HashMap<Url, SinkError>,
    /// When the rest is left to the next attempt, if this one came to anything.
    until: Instant,
    has_settled: bool,
    outcomes: Vec<Delivery>,
}

impl Batch {
    /// `outcomes`: what becomes of payloads that are in no group.
    pub(super) fn new(mut groups: Vec<Group>, outcomes: Vec<Delivery>, until: Instant) -> Self {
        groups.reverse();
        let held = HashMap::new();
        Self { groups, down: None, held, until, has_settled: false, outcomes }
    }

    /// What is to be sent now; answers for what is not.
    pub(super) fn next(&mut self, now: Instant) -> Option<Group> {
        while let Some(group) = self.groups.pop() {
            let Some(error) = self.reason_to_hold(&group.url, now) else { return Some(group) };
            self.settle(&group, &Delivery::Transient(error));
        }
        None
    }

    fn reason_to_hold(&self, url: &Url, now: Instant) -> Option<SinkError> {
        let late = || SinkError::new("no_time", "the batch took long; the rest is sent next");
        let known = self.down.as_ref().or_else(|| self.held.get(url)).cloned();
        known.or_else(|| (self.has_settled && self.until <= now).then(late))
    }

    /// What became of `group`. One that was refused as a whole is cut in halves.
    pub(super) fn answered(&mut self, group: &Group, outcome: &Delivery) {
        match outcome {
            Delivery::Permanent(_) if 1 < group.places.len() => {
                let (left, right) = group.places.split_at(group.places.len() / 2);
                let half = |of: &[usize]| Group { url: group.url.clone(), places: of.to_vec() };
                self.groups.extend([half(right), half(left)]);
                return; // Nothing has come of it yet.
            }
            Delivery::Transient(error) if is_of_one_address(error) => {
                self.held.insert(group.url.clone(), error.clone());
            }
            Delivery::Transient(error) => self.down = Some(error.clone()),
            Delivery::Confirmed | Delivery::Permanent(_) => self.has_settled = true,
        }
        self.settle(group, outcome);
    }

    fn settle(&mut self, group: &Group, outcome: &Delivery) {
        for &at in &group.places {
            self.outcomes[at] = outcome.clone();
        }
    }

    /// What became of each payload.
    pub(super) fn into_outcomes(self) -> Vec<Delivery> {
        self.outcomes
    }
}

/// Whether other addresses of the endpoint may do. What is not there, or has too much to do, is not
/// asked for anything else.
fn is_of_one_address(error: &SinkError) -> bool {
    error.class.starts_with("http_") && !matches!(&*error.class, "http_429" | "http_503")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn group(path: &str, places: &[usize]) -> Group {
        let url = Url::parse("http://h").unwrap().join(path).unwrap();
        Group { url, places: places.to_vec() }
    }

    fn transient(class: &str) -> Delivery {
        Delivery::Transient(SinkError::new(class, ""))
    }

    fn permanent() -> Delivery {
        Delivery::Permanent(SinkError::new("http_400", ""))
    }

    /// What is sent, each request taking a second of five, and the outcome of each payload:
    /// `+` confirmed, `~` held, `-` refused.
    fn run(groups: &[Group], answer: impl Fn(&Group) -> Delivery) -> (Vec<Vec<usize>>, String) {
        let count = groups.iter().map(|group| group.places.len()).sum();
        let mut now = Instant::now();
        let until = now + Duration::from_secs(5);
        let mut batch = Batch::new(groups.to_vec(), vec![transient("unsent"); count], until);
        let mut sent = Vec::new();
        while let Some(group) = batch.next(now) {
            sent.push(group.places.clone());
            let outcome = answer(&group);
            batch.answered(&group, &outcome);
            now += Duration::from_secs(1);
        }
        let sign = |outcome| match outcome {
            Delivery::Confirmed => '+',
            Delivery::Transient(_) => '~',
            Delivery::Permanent(_) => '-',
        };
        (sent, batch.into_outcomes().into_iter().map(sign).collect())
    }

    #[test]
    fn an_address_in_trouble_holds_its_own_payloads_and_no_others() {
        let groups = [group("/a", &[0]), group("/b", &[1]), group("/a", &[2]), group("/c", &[3])];
        let (sent, outcomes) = run(&groups, |group| match group.url.path() {
            "/a" => transient("http_500"),
            _ => Delivery::Confirmed,
        });
        assert_eq!((sent, &*outcomes), (vec![vec![0], vec![1], vec![3]], "~+~+"));
    }

    #[test]
    fn an_endpoint_that_is_away_or_overloaded_is_asked_no_further() {
        let groups = [group("/a", &[0]), group("/b", &[1, 2])];
        for class in ["connect", "connection", "timeout", "http_429", "http_503"] {
            let (sent, outcomes) = run(&groups, |_| transient(class));
            assert_eq!((sent, &*outcomes), (vec![vec![0]], "~~~"), "{class}");
        }
    }

    #[test]
    fn the_halves_of_a_refused_batch_keep_their_order_where_one_is_held() {
        let groups = [group("/a", &[0, 1, 2, 3]), group("/b", &[4])];
        let (sent, outcomes) = run(&groups, |group| match &group.places[..] {
            [0, 1, ..] => permanent(),
            [1] => transient("http_500"),
            _ => Delivery::Confirmed,
        });
        let expected = vec![vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![1], vec![4]];
        assert_eq!((sent, &*outcomes), (expected, "+~~~+"));
    }

    #[test]
    fn a_batch_ends_when_its_time_is_up_but_not_before_it_came_to_something() {
        let all: Vec<usize> = (0..64).collect();
        let (sent, outcomes) = run(&[group("/a", &all)], |_| permanent());
        assert_eq!(sent.last(), Some(&vec![0]), "alone after six cuts, which take six seconds");
        assert_eq!(sent.len(), 7);
        assert_eq!(outcomes, format!("-{}", "~".repeat(63)));
    }
}
