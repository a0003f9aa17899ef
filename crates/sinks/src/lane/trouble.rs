//! Whether a sink accepts anything, for how long it has not, and saying so once.
//!
//! A batch of which something is refused holds. When every place holds, when all that is in the lane is
//! held, or when as many first writes in a row as there are places came to nothing, the lane is stuck:
//! what waits behind is held as well. The log hears of a hold when it begins, once a minute while it lasts, and
//! when it ends; holds that come and go in quick succession are said once. A sink that does not answer
//! while nothing is meant for it is said when that begins and when it ends.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drakkar_core::{SinkError, SinkName};
use tokio::{sync::watch, time::Instant};
use tracing::{error, info, warn};

use super::{Common, Permanent, Shape};

/// Shortest time between two holds that are said.
const QUIET: Duration = Duration::from_secs(10);
/// How often a hold that lasts is said again.
const REMINDER: Duration = Duration::from_mins(1);

/// How a lane fares.
pub(super) struct Trouble {
    name: SinkName,
    shape: Shape,
    state: Mutex<State>,
    stuck: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// Batches that hold something.
    held: usize,
    /// Those of them that have a place.
    places: usize,
    /// Batches under way of which nothing is held, and what waits for a place.
    moving: usize,
    /// First writes of which nothing was answered, since the last write of which something was.
    futile: usize,
    /// When the hold began.
    begun: Option<Instant>,
    /// Since when nothing was accepted.
    barren: Option<Instant>,
    /// Since when it accepts nothing of what is written and refuses nothing for good, and what it, or
    /// whoever answers in its place, said last.
    unheard: Option<(Instant, SinkError)>,
    /// Since when it does not answer although it was asked.
    silent: Option<Instant>,
    /// Batches that hold something that was refused for good.
    hopeless: usize,
    /// Since when there are such batches, and what the first of them was told.
    refused: Option<(Instant, SinkError)>,
    /// When the log last heard of a hold.
    said: Option<Instant>,
    /// Whether the log heard of this hold.
    announced: bool,
}

impl Trouble {
    pub(super) fn new(name: SinkName, shape: Shape) -> Self {
        Self { name, shape, state: Mutex::default(), stuck: watch::Sender::new(false) }
    }

    /// Tells when nothing moves any more, and when it does again.
    pub(super) fn stuck(&self) -> watch::Receiver<bool> {
        self.stuck.subscribe()
    }

    /// How long nothing was accepted, if something is held; or how long it does not answer.
    pub(super) fn since(&self) -> Option<Duration> {
        let state = self.state();
        let began = [state.barren, state.silent].into_iter().flatten().min();
        began.map(|began| began.elapsed())
    }

    /// What is held although it was refused for good, and for how long.
    pub(super) fn hopeless(&self) -> Option<(SinkError, Duration)> {
        let state = self.state();
        state.refused.as_ref().map(|(since, error)| (error.clone(), since.elapsed()))
    }

    /// Since when the sink seems not to be there, whatever it is given, and what was said last.
    pub(super) fn unheard(&self) -> Option<(Instant, SinkError)> {
        self.state().unheard.clone()
    }

    /// A write that began then came to nothing, and `error` is why.
    pub(super) fn futile(&self, began: Instant, error: &SinkError) {
        let mut state = self.state();
        let since = state.unheard.take().map_or(began, |(since, _)| since);
        state.unheard = Some((since, error.clone()));
    }

    /// What the sink answered when it was asked whether it is there.
    pub(super) fn asked(&self, answer: Result<(), SinkError>) {
        let mut state = self.state();
        if answer.is_ok() {
            state.unheard = None;
        }
        match (answer, state.silent) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(since)) => {
                state.silent = None;
                drop(state);
                info!(sink = %self.name, silent_for = ?since.elapsed(), "sink answers again");
            }
            (Err(error), None) => {
                state.silent = Some(Instant::now());
                drop(state);
                let (sink, class, message) = (&self.name, &error.class, &error.message);
                warn!(%sink, class, error = message, "sink does not answer; nothing is meant for it");
            }
        }
    }

    /// The sink accepted something.
    pub(super) fn accepted(&self) {
        let mut state = self.state();
        if state.barren.is_some() {
            state.barren = Some(Instant::now());
        }
    }

    /// A payload was not accepted and is held.
    pub(super) fn refused(&self, error: &SinkError) {
        let now = Instant::now();
        let mut state = self.state();
        let pause = if state.announced { REMINDER } else { QUIET };
        if state.said.is_some_and(|said| now < said + pause) {
            return;
        }
        state.said = Some(now);
        let first = !std::mem::replace(&mut state.announced, true);
        let since = state.begun.map(|begun| begun.elapsed());
        drop(state);
        self.say(error, first, since.unwrap_or_default());
    }

    fn say(&self, error: &SinkError, first: bool, since: Duration) {
        let (sink, class, message) = (&self.name, &error.class, &error.message);
        match (self.shape.permanent, first) {
            (Permanent::Refuse, true) => {
                warn!(%sink, class, error = message, "sink holds payloads until it accepts them");
            }
            (Permanent::Refuse, false) => {
                warn!(%sink, class, error = message, ?since, "sink still holds payloads");
            }
            (Permanent::Hold, true) => error!(
                %sink, class, error = message,
                "dead letters are not accepted; their messages are held until they are"
            ),
            (Permanent::Hold, false) => {
                error!(%sink, class, error = message, ?since, "dead letters are still not accepted");
            }
        }
    }

    fn begin_hopeless(&self, error: SinkError) {
        let mut state = self.state();
        state.hopeless += 1;
        state.refused.get_or_insert_with(|| (Instant::now(), error));
    }

    fn end_hopeless(&self) {
        let mut state = self.state();
        state.hopeless -= 1;
        if state.hopeless == 0 {
            state.refused = None;
        }
    }

    fn begin(&self) {
        self.change(|state| state.moving += 1);
    }

    fn hold(&self) {
        self.change(|state| {
            state.moving -= 1;
            state.places += 1;
            state.held += 1;
            if state.held == 1 {
                let now = Some(Instant::now());
                (state.begun, state.barren) = (now, now);
            }
        });
    }

    fn end(&self, state: Holds) {
        let mut over = None;
        self.change(|all| {
            match state {
                Holds::Nothing => return all.moving -= 1,
                Holds::InPlace => all.places -= 1,
                Holds::AtRest => {}
            }
            all.held -= 1;
            if all.held == 0 {
                (all.barren, all.futile) = (None, 0);
                let begun = all.begun.take();
                over = std::mem::take(&mut all.announced).then_some(begun);
            }
        });
        if let Some(begun) = over {
            let held_for = begun.map(|begun| begun.elapsed()).unwrap_or_default();
            info!(sink = %self.name, ?held_for, "sink holds nothing any more");
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let batches = self.shape.batches;
        let all_held = 0 < state.held && state.moving == 0;
        let stuck = all_held || batches <= state.places || batches <= state.futile;
        self.stuck.send_if_modified(|told| std::mem::replace(told, stuck) != stuck);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a batch holds, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// In its place.
    InPlace,
    /// Without one, until its next attempt.
    AtRest,
}

/// How one batch stands, until dropped. In the beginning it holds nothing.
pub(super) struct Standing {
    common: Arc<Common>,
    holds: Holds,
    is_hopeless: bool,
}

impl Standing {
    pub(super) fn begin(common: &Arc<Common>) -> Self {
        common.trouble.begin();
        Self { common: Arc::clone(common), holds: Holds::Nothing, is_hopeless: false }
    }

    /// It was written, and something of it was answered, or nothing.
    pub(super) fn tried(&self, any: bool) {
        let is_first = self.holds == Holds::Nothing;
        self.common.trouble.change(|state| match any {
            true => state.futile = 0,
            false if is_first => state.futile += 1,
            false => {}
        });
    }

    /// Whether it has held nothing so far.
    pub(super) fn is_moving(&self) -> bool {
        self.holds == Holds::Nothing
    }

    /// From now on it holds something, in its place.
    pub(super) fn hold(&mut self) {
        if self.holds == Holds::Nothing {
            self.common.trouble.hold();
            self.holds = Holds::InPlace;
        }
    }

    /// It waits for its next attempt, and others may pass.
    pub(super) fn leave_place(&mut self) {
        if self.holds == Holds::InPlace {
            self.common.trouble.change(|state| state.places -= 1);
            self.holds = Holds::AtRest;
        }
    }

    /// It has a place again.
    pub(super) fn take_place(&mut self) {
        if self.holds == Holds::AtRest {
            self.common.trouble.change(|state| state.places += 1);
            self.holds = Holds::InPlace;
        }
    }

    /// What the last write said of something that stays: that it is refused for good, or nothing.
    pub(super) fn hopeless(&mut self, error: Option<SinkError>) {
        match (error, self.is_hopeless) {
            (Some(error), false) => self.common.trouble.begin_hopeless(error),
            (None, true) => self.common.trouble.end_hopeless(),
            (Some(_), true) | (None, false) => return,
        }
        self.is_hopeless = !self.is_hopeless;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.hopeless(None);
        self.common.trouble.end(self.holds);
    }
}
