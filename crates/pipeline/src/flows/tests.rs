//! Hooks that begin together, and those among them that take long.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

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
    let deadline = Instant::now() + Duration::from_mins(1);
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

/// Waits and blocks as it is told, then ends with its number.
struct Told {
    number: u32,
    /// How often it must be looked at again by a timer.
    waits: usize,
    /// How often it gives its thread back for an instant, before it blocks it until the channel is closed.
    blocks: Option<(usize, mpsc::Receiver<()>)>,
}

impl Begin for Told {
    type End = u32;

    async fn go(self) -> u32 {
        for _ in 0..self.waits {
            sleep(Duration::from_millis(1)).await;
        }
        if let Some((yields, blocked)) = self.blocks {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            assert!(blocked.recv().is_err(), "closed");
        }
        self.number
    }
}

/// Ten that begin together. The seventh yields so many times and then blocks its thread until the sender
/// goes; the others end at once, or `some_wait`.
fn around_one_that_blocks(some_wait: bool, yields: usize) -> (Flows<Told>, mpsc::Sender<()>) {
    let mut flows = Flows::new(TaskTracker::new());
    let (release, blocked) = mpsc::channel::<()>();
    let mut blocks = Some((yields, blocked));
    for number in 0..10 {
        let waits = if some_wait && number % 2 == 1 { 5 } else { 0 };
        let blocks = if number == 6 { blocks.take() } else { None };
        flows.add(Told { number, waits, blocks });
    }
    (flows, release)
}

/// As `drakkar::pulse` does: timers go on while a thread is blocked.
fn keep_timers_going() {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        for _ in 0..6000 {
            std::thread::sleep(Duration::from_millis(10));
            drop(runtime.spawn(async {}));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_blocks_its_thread_keeps_none_of_those_it_began_with() {
    keep_timers_going();
    for some_wait in [false, true] {
        for yields in [0, 1, 3] {
            blocks_and_keeps_none(some_wait, yields).await;
        }
    }
}

async fn blocks_and_keeps_none(some_wait: bool, yields: usize) {
    let (mut flows, release) = around_one_that_blocks(some_wait, yields);
    // As the loop of a partition: on the threads that may be blocked.
    let joining = tokio::spawn(async move {
        flows.begin();
        let mut ended = Vec::new();
        while ended.len() < 9 {
            ended.extend(flows.join_next().await.unwrap().unwrap());
        }
        (flows, ended)
    });
    let joined = timeout(Duration::from_mins(1), joining).await;
    let (mut flows, mut ended) = joined.expect("nine ended").unwrap();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3, 4, 5, 7, 8, 9]);
    assert_eq!(flows.len(), 1);
    drop(release);
    assert_eq!(flows.join_next().await.unwrap().unwrap(), [6]);
    assert_eq!(flows.len(), 0);
    assert!(flows.join_next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_look_finds_what_has_ended_before_one_that_blocks() {
    let (mut flows, release) = around_one_that_blocks(false, 0);
    flows.begin();
    let (mut ended, deadline) = (Vec::new(), Instant::now() + Duration::from_mins(1));
    while ended.len() < 6 && Instant::now() < deadline {
        while let Some(some) = flows.try_join_next() {
            ended.extend(some.unwrap().into_iter().filter(|n| *n < 6));
        }
        tokio::task::yield_now().await;
    }
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3, 4, 5]);
    drop(release);
}

#[tokio::test]
async fn one_that_is_woken_before_its_task_has_parted_is_looked_at_again() {
    let mut flows = Flows::new(TaskTracker::new());
    for n in 0..2 {
        let mut is_woken = false;
        flows.add(Test(poll_fn(move |context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut is_woken, true) { Poll::Ready(n) } else { Poll::Pending }
        })));
    }
    flows.begin();
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let some = timeout(Duration::from_mins(1), flows.join_next()).await;
        ended.extend(some.expect("both end").unwrap().unwrap());
    }
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
