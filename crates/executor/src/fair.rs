//! Who is next where programs share the slots: a lane per program, each a [`Queue`] of its own.
//!
//! Among the lanes whose program may start one more, whoever is overdue goes first, then the best
//! priority; among equal priorities the lane that has had the least time in slots for its weight (fair
//! queueing by virtual time). A lane that was idle comes back beside the one that has had the least:
//! what it did not use is not owed to it. One that its limit kept from its share is owed a little.
//!
//! What waits costs O(log n). Lanes are looked at one by one, there being as many as the configuration
//! has programs, but only those that may start one more: whoever has nothing waiting or has reached its
//! limit is not met. Time is an argument.

use std::{
    collections::BTreeSet,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use tokio::time::Instant;

use crate::queue::{Age, Place, Queue, Rank, Standing};

/// What a lane is owed at most that was kept from its share by its limit: more than tasks usually take,
/// so that the order in which they end does not count, and no more than others may have to wait for it.
const OWED: Duration = Duration::from_mins(1);

/// As little as makes a lane win beside those that have had as much.
const EVEN: Service = Service(1);

/// What a program may have of the slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    /// Slots at once, at most.
    pub(crate) limit: Option<NonZeroUsize>,
    /// Beside the weights of others.
    pub(crate) weight: NonZeroU32,
}

impl Default for Share {
    fn default() -> Self {
        Self { limit: None, weight: NonZeroU32::MIN }
    }
}

/// Where a program waits: its number among the shares.
pub(crate) type LaneId = usize;

/// A place in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    lane: LaneId,
    place: Place,
}

/// Time in slots by weight, in parts of a nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Service(u128);

impl Service {
    /// So that the weight divides without losing much.
    const PARTS: u128 = 1 << 20;

    fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

#[derive(Debug)]
struct Lane<T> {
    share: Share,
    waiting: Queue<T>,
    running: usize,
    /// What it had at `counted`.
    had: Service,
    counted: Instant,
    /// How far it may be behind the others when it is ready again.
    owed: Service,
}

impl<T> Lane<T> {
    /// What one slot is worth for so long.
    fn time(&self, time: Duration) -> Service {
        Service(time.as_nanos() * Service::PARTS / u128::from(self.share.weight.get()))
    }

    fn had(&self, now: Instant) -> Service {
        let since = now.saturating_duration_since(self.counted);
        Service(self.had.0 + self.time(since).0 * self.running as u128)
    }

    fn count(&mut self, now: Instant) {
        self.had = self.had(now);
        self.counted = now;
    }

    fn may_start(&self) -> bool {
        let has_room = self.share.limit.is_none_or(|limit| self.running < limit.get());
        has_room && !self.waiting.is_empty()
    }
}

/// Where a lane stands beside others that may start one more. The lower, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    /// Its oldest has waited too long.
    Overdue(Age),
    /// Its best waits.
    Waiting { priority: i64, had: Service, best: Place },
}

/// The lanes of all programs.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    ageing: Duration,
    lanes: Vec<Lane<T>>,
    /// The lanes that may start one more.
    ready: BTreeSet<LaneId>,
    /// What the lane that has had the least had, of those that were ready when it was looked at.
    level: Service,
}

impl<T> FairQueue<T> {
    /// Empty lanes, one per share, in which `ageing` is too long to wait.
    pub(crate) fn new(
        ageing: Duration,
        shares: impl IntoIterator<Item = Share>,
        now: Instant,
    ) -> Self {
        let lane = |share| Lane {
            share,
            waiting: Queue::new(ageing),
            running: 0,
            had: Service::default(),
            counted: now,
            owed: EVEN,
        };
        let lanes = shares.into_iter().map(lane).collect();
        Self { ageing, lanes, ready: BTreeSet::new(), level: Service::default() }
    }

    /// Lets `item` wait in `lane`, behind everything of the same rank.
    pub(crate) fn push(&mut self, lane: LaneId, rank: Rank, item: T, now: Instant) -> Spot {
        let place = self.lanes[lane].waiting.push(rank, item);
        self.update(lane, now);
        Spot { lane, place }
    }

    /// Takes what waits at `spot`, if it still does.
    pub(crate) fn withdraw(&mut self, Spot { lane, place }: Spot, now: Instant) -> Option<T> {
        let item = self.lanes[lane].waiting.withdraw(place)?;
        self.update(lane, now);
        Some(item)
    }

    /// Gives a slot to who is next; it is to be handed back by [`Self::end`].
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Spot, T)> {
        let precedence = |&lane: &LaneId| (self.precedence(lane, now), lane);
        let lane = self.ready.iter().copied().min_by_key(precedence)?;
        self.raise_level(now);
        let chosen = &mut self.lanes[lane];
        let (place, item) = chosen.waiting.pop(now)?;
        chosen.count(now);
        chosen.running += 1;
        self.update(lane, now);
        Some((Spot { lane, place }, item))
    }

    /// Takes a slot back; `again`, if any, waits where it was before it got the slot.
    pub(crate) fn end(&mut self, Spot { lane, place }: Spot, again: Option<T>, now: Instant) {
        let ended = &mut self.lanes[lane];
        ended.count(now);
        ended.running -= 1;
        if let Some(item) = again {
            ended.waiting.put_back(place, item);
        }
        self.update(lane, now);
    }

    /// Takes everything that waits.
    pub(crate) fn clear(&mut self) -> Vec<T> {
        self.ready.clear();
        self.lanes.iter_mut().flat_map(|lane| lane.waiting.clear()).collect()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// `None` goes first, but a lane that is ready has somebody waiting.
    fn precedence(&self, lane: LaneId, now: Instant) -> Option<Precedence> {
        let lane = &self.lanes[lane];
        let oldest = lane.waiting.oldest()?;
        if let Standing::Overdue(..) = oldest.rank().standing(self.ageing, now) {
            return Some(Precedence::Overdue(oldest.age()));
        }
        let best = lane.waiting.best(now)?;
        Some(Precedence::Waiting { priority: best.rank().priority, had: lane.had(now), best })
    }

    fn raise_level(&mut self, now: Instant) {
        if let Some(least) = self.ready.iter().map(|&lane| self.lanes[lane].had(now)).min() {
            self.level = self.level.max(least);
        }
    }

    /// Notes whether a lane may start one more.
    fn update(&mut self, lane: LaneId, now: Instant) {
        let (is_ready, was_ready) = (self.lanes[lane].may_start(), self.ready.contains(&lane));
        if is_ready == was_ready {
            return;
        }
        self.ready.remove(&lane);
        self.raise_level(now);
        let (level, changed) = (self.level, &mut self.lanes[lane]);
        changed.count(now);
        if is_ready {
            changed.had = changed.had.max(level.minus(changed.owed));
            self.ready.insert(lane);
        } else {
            let is_idle = changed.waiting.is_empty();
            changed.owed = if is_idle { EVEN } else { changed.time(OWED) };
        }
    }
}

#[cfg(test)]
mod tests;
