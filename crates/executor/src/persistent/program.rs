//! Who is next, and which process takes it: the queue of one program.
//!
//! Handing out takes one lock per batch and wakes nobody who has work: a process looks for more when
//! it has read its answers; only one that found nothing is in need of a signal.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use drakkar_core::{Task, retry::Backoff};
use tokio::{sync::Notify, time::Instant};

use super::{
    queued::{Control, Queued},
    stats::{Books, ProgramStats},
    stderr::Throttle,
    wire::Limits,
};
use crate::{
    CancelReason, ExecutorConfig, Job, ProgramConfig,
    job::Watcher,
    process::Patience,
    programs::start_task,
    queue::{Place, Queue},
};

/// What there is for a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// What was put into the batch.
    Jobs,
    /// One job, which is to be alone.
    Suspect,
    /// Nothing: a signal will come.
    Nothing,
    /// Nothing ever again.
    Closed,
}

/// What is known of a process that takes requests.
#[derive(Debug, Clone, Copy)]
struct Ready {
    /// Requests it has.
    load: usize,
    /// Whether it waits for a signal.
    is_idle: bool,
}

struct State {
    queue: Queue<(Job, Instant, Arc<Control>)>,
    /// Were in a process that failed by nobody knows whose doing; each runs alone.
    suspects: BTreeMap<Place, Queued>,
    /// By process.
    ready: Box<[Option<Ready>]>,
    closed: bool,
    /// Memory is short.
    paused: bool,
}

impl State {
    /// The process with the fewest requests among those that wait for a signal.
    fn wake_one(&mut self) -> Option<usize> {
        let idle = self.ready.iter_mut().enumerate();
        let idle = idle.filter_map(|(number, ready)| Some((number, ready.as_mut()?)));
        let least = idle.filter(|(_, ready)| ready.is_idle).min_by_key(|(_, ready)| ready.load);
        least.map(|(number, ready)| {
            ready.is_idle = false;
            number
        })
    }

    fn ready_numbers(&self) -> impl Iterator<Item = usize> {
        let numbered = self.ready.iter().enumerate();
        numbered.filter_map(|(number, ready)| ready.is_some().then_some(number))
    }

    /// How many a process shall take that has `load`, so that all that are ready have as many: jobs
    /// must not wait in line at one process beside others that have nothing to do.
    fn share(&self, load: usize) -> usize {
        let loads = self.ready.iter().flatten().map(|ready| ready.load);
        let (count, sum) = loads.fold((0_usize, 0), |(count, sum), load| (count + 1, sum + load));
        (self.queue.len() + sum).div_ceil(count.max(1)).saturating_sub(load)
    }
}

/// One persistent program: its queue, its settings, its books.
pub(crate) struct Program {
    name: String,
    pub(super) settings: ProgramConfig,
    /// Starts a process.
    pub(super) start: Arc<Task>,
    pub(super) limits: Limits,
    pub(super) patience: Patience<'static>,
    pub(super) books: Books,
    pub(super) stderr: Throttle,
    state: Mutex<State>,
    /// One per process: look again.
    signals: Box<[Notify]>,
}

impl Program {
    pub(super) fn new(name: &str, settings: &ProgramConfig, config: &ExecutorConfig) -> Self {
        let instances = settings.instances.map_or_else(|| config.slots(), Into::into);
        Self {
            name: name.to_owned(),
            start: Arc::new(start_task(name, settings)),
            settings: settings.clone(),
            limits: Limits {
                stdout: config.max_stdout_bytes,
                stderr: config.max_stderr_bytes,
                answer: settings.max_answer_bytes,
            },
            patience: Patience {
                steps: None,
                limit: config.task_timeout_seconds,
                kill: config.kill_grace,
                pipe: config.pipe_grace,
            },
            books: Books::new(instances),
            stderr: Throttle::default(),
            state: Mutex::new(State {
                queue: Queue::new(config.priority_ageing),
                suspects: BTreeMap::new(),
                ready: (0..instances).map(|_| None).collect(),
                closed: false,
                paused: false,
            }),
            signals: (0..instances).map(|_| Notify::new()).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn instances(&self) -> usize {
        self.signals.len()
    }

    pub(super) fn stop_grace(&self) -> Duration {
        self.settings.stop_grace
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { initial: self.settings.backoff_initial, max: self.settings.backoff_max }
    }

    /// Comes when there may be work, when a job was killed, and when the program is closed.
    pub(super) fn signal(&self, number: usize) -> &Notify {
        &self.signals[number]
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Puts a job in line. In a program that is closed it is dropped, and `done` with it.
    pub(crate) fn submit(self: &Arc<Self>, job: Job, watcher: Watcher) -> Claim {
        let control = Arc::new(Control::new(watcher));
        let claim =
            |place| Claim { place, control: Arc::clone(&control), program: Arc::clone(self) };
        let mut state = self.lock();
        if state.closed {
            drop(state);
            drop(job);
            return claim(None);
        }
        let place = state.queue.push(job.rank, (job, Instant::now(), Arc::clone(&control)));
        let awake = state.wake_one();
        drop(state);
        self.wake(awake);
        claim(Some(place))
    }

    fn wake(&self, number: impl IntoIterator<Item = usize>) {
        for number in number {
            self.signals[number].notify_one();
        }
    }

    /// Moves into `batch` what process `number`, which has `load` requests and room for `room` more,
    /// shall do; the batch is empty before. With nothing to do it will be sent a signal.
    pub(super) fn take(
        &self,
        number: usize,
        load: usize,
        room: usize,
        batch: &mut Vec<Queued>,
    ) -> Taken {
        let mut state = self.lock();
        state.ready[number] = Some(Ready { load, is_idle: false });
        if state.closed {
            return Taken::Closed;
        }
        // One task may always run: a shortage that is not ours must not stop the work.
        let most = if state.paused { usize::from(self.is_unused()) } else { room };
        if most == 0 {
            state.ready[number] = Some(Ready { load, is_idle: true });
            return Taken::Nothing;
        }
        if !state.suspects.is_empty() {
            // Whoever is the first to have nothing takes one. Nobody takes anything else before.
            let suspect = if load == 0 { state.suspects.pop_first() } else { None };
            let Some((_, suspect)) = suspect else { return Taken::Nothing };
            batch.push(suspect);
            self.suspect_left(state);
            return Taken::Suspect;
        }
        let now = Instant::now();
        for _ in 0..state.share(load).min(most).min(room) {
            let Some((place, (job, since, control))) = state.queue.pop(now) else { break };
            control.starts();
            batch.push(Queued { place, job, since, control, is_suspect: false });
        }
        let taken = batch.len();
        state.ready[number] = Some(Ready { load: load + taken, is_idle: taken == 0 });
        if taken == 0 { Taken::Nothing } else { Taken::Jobs }
    }

    /// One suspect less: with the last one, those that had to stand back look again.
    fn suspect_left(&self, state: MutexGuard<'_, State>) {
        if state.suspects.is_empty() {
            let all: Vec<usize> = state.ready_numbers().collect();
            drop(state);
            self.wake(all);
        }
    }

    /// Process `number` takes nothing for now: a signal that it may have got is passed on.
    pub(super) fn leave(&self, number: usize) {
        let mut state = self.lock();
        state.ready[number] = None;
        let has_work = !state.queue.is_empty() || !state.suspects.is_empty();
        let awake = if has_work { state.wake_one() } else { None };
        drop(state);
        self.wake(awake);
    }

    /// Puts back what was in a process that is gone, each at the place it had: suspects to run alone,
    /// the others to run like any other.
    pub(super) fn requeue(&self, jobs: Vec<Queued>) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return drop(jobs);
        }
        for queued in jobs {
            self.books.requeued.fetch_add(1, Relaxed);
            if queued.is_suspect {
                state.suspects.insert(queued.place, queued);
            } else {
                let Queued { place, job, since, control, .. } = queued;
                state.queue.put_back(place, (job, since, control));
            }
        }
        let awake: Vec<usize> = std::iter::from_fn(|| state.wake_one()).collect();
        drop(state);
        self.wake(awake);
    }

    fn is_unused(&self) -> bool {
        self.books.in_flight.load(Relaxed) == 0
    }

    pub(super) fn pause(&self, paused: bool) {
        let mut state = self.lock();
        let was = std::mem::replace(&mut state.paused, paused);
        let mut awake: Vec<usize> = Vec::new();
        if was && !paused {
            awake.extend(state.ready_numbers());
        } else if paused
            && self.is_unused()
            && !(state.queue.is_empty() && state.suspects.is_empty())
        {
            // Whoever had the last task may not be there to take the next.
            awake.extend(state.wake_one());
        }
        drop(state);
        self.wake(awake);
    }

    pub(super) fn shut(&self) {
        let (queue, suspects) = {
            let mut state = self.lock();
            state.closed = true;
            let queued: Vec<_> = state.queue.clear().collect();
            (queued, std::mem::take(&mut state.suspects))
        };
        // Outside of the lock: dropping `done` is foreign code.
        drop((queue, suspects));
        self.wake(0..self.signals.len());
    }

    pub(super) fn stats(&self) -> ProgramStats {
        let (queued, ready, books) = {
            let state = self.lock();
            let queued = state.queue.len() + state.suspects.len();
            (queued, state.ready_numbers().count(), &self.books)
        };
        ProgramStats {
            instances: self.instances(),
            ready,
            in_flight: books.in_flight.load(Relaxed),
            queued,
            starts: books.starts.load(Relaxed),
            failures: books.failures.load(Relaxed),
            recycled: books.recycled.load(Relaxed),
            requeued: books.requeued.load(Relaxed),
            stderr_suppressed: self.stderr.suppressed(),
            failures_in_a_row: books.failures_in_a_row(),
            last_failure: books.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A claim on a job of a persistent program.
pub(crate) struct Claim {
    place: Option<Place>,
    control: Arc<Control>,
    program: Arc<Program>,
}

impl Claim {
    /// Takes the job back, unless a process has it.
    pub(crate) fn cancel_queued(&self) -> bool {
        self.recall() || self.take_suspect().is_some()
    }

    /// The same, unless it is a suspect: only here is known that it must be alone.
    pub(crate) fn recall(&self) -> bool {
        let queued = self.place.and_then(|place| self.program.lock().queue.withdraw(place));
        queued.is_some()
    }

    fn take_suspect(&self) -> Option<Queued> {
        let mut state = self.program.lock();
        let suspect = state.suspects.remove(&self.place?)?;
        self.program.suspect_left(state);
        Some(suspect)
    }

    pub(crate) fn has_started(&self) -> bool {
        self.control.has_started()
    }

    /// Takes the job back, or has the process replaced that works on it.
    pub(crate) fn kill(&self, reason: CancelReason) {
        self.control.kill(reason);
        if !self.cancel_queued() {
            self.program.wake(0..self.program.signals.len());
        }
    }
}
