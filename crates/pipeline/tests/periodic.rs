//! Work by the clock: when it runs, and what a failure does to it.

mod common;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::Echo;
use drakkar_core::HookResult;
use drakkar_pipeline::{AfterError, Periodic};
use drakkar_testing::World;
use tokio::time::{Instant, sleep};

const EVERY: Duration = Duration::from_secs(10);

/// Work that counts its runs and takes `takes`; each ends as `outcome` says.
fn work(
    runs: &Arc<AtomicUsize>,
    after_error: AfterError,
    takes: Duration,
    outcome: fn(usize) -> HookResult<()>,
) -> Periodic<Echo> {
    let runs = Arc::clone(runs);
    Periodic {
        name: "refresh".to_owned(),
        every: EVERY,
        after_error,
        work: Box::new(move |_| {
            let runs = Arc::clone(&runs);
            Box::pin(async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                sleep(takes).await;
                outcome(run)
            })
        }),
    }
}

fn runs_of(world: &World, status: &str) -> u64 {
    world.metrics.periodic_runs.with_label_values(&["refresh", status]).get()
}

#[tokio::test(start_paused = true)]
async fn it_sleeps_first_and_its_runs_do_not_overlap() {
    let runs = Arc::new(AtomicUsize::new(0));
    let periodic = work(&runs, AfterError::Continue, Duration::from_secs(5), |_| Ok(()));
    let world = World::of(Echo::default()).every(periodic).start();
    sleep(Duration::from_secs(9)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    sleep(Duration::from_secs(22)).await; // 10 + 5 + 10 + 5: the second run has just ended.
    assert_eq!((runs.load(Ordering::SeqCst), runs_of(&world, "ok")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_it_runs_again_or_never_as_registered() {
    let stops = |run| if run == 0 { panic!("boom") } else { Err("no".into()) };
    for (after_error, expected) in [(AfterError::Continue, 3), (AfterError::Stop, 1)] {
        let runs = Arc::new(AtomicUsize::new(0));
        let periodic = work(&runs, after_error, Duration::ZERO, stops);
        let mut world = World::of(Echo::default()).every(periodic).start();
        sleep(EVERY * 3 + Duration::from_secs(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), expected);
        assert_eq!(runs_of(&world, "error"), expected as u64);
        world.produce(0, "a");
        world.committed(0, 1).await; // A failure costs no message.
    }
}

/// Panics before there is a future to be waited for.
fn no_future(_: &Echo) -> Pin<Box<dyn Future<Output = HookResult<()>> + Send + '_>> {
    panic!("boom")
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_is_anything_to_wait_for_fails_the_run_alone() {
    for (after_error, expected) in [(AfterError::Continue, 3), (AfterError::Stop, 1)] {
        let work = Box::new(no_future);
        let periodic = Periodic { name: "refresh".to_owned(), every: EVERY, after_error, work };
        let world = World::of(Echo::default()).every(periodic).start();
        sleep(EVERY * 3 + Duration::from_secs(1)).await;
        assert_eq!(runs_of(&world, "error"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_worker_begins_to_stop() {
    let runs = Arc::new(AtomicUsize::new(0));
    let periodic = work(&runs, AfterError::Continue, Duration::from_hours(1), |_| Ok(()));
    let world = World::of(Echo::default()).every(periodic).start();
    sleep(EVERY + Duration::from_secs(1)).await;
    let begun = Instant::now();
    world.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
