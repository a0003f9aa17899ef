//! What runs in the slots and what waits for one: shared by the pool, its tickets and its runners.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use drakkar_core::Task;
use tokio::{sync::Notify, time::Instant};

use crate::{
    CancelReason, Job, Run,
    fair::{FairQueue, LaneId, Share, Spot},
    job::Watcher,
    memory_guard::Guarded,
    persistent::Programs,
};

/// What a ticket and a runner share.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) started: AtomicBool,
    pub(crate) kill: Notify,
    /// Nobody wants the result any more, and why.
    pub(crate) unwanted: OnceLock<CancelReason>,
    /// How long its task may take to end, if it says so itself.
    steps: Duration,
    pub(crate) watcher: Watcher,
    /// To be ended, and to be started again later.
    taken_back: AtomicBool,
    /// The higher, the younger.
    start: AtomicU64,
}

impl Control {
    pub(crate) fn new(task: &Task, watcher: Watcher) -> Self {
        let steps = task.stop_steps().unwrap_or_default();
        let steps = steps.iter().fold(Duration::ZERO, |sum, (_, wait)| sum.saturating_add(*wait));
        Self { steps, watcher, ..Self::default() }
    }

    /// Why it is cut off.
    pub(crate) fn reason(&self) -> CancelReason {
        if self.taken_back.load(Ordering::Acquire) {
            return CancelReason::Memory;
        }
        // Nobody asked, so the pool is closed.
        self.unwanted.get().copied().unwrap_or(CancelReason::Shutdown)
    }
}

pub(crate) struct Queued {
    pub(crate) job: Job,
    pub(crate) since: Instant,
    pub(crate) control: Arc<Control>,
}

pub(crate) struct State {
    pub(crate) queue: FairQueue<Queued>,
    pub(crate) running: HashMap<Spot, Arc<Control>>,
    closed: bool,
    starts: u64,
    pub(crate) paused: bool,
    pub(crate) pauses: u64,
    pub(crate) taken_back: u64,
}

/// What handles, tickets and runners share. Jobs are never dropped under the lock: `done` is foreign
/// code.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) work: Notify,
}

enum Next {
    Job(Spot, Queued),
    Nothing,
    Closed,
}

impl Shared {
    pub(crate) fn new(ageing: Duration, shares: impl IntoIterator<Item = Share>) -> Self {
        let state = State {
            queue: FairQueue::new(ageing, shares, Instant::now()),
            running: HashMap::new(),
            closed: false,
            starts: 0,
            paused: false,
            pauses: 0,
            taken_back: 0,
        };
        Self { state: Mutex::new(state), work: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admit(&self, lane: LaneId, queued: Queued) -> Option<Spot> {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            drop(queued);
            return None;
        }
        Some(state.queue.push(lane, queued.job.rank, queued, Instant::now()))
    }

    pub(crate) fn withdraw(&self, spot: Spot) -> Option<Queued> {
        self.lock().queue.withdraw(spot, Instant::now())
    }

    fn try_next(&self) -> Next {
        let mut state = self.lock();
        if state.closed {
            return Next::Closed;
        }
        // One may always run: a shortage that is not ours must not stop the work.
        if state.paused && !state.running.is_empty() {
            return Next::Nothing;
        }
        let Some((spot, queued)) = state.queue.pop(Instant::now()) else { return Next::Nothing };
        state.starts += 1;
        queued.control.start.store(state.starts, Ordering::Relaxed);
        queued.control.started.store(true, Ordering::Release);
        state.running.insert(spot, Arc::clone(&queued.control));
        Next::Job(spot, queued)
    }

    /// The next job; `None` once the pool is closed.
    pub(crate) async fn next(&self) -> Option<(Spot, Queued)> {
        loop {
            let mut work = std::pin::pin!(self.work.notified());
            // In line for a wake-up before looking: what is submitted in between is not missed.
            work.as_mut().enable();
            match self.try_next() {
                Next::Job(spot, queued) => return Some((spot, queued)),
                Next::Closed => return None,
                Next::Nothing => work.await,
            }
        }
    }

    /// What has ended frees a slot, or waits for one again.
    pub(crate) fn ended(
        &self,
        spot: Spot,
        queued: Queued,
        run: Option<Run>,
    ) -> Option<(Queued, Run)> {
        let Control { unwanted, taken_back, started, .. } = &*queued.control;
        let is_back = taken_back.swap(false, Ordering::AcqRel) && run.is_none();
        let mut state = self.lock();
        state.running.remove(&spot);
        if is_back && !state.closed && unwanted.get().is_none() {
            started.store(false, Ordering::Release);
            state.queue.end(spot, Some(queued), Instant::now());
            return None;
        }
        state.queue.end(spot, None, Instant::now());
        drop(state);
        run.map(|run| (queued, run))
    }

    /// How long what runs may take to end, as far as its tasks say so themselves.
    pub(crate) fn longest_steps(&self) -> Duration {
        let state = self.lock();
        state.running.values().map(|control| control.steps).max().unwrap_or_default()
    }

    pub(crate) fn shut(&self) {
        let dropped: Vec<Queued> = {
            let mut state = self.lock();
            state.closed = true;
            for control in state.running.values() {
                control.kill.notify_one();
            }
            state.queue.clear()
        };
        drop(dropped);
        self.work.notify_waiters();
    }
}

/// The pool as the memory guard sees it.
pub(crate) struct Held(pub(crate) Arc<Shared>, pub(crate) Programs);

impl Guarded for Held {
    fn pause(&self, paused: bool) {
        let was = {
            let mut state = self.0.lock();
            state.pauses += u64::from(paused && !state.paused);
            std::mem::replace(&mut state.paused, paused)
        };
        if was && !paused {
            self.0.work.notify_waiters();
        }
        self.1.pause(paused);
    }

    fn take_back(&self) -> bool {
        let mut state = self.0.lock();
        let is_ending = |control: &Arc<Control>| control.taken_back.load(Ordering::Acquire);
        if state.running.len() < 2 || state.running.values().any(is_ending) {
            return false;
        }
        let youngest = state.running.values().max_by_key(|one| one.start.load(Ordering::Relaxed));
        let Some(youngest) = youngest.map(Arc::clone) else { return false };
        state.taken_back += 1;
        youngest.taken_back.store(true, Ordering::Release);
        youngest.kill.notify_one();
        true
    }
}
