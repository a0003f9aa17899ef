//! A sink that fails again and again is left alone for a while, and then tried with one write.
//!
//! Only writes of which nothing was accepted count as failures; a sink that refuses a payload for good
//! is there and works. While the circuit is open nothing is written: what is meant for the sink
//! waits, or is refused, as configured. Then one write is the probe, and its outcome closes the circuit
//! or opens it again.
//!
//! Where what stays refused makes way for what is new, it must not do so through the circuit either: a
//! write that is repeated counts as no failure, and when it was the probe and failed, what is new may
//! still be it.

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
    },
    /// Until when, for what is new and for what is tried again.
    Open {
        new: Instant,
        again: Instant,
    },
    Probing(Writes),
}

impl State {
    fn shown(self) -> Circuit {
        match self {
            Self::Closed { .. } => Circuit::Closed,
            Self::Open { .. } => Circuit::Open,
            Self::Probing(_) => Circuit::HalfOpen,
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
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { threshold, state, changed: watch::Sender::new(Circuit::Closed) }
    }

    /// How the circuit is, and how it becomes.
    pub(super) fn watch(&self) -> watch::Receiver<Circuit> {
        self.changed.subscribe()
    }

    /// Whether a write would have to wait.
    #[cfg(test)]
    pub(super) fn blocks(&self, now: Instant) -> bool {
        match *self.state() {
            State::Closed { .. } => false,
            State::Open { new, .. } => now < new,
            State::Probing(_) => true,
        }
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
        let is_probe = match (*state, writes) {
            (State::Closed { .. }, _) => false,
            (State::Open { new: until, .. }, Writes::New)
            | (State::Open { again: until, .. }, Writes::Again)
                if now < until =>
            {
                return Err(Some(until));
            }
            // What is new does not wait for the verdict on what was refused before.
            (State::Open { .. }, _) | (State::Probing(Writes::Again), Writes::New) => true,
            (State::Probing(_), _) => return Err(None),
        };
        if is_probe {
            self.become_(&mut state, State::Probing(writes));
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
            State::Closed { failures: 0 } => {}
            _ => self.breaker.become_(&mut state, State::Closed { failures: 0 }),
        }
        drop(state);
        self.is_probe = false;
    }

    /// Whether the circuit waits for it: one of `writes` is the probe.
    fn is_the_probe(&self, writes: Writes) -> bool {
        self.is_probe && self.writes == writes
    }

    /// Nothing was accepted.
    pub(super) fn failed(mut self, now: Instant) {
        let Threshold { failures: limit, cooldown } = self.breaker.threshold;
        let again = now + cooldown + PRECEDENCE;
        let mut state = self.breaker.state();
        let next = match (*state, self.writes) {
            (State::Closed { failures }, Writes::New) if failures + 1 < limit => {
                State::Closed { failures: failures + 1 }
            }
            (State::Closed { .. }, Writes::New) => State::Open { new: now + cooldown, again },
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
            if matches!(*state, State::Probing(writes) if self.is_the_probe(writes)) {
                let now = Instant::now();
                self.breaker.become_(&mut state, State::Open { new: now, again: now });
            }
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
            breaker.pass(Writes::New).await.failed(Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_threshold_and_not_before() {
        let breaker = breaker();
        fail(&breaker, 2).await;
        breaker.pass(Writes::New).await.succeeded();
        fail(&breaker, 2).await;
        assert!(!breaker.blocks(Instant::now()), "a success in between begins anew");
        fail(&breaker, 1).await;
        assert!(breaker.blocks(Instant::now()));
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
        assert!(!breaker.blocks(Instant::now()));
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
        assert!(!breaker.blocks(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_straggler_does_not_close_what_opened_meanwhile() {
        let breaker = breaker();
        let straggler = breaker.pass(Writes::New).await;
        fail(&breaker, 3).await;
        straggler.succeeded();
        assert!(breaker.blocks(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_again_opens_nothing_and_keeps_no_probe_from_what_is_new() {
        let breaker = breaker();
        for _ in 0..10 {
            breaker.pass(Writes::Again).await.failed(Instant::now());
        }
        assert!(!breaker.blocks(Instant::now()));
        fail(&breaker, 3).await;
        let begun = Instant::now();
        let again = breaker.pass(Writes::Again).await;
        assert!(COOLDOWN < begun.elapsed(), "what is new goes first");
        let new = breaker.try_pass(Writes::New, Instant::now()).ok().unwrap();
        again.failed(Instant::now());
        assert!(breaker.try_pass(Writes::New, Instant::now()).is_err(), "one of each at a time");
        new.failed(Instant::now());
        assert!(breaker.blocks(Instant::now()), "what is new told");

        breaker.pass(Writes::Again).await.failed(Instant::now());
        assert!(breaker.try_pass(Writes::Again, Instant::now()).is_err());
        drop(breaker.try_pass(Writes::New, Instant::now()).ok().unwrap());
        breaker.pass(Writes::Again).await.succeeded();
        assert!(!breaker.blocks(Instant::now()));
    }
}
