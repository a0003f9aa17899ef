//! Hooks that begin together, and those among them that take long.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use futures_util::future::BoxFuture;
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

/// Ten that begin together. The seventh blocks its thread until the channel is closed; the others end at
/// once, or `some_wait` and must be looked at several times.
fn around_one_that_blocks(
    some_wait: bool,
) -> (Flows<Test<BoxFuture<'static, u32>>>, mpsc::Sender<()>) {
    let mut flows = Flows::<Test<BoxFuture<'static, u32>>>::new(TaskTracker::new());
    let (release, blocked) = mpsc::channel::<()>();
    let mut blocked = Some(blocked);
    for n in 0..10 {
        let blocked = if n == 6 { blocked.take() } else { None };
        flows.add(Test(Box::pin(async move {
            match blocked {
                Some(blocked) => assert!(blocked.recv().is_err(), "closed"),
                None if n % 2 == 0 || !some_wait => {}
                None => {
                    for _ in 0..5 {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            n
        })));
    }
    flows.begin();
    (flows, release)
}

/// As `drakkar::pulse` does: timers go on while a thread is blocked.
fn keep_timers_going() {
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        for _ in 0..2000 {
            std::thread::sleep(Duration::from_millis(10));
            drop(runtime.spawn(async {}));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_blocks_its_thread_keeps_none_of_those_it_began_with() {
    keep_timers_going();
    for some_wait in [false, true] {
        blocks_and_keeps_none(some_wait).await;
    }
}

async fn blocks_and_keeps_none(some_wait: bool) {
    let (mut flows, release) = around_one_that_blocks(some_wait);
    let mut ended = Vec::new();
    while ended.len() < 9 {
        let some = timeout(Duration::from_secs(10), flows.join_next()).await;
        let some = some.unwrap_or_else(|_| panic!("{ended:?} of nine ended"));
        ended.extend(some.unwrap().unwrap());
    }
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
    let (mut flows, release) = around_one_that_blocks(false);
    let (mut ended, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(10));
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
