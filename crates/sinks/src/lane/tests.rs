//! What a lane promises, shown with scripted sinks.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drakkar_core::{
    CustomPayload, Delivery, Payload, Sink, SinkError, SinkKind, SinkName,
    hold::{Hold, HoldBoard},
    observe::{Circuit, SinkObserver},
    retry::Backoff,
};
use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, advance, timeout},
};

use super::{Lane, OnOpen, Patience, Pause, Permanent, Return, Settings, Shape, Threshold};
use crate::{Receipt, Settled, SinksConfig};

/// Order kept, four payloads at most, three to a batch.
const SMALL: Shape = Shape {
    items: 4,
    bytes: 1_000,
    batch_items: 3,
    batch_bytes: 100,
    batches: 1,
    permanent: Permanent::Refuse,
};

type Answers = dyn FnMut(&[u32]) -> Vec<Delivery> + Send;

/// A sink that answers as its script says and remembers what it was given.
#[derive(Clone)]
struct Scripted {
    answers: Arc<Mutex<Box<Answers>>>,
    batches: Arc<Mutex<Vec<Vec<u32>>>>,
}

impl Scripted {
    fn new(answers: impl FnMut(&[u32]) -> Vec<Delivery> + Send + 'static) -> Self {
        Self { answers: Arc::new(Mutex::new(Box::new(answers))), batches: Arc::default() }
    }

    /// Confirms everything but what `rule` says, which is given how often it was asked.
    fn ruled(mut rule: impl FnMut(u32, usize) -> Option<Delivery> + Send + 'static) -> Self {
        let mut call = 0;
        Self::new(move |batch| {
            call += 1;
            batch
                .iter()
                .map(|&payload| rule(payload, call).unwrap_or(Delivery::Confirmed))
                .collect()
        })
    }

    fn batches(&self) -> Vec<Vec<u32>> {
        self.batches.lock().unwrap().clone()
    }
}

impl Sink for Scripted {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        self.batches.lock().unwrap().push(batch.to_vec());
        // A script that panicked once is asked again.
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers(batch)
    }
}

fn transient() -> Delivery {
    Delivery::Transient(SinkError::new("down", "the far side is down"))
}

fn permanent() -> Delivery {
    Delivery::Permanent(SinkError::new("bad", "the far side will never take it"))
}

struct Desk {
    lane: Arc<Lane<u32>>,
    sink: Scripted,
    board: Arc<HoldBoard>,
}

fn patience() -> Patience {
    let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
    Patience { backoff, threshold: None, ..SinksConfig::default().patience() }
}

impl Desk {
    fn open(shape: Shape, sink: Scripted) -> Self {
        Self::patient(shape, patience(), sink)
    }

    fn patient(shape: Shape, patience: Patience, sink: Scripted) -> Self {
        let settings = Settings {
            name: SinkName::new(SinkKind::Filesystem, "test"),
            shape,
            patience,
            observer: Arc::new(()),
        };
        Self { lane: Arc::new(Lane::start(sink.clone(), settings)), sink, board: Arc::default() }
    }

    fn send(&self, payload: u32) -> JoinHandle<Settled<u32>> {
        self.send_sized(payload, 10)
    }

    fn send_sized(&self, payload: u32, size: usize) -> JoinHandle<Settled<u32>> {
        let lane = Arc::clone(&self.lane);
        let hold: Arc<Hold> = self.board.task();
        tokio::spawn(async move { lane.deliver(payload, size, &hold).await })
    }

    async fn send_all(&self, payloads: impl IntoIterator<Item = u32>) -> Vec<Settled<u32>> {
        let hold = self.board.task();
        let all = payloads.into_iter().map(|payload| self.lane.deliver(payload, 10, &hold));
        join_all(all).await
    }
}

/// What `to` gets of a payload that is posted under its own number.
fn back(to: &mpsc::UnboundedSender<Receipt>, payload: u32) -> Return<u32> {
    Return::new(to, payload.into(), |payload| CustomPayload::new("test", payload, 4).into())
}

/// Lets everything run that can, without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_joined_into_batches_in_order() {
    let shape = Shape { items: 100, ..SMALL };
    let desk = Desk::open(shape, Scripted::ruled(|_, _| None));
    let settled = desk.send_all(0..8).await;
    assert_eq!(settled, vec![Settled::Confirmed; 8]);
    let batches = desk.sink.batches();
    assert_eq!(batches.concat(), (0..8).collect::<Vec<_>>());
    assert!(batches.iter().all(|batch| batch.len() <= 3), "{batches:?}");
    assert!(batches.len() <= 4, "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn each_posted_payload_has_one_receipt_that_says_what_became_of_it() {
    let shape = Shape { items: 100, ..SMALL };
    let sink = Scripted::ruled(|payload, call| match payload {
        1 => Some(permanent()),
        2 if call < 4 => Some(transient()),
        _ => None,
    });
    let desk = Desk::open(shape, sink);
    let (to, mut mailbox) = mpsc::unbounded_channel();
    let hold = desk.board.task();
    for payload in 0..5 {
        assert_eq!(desk.lane.post(payload, 10, &hold, || back(&to, payload)), Ok(()));
    }
    drop(to);
    let mut confirmed = Vec::new();
    while let Some(Receipt { number, settled }) = mailbox.recv().await {
        match settled.unwrap() {
            Settled::Confirmed => confirmed.push(number),
            Settled::Refused(refused) => {
                assert_eq!((number, refused.error.class.as_str()), (1, "bad"));
                assert!(matches!(refused.payload, Payload::Custom(_)), "{refused:?}");
            }
        }
    }
    assert_eq!(confirmed, [0, 2, 3, 4], "once each; the mailbox ended by itself");
    assert_eq!(desk.board.held_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_would_have_to_wait_is_not_taken_and_room_is_given_back() {
    let desk = Desk::open(SMALL, Scripted::ruled(|_, _| None));
    let (to, mut mailbox) = mpsc::unbounded_channel();
    let hold = desk.board.task();
    let post = |payload| desk.lane.post(payload, 10, &hold, || back(&to, payload));
    let taken: Vec<_> = (0..6).map(post).collect();
    assert_eq!(taken, [Ok(()), Ok(()), Ok(()), Ok(()), Err(4), Err(5)], "four at most");
    for _ in 0..4 {
        assert_eq!(mailbox.recv().await.unwrap().settled, Some(Settled::Confirmed));
    }
    assert_eq!(post(6), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_was_posted_to_a_mailbox_that_is_gone_is_not_tried_again() {
    let desk = Desk::open(SMALL, Scripted::ruled(|_, _| Some(transient())));
    let (to, mailbox) = mpsc::unbounded_channel();
    let hold = desk.board.task();
    assert_eq!(desk.lane.post(0, 10, &hold, || back(&to, 0)), Ok(()));
    settle().await;
    assert_eq!(desk.board.held_tasks(), 1);
    drop(mailbox);
    advance(Duration::from_secs(10)).await;
    settle().await;
    assert_eq!((desk.sink.batches().len(), desk.board.held_tasks()), (1, 0));
    assert!(desk.lane.held().is_none(), "it blocks nobody");
}

#[tokio::test(start_paused = true)]
async fn what_a_lane_lets_go_of_when_it_closes_or_gets_later_has_a_receipt_without_an_outcome() {
    let desk = Desk::open(SMALL, Scripted::ruled(|_, _| Some(transient())));
    let (to, mut mailbox) = mpsc::unbounded_channel();
    let hold = desk.board.task();
    let post = |payload| desk.lane.post(payload, 10, &hold, || back(&to, payload));
    assert_eq!(post(0), Ok(()));
    settle().await;
    desk.lane.close(Instant::now()).await;
    settle().await;
    assert_eq!(post(1), Ok(()));
    let receipts = [mailbox.recv().await.unwrap(), mailbox.recv().await.unwrap()];
    assert_eq!(receipts, [0, 1].map(|number| Receipt { number, settled: None }));
    assert_eq!(desk.board.held_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_payload_larger_than_a_batch_or_a_lane_is_delivered_all_the_same() {
    let desk = Desk::open(SMALL, Scripted::ruled(|_, _| None));
    let hold = desk.board.task();
    let huge = desk.lane.deliver(1, 1_000_000, &hold);
    assert_eq!(huge.await, Settled::Confirmed);
}

#[tokio::test(start_paused = true)]
async fn only_the_part_that_failed_is_tried_again_and_before_what_came_later() {
    let sink = Scripted::ruled(|payload, call| (payload == 1 && call < 4).then(transient));
    let desk = Desk::open(SMALL, sink);
    let settled = desk.send_all([0, 1, 2, 3]).await;
    assert_eq!(settled, vec![Settled::Confirmed; 4]);
    assert_eq!(desk.sink.batches(), [vec![0, 1, 2], vec![1], vec![1], vec![1], vec![3]]);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_in_the_middle_refuses_that_payload_alone() {
    let desk = Desk::open(SMALL, Scripted::ruled(|payload, _| (payload == 1).then(permanent)));
    let settled = desk.send_all([0, 1, 2]).await;
    assert_eq!(settled[0], Settled::Confirmed);
    assert_eq!(settled[2], Settled::Confirmed);
    let Settled::Refused(refused) = &settled[1] else {
        panic!("{settled:?}");
    };
    assert_eq!(
        (refused.sink.to_string().as_str(), refused.error.class.as_str(), refused.attempts),
        ("filesystem/test", "bad", 1)
    );
    assert_eq!(refused.payload, 1, "it comes back");
    assert!(!refused.is_given_up, "the sink has said so");
    assert_eq!(desk.sink.batches().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_gives_nothing_up_holds_what_is_refused_for_good() {
    let shape = Shape { permanent: Permanent::Hold, ..SMALL };
    let desk = Desk::open(shape, Scripted::ruled(|_, call| (call < 20).then(permanent)));
    assert_eq!(desk.send_all([0]).await, [Settled::Confirmed]);
    assert_eq!(desk.sink.batches().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_although_it_was_refused_for_good_is_shown_while_others_pass_by() {
    let shape = Shape { permanent: Permanent::Hold, batches: 4, ..SMALL };
    let accepts = Arc::new(AtomicUsize::new(0));
    let rule = Arc::clone(&accepts);
    let sink = Scripted::ruled(move |payload, _| {
        (payload == 0 && rule.load(Ordering::SeqCst) == 0).then(permanent)
    });
    let desk = Desk::open(shape, sink);
    assert_eq!(desk.lane.hopeless(), None);
    let refused = desk.send(0);
    settle().await;
    advance(Duration::from_mins(1)).await;
    assert_eq!(desk.send_all([1]).await, [Settled::Confirmed], "in a place of its own");
    let (told, since) = desk.lane.hopeless().unwrap();
    let Delivery::Permanent(error) = permanent() else { panic!("it is refused for good") };
    assert_eq!((told, since.as_secs()), (error, 60), "counted from the first refusal");
    accepts.store(1, Ordering::SeqCst);
    assert_eq!(refused.await.unwrap(), Settled::Confirmed);
    assert_eq!(desk.lane.hopeless(), None);
}

#[tokio::test(start_paused = true)]
async fn while_a_sink_is_down_the_lane_fills_callers_wait_and_all_of_them_are_held() {
    let up = Arc::new(AtomicUsize::new(0));
    let rule = Arc::clone(&up);
    let sink = Scripted::ruled(move |_, _| (rule.load(Ordering::SeqCst) == 0).then(transient));
    let desk = Desk::open(SMALL, sink);
    let sent: Vec<_> = (0..10).map(|payload| desk.send(payload)).collect();
    settle().await;
    assert_eq!(desk.board.held_tasks(), 10, "under way, waiting inside and waiting outside");
    let late = desk.send(10);
    settle().await;
    assert_eq!(desk.board.held_tasks(), 11, "who comes later is held as well");

    advance(Duration::from_secs(30)).await;
    settle().await;
    let (name, since) = desk.lane.held().unwrap();
    assert_eq!(name.to_string(), "filesystem/test");
    assert_eq!(since, Duration::from_secs(30));
    let seen = desk.sink.batches().concat();
    assert!(
        seen.iter().all(|&payload| payload < 4),
        "more than the lane may take was taken: {seen:?}"
    );

    up.store(1, Ordering::SeqCst);
    for settled in join_all(sent.into_iter().chain([late])).await {
        assert_eq!(settled.unwrap(), Settled::Confirmed);
    }
    assert_eq!(desk.board.held_tasks(), 0);
    assert_eq!(desk.lane.held(), None);
}

#[tokio::test(start_paused = true)]
async fn what_the_far_side_asks_to_wait_is_waited() {
    let sink = Scripted::ruled(|_, call| {
        let mut error = SinkError::new("busy", "later");
        error.retry_after = Some(Duration::from_secs(7));
        (call == 1).then_some(Delivery::Transient(error))
    });
    let desk = Desk::open(SMALL, sink);
    let begun = Instant::now();
    assert_eq!(desk.send_all([0]).await, [Settled::Confirmed]);
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_payload_nobody_waits_for_is_not_tried_again_and_makes_room() {
    let sink = Scripted::ruled(|payload, _| (payload < 4).then(transient));
    let desk = Desk::open(SMALL, sink);
    let fenced: Vec<_> = (0..4).map(|payload| desk.send(payload)).collect();
    let other = desk.send(9);
    settle().await;
    assert_eq!(desk.board.held_tasks(), 5);
    fenced.iter().for_each(JoinHandle::abort);
    settle().await;
    let before = desk.sink.batches().len();
    assert_eq!(other.await.unwrap(), Settled::Confirmed);
    let after = desk.sink.batches().split_off(before);
    assert!(
        after.iter().all(|batch| batch == &[9]),
        "abandoned payloads were tried again: {after:?}"
    );
    settle().await;
    assert_eq!(desk.board.held_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_payload_that_fails_holds_up_no_other_where_order_does_not_matter() {
    let shape = Shape { items: 100, batches: 4, ..SMALL };
    let sink = Scripted::ruled(|payload, _| (payload == 0).then(transient));
    let desk = Desk::open(shape, sink);
    let bad = desk.send(0);
    settle().await;
    assert_eq!(desk.send_all(1..50).await, vec![Settled::Confirmed; 49]);
    assert!(!bad.is_finished());
    assert_eq!(desk.board.held_tasks(), 1);
    bad.abort();
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_is_tried_again_and_loses_nothing() {
    let mut calls = 0;
    let sink = Scripted::new(move |batch| {
        calls += 1;
        assert!(calls > 2, "a bug");
        vec![Delivery::Confirmed; batch.len()]
    });
    let desk = Desk::open(SMALL, sink);
    assert_eq!(desk.send_all([1]).await, [Settled::Confirmed]);
    assert_eq!(desk.sink.batches(), [[1], [1], [1]]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_number_of_answers_is_no_answer() {
    let mut calls = 0;
    let sink = Scripted::new(move |batch| {
        calls += 1;
        vec![Delivery::Confirmed; if calls == 1 { 1 } else { batch.len() }]
    });
    let desk = Desk::open(SMALL, sink);
    assert_eq!(desk.send_all([1, 2]).await, vec![Settled::Confirmed; 2]);
    assert_eq!(desk.sink.batches(), [vec![1, 2], vec![1, 2]]);
}

#[tokio::test(start_paused = true)]
async fn closing_finishes_what_is_under_way_and_gives_up_what_is_held_in_bounded_time() {
    let sink = Scripted::ruled(|payload, _| (payload == 0).then(transient));
    let desk = Desk::open(SMALL, sink);
    let held = desk.send(0);
    settle().await;
    let begun = Instant::now();
    desk.lane.close(begun + Duration::from_secs(2)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    settle().await;
    assert!(
        timeout(Duration::from_hours(1), held).await.is_err(),
        "what was not confirmed must never count as settled"
    );
    let late = timeout(Duration::from_hours(1), desk.send_all([1])).await;
    assert!(late.is_err(), "a closed lane confirms nothing");
}

#[path = "patience_tests.rs"]
mod patience_tests; // slow, silent, down for long

#[path = "idle_tests.rs"]
mod idle_tests; // asked while nothing is meant for it

#[path = "places_tests.rs"]
mod places_tests; // what stays refused, where order does not matter

#[path = "pause_tests.rs"]
mod pause_tests; // what the far side asks of everybody
