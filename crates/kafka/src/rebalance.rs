//! Partitions that are being handed over: taken from us, but not given up yet.
//!
//! Pure: time comes in as an argument. A revoke only opens a hand-over; the partitions stay ours while
//! the pipeline finishes. They are given up together, when every one was answered and its last
//! position committed, or when the time for that is over: a group must never wait for us for ever.

use std::{collections::BTreeMap, time::Duration};

use drakkar_core::TopicPartition;
use tokio::time::Instant;

/// The pipeline fences a partition when its grace ends; its answer then needs a moment to arrive.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// How long the last commit may take.
const COMMIT_TIME: Duration = Duration::from_secs(3);

/// How much longer than its grace a hand-over may take.
pub(crate) const OVERTIME: Duration = ANSWER_MARGIN.saturating_add(COMMIT_TIME);

/// The hand-overs that are open.
#[derive(Debug, Default)]
pub(crate) struct HandOvers {
    open: BTreeMap<TopicPartition, Answer>,
    stage: Option<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The pipeline works on this assignment of it.
    Awaited {
        epoch: u64,
    },
    Given,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Answers { until: Instant },
    Commits { until: Instant },
}

/// Partitions to give up now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GiveUp {
    pub(crate) partitions: Vec<TopicPartition>,
    /// Those that did not answer, or whose last position was not committed, in time.
    pub(crate) unfinished: Vec<TopicPartition>,
}

impl HandOvers {
    /// `partitions` are taken from us and may work on for `grace`; `None` for one that nobody works
    /// on. Joins what is open already: the client expects one answer for everything.
    pub(crate) fn begin(
        &mut self,
        partitions: impl IntoIterator<Item = (TopicPartition, Option<u64>)>,
        grace: Duration,
        now: Instant,
    ) {
        for (partition, epoch) in partitions {
            let answer = epoch.map_or(Answer::Given, |epoch| Answer::Awaited { epoch });
            self.open.entry(partition).or_insert(answer);
        }
        self.stage = Some(Stage::Answers { until: now + grace + ANSWER_MARGIN });
    }

    /// The pipeline handed `partition` over.
    pub(crate) fn answer(&mut self, partition: &TopicPartition, epoch: u64) {
        if let Some(answer) = self.open.get_mut(partition)
            && *answer == (Answer::Awaited { epoch })
        {
            *answer = Answer::Given;
        }
    }

    /// These went by themselves.
    pub(crate) fn forget<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            self.open.remove(partition);
        }
        if self.open.is_empty() {
            self.stage = None;
        }
    }

    /// Whether `partition` is being handed over.
    pub(crate) fn contains(&self, partition: &TopicPartition) -> bool {
        self.open.contains_key(partition)
    }

    /// Whether any hand-over is open.
    pub(crate) fn any(&self) -> bool {
        self.stage.is_some()
    }

    /// What is to be given up at `now`, given which partitions have nothing left to commit.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        committed: impl Fn(&TopicPartition) -> bool,
    ) -> Option<GiveUp> {
        if let Some(Stage::Answers { until }) = self.stage {
            let answered = self.open.values().all(|answer| *answer == Answer::Given);
            if answered || until <= now {
                self.stage = Some(Stage::Commits { until: now + COMMIT_TIME });
            }
        }
        let Some(Stage::Commits { until }) = self.stage else {
            return None;
        };
        let done = self.open.keys().all(&committed);
        (done || until <= now).then(|| self.give_up(committed))
    }

    /// Everything is to be given up now.
    pub(crate) fn give_up(&mut self, committed: impl Fn(&TopicPartition) -> bool) -> GiveUp {
        self.stage = None;
        let open = std::mem::take(&mut self.open);
        let unfinished = open
            .iter()
            .filter(|(partition, answer)| **answer != Answer::Given || !committed(partition))
            .map(|(partition, _)| partition.clone())
            .collect();
        GiveUp { partitions: open.into_keys().collect(), unfinished }
    }

    /// When to call [`Self::advance`] again even if nothing happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.stage? {
            Stage::Answers { until } | Stage::Commits { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn opened(partitions: &[(i32, u64)], now: Instant) -> HandOvers {
        let mut open = HandOvers::default();
        open.begin(partitions.iter().map(|&(p, epoch)| (partition(p), Some(epoch))), GRACE, now);
        open
    }

    fn all(partitions: &[i32]) -> Vec<TopicPartition> {
        partitions.iter().map(|&number| partition(number)).collect()
    }

    #[test]
    fn they_are_given_up_together_when_all_answered_and_committed() {
        let now = Instant::now();
        let mut open = opened(&[(0, 1), (1, 2)], now);
        open.answer(&partition(0), 1);
        assert_eq!(open.advance(now, |_| true), None);
        open.answer(&partition(1), 2);
        assert_eq!(open.advance(now, |p| *p != partition(1)), None, "not yet committed");
        let given = GiveUp { partitions: all(&[0, 1]), unfinished: vec![] };
        assert_eq!(open.advance(now, |_| true), Some(given));
        assert_eq!(open.advance(now, |_| true), None, "nothing is given up twice");
        assert!(!open.any());
    }

    #[test]
    fn an_answer_of_an_older_assignment_does_not_count() {
        let now = Instant::now();
        let mut open = opened(&[(0, 7)], now);
        open.answer(&partition(0), 6);
        assert_eq!(open.advance(now, |_| true), None);
    }

    #[test]
    fn without_an_answer_they_are_given_up_at_the_deadline() {
        let now = Instant::now();
        let mut open = opened(&[(0, 1), (1, 2)], now);
        open.answer(&partition(1), 2);
        assert_eq!(open.advance(now + GRACE, |_| true), None, "the answer may be on its way");
        let given = GiveUp { partitions: all(&[0, 1]), unfinished: all(&[0]) };
        assert_eq!(open.advance(now + GRACE + ANSWER_MARGIN, |_| true), Some(given));
    }

    #[test]
    fn a_commit_that_is_never_confirmed_does_not_hold_the_group() {
        let now = Instant::now();
        let mut open = opened(&[(0, 1)], now);
        open.answer(&partition(0), 1);
        assert_eq!(open.advance(now, |_| false), None);
        assert_eq!(open.due(), Some(now + COMMIT_TIME));
        let given = GiveUp { partitions: all(&[0]), unfinished: all(&[0]) };
        assert_eq!(open.advance(now + COMMIT_TIME, |_| false), Some(given));
    }

    #[test]
    fn a_second_revoke_joins_the_first_and_keeps_its_answers() {
        let now = Instant::now();
        let mut open = opened(&[(0, 1)], now);
        open.answer(&partition(0), 1);
        let again = [(partition(0), Some(1)), (partition(1), Some(2))];
        open.begin(again, GRACE, now);
        assert_eq!(open.advance(now, |_| true), None);
        open.answer(&partition(1), 2);
        let given = open.advance(now, |_| true).map(|given| given.partitions);
        assert_eq!(given, Some(all(&[0, 1])));
    }

    #[test]
    fn partitions_nobody_works_on_are_given_up_at_once() {
        let now = Instant::now();
        let mut open = HandOvers::default();
        open.begin([(partition(0), None)], GRACE, now);
        let given = GiveUp { partitions: all(&[0]), unfinished: vec![] };
        assert_eq!(open.advance(now, |_| true), Some(given));
    }

    #[test]
    fn a_lost_partition_is_not_given_up_again() {
        let now = Instant::now();
        let mut open = opened(&[(0, 1)], now);
        open.forget(&all(&[0]));
        assert!(!open.any());
        assert_eq!(open.advance(now + GRACE * 2, |_| true), None);
    }
}
