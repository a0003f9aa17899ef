//! What runs beside the loop of a partition: hooks and deliveries.
//!
//! Most hooks have their answer at once, and then a task of the runtime for each of them costs more
//! than the hook, and so does memory for each. So those that begin at the same time get one task for
//! several of them, which looks at each once, one after the other in the same memory, and reports together
//! what was done by that. The first that is not keeps this task for itself, and those behind it begin in
//! tasks of their own, as all would have done from the beginning: nobody delays anybody.
//!
//! One that blocks its thread would keep what it began with from all of this. So that lies where the loop
//! can take it from behind its back, which it does after a moment.
//!
//! Dropping all aborts all. A hook that is being executed at that moment goes on until it waits or
//! returns; the tracker of the assignment knows of it for as long.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use drakkar_core::contain::let_go;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::task::TaskTracker;

/// How many begin in one task at most: the others can begin on other processors.
const TOGETHER: usize = 32;

/// How long one task looks at them: those it has not looked at by then need processors of their own.
const LOOK_FOR: Duration = Duration::from_millis(1);

/// How long one of them may keep the others: far less than any hook may take.
const KEPT_FOR: Duration = Duration::from_millis(100);

/// What many of begin at the same time.
pub(crate) trait Begin: Send + 'static {
    /// What it ends with.
    type End: Send + 'static;

    /// Does it.
    fn go(self) -> impl Future<Output = Self::End> + Send + 'static;
}

/// What a task of the runtime ends with.
enum Report<B: Begin> {
    One(B::End),
    Several(Arc<Together<B>>),
}

/// Those that begin in one task. The lock is that task's own until it has kept them for too long.
struct Together<B: Begin> {
    since: Instant,
    flows: Mutex<Looked<B>>,
}

/// What came of several that began together: these have ended, and these were not looked at.
struct Looked<B: Begin> {
    ended: Vec<B::End>,
    unbegun: std::vec::IntoIter<B>,
}

impl<B: Begin> Together<B> {
    fn new(flows: Vec<B>) -> Self {
        let ended = Vec::with_capacity(flows.len());
        let flows = Mutex::new(Looked { ended, unbegun: flows.into_iter() });
        Self { since: Instant::now(), flows }
    }

    fn looked(&self) -> MutexGuard<'_, Looked<B>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all there is, whether the task is done with it or not.
    fn take(&self) -> Looked<B> {
        let mut flows = self.looked();
        let (ended, unbegun) =
            (std::mem::take(&mut flows.ended), std::mem::take(&mut flows.unbegun));
        Looked { ended, unbegun }
    }
}

/// Everything that runs beside one loop. Dropped with it.
pub(crate) struct Flows<B: Begin> {
    tasks: JoinSet<Report<B>>,
    /// Those that begin at the next [`Flows::begin`], by those that begin together.
    beginning: Vec<Vec<B>>,
    /// Those that began together and were not reported yet.
    together: Vec<Arc<Together<B>>>,
    /// When to look whether one of them keeps the others.
    look_after: Interval,
    /// Those whose task goes on with one of them.
    parted: mpsc::UnboundedReceiver<Arc<Together<B>>>,
    part: mpsc::UnboundedSender<Arc<Together<B>>>,
    open: usize,
    present: TaskTracker,
}

impl<B: Begin> Flows<B> {
    pub(crate) fn new(present: TaskTracker) -> Self {
        let (part, parted) = mpsc::unbounded_channel();
        let mut look_after = interval(KEPT_FOR);
        look_after.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            tasks: JoinSet::new(),
            beginning: Vec::new(),
            together: Vec::new(),
            look_after,
            parted,
            part,
            open: 0,
            present,
        }
    }

    /// Begins in a task of its own. Only this one may be aborted by itself.
    pub(crate) fn spawn(
        &mut self,
        flow: impl Future<Output = B::End> + Send + 'static,
    ) -> AbortHandle {
        self.open += 1;
        self.go_on(flow)
    }

    /// Begins at the next [`Flows::begin`], together with others.
    pub(crate) fn add(&mut self, flow: B) {
        self.open += 1;
        match self.beginning.last_mut() {
            Some(last) if last.len() < TOGETHER => {
                if last.len() == last.capacity() {
                    last.reserve_exact(TOGETHER - last.len()); // Moved once at most.
                }
                last.push(flow);
            }
            _ => self.beginning.push(vec![flow]),
        }
    }

    /// Begins what was added, in order.
    pub(crate) fn begin(&mut self) {
        let mut beginning = std::mem::take(&mut self.beginning);
        for flows in beginning.drain(..) {
            if flows.len() == 1 {
                for alone in flows {
                    self.go_on(alone.go());
                }
                continue;
            }
            let together = Arc::new(Together::new(flows));
            self.together.push(Arc::clone(&together));
            self.tasks.spawn(self.present.track_future(look_once(together, self.part.clone())));
        }
        self.beginning = beginning;
    }

    fn go_on(&mut self, flow: impl Future<Output = B::End> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(self.present.track_future(async move { Report::One(flow.await) }))
    }

    /// How many have not been reported as ended.
    pub(crate) fn len(&self) -> usize {
        self.open
    }

    /// Waits for some to end; `None` while nothing runs. Nothing is lost by not waiting to the end.
    pub(crate) async fn join_next(&mut self) -> Option<Result<Vec<B::End>, JoinError>> {
        loop {
            tokio::select! {
                biased; // A task parts before it ends.
                Some(together) = self.parted.recv() => return Some(Ok(self.looked(&together))),
                report = self.tasks.join_next() => return report.map(|report| self.reported(report)),
                _ = self.look_after.tick(), if !self.together.is_empty() => {
                    let ended = self.relieve(KEPT_FOR);
                    if !ended.is_empty() {
                        return Some(Ok(ended));
                    }
                }
            }
        }
    }

    /// Some that have ended, if there are any: also those that are kept by one that has not.
    pub(crate) fn try_join_next(&mut self) -> Option<Result<Vec<B::End>, JoinError>> {
        if let Ok(together) = self.parted.try_recv() {
            return Some(Ok(self.looked(&together)));
        }
        if let Some(report) = self.tasks.try_join_next() {
            return Some(self.reported(report));
        }
        let ended = self.relieve(Duration::ZERO);
        (!ended.is_empty()).then_some(Ok(ended))
    }

    pub(crate) fn abort_all(&mut self) {
        self.tasks.abort_all();
        let_go(std::mem::take(&mut self.together));
    }

    fn reported(&mut self, report: Result<Report<B>, JoinError>) -> Result<Vec<B::End>, JoinError> {
        match report {
            Ok(Report::Several(together)) => Ok(self.looked(&together)),
            Ok(Report::One(ended)) => {
                self.open -= 1;
                Ok(vec![ended])
            }
            Err(error) => {
                self.open -= 1;
                Err(error)
            }
        }
    }

    fn looked(&mut self, together: &Arc<Together<B>>) -> Vec<B::End> {
        self.together.retain(|other| !Arc::ptr_eq(other, together));
        self.go_on_with(together.take())
    }

    /// Takes from those that began together what one of them has kept for so `long`. Returns what has
    /// ended.
    fn relieve(&mut self, long: Duration) -> Vec<B::End> {
        let kept: Vec<_> =
            self.together.extract_if(.., |kept| long <= kept.since.elapsed()).collect();
        kept.iter().flat_map(|kept| self.go_on_with(kept.take())).collect()
    }

    fn go_on_with(&mut self, Looked { ended, unbegun }: Looked<B>) -> Vec<B::End> {
        for flow in unbegun {
            self.go_on(flow.go());
        }
        self.open -= ended.len();
        ended
    }
}

async fn look_once<B: Begin>(
    together: Arc<Together<B>>,
    part: mpsc::UnboundedSender<Arc<Together<B>>>,
) -> Report<B> {
    let begun = Instant::now();
    let mut next = together.looked().unbegun.next();
    while let Some(flow) = next {
        let mut flow = pin!(flow.go());
        match look(flow.as_mut()).await {
            Poll::Ready(end) => {
                let mut flows = together.looked();
                flows.ended.push(end);
                next = if begun.elapsed() < LOOK_FOR { flows.unbegun.next() } else { None };
            }
            Poll::Pending => {
                // Without a loop there is nobody to go on with the others.
                drop(part.send(together));
                // That may have put the loop behind this task, where no other thread looks for it: so
                // this thread goes back first. Nothing is missed: the flow knows whom to wake.
                let mut is_back = false;
                let rest = poll_fn(|context| {
                    if std::mem::replace(&mut is_back, true) {
                        flow.as_mut().poll(context)
                    } else {
                        Poll::Pending
                    }
                });
                return Report::One(rest.await);
            }
        }
    }
    Report::Several(together)
}

/// Looks at `flow` once.
async fn look<F: Future>(mut flow: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(flow.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests;
