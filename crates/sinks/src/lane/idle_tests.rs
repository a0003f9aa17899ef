//! How a lane asks its sink whether it is there while nothing is meant for it.

use std::sync::atomic::AtomicBool;

use drakkar_core::observe::{Circuit, SinkObserver};

use super::{super::idle::INTERVAL, *};

/// A second less than [`INTERVAL`].
const ALMOST: Duration = Duration::from_secs(9);

/// Longest write, and longest answer.
const TIMEOUT: Duration = Duration::from_secs(25);

/// What a sink does when it is asked.
#[derive(Clone, Copy)]
enum Asked {
    Answers,
    Errs,
    Hangs,
    Panics,
}

/// A sink that takes everything, in `takes`, and counts how often it is asked.
#[derive(Clone)]
struct Far {
    does: Arc<Mutex<Asked>>,
    takes: Arc<Mutex<Duration>>,
    asked: Arc<AtomicUsize>,
}

impl Sink for Far {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        vec![Delivery::Confirmed; batch.len()]
    }

    async fn probe(&self) -> Result<(), SinkError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let does = *self.does.lock().unwrap();
        match does {
            Asked::Answers => Ok(()),
            Asked::Errs => Err(SinkError::new("down", "nobody is there")),
            Asked::Hangs => std::future::pending().await,
            Asked::Panics => panic!("a bug"),
        }
    }
}

/// Whether it heard anything.
#[derive(Clone, Default)]
struct Ear(Arc<AtomicBool>);

impl SinkObserver for Ear {
    fn batch(&self, _: &SinkName, _: usize, _: Duration) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn refused(&self, _: &SinkName, _: &SinkError, _: bool) {
        self.0.store(true, Ordering::SeqCst);
    }
    fn circuit(&self, _: &SinkName, _: Circuit) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Post {
    lane: Lane<u32>,
    far: Far,
    ear: Ear,
    board: Arc<HoldBoard>,
}

impl Post {
    /// Its circuit opens at the first failure.
    fn new(does: Asked) -> Self {
        let far =
            Far { does: Arc::new(Mutex::new(does)), takes: Arc::default(), asked: Arc::default() };
        let ear = Ear::default();
        let threshold = Threshold { failures: 1, cooldown: Duration::from_hours(1) };
        let settings = Settings {
            name: SinkName::new(SinkKind::Custom, "far"),
            shape: SMALL,
            patience: Patience { threshold: Some(threshold), timeout: Some(TIMEOUT), ..patience() },
            observer: Arc::new(ear.clone()),
        };
        Self { lane: Lane::start(far.clone(), settings), far, ear, board: Arc::default() }
    }

    fn becomes(&self, does: Asked) {
        *self.far.does.lock().unwrap() = does;
    }

    fn asked(&self) -> usize {
        self.far.asked.load(Ordering::SeqCst)
    }

    fn silent_for(&self) -> Option<Duration> {
        self.lane.held().map(|(_, since)| since)
    }

    async fn deliver(&self) -> Settled<u32> {
        self.lane.deliver(1, 10, &self.board.task()).await
    }
}

async fn after(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_is_asked_while_it_is_idle_and_only_then() {
    let post = Post::new(Asked::Answers);
    after(INTERVAL * 3).await;
    assert_eq!(post.asked(), 3);
    *post.far.takes.lock().unwrap() = Duration::from_secs(24);
    for _ in 0..3 {
        assert_eq!(post.deliver().await, Settled::Confirmed);
    }
    after(ALMOST).await;
    assert_eq!(post.asked(), 3, "it has just shown that it is there");
    after(Duration::from_secs(1)).await;
    assert_eq!(post.asked(), 4);
    assert_eq!(post.silent_for(), None);
}

#[tokio::test(start_paused = true)]
async fn an_idle_sink_that_does_not_answer_is_shown_until_it_does() {
    for does in [Asked::Errs, Asked::Panics] {
        let post = Post::new(does);
        after(ALMOST).await;
        assert_eq!(post.silent_for(), None, "nobody has asked yet");
        after(INTERVAL * 9 + Duration::from_secs(1)).await;
        assert_eq!(post.silent_for(), Some(INTERVAL * 9), "since it was first asked in vain");
        assert_eq!(post.board.held_tasks(), 0);
        post.becomes(Asked::Answers);
        after(INTERVAL).await;
        assert_eq!(post.silent_for(), None);
        assert!(!post.ear.0.load(Ordering::SeqCst), "no delivery, no refusal, no circuit");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_given_up_like_a_write() {
    let post = Post::new(Asked::Hangs);
    after(ALMOST + TIMEOUT).await;
    assert_eq!(post.silent_for(), None);
    after(Duration::from_secs(1)).await;
    assert_eq!(post.silent_for(), Some(Duration::ZERO));
    after(INTERVAL).await;
    assert_eq!(post.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_comes_for_a_silent_sink_is_tried_at_once_and_shows_that_it_is_there() {
    for does in [Asked::Errs, Asked::Hangs] {
        let post = Post::new(does);
        after(INTERVAL * 5 + Duration::from_secs(1)).await;
        assert!(post.silent_for().is_some());
        let begun = Instant::now();
        assert_eq!(post.deliver().await, Settled::Confirmed);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(post.silent_for(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_closes_while_its_sink_is_asked() {
    let post = Post::new(Asked::Hangs);
    after(INTERVAL + Duration::from_secs(1)).await;
    let begun = Instant::now();
    post.lane.close(begun + Duration::from_secs(10)).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
