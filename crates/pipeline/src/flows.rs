//! What runs beside the loop of a partition: hooks and deliveries.
//!
//! Most hooks have their answer at once, and then a task of the runtime for each of them costs more
//! than the hook, and so does memory for each. So those that begin at the same time get one task for
//! several of them, which looks at each once, one after the other in the same memory, and reports together
//! what was done by that. The first that is not keeps this task for itself, and those behind it begin in
//! tasks of their own, as all would have done from the beginning: nobody delays anybody.
//!
//! Dropping all aborts all. A hook that is being executed at that moment goes on until it waits or
//! returns; the tracker of the assignment knows of it for as long.

use std::{
    future::poll_fn,
    iter,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::task::TaskTracker;

/// How many begin in one task at most: the others can begin on other processors.
const TOGETHER: usize = 32;

/// How long one task looks at them: those it has not looked at by then need processors of their own.
const LOOK_FOR: Duration = Duration::from_millis(1);

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
    Several(Looked<B>),
}

/// What came of several that began together: these have ended, and these were not looked at.
struct Looked<B: Begin> {
    ended: Vec<B::End>,
    unbegun: std::vec::IntoIter<B>,
}

/// Everything that runs beside one loop. Dropped with it.
pub(crate) struct Flows<B: Begin> {
    tasks: JoinSet<Report<B>>,
    /// Those that begin at the next [`Flows::begin`].
    beginning: Vec<B>,
    /// What tasks report that go on with one of theirs.
    parted: mpsc::UnboundedReceiver<Looked<B>>,
    part: mpsc::UnboundedSender<Looked<B>>,
    open: usize,
    present: TaskTracker,
}

impl<B: Begin> Flows<B> {
    pub(crate) fn new(present: TaskTracker) -> Self {
        let (part, parted) = mpsc::unbounded_channel();
        Self { tasks: JoinSet::new(), beginning: Vec::new(), parted, part, open: 0, present }
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
            let together = iter::once(first).chain(beginning.by_ref().take(more)).collect();
            self.tasks.spawn(self.present.track_future(look_once(together, self.part.clone())));
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
        tokio::select! {
            biased; // A task parts before it ends.
            Some(looked) = self.parted.recv() => Some(Ok(self.looked(looked))),
            report = self.tasks.join_next() => report.map(|report| self.reported(report)),
        }
    }

    /// Some that have ended, if there are any.
    pub(crate) fn try_join_next(&mut self) -> Option<Result<Vec<B::End>, JoinError>> {
        if let Ok(looked) = self.parted.try_recv() {
            return Some(Ok(self.looked(looked)));
        }
        let report = self.tasks.try_join_next()?;
        Some(self.reported(report))
    }

    pub(crate) fn abort_all(&mut self) {
        self.tasks.abort_all();
    }

    fn reported(&mut self, report: Result<Report<B>, JoinError>) -> Result<Vec<B::End>, JoinError> {
        match report {
            Ok(Report::Several(looked)) => Ok(self.looked(looked)),
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

    fn looked(&mut self, Looked { ended, unbegun }: Looked<B>) -> Vec<B::End> {
        for flow in unbegun {
            self.go_on(flow.go());
        }
        self.open -= ended.len();
        ended
    }
}

async fn look_once<B: Begin>(flows: Vec<B>, part: mpsc::UnboundedSender<Looked<B>>) -> Report<B> {
    let begun = Instant::now();
    let mut ended = Vec::with_capacity(flows.len());
    let mut unbegun = flows.into_iter();
    while begun.elapsed() < LOOK_FOR
        && let Some(flow) = unbegun.next()
    {
        let mut flow = pin!(flow.go());
        match look(flow.as_mut()).await {
            Poll::Ready(end) => ended.push(end),
            Poll::Pending => {
                // Without a loop there is nobody to go on with the others.
                drop(part.send(Looked { ended, unbegun }));
                return Report::One(flow.await);
            }
        }
    }
    Report::Several(Looked { ended, unbegun })
}

/// Looks at `flow` once.
async fn look<F: Future>(mut flow: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(flow.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    struct Test<F>(F);

    impl<F: Future<Output: Send + 'static> + Send + 'static> Begin for Test<F> {
        type End = F::Output;

        fn go(self) -> impl Future<Output = F::Output> + Send + 'static {
            self.0
        }
    }

    #[tokio::test]
    async fn one_that_waits_delays_none_of_those_it_began_with() {
        let (mut flows, gate) = (Flows::new(TaskTracker::new()), Arc::new(Notify::new()));
        for n in 0..100 {
            let gate = Arc::clone(&gate);
            flows.add(Test(async move {
                if n % 10 == 3 {
                    gate.notified().await;
                }
                n
            }));
        }
        flows.begin();
        assert_eq!(flows.len(), 100);
        let mut ended = Vec::new();
        while ended.len() < 90 {
            ended.extend(flows.join_next().await.unwrap().unwrap());
        }
        assert_eq!(flows.len(), 10, "and these count although they have no task in common");
        while flows.len() > 0 {
            gate.notify_waiters();
            tokio::task::yield_now().await;
            while let Some(waited) = flows.try_join_next() {
                ended.extend(waited.unwrap());
            }
        }
        assert_eq!(ended.len(), 100);
        assert!(flows.join_next().await.is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn those_that_need_a_processor_do_not_wait_for_each_other() {
        // Three of them must be at work at the same time, or none ever ends.
        let (mut flows, at_work) = (Flows::new(TaskTracker::new()), Arc::new(AtomicUsize::new(0)));
        let deadline = Instant::now() + Duration::from_secs(20);
        for n in 0..6 {
            let at_work = Arc::clone(&at_work);
            flows.add(Test(async move {
                at_work.fetch_add(1, Ordering::SeqCst);
                let slow = Instant::now() + 2 * LOOK_FOR;
                while Instant::now() < slow
                    || (0 < n && at_work.load(Ordering::SeqCst) < 3 && Instant::now() < deadline)
                {
                    std::hint::spin_loop();
                }
                Instant::now() < deadline
            }));
        }
        flows.begin();
        let mut ended = 0;
        while let Some(some) = flows.join_next().await {
            let some = some.unwrap();
            assert!(some.iter().all(|in_time| *in_time), "one at a time");
            ended += some.len();
        }
        assert_eq!((ended, flows.len()), (6, 0));
    }

    #[tokio::test]
    async fn what_has_ended_is_reported_before_one_that_it_began_with_and_that_waits() {
        let (mut flows, gate) = (Flows::new(TaskTracker::new()), Arc::new(Notify::new()));
        for n in 0..4 {
            let gate = Arc::clone(&gate);
            flows.add(Test(async move {
                if n == 2 {
                    gate.notified().await;
                }
                n
            }));
        }
        flows.begin();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let ended = flows.try_join_next(); // As a hand-over looks.
        assert_eq!(ended.unwrap().unwrap(), [0, 1]);
        assert_eq!(flows.join_next().await.unwrap().unwrap(), [3]);
        assert_eq!(flows.len(), 1);
        gate.notify_one();
        assert_eq!(flows.join_next().await.unwrap().unwrap(), [2]);
        assert!(flows.join_next().await.is_none() && flows.len() == 0);
    }

    #[tokio::test]
    async fn what_is_dropped_goes_no_further() {
        let (mut flows, dropped) = (Flows::new(TaskTracker::new()), Arc::new(()));
        for _ in 0..3 {
            let held = Arc::clone(&dropped);
            flows.add(Test(async move {
                std::future::pending::<()>().await;
                drop(held);
            }));
        }
        flows.begin();
        drop(flows);
        while 1 < Arc::strong_count(&dropped) {
            tokio::task::yield_now().await;
        }
    }
}
