//! One sink's lane: joins the payloads of many tasks into batches and answers each with its own
//! outcome.
//!
//! What a lane has taken and not answered is bounded in number and bytes; beyond that, callers wait.
//! That is the backpressure: while a sink is down its lane fills, and memory does not grow. Where one
//! batch is written at a time it keeps its place until the last payload of it is answered: the order of
//! what the sink is given stays. Elsewhere what stays refused makes way for what is new.
//!
//! A lane loses no payload that somebody waits for: a sink that panics or answers nonsense is tried
//! again, loudly. A payload nobody waits for any more is dropped before its next attempt.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drakkar_core::{
    Sink, SinkError, SinkName,
    hold::{Held, Hold},
    observe::SinkObserver,
    retry::Backoff,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::{error, warn};

use crate::Settled;
use batch::Batch;
use breaker::Breaker;
pub(crate) use breaker::Threshold;
use idle::Idle;
pub(crate) use pause::Pause;
use places::{Place, Places};
use reply::Reply;
pub(crate) use reply::Return;
use room::{Room, Space};
pub(crate) use shape::{Permanent, Shape};
use trouble::{Standing, Trouble};

mod shape; // how much a lane takes, and how it is cut into batches
mod breaker; // whether the sink is written to at all
mod pause; // whether the far side wants to be left alone
mod batch; // one write, repeated until each payload is answered
mod places; // how many batches are written at once, and how many again
mod reply; // where an outcome goes
mod room; // who may come in, and who is held
mod trouble; // whether the sink accepts anything, said once
mod idle; // whether it is there when nothing is meant for it
#[cfg(test)]
mod tests;

/// How a lane bears with its sink.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Wait before a payload is tried again.
    pub backoff: Backoff,
    /// How long a batch waits for more payloads before it is written.
    pub linger: Duration,
    /// How long one write may take; `None` where the sink has a limit of its own.
    pub timeout: Option<Duration>,
    /// How long a payload is tried; `None`: for ever.
    pub give_up_after: Option<Duration>,
    /// When the sink is left alone for a while; `None`: never.
    pub threshold: Option<Threshold>,
    /// What becomes of payloads meanwhile.
    pub on_open: OnOpen,
}

/// What becomes of payloads for a sink that is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOpen {
    /// They wait.
    #[default]
    Hold,
    /// They are refused for good: `on_delivery_error` is asked, which dead-letters unless it says
    /// otherwise.
    DeadLetter,
}

/// What a lane is told at its start.
pub(crate) struct Settings {
    pub name: SinkName,
    pub shape: Shape,
    pub patience: Patience,
    pub observer: Arc<dyn SinkObserver>,
}

/// What the parts of a lane share.
struct Common {
    settings: Settings,
    trouble: Trouble,
    breaker: Option<Arc<Breaker>>,
    pause: Pause,
    places: Places,
}

impl Common {
    /// An observer that panics must not cost a payload.
    fn observe(&self, report: impl FnOnce(&dyn SinkObserver)) {
        let observer = &*self.settings.observer;
        if catch_unwind(AssertUnwindSafe(|| report(observer))).is_err() {
            error!(sink = %self.settings.name, "bug in an observer of sinks: it panicked");
        }
    }
}

/// One payload on its way, and who waits for it.
struct Ticket<P> {
    reply: Reply<P>,
    hold: Arc<Hold>,
    /// While it is held.
    held: Option<Held>,
    /// Its share of what the lane may take; given back when the ticket is dropped.
    _space: Space,
    size: usize,
    attempts: u32,
    /// When the lane was given it: where it had to wait for room, before.
    since: Instant,
}

struct Entry<P> {
    payload: P,
    ticket: Ticket<P>,
}

/// The callers' end of a lane.
pub(crate) struct Lane<P> {
    entries: mpsc::UnboundedSender<Entry<P>>, // Bounded by `room`.
    room: Room,
    common: Arc<Common>,
    stop: Arc<Notify>,
    /// Until when nothing lingers.
    hurry: watch::Sender<Option<Instant>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl<P> fmt::Debug for Lane<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("sink", &self.common.settings.name).finish_non_exhaustive()
    }
}

impl<P: Send + Sync + 'static> Lane<P> {
    /// Starts the lane of `sink`; must be called inside a tokio runtime.
    pub(crate) fn start<S: Sink<Payload = P>>(sink: S, settings: Settings) -> Self {
        let (entries, queue) = mpsc::unbounded_channel();
        let stop = Arc::new(Notify::new());
        let room = Room::new(settings.shape.items, settings.shape.bytes);
        let trouble = Trouble::new(settings.name.clone(), settings.shape);
        let breaker = settings.patience.threshold.map(|at| Arc::new(Breaker::new(at)));
        let places = Places::new(settings.shape.batches);
        let common =
            Arc::new(Common { settings, trouble, breaker, pause: Pause::default(), places });
        let hurry = watch::Sender::new(None);
        let belt = Belt {
            sink: Arc::new(sink),
            common: Arc::clone(&common),
            queue,
            hurry: hurry.subscribe(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            expects: None,
            place: None,
            batches: 0,
            running: JoinSet::new(),
        };
        let task = tokio::spawn(belt.run(Arc::clone(&stop)));
        Self { entries, room, common, stop, hurry, task: Mutex::new(Some(task)) }
    }

    pub(crate) fn name(&self) -> &SinkName {
        &self.common.settings.name
    }

    /// Waits for room, then for the outcome.
    pub(crate) async fn deliver(&self, payload: P, size: usize, hold: &Arc<Hold>) -> Settled<P> {
        let since = Instant::now();
        let space = match self.room.try_enter(size) {
            Some(space) => space,
            None => self.room.enter(size, hold, &self.common.trouble).await,
        };
        let (reply, answer) = oneshot::channel();
        let ticket = Ticket::new(Reply::Awaited(reply), hold, space, size, since);
        let answer = match self.entries.send(Entry { payload, ticket }) {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        match answer {
            Some(settled) => settled,
            // The lane is closed. What nobody will confirm must never count as settled.
            None => {
                let _held = Held::begin(hold);
                std::future::pending().await
            }
        }
    }

    /// Takes `payload` if there is room at once; its outcome goes to where `back` says. A lane that is
    /// closed says at once that there will be none.
    ///
    /// # Errors
    ///
    /// The payload, where it would have to wait.
    pub(crate) fn post(
        &self,
        payload: P,
        size: usize,
        hold: &Arc<Hold>,
        back: impl FnOnce() -> Return<P>,
    ) -> Result<(), P> {
        let Some(space) = self.room.try_enter(size) else {
            return Err(payload);
        };
        let ticket = Ticket::new(Reply::Posted(back()), hold, space, size, Instant::now());
        drop(self.entries.send(Entry { payload, ticket })); // Closed: what it let go of says so.
        Ok(())
    }

    /// How long the sink has accepted nothing, if it holds something, or has not answered when it was
    /// asked.
    pub(crate) fn held(&self) -> Option<(SinkName, Duration)> {
        let since = self.common.trouble.since()?;
        Some((self.name().clone(), since))
    }

    /// What it holds although the sink refused it for good, and for how long; see [`Permanent::Hold`].
    pub(crate) fn hopeless(&self) -> Option<(SinkError, Duration)> {
        self.common.trouble.hopeless()
    }

    /// Somebody waits for what is delivered: until `until` nothing lingers.
    pub(crate) fn hurry(&self, until: Instant) {
        self.hurry.send_modify(|hurry| *hurry = (*hurry).max(Some(until)));
    }

    /// Finishes what is under way until `until`, then gives it up.
    pub(crate) async fn close(&self, until: Instant) {
        self.stop.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else {
            return; // Closed before.
        };
        match tokio::time::timeout_at(until, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => error!(sink = %self.name(), error = %ended, "sink did not close"),
            Err(_) => {
                warn!(sink = %self.name(), "sink did not close in time; what it holds is given up");
                task.abort();
            }
        }
    }
}

/// The lane's own end: everything that waits, and the batches under way.
struct Belt<S: Sink> {
    sink: Arc<S>,
    common: Arc<Common>,
    queue: mpsc::UnboundedReceiver<Entry<S::Payload>>,
    hurry: watch::Receiver<Option<Instant>>,
    waiting: VecDeque<Entry<S::Payload>>,
    waiting_bytes: usize,
    /// While something waits that may still be written.
    expects: Option<Standing>,
    /// Taken, for the next batch.
    place: Option<Place>,
    /// Batches so far.
    batches: u64,
    /// Those of them that are not answered.
    running: JoinSet<()>,
}

/// Most payloads taken from the queue at a time.
const INTAKE: usize = 4_096;

impl<S: Sink> Belt<S> {
    async fn run(mut self, stop: Arc<Notify>) {
        let mut stuck = self.common.trouble.stuck();
        let mut circuit = self.common.breaker.as_ref().map(|breaker| breaker.watch());
        let mut idle = Idle::new(Arc::clone(&self.sink), Arc::clone(&self.common));
        let mut taken = Vec::new();
        let mut open = true;
        while open || !self.waiting.is_empty() || !self.running.is_empty() {
            let lingers = if open { self.lingers() } else { None };
            let is_idle = open && self.waiting.is_empty() && self.running.is_empty();
            let has_to_wait = !self.waiting.is_empty() && self.place.is_none();
            let gives_up = self.gives_up();
            // What comes while nothing can be begun waits where it is, and wakes nobody.
            let listens = self.waiting.is_empty() || self.has_place() || *stuck.borrow();
            let common = Arc::clone(&self.common);
            tokio::select! {
                biased; // Finish before starting.
                Some(ended) = self.running.join_next() => self.ended(ended),
                Some(now) = next(&mut circuit) => {
                    self.common.observe(|observer| observer.circuit(&self.common.settings.name, now));
                }
                Ok(()) = stuck.changed() => {
                    let stuck = *stuck.borrow_and_update();
                    self.waiting.iter_mut().for_each(|entry| entry.ticket.set_held(stuck));
                }
                () = sleep_until(gives_up.unwrap_or_else(Instant::now)), if gives_up.is_some() => {}
                place = common.places.take(), if has_to_wait && lingers.is_none() => {
                    self.place = Some(place);
                    while self.waiting.len() < INTAKE && let Ok(entry) = self.queue.try_recv() {
                        self.wait(entry, *stuck.borrow());
                    }
                }
                count = self.queue.recv_many(&mut taken, INTAKE), if open && listens => {
                    open = count > 0;
                    self.expect(open || !self.waiting.is_empty());
                    taken.drain(..).for_each(|entry| self.wait(entry, *stuck.borrow()));
                }
                () = sleep_until(lingers.unwrap_or_else(Instant::now)), if lingers.is_some() => {}
                Ok(()) = self.hurry.changed() => {}
                // What was sent before is still received.
                () = stop.notified(), if open => self.queue.close(),
                () = idle.ask(), if is_idle => {}
            }
            if !is_idle {
                idle.interrupt();
            }
            self.dispatch(open);
        }
        self.sink.close().await;
    }

    fn wait(&mut self, mut entry: Entry<S::Payload>, is_stuck: bool) {
        entry.ticket.set_held(is_stuck);
        self.waiting_bytes += entry.ticket.size;
        self.waiting.push_back(entry);
    }

    /// Until when what waits may wait for more; `None` if it need not.
    fn lingers(&self) -> Option<Instant> {
        let Settings { shape, patience, .. } = &self.common.settings;
        let oldest = self.waiting.front()?.ticket.since;
        let full =
            shape.batch_items <= self.waiting.len() || shape.batch_bytes <= self.waiting_bytes;
        let (now, until) = (Instant::now(), oldest + patience.linger);
        let hurried = self.hurry.borrow().is_some_and(|hurry| now < hurry);
        (!full && !hurried && self.has_place() && now < until).then_some(until)
    }

    fn has_place(&self) -> bool {
        self.place.is_some() || self.common.places.has_free()
    }

    /// When to look whether what waits is to be given up.
    fn gives_up(&self) -> Option<Instant> {
        let limit = self.common.settings.patience.give_up_after?;
        let oldest = self.waiting.front()?.ticket.since;
        let unheard = self.common.trouble.unheard().map_or_else(Instant::now, |(since, _)| since);
        Some(oldest.max(unheard) + limit)
    }

    /// Gives up what has waited for too long, where the sink has been away for as long: where it is only
    /// slow, each payload is written once at least.
    fn give_up(&mut self) {
        let limit = self.common.settings.patience.give_up_after;
        let Some(limit) = limit.filter(|_| !self.waiting.is_empty()) else { return };
        let unheard = self.common.trouble.unheard();
        let Some((_, error)) = unheard.filter(|(since, _)| limit <= since.elapsed()) else {
            return;
        };
        for entry in std::mem::take(&mut self.waiting) {
            if entry.ticket.is_expired(Some(limit)) {
                self.waiting_bytes -= entry.ticket.size;
                self.common.give_up(entry.payload, entry.ticket, error.clone());
            } else {
                self.waiting.push_back(entry);
            }
        }
    }

    /// Starts a batch of what waits for every place that is free.
    fn dispatch(&mut self, open: bool) {
        self.give_up();
        while !self.waiting.is_empty() {
            if open && self.lingers().is_some() {
                break;
            }
            let Some(place) = self.place.take().or_else(|| self.common.places.try_take()) else {
                break;
            };
            let batch = self.cut(place);
            self.running.spawn(batch.run());
        }
        self.expect(!self.waiting.is_empty());
    }

    /// What waits here is not answered: as long as there is any, not all of the lane is held.
    fn expect(&mut self, any: bool) {
        match any {
            true if self.expects.is_none() => self.expects = Some(Standing::begin(&self.common)),
            true => {}
            false => self.expects = None,
        }
    }

    fn cut(&mut self, place: Place) -> Batch<S> {
        let shape = self.common.settings.shape;
        let (sink, common) = (Arc::clone(&self.sink), Arc::clone(&self.common));
        let count = self.waiting.len().min(shape.batch_items);
        let mut batch = Batch::new(self.batches, sink, common, place, count);
        self.batches += 1;
        let stuck = *self.common.trouble.stuck().borrow();
        let mut bytes = 0;
        while let Some(mut entry) = self.waiting.pop_front() {
            entry.ticket.set_held(stuck);
            bytes += entry.ticket.size;
            self.waiting_bytes -= entry.ticket.size;
            batch.push(entry);
            let next = self.waiting.front().map_or(0, |next| next.ticket.size);
            if shape.batch_items <= batch.len() || shape.batch_bytes < bytes + next {
                break;
            }
        }
        batch
    }

    fn ended(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            // Sinks and observers cannot cause this: their panics are caught where they are called.
            error!(sink = %self.common.settings.name, %error, "a batch ended without answers");
        }
    }
}

/// The next state of a circuit, if there is one.
async fn next<T: Copy>(changes: &mut Option<watch::Receiver<T>>) -> Option<T> {
    let changes = changes.as_mut()?;
    changes.changed().await.ok()?;
    Some(*changes.borrow_and_update())
}

impl<P> Ticket<P> {
    fn new(reply: Reply<P>, hold: &Arc<Hold>, space: Space, size: usize, since: Instant) -> Self {
        let hold = Arc::clone(hold);
        // Nothing in memory is larger; what a handler says is added up.
        let size = size.min(isize::MAX.unsigned_abs());
        Self { reply, hold, held: None, _space: space, size, attempts: 0, since }
    }

    fn set_held(&mut self, held: bool) {
        match (&self.held, held) {
            (None, true) => self.held = Some(Held::begin(&self.hold)),
            (Some(_), false) => self.held = None,
            _ => {}
        }
    }
}
