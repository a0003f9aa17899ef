//! How many messages of a partition may be dead-lettered before it is held.
//!
//! A bad deploy, or a service that everything depends on, fails every message there is. [`Flood`]
//! counts what became of the messages of one partition; when a limit is reached the partition is
//! *held*: no dead letter may be sent, but that one message is tried now and then. A try that
//! succeeds lifts the hold; one that fails is dead-lettered, so that a message which is itself at
//! fault cannot stop its partition for ever.
//!
//! What was counted is carried to the next owner of the partition ([`FloodMark`]): a rebalance or a
//! restart is no new allowance. After a hold is lifted only a tenth of each limit is free again; the
//! rest is earned by messages that succeed. Which message is tried, and what becomes of those that
//! wait, is for the caller to decide. Time comes in as an argument: how long ago the worker began.

use std::{collections::VecDeque, time::Duration};

/// How many settled messages the ratio is about.
pub const RECENT: usize = 1_000;

/// When a partition is held, and how often a message is tried then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloodLimits {
    /// Dead-lettered messages in a row; 0 is off.
    pub max_consecutive: u32,
    /// Part of the last [`RECENT`] messages that may be dead-lettered, up to 1; 0 is off.
    pub max_ratio: f64,
    /// How long after a try that failed the next message is tried.
    pub probe_interval: Duration,
}

impl FloodLimits {
    /// Dead letters among the last [`RECENT`] messages at which the ratio is reached; 0 is off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // At most `RECENT`.
    #[allow(clippy::cast_precision_loss)]
    fn max_recent(&self) -> usize {
        (self.max_ratio.clamp(0.0, 1.0) * RECENT as f64).ceil() as usize
    }
}

/// Which limit holds a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloodReason {
    /// [`FloodLimits::max_consecutive`]
    Consecutive,
    /// [`FloodLimits::max_ratio`]
    Ratio,
}

impl FloodReason {
    /// The limit as metrics, logs and probes name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "max_consecutive",
            Self::Ratio => "max_ratio",
        }
    }
}

/// What the next owner of a partition must know. The default says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FloodMark {
    /// Whether the partition is held, and by which limit.
    pub held: Option<FloodReason>,
    /// Dead letters since the last message that needed none.
    pub consecutive: u32,
    /// How many messages are remembered for the ratio.
    pub recent: u32,
    /// How many of them were dead-lettered.
    pub recent_dead: u32,
}

/// What is to be done with a message that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Send its dead letter.
    Send,
    /// Keep it: the partition is held.
    Wait,
}

/// A hold that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodHold {
    /// The limit that was reached.
    pub reason: FloodReason,
    /// When it was reached, or taken over from an earlier owner.
    pub since: Duration,
    /// Tries that failed since then.
    pub failed_tries: u64,
    /// When to try next; `None` while one is under way.
    next_try: Option<Duration>,
}

/// What became of the messages of one partition, and whether it is held for it.
#[derive(Debug)]
pub struct Flood {
    limits: FloodLimits,
    max_recent: usize,
    consecutive: u32,
    /// Whether each of the last messages was dead-lettered, oldest first.
    recent: VecDeque<bool>,
    recent_dead: usize,
    hold: Option<FloodHold>,
}

impl Flood {
    /// Goes on where the last owner stopped. A partition that was held is held; the first message is
    /// tried an interval from `now`.
    #[must_use]
    pub fn resume(limits: FloodLimits, mark: FloodMark, now: Duration) -> Self {
        let max_recent = limits.max_recent();
        let mut flood = Self {
            limits,
            max_recent,
            consecutive: mark.consecutive,
            recent: VecDeque::new(),
            recent_dead: 0,
            hold: None,
        };
        for dead in spread(mark.recent as usize, mark.recent_dead as usize) {
            flood.remember(dead);
        }
        let in_force = mark.held.filter(|reason| match reason {
            FloodReason::Consecutive => 0 < limits.max_consecutive,
            FloodReason::Ratio => 0 < max_recent,
        });
        match in_force {
            Some(reason) => flood.hold_from(reason, now),
            None => flood.hold_if_reached(now),
        }
        flood
    }

    /// May this many messages, which stand or fall together, be dead-lettered? If so they are counted.
    ///
    /// Messages that do not fit below a limit hold the partition and are not sent; those that reach it
    /// are the last.
    pub fn admit(&mut self, messages: usize, now: Duration) -> Admission {
        if messages == 0 {
            return Admission::Send;
        }
        if self.hold.is_none()
            && let Some(reason) = self.exceeded_by(messages)
        {
            self.hold_from(reason, now);
        }
        if self.hold.is_some() {
            return Admission::Wait;
        }
        self.count_dead(messages);
        self.hold_if_reached(now);
        Admission::Send
    }

    /// A message settled that was not dead-lettered. Lifts nothing: it may have been under way before
    /// the trouble began.
    pub fn succeeded(&mut self) {
        self.consecutive = 0;
        self.remember(false);
    }

    /// The hold in force.
    #[must_use]
    pub fn hold(&self) -> Option<&FloodHold> {
        self.hold.as_ref()
    }

    /// When to try a message; `None` while the partition is not held, or one is being tried.
    #[must_use]
    pub fn next_try(&self) -> Option<Duration> {
        self.hold.and_then(|hold| hold.next_try)
    }

    /// A message is being tried.
    pub fn begin_try(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.next_try = None;
        }
    }

    /// What was tried failed: these messages are dead-lettered all the same, and counted.
    pub fn try_failed(&mut self, messages: usize, now: Duration) {
        self.count_dead(messages);
        if let Some(hold) = &mut self.hold {
            hold.failed_tries += 1;
            hold.next_try = Some(now + self.limits.probe_interval);
        }
    }

    /// What was tried succeeded: the partition is held no longer, and a tenth of each limit is free.
    pub fn try_succeeded(&mut self) {
        self.hold = None;
        self.remember(false);
        let free = |limit: usize| limit - (limit / 10).max(1).min(limit);
        let consecutive = free(self.limits.max_consecutive as usize);
        self.consecutive = self.consecutive.min(u32::try_from(consecutive).unwrap_or(u32::MAX));
        let forgiven = self.recent_dead.saturating_sub(free(self.max_recent));
        for dead in self.recent.iter_mut().filter(|dead| **dead).take(forgiven) {
            *dead = false;
        }
        self.recent_dead -= forgiven;
    }

    /// What the next owner must know. Nothing, as long as there was no dead letter.
    #[must_use]
    pub fn mark(&self) -> FloodMark {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        FloodMark {
            held: self.hold.map(|hold| hold.reason),
            consecutive: self.consecutive,
            recent: if self.recent_dead == 0 { 0 } else { number(self.recent.len()) },
            recent_dead: number(self.recent_dead),
        }
    }

    fn count_dead(&mut self, messages: usize) {
        if self.limits.max_consecutive != 0 {
            let messages = u32::try_from(messages).unwrap_or(u32::MAX);
            self.consecutive = self.consecutive.saturating_add(messages);
        }
        (0..messages.min(RECENT)).for_each(|_| self.remember(true));
    }

    fn remember(&mut self, dead: bool) {
        if self.max_recent == 0 {
            return;
        }
        if RECENT <= self.recent.len() {
            self.recent_dead -= usize::from(self.recent.pop_front() == Some(true));
        }
        self.recent.push_back(dead);
        self.recent_dead += usize::from(dead);
    }

    /// Which limit would be exceeded by so many more.
    fn exceeded_by(&self, messages: usize) -> Option<FloodReason> {
        let max_consecutive = self.limits.max_consecutive as usize;
        let consecutive = (self.consecutive as usize).saturating_add(messages);
        if max_consecutive != 0 && max_consecutive < consecutive {
            return Some(FloodReason::Consecutive);
        }
        let recent = self.recent_dead.saturating_add(messages);
        (self.max_recent != 0 && self.max_recent < recent).then_some(FloodReason::Ratio)
    }

    fn hold_if_reached(&mut self, now: Duration) {
        // One more would be too many.
        if let Some(reason) = self.exceeded_by(1) {
            self.hold_from(reason, now);
        }
    }

    fn hold_from(&mut self, reason: FloodReason, now: Duration) {
        let next_try = Some(now + self.limits.probe_interval);
        self.hold = Some(FloodHold { reason, since: now, failed_tries: 0, next_try });
    }
}

/// The order is not carried: `dead` of `count` messages, evenly spread.
fn spread(count: usize, dead: usize) -> impl Iterator<Item = bool> {
    let count = count.min(RECENT);
    let dead = dead.min(count);
    (0..count).map(move |index| index * dead / count != (index + 1) * dead / count)
}
