//! When a partition reports what is settled: after an interval or a number of messages, whichever
//! comes first, and nothing when nothing changed. Pure: time comes in as an argument.

use std::time::Duration;

use drakkar_core::{
    DoneMap, Offset,
    done_map::{Extras, Fits, Noted},
    source::Position,
    watermark::Watermark,
};
use tokio::time::Instant;

/// Longest metadata of a commit, in bytes: the default of the broker's `offset.metadata.max.bytes`.
pub(crate) const METADATA_LIMIT: usize = 4096;

/// How often to report.
#[derive(Debug, Clone, Copy)]
pub struct CommitPace {
    /// At the latest this long after a message settled.
    pub interval: Duration,
    /// At the latest after this many settled messages.
    pub every: usize,
}

/// When the next report is due.
#[derive(Debug)]
pub(crate) struct CommitClock {
    pace: CommitPace,
    settled: usize,
    due: Option<Instant>,
}

impl CommitClock {
    pub(crate) fn new(pace: CommitPace) -> Self {
        Self { pace, settled: 0, due: None }
    }

    /// Messages settled. The first one since the last report starts the interval.
    pub(crate) fn settled(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        self.settled += count;
        let due = self.due.get_or_insert(now + self.pace.interval);
        if self.settled >= self.pace.every {
            *due = now;
        }
    }

    /// When to report; `None` while there is nothing to report.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was reported.
    pub(crate) fn reported(&mut self) {
        self.settled = 0;
        self.due = None;
    }
}

/// What may be committed, with the done map of what is settled above it: by us, and by earlier owners
/// (`inherited`) as far as it was not delivered to us yet; and with what else the next owner must know.
/// Beside it, how many settled offsets found no room.
///
/// `None` as long as nothing was delivered to us.
pub(crate) fn position(
    watermark: &Watermark,
    inherited: &DoneMap,
    extras: &Extras,
) -> Option<(Position, u64)> {
    // Before the first offset settles, everything below it is settled all the same.
    let next: Offset = watermark.position().or(watermark.first_unsettled())?;
    let last = watermark.last()?;
    let ahead = inherited.iter().skip_while(|offset| *offset <= last);
    let settled = watermark.settled_above().chain(ahead);
    let encoded = Noted::encode(next, settled, extras, METADATA_LIMIT);
    let left_out = match encoded.fits {
        Fits::All { .. } => 0,
        Fits::Over { left_out } => left_out,
    };
    Some((Position { next, metadata: encoded.metadata }, left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: CommitPace = CommitPace { interval: Duration::from_millis(500), every: 3 };

    #[tokio::test(start_paused = true)]
    async fn the_interval_begins_with_the_first_settled_message() {
        let mut clock = CommitClock::new(PACE);
        assert_eq!(clock.due(), None);
        let start = Instant::now();
        clock.settled(1, start);
        clock.settled(1, start + Duration::from_millis(100));
        assert_eq!(clock.due(), Some(start + PACE.interval));
        clock.reported();
        assert_eq!(clock.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn many_settled_messages_make_it_due_at_once() {
        let mut clock = CommitClock::new(PACE);
        let now = Instant::now();
        clock.settled(3, now);
        assert_eq!(clock.due(), Some(now));
    }

    #[test]
    fn an_offset_settled_behind_an_open_one_is_reported_in_the_done_map() {
        let mut mark = Watermark::default();
        let none = DoneMap::default();
        assert_eq!(position(&mark, &none, &Extras::default()), None);
        for offset in 7..10 {
            mark.begin(Offset(offset));
        }
        mark.settle(Offset(9));
        let (reported, left_out) = position(&mark, &none, &Extras::default()).unwrap();
        assert_eq!(left_out, 0);
        assert_eq!(reported.next, Offset(7));
        let done = DoneMap::decode(reported.next, &reported.metadata).unwrap();
        assert!(done.contains(Offset(9)) && !done.contains(Offset(8)));
    }

    #[test]
    fn what_an_earlier_owner_settled_is_passed_on_until_it_is_reached() {
        let encoded = DoneMap::encode(Offset(7), [Offset(8), Offset(20)], METADATA_LIMIT);
        let inherited = DoneMap::decode(Offset(7), &encoded.metadata).unwrap();
        let mut mark = Watermark::default();
        for offset in 7..10 {
            mark.begin(Offset(offset));
        }
        let (reported, _) = position(&mark, &inherited, &Extras::default()).unwrap();
        let done = DoneMap::decode(reported.next, &reported.metadata).unwrap();
        assert_eq!(done.iter().collect::<Vec<_>>(), [Offset(20)], "8 is ours to tell by now");
    }
}
