//! A sink that fails again and again is left alone for a while, and then tried with one write.
//!
//! Only writes of which nothing was accepted count as failures; a sink that refuses a payload for good
//! is there and works. While the circuit is open nothing is written: what is meant for the sink
//! waits, or is refused, as configured. Then one write is the probe, and its outcome closes the circuit
//! or opens it again.
//!
//! Where what stays refused makes way for what is new, it must not do so through the circuit either: a
//! write that is repeated opens nothing for what is new, and when it was the probe and failed, what is new
//! may still be it. But where by turns one batch after the other fails and nothing is accepted in between,
//! what is tried again leaves the sink alone as well, and only that: a sink that is dead is found out also
//! when nothing new comes. One batch alone says nothing about its sink.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drakkar_core::observe::Circuit;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threshold {
    /// Failed writes in a row that open it.
    pub failures: u32,
    /// How long nothing is written then.
    pub cooldown: Duration,
}

/// Whose write it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// Nothing of it was written before, or order is kept: whatever comes later waits for it anyway.
    New,
    /// What was refused before; others pass it.
    Again,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
        turns: Turns,
    },
    /// Closed for what is new. What is tried again waits until then; while one of it is the probe, for its
    /// outcome.
    Resting {
        failures: u32,
        until: Option<Instant>,
    },
    /// Until when, for what is new and for what is tried again.
    Open {
        new: Instant,
        again: Instant,
    },
    Probing(Writes),
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Turns {
    /// Whose was the last.
    last: Option<u64>,
    /// How often it was another batch that failed than the one before.
    count: u32,
}

impl Turns {
    fn and(self, batch: u64) -> Self {
        let is_another = self.last.is_some_and(|last| last != batch);
        Self { last: Some(batch), count: self.count.saturating_add(u32::from(is_another)) }
    }
}

impl State {
    const CLOSED: Self = Self::Closed { failures: 0, turns: Turns { last: None, count: 0 } };

    /// Whether one of `writes` may be written. `Err` says when to ask again; `None`: when this changes.
    fn may(self, writes: Writes, now: Instant) -> Result<(), Option<Instant>> {
        match (self, writes) {
            (Self::Open { new: until, .. }, Writes::New)
            | (
                Self::Open { again: until, .. } | Self::Resting { until: Some(until), .. },
                Writes::Again,
            ) if now < until => Err(Some(until)),
            // What is new does not wait for the verdict on what was refused before.
            (Self::Closed { .. } | Self::Open { .. }, _)
            | (Self::Resting { .. } | Self::Probing(Writes::Again), Writes::New)
            | (Self::Resting { until: Some(_), .. }, Writes::Again) => Ok(()),
            (Self::Probing(_) | Self::Resting { until: None, .. }, _) => Err(None),
        }
    }

    fn shown(self) -> Circuit {
        match self {
            Self::Closed { .. } => Circuit::Closed,
            Self::Open { .. } | Self::Resting { until: Some(_), .. } => Circuit::Open,
            Self::Probing(_) | Self::Resting { until: None, .. } => Circuit::HalfOpen,
        }
    }
}

/// What is tried again leaves the probe to what is new for this long.
const PRECEDENCE: Duration = Duration::from_millis(100);

/// The circuit of one lane.
pub(super) struct Breaker {
    threshold: Threshold,
    state: Mutex<State>,
    changed: watch::Sender<Circuit>,
}

/// The right to write once. Dropped without a verdict, it leaves the circuit as it was.
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    writes: Writes,
    is_probe: bool,
}

impl Breaker {
    pub(super) fn new(threshold: Threshold) -> Self {
        let state = Mutex::new(State::CLOSED);
        Self { threshold, state, changed: watch::Sender::new(Circuit::Closed) }
    }

    /// How the circuit is, and how it becomes.
    pub(super) fn watch(&self) -> watch::Receiver<Circuit> {
        self.changed.subscribe()
    }

    /// Whether a write would have to wait.
    pub(super) fn blocks(&self, writes: Writes, now: Instant) -> bool {
        self.state().may(writes, now).is_err()
    }

    /// Waits until something may be written.
    pub(super) async fn pass(self: &Arc<Self>, writes: Writes) -> Pass {
        let mut changed = self.watch();
        loop {
            changed.mark_unchanged();
            let until = match self.try_pass(writes, Instant::now()) {
                Ok(pass) => return pass,
                Err(until) => until,
            };
            tokio::select! {
                // The sender lives as long as `self`.
                _ = changed.changed() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
        }
    }

    /// The right to write, if it is to be had now. `Err` says when to ask again; `None`: when the circuit changes.
    pub(super) fn try_pass(
        self: &Arc<Self>,
        writes: Writes,
        now: Instant,
    ) -> Result<Pass, Option<Instant>> {
        let mut state = self.state();
        state.may(writes, now)?;
        let next = match (*state, writes) {
            (State::Closed { .. }, _) | (State::Resting { .. }, Writes::New) => None,
            (State::Resting { failures, .. }, Writes::Again) => {
                Some(State::Resting { failures, until: None })
            }
            (State::Open { .. } | State::Probing(_), _) => Some(State::Probing(writes)),
        };
        let is_probe = next.is_some();
        if let Some(next) = next {
            self.become_(&mut state, next);
        }
        Ok(Pass { breaker: Arc::clone(self), writes, is_probe })
    }

    fn become_(&self, state: &mut State, next: State) {
        *state = next;
        self.changed
            .send_if_modified(|shown| std::mem::replace(shown, next.shown()) != next.shown());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The sink accepted something, or refused something for good: it is there.
    pub(super) fn succeeded(mut self) {
        let mut state = self.breaker.state();
        match *state {
            // A straggler from before the circuit opened: the probe will tell.
            State::Open { .. } | State::Probing(_) if !self.is_probe => {}
            _ => self.breaker.become_(&mut state, State::CLOSED),
        }
        drop(state);
        self.is_probe = false;
    }

    /// Whether the circuit waits for it: one of `writes` is the probe.
    fn is_the_probe(&self, writes: Writes) -> bool {
        self.is_probe && self.writes == writes
    }

    /// Nothing of `batch` was accepted.
    pub(super) fn failed(mut self, batch: u64, now: Instant) {
        let Threshold { failures: limit, cooldown } = self.breaker.threshold;
        let again = now + cooldown + PRECEDENCE;
        let is_new = u32::from(self.writes == Writes::New);
        let mut state = self.breaker.state();
        let next = match (*state, self.writes) {
            (State::Closed { failures, .. } | State::Resting { failures, .. }, Writes::New)
                if limit <= failures + 1 =>
            {
                State::Open { new: now + cooldown, again }
            }
            (State::Closed { failures, turns }, _) => {
                let (failures, turns) = (failures + is_new, turns.and(batch));
                if turns.count < limit {
                    State::Closed { failures, turns }
                } else {
                    State::Resting { failures, until: Some(now + cooldown) }
                }
            }
            (State::Resting { failures, until }, Writes::New) => {
                State::Resting { failures: failures + 1, until }
            }
            (State::Resting { failures, until: None }, Writes::Again) if self.is_probe => {
                State::Resting { failures, until: Some(now + cooldown) }
            }
            (State::Probing(writes), _) if self.is_the_probe(writes) => match writes {
                Writes::New => State::Open { new: now + cooldown, again },
                Writes::Again => State::Open { new: now, again },
            },
            (unchanged, _) => unchanged,
        };
        self.breaker.become_(&mut state, next);
        drop(state);
        self.is_probe = false;
    }
}

/// A probe that nobody waits for any more has told nothing: the next write is the probe.
impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe {
            let mut state = self.breaker.state();
            let now = Instant::now();
            let next = match *state {
                State::Probing(writes) if self.is_the_probe(writes) => {
                    State::Open { new: now, again: now }
                }
                State::Resting { failures, until: None } if self.writes == Writes::Again => {
                    State::Resting { failures, until: Some(now) }
                }
                unchanged => unchanged,
            };
            self.breaker.become_(&mut state, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(30);

    fn breaker() -> Arc<Breaker> {
        Arc::new(Breaker::new(Threshold { failures: 3, cooldown: COOLDOWN }))
    }

    async fn fail(breaker: &Arc<Breaker>, times: usize) {
        for _ in 0..times {
            breaker.pass(Writes::New).await.failed(0, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_threshold_and_not_before() {
        let breaker = breaker();
        fail(&breaker, 2).await;
        breaker.pass(Writes::New).await.succeeded();
        fail(&breaker, 2).await;
        assert!(!breaker.blocks(Writes::New, Instant::now()), "a success in between begins anew");
        fail(&breaker, 1).await;
        assert!(breaker.blocks(Writes::New, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn while_open_nothing_passes_and_then_one_probe() {
        let breaker = breaker();
        fail(&breaker, 3).await;
        let begun = Instant::now();
        let probe = breaker.pass(Writes::New).await;
        assert!(begun.elapsed() >= COOLDOWN);
        assert!(breaker.try_pass(Writes::New, Instant::now()).is_err(), "one probe at a time");
        probe.succeeded();
        assert!(!breaker.blocks(Writes::New, Instant::now()));
        breaker.pass(Writes::New).await.succeeded();
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_opens_it_for_another_cooldown() {
        let breaker = breaker();
        fail(&breaker, 3).await;
        let begun = Instant::now();
        fail(&breaker, 1).await;
        drop(breaker.pass(Writes::New).await);
        assert!(begun.elapsed() >= COOLDOWN * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_makes_way_for_another() {
        let breaker = breaker();
        fail(&breaker, 3).await;
        drop(breaker.pass(Writes::New).await);
        breaker.pass(Writes::New).await.succeeded();
        assert!(!breaker.blocks(Writes::New, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_straggler_does_not_close_what_opened_meanwhile() {
        let breaker = breaker();
        let straggler = breaker.pass(Writes::New).await;
        fail(&breaker, 3).await;
        straggler.succeeded();
        assert!(breaker.blocks(Writes::New, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_again_opens_nothing_and_keeps_no_probe_from_what_is_new() {
        let breaker = breaker();
        for _ in 0..10 {
            breaker.pass(Writes::Again).await.failed(0, Instant::now());
        }
        assert!(!breaker.blocks(Writes::New, Instant::now()));
        fail(&breaker, 3).await;
        let begun = Instant::now();
        let again = breaker.pass(Writes::Again).await;
        assert!(COOLDOWN < begun.elapsed(), "what is new goes first");
        let new = breaker.try_pass(Writes::New, Instant::now()).ok().unwrap();
        again.failed(0, Instant::now());
        assert!(breaker.try_pass(Writes::New, Instant::now()).is_err(), "one of each at a time");
        new.failed(0, Instant::now());
        assert!(breaker.blocks(Writes::New, Instant::now()), "what is new told");

        breaker.pass(Writes::Again).await.failed(0, Instant::now());
        assert!(breaker.try_pass(Writes::Again, Instant::now()).is_err());
        drop(breaker.try_pass(Writes::New, Instant::now()).ok().unwrap());
        breaker.pass(Writes::Again).await.succeeded();
        assert!(!breaker.blocks(Writes::New, Instant::now()));
    }

    async fn fail_again(breaker: &Arc<Breaker>, batches: impl IntoIterator<Item = u64>) {
        for batch in batches {
            breaker.pass(Writes::Again).await.failed(batch, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_by_turns_leaves_the_sink_alone_and_what_is_new_does_not() {
        let breaker = breaker();
        fail_again(&breaker, [1, 1, 2, 2, 1, 1, 1]).await;
        breaker.pass(Writes::New).await.succeeded();
        fail_again(&breaker, [2, 1, 2]).await;
        assert!(breaker.try_pass(Writes::Again, Instant::now()).is_ok(), "not often enough");
        fail_again(&breaker, [1]).await;
        assert!(breaker.try_pass(Writes::Again, Instant::now()).is_err());
        assert_eq!(*breaker.watch().borrow(), Circuit::Open);
        fail(&breaker, 2).await;
        let new = [(); 2].map(|()| breaker.try_pass(Writes::New, Instant::now()).ok().unwrap());

        let begun = Instant::now();
        drop(breaker.pass(Writes::Again).await);
        let probe = breaker.pass(Writes::Again).await;
        assert_eq!(begun.elapsed(), COOLDOWN);
        assert!(breaker.try_pass(Writes::Again, Instant::now()).is_err(), "one at a time");
        assert!(breaker.try_pass(Writes::New, Instant::now()).is_ok());
        probe.failed(1, Instant::now());
        fail_again(&breaker, [1]).await;
        assert_eq!(begun.elapsed(), COOLDOWN * 2);
        new.into_iter().for_each(Pass::succeeded);
        assert!(breaker.try_pass(Writes::Again, Instant::now()).is_ok());

        fail_again(&breaker, [1, 2, 1, 2]).await;
        fail(&breaker, 3).await;
        assert!(breaker.blocks(Writes::New, Instant::now()), "what is new counts as ever");
    }
}
