//! What runs beside the loop of a partition: hooks and deliveries.
//!
//! Most hooks have their answer at once, and then a task of the runtime for each of them costs more
//! than the hook, and so does memory for each. So those that begin at the same time get one task for
//! several of them, which looks at each once, one after the other in the same memory, and reports together
//! what was done by that. Whatever is not goes on in a task of its own, as it would have done from the
//! beginning: it delays nobody, and nobody delays it.
//!
//! One that blocks its thread would keep those it began with from all of this, and their time-outs run. So
//! they lie where the loop can take them from behind its back, which it does after a moment.
//!
//! Dropping all aborts all. A hook that is being executed at that moment goes on until it waits or
//! returns; the tracker of the assignment knows of it for as long.

use std::{
    future::poll_fn,
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::{sync::ReusableBoxFuture, task::TaskTracker};

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

type Begun<B> = ReusableBoxFuture<'static, <B as Begin>::End>;

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

/// What one look at each of them has come to.
struct Looked<B: Begin> {
    ended: Vec<B::End>,
    unfinished: Vec<Begun<B>>,
    unbegun: std::vec::IntoIter<B>,
}

impl<B: Begin> Together<B> {
    fn new(flows: Vec<B>) -> Self {
        let looked = Looked {
            ended: Vec::with_capacity(flows.len()),
            unfinished: Vec::new(),
            unbegun: flows.into_iter(),
        };
        Self { since: Instant::now(), flows: Mutex::new(looked) }
    }

    fn looked(&self) -> MutexGuard<'_, Looked<B>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all there is, whether the task is done with it or not.
    fn take(&self) -> Looked<B> {
        let mut flows = self.looked();
        Looked {
            ended: std::mem::take(&mut flows.ended),
            unfinished: std::mem::take(&mut flows.unfinished),
            unbegun: std::mem::take(&mut flows.unbegun),
        }
    }
}

/// Everything that runs beside one loop. Dropped with it.
pub(crate) struct Flows<B: Begin> {
    tasks: JoinSet<Report<B>>,
    /// Those that begin at the next [`Flows::begin`].
    beginning: Vec<B>,
    /// Those that began together and were not reported yet.
    together: Vec<Arc<Together<B>>>,
    /// When to look whether one of them keeps the others.
    look_after: Interval,
    open: usize,
    present: TaskTracker,
}

impl<B: Begin> Flows<B> {
    pub(crate) fn new(present: TaskTracker) -> Self {
        let mut look_after = interval(KEPT_FOR);
        look_after.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            tasks: JoinSet::new(),
            beginning: Vec::new(),
            together: Vec::new(),
            look_after,
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
        self.beginning.push(flow);
    }

    /// Begins what was added, in order.
    pub(crate) fn begin(&mut self) {
        let mut beginning = std::mem::take(&mut self.beginning).into_iter();
        while let Some(first) = beginning.next() {
            let more = beginning.len().min(TOGETHER - 1);
            if more == 0 {
                self.go_on(first.go());
                break;
            }
            let flows = iter::once(first).chain(beginning.by_ref().take(more)).collect();
            let together = Arc::new(Together::new(flows));
            self.together.push(Arc::clone(&together));
            self.tasks.spawn(self.present.track_future(look_once(together)));
        }
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
                biased;
                report = self.tasks.join_next() => return Some(self.reported(report?)),
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
        if let Some(report) = self.tasks.try_join_next() {
            return Some(self.reported(report));
        }
        let ended = self.relieve(Duration::ZERO);
        (!ended.is_empty()).then_some(Ok(ended))
    }

    pub(crate) fn abort_all(&mut self) {
        self.tasks.abort_all();
        self.together.clear();
    }

    /// Takes from those that began together what one of them has kept for so `long`. Returns what has
    /// ended.
    fn relieve(&mut self, long: Duration) -> Vec<B::End> {
        let kept: Vec<_> =
            self.together.extract_if(.., |kept| long <= kept.since.elapsed()).collect();
        kept.iter().flat_map(|kept| self.go_on_with(kept.take())).collect()
    }

    /// Goes on with what is not done by one look. Returns what is.
    fn go_on_with(&mut self, looked: Looked<B>) -> Vec<B::End> {
        for flow in looked.unfinished {
            self.go_on(flow);
        }
        for flow in looked.unbegun {
            self.go_on(flow.go());
        }
        self.open -= looked.ended.len();
        looked.ended
    }

    fn reported(&mut self, report: Result<Report<B>, JoinError>) -> Result<Vec<B::End>, JoinError> {
        match report {
            Ok(Report::One(ended)) => {
                self.open -= 1;
                Ok(vec![ended])
            }
            Ok(Report::Several(together)) => {
                self.together.retain(|other| !Arc::ptr_eq(other, &together));
                Ok(self.go_on_with(together.take()))
            }
            Err(error) => {
                self.open -= 1;
                Err(error)
            }
        }
    }
}

async fn look_once<B: Begin>(together: Arc<Together<B>>) -> Report<B> {
    let begun = Instant::now();
    let mut done: Option<Begun<B>> = None;
    let mut next = together.looked().unbegun.next();
    while let Some(flow) = next {
        let mut flow = match done.take() {
            Some(mut place) => {
                place.set(flow.go());
                place
            }
            None => ReusableBoxFuture::new(flow.go()),
        };
        let looked = poll_fn(|context| Poll::Ready(flow.poll(context))).await;
        let mut flows = together.looked();
        match looked {
            Poll::Ready(end) => {
                flows.ended.push(end);
                done = Some(flow);
            }
            Poll::Pending => flows.unfinished.push(flow),
        }
        next = if begun.elapsed() < LOOK_FOR { flows.unbegun.next() } else { None };
    }
    Report::Several(together)
}

#[cfg(test)]
mod tests;
