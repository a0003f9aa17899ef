//! What the far side asks of everybody: to be left alone for a while.

use tokio::time::sleep;

use super::*;

const PARALLEL: Shape = Shape { items: 100, batch_items: 1, batches: 4, ..SMALL };
const MINUTE: Duration = Duration::from_mins(1);

/// It has too much to do.
fn busy(wait: Duration) -> Delivery {
    let mut error = SinkError::new("busy", "later");
    (error.retry_after, error.pauses_sink) = (Some(wait), true);
    Delivery::Transient(error)
}

fn class(settled: &Settled<u32>) -> &str {
    match settled {
        Settled::Confirmed => "confirmed",
        Settled::Refused(refused) => &refused.error.class,
    }
}

/// A sink that is busy for a minute when it is first asked, a moment after it is asked.
fn once_busy() -> Scripted {
    Scripted::ruled(|_, call| (call == 1).then(|| busy(MINUTE)))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_the_wait_is_over_that_the_far_side_asked_of_all() {
    let desk = Desk::open(PARALLEL, once_busy());
    let begun = Instant::now();
    let sent: Vec<_> = (0..50).map(|payload| desk.send(payload)).collect();
    sleep(Duration::from_millis(59_999)).await;
    let early = desk.sink.batches().len();
    assert!(early <= 4, "{early} writes; at most four were under way");
    let open = sent.iter().filter(|sent| !sent.is_finished()).count();
    assert_eq!(desk.board.held_tasks(), open, "a hand-over does not wait for them");
    assert_eq!(desk.lane.held().unwrap().1.as_secs(), 59);
    for sent in sent {
        assert_eq!(sent.await.unwrap(), Settled::Confirmed);
    }
    assert!(begun.elapsed() < MINUTE + Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(desk.sink.batches().len(), 51, "each once, and the first twice");
    assert_eq!((desk.board.held_tasks(), desk.lane.held()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn what_comes_alone_while_the_far_side_wants_to_be_left_alone_is_held_as_well() {
    let desk = Desk::open(PARALLEL, once_busy());
    let first = desk.send(0);
    sleep(MINUTE / 2).await;
    first.abort();
    settle().await;
    assert_eq!(desk.board.held_tasks(), 0);
    let late = desk.send(1);
    settle().await;
    assert_eq!((desk.board.held_tasks(), desk.sink.batches().len()), (1, 1));
    let begun = Instant::now();
    assert_eq!(late.await.unwrap(), Settled::Confirmed);
    assert_eq!(begun.elapsed(), MINUTE / 2);
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_counts_and_none_is_longer_than_an_hour() {
    let waits = [MINUTE, Duration::MAX, MINUTE];
    let sink = Scripted::ruled(move |_, call| waits.get(call - 1).map(|&wait| busy(wait)));
    let lane = Weary(|_| Duration::from_secs(1), sink.clone()).lane(patience(), Arc::new(()));
    let begun = Instant::now();
    let sent: Vec<_> = (0..9).map(|payload| send(&lane, payload)).collect();
    sleep(Duration::from_hours(1)).await;
    assert_eq!(sink.batches().len(), 4, "those that were under way");
    assert_eq!(settled(sent).await, vec![Settled::Confirmed; 9]);
    assert!(begun.elapsed() < Duration::from_secs(3_610), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_concerns_one_payload_holds_up_no_other() {
    let sink = Scripted::ruled(|payload, call| {
        let mut error = SinkError::new("conflict", "the same key is being worked on");
        error.retry_after = Some(MINUTE);
        (payload == 0 && call < 5).then_some(Delivery::Transient(error))
    });
    let desk = Desk::open(PARALLEL, sink);
    let first = desk.send(0);
    settle().await;
    let begun = Instant::now();
    assert_eq!(desk.send_all(1..50).await, vec![Settled::Confirmed; 49]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(first.await.unwrap(), Settled::Confirmed);
    assert_eq!(begun.elapsed(), MINUTE);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_far_side_that_wants_to_be_left_alone_is_given_up_in_time() {
    let limited = Patience { give_up_after: Some(MINUTE / 2), ..patience() };
    let desk = Desk::patient(PARALLEL, limited, once_busy());
    let begun = Instant::now();
    let sent = desk.send_all(0..50).await;
    let given_up = sent.iter().filter(|settled| class(settled) == "busy").count();
    assert!(46 <= given_up, "{given_up}");
    assert_eq!(begun.elapsed(), MINUTE / 2);
    assert!(desk.sink.batches().len() <= 4);
}

/// Answers as it is scripted, each payload after a while of its own.
struct Weary(fn(u32) -> Duration, Scripted);

impl Sink for Weary {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        let takes = (self.0)(batch[0]);
        if takes != Duration::ZERO {
            sleep(takes).await; // Of no time as well, it would wait for the clock.
        }
        self.1.deliver(batch).await
    }
}

impl Weary {
    fn lane(self, patience: Patience, observer: Arc<dyn SinkObserver>) -> Arc<Lane<u32>> {
        let name = SinkName::new(SinkKind::Custom, "weary");
        Arc::new(Lane::start(self, Settings { name, shape: PARALLEL, patience, observer }))
    }
}

fn send(lane: &Arc<Lane<u32>>, payload: u32) -> JoinHandle<Settled<u32>> {
    let (lane, hold) = (Arc::clone(lane), Arc::new(HoldBoard::default()).task());
    tokio::spawn(async move { lane.deliver(payload, 10, &hold).await })
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_gives_up_nothing_that_has_only_waited_long_for_its_turn() {
    let limited = Patience { give_up_after: Some(MINUTE), ..patience() };
    // Four are written at once, for 25 seconds: the tenth has waited for longer than a minute.
    let moment = Duration::from_secs(1);
    let busy_once = Scripted::ruled(move |_, call| (call == 9).then(|| busy(moment)));
    let lane = Weary(|_| Duration::from_secs(25), busy_once).lane(limited, Arc::new(()));
    let begun = Instant::now();
    let sent: Vec<_> = (0..16).map(|payload| send(&lane, payload)).collect();
    let settled = settled(sent).await;
    let refused: Vec<_> = settled.iter().filter(|one| **one != Settled::Confirmed).collect();
    assert_eq!(refused.len(), 1, "that which was told to wait when its time was up: {refused:?}");
    assert_eq!(begun.elapsed().as_secs(), 4 * 25 + 1);
}

async fn settled(sent: Vec<JoinHandle<Settled<u32>>>) -> Vec<Settled<u32>> {
    join_all(sent).await.into_iter().map(Result::unwrap).collect()
}

struct Trips(Arc<AtomicUsize>);

impl SinkObserver for Trips {
    fn circuit(&self, _: &SinkName, now: Circuit) {
        self.0.fetch_add(usize::from(now == Circuit::Open), Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn the_probe_of_an_open_circuit_waits_for_the_far_side_and_the_circuit_opens_once() {
    let threshold = Some(Threshold { failures: 1, cooldown: MINUTE / 3 });
    let trips = Arc::new(AtomicUsize::new(0));
    let observer = Arc::new(Trips(Arc::clone(&trips)));
    // The circuit opens at once; ten seconds later the wait begins.
    let sink = Scripted::ruled(|_, call| match call {
        1 => Some(transient()),
        2 => Some(busy(MINUTE)),
        _ => None,
    });
    let takes = |payload| Duration::from_secs(if payload == 0 { 10 } else { 0 });
    let lane = Weary(takes, sink.clone()).lane(Patience { threshold, ..patience() }, observer);
    let begun = Instant::now();
    let mut sent: Vec<_> = (0..2).map(|payload| send(&lane, payload)).collect();
    settle().await;
    sent.extend((2..9).map(|payload| send(&lane, payload)));
    sleep(Duration::from_secs(69)).await;
    assert_eq!(sink.batches(), [[1], [0]], "nothing is tried before the wait is over");
    assert_eq!(settled(sent).await, vec![Settled::Confirmed; 9]);
    assert!(begun.elapsed() < MINUTE * 2, "{:?}", begun.elapsed());
    assert_eq!(trips.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_where_that_is_configured_whatever_the_far_side_asks_for() {
    let threshold = Some(Threshold { failures: 2, cooldown: MINUTE });
    let refuses = Patience { threshold, on_open: OnOpen::DeadLetter, ..patience() };
    let takes = |payload| Duration::from_secs(if payload == 0 { 10 } else { 0 });
    let sink = Scripted::ruled(|_, _| Some(busy(MINUTE)));
    let lane = Weary(takes, sink).lane(refuses, Arc::new(()));
    let begun = Instant::now();
    let _failing: Vec<_> = (0..2).map(|payload| send(&lane, payload)).collect();
    settle().await;
    let waiting = send(&lane, 2);
    sleep(Duration::from_secs(9)).await;
    assert!(!waiting.is_finished(), "the circuit is closed");
    let waiting = timeout(MINUTE, waiting).await.unwrap();
    assert_eq!(class(&waiting.unwrap()), "circuit_open");
    assert_eq!(class(&send(&lane, 3).await.unwrap()), "circuit_open");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_for_the_wait_is_no_failure_of_the_sink() {
    let threshold = Some(Threshold { failures: 2, cooldown: MINUTE * 9 });
    let until = Instant::now() + MINUTE;
    let pause = Arc::new(Pause::default());
    // It is told on another way, as where what goes to the far side waits for its turn behind the lane.
    let knows = Arc::clone(&pause);
    let sink = Scripted::ruled(move |_, call| match call {
        1 => {
            let Delivery::Transient(error) = busy(MINUTE) else { return None };
            knows.heard(&error);
            Some(Delivery::Transient(knows.now()?.unsent()))
        }
        2..5 => Some(Delivery::Transient(
            knows.now().map_or_else(|| SinkError::new("late", ""), |asked| asked.unsent()),
        )),
        _ => None,
    });
    let takes = |payload| Duration::from_secs(u64::from(payload < 4));
    let lane = Weary(takes, sink).lane(Patience { threshold, ..patience() }, Arc::new(()));
    let sent = (0..9).map(|payload| send(&lane, payload)).collect();
    assert_eq!(settled(sent).await, vec![Settled::Confirmed; 9]);
    assert!(until <= Instant::now() && until.elapsed() < MINUTE, "the circuit has not opened");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_closed_waits_no_longer_for_the_far_side_than_it_may() {
    let desk = Desk::open(PARALLEL, once_busy());
    let sent: Vec<_> = (0..50).map(|payload| desk.send(payload)).collect();
    settle().await;
    let begun = Instant::now();
    desk.lane.close(begun + Duration::from_secs(2)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    settle().await;
    assert!(sent.iter().any(|sent| !sent.is_finished()), "what was not written is not confirmed");
}
