//! How a lane bears with a sink that is slow, silent or down for long.

use super::*;

const OPENS_AT_2: Threshold = Threshold { failures: 2, cooldown: Duration::from_secs(30) };

fn down_until(call: usize) -> Scripted {
    Scripted::ruled(move |_, at| (at < call).then(transient))
}

fn class(settled: &Settled<u32>) -> &str {
    match settled {
        Settled::Confirmed => "confirmed",
        Settled::Refused(refused) => &refused.error.class,
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_more_as_long_as_it_may_linger() {
    let shape = Shape { batch_items: 10, items: 100, batches: 4, ..SMALL };
    let linger = Patience { linger: Duration::from_millis(50), ..patience() };
    let desk = Desk::patient(shape, linger, Scripted::ruled(|_, _| None));
    let begun = Instant::now();
    let first = desk.send(0);
    settle().await;
    advance(Duration::from_millis(20)).await;
    let second = desk.send(1);
    assert_eq!(first.await.unwrap(), Settled::Confirmed);
    assert_eq!(second.await.unwrap(), Settled::Confirmed);
    assert_eq!(begun.elapsed().as_millis() / 10, 5, "counted from the oldest");
    assert_eq!(desk.sink.batches(), [vec![0, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_linger() {
    let linger = Patience { linger: Duration::from_secs(50), ..patience() };
    let desk = Desk::patient(SMALL, linger, Scripted::ruled(|_, _| None));
    let begun = Instant::now();
    assert_eq!(desk.send_all([0, 1, 2]).await, vec![Settled::Confirmed; 3]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_lingers_when_the_lane_closes_is_written_at_once() {
    let linger = Patience { linger: Duration::from_secs(50), ..patience() };
    let desk = Desk::patient(SMALL, linger, Scripted::ruled(|_, _| None));
    let sent = desk.send(0);
    settle().await;
    let begun = Instant::now();
    desk.lane.close(begun + Duration::from_secs(10)).await;
    assert_eq!(sent.await.unwrap(), Settled::Confirmed);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn while_somebody_waits_for_it_nothing_lingers_and_afterwards_it_does() {
    let linger = Patience { linger: Duration::from_secs(50), ..patience() };
    let desk = Desk::patient(SMALL, linger, Scripted::ruled(|_, _| None));
    let begun = Instant::now();
    let before = desk.send(0);
    settle().await;
    desk.lane.hurry(begun + Duration::from_secs(10));
    desk.lane.hurry(begun + Duration::from_secs(5)); // Somebody else, who waits for less.
    assert_eq!(before.await.unwrap(), Settled::Confirmed);
    advance(Duration::from_secs(7)).await;
    assert_eq!(desk.send(1).await.unwrap(), Settled::Confirmed);
    assert_eq!(begun.elapsed().as_secs(), 7, "what comes meanwhile does not wait either");
    advance(Duration::from_secs(4)).await;
    assert_eq!(desk.send(2).await.unwrap(), Settled::Confirmed);
    assert_eq!(begun.elapsed().as_secs(), 61);
}

/// A sink that never answers.
struct Silent(Arc<AtomicUsize>);

impl Sink for Silent {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        if self.0.fetch_add(1, Ordering::SeqCst) < 2 {
            std::future::pending::<()>().await;
        }
        vec![Delivery::Confirmed; batch.len()]
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_given_up_and_tried_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let settings = Settings {
        name: SinkName::new(SinkKind::Custom, "silent"),
        shape: SMALL,
        patience: Patience { timeout: Some(Duration::from_secs(5)), ..patience() },
        observer: Arc::new(()),
    };
    let lane = Lane::start(Silent(Arc::clone(&calls)), settings);
    let begun = Instant::now();
    let hold = Arc::new(HoldBoard::default()).task();
    assert_eq!(lane.deliver(1, 10, &hold).await, Settled::Confirmed);
    assert!(Duration::from_secs(10) <= begun.elapsed() && calls.load(Ordering::SeqCst) == 3);
}

/// A sink that does not answer at first, and panics when it is not waited for any longer.
struct Clinging(Arc<AtomicUsize>);

impl Sink for Clinging {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            let _clinging = Clings;
            std::future::pending::<()>().await;
        }
        vec![Delivery::Confirmed; batch.len()]
    }
}

struct Clings;

impl Drop for Clings {
    fn drop(&mut self) {
        panic!("as told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panics_when_its_time_is_up_is_tried_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let settings = Settings {
        name: SinkName::new(SinkKind::Custom, "clinging"),
        shape: SMALL,
        patience: Patience { timeout: Some(Duration::from_secs(5)), ..patience() },
        observer: Arc::new(()),
    };
    let lane = Lane::start(Clinging(Arc::clone(&calls)), settings);
    let hold = Arc::new(HoldBoard::default()).task();
    let settled = timeout(Duration::from_mins(1), lane.deliver(1, 10, &hold)).await;
    assert_eq!((settled, calls.load(Ordering::SeqCst)), (Ok(Settled::Confirmed), 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_for_too_long_is_refused_with_the_last_error() {
    let limited = Patience { give_up_after: Some(Duration::from_mins(1)), ..patience() };
    let desk = Desk::patient(SMALL, limited, down_until(usize::MAX));
    let begun = Instant::now();
    let settled = desk.send_all([0]).await;
    assert_eq!(class(&settled[0]), "down");
    assert!(matches!(&settled[0], Settled::Refused(refused) if refused.is_given_up));
    assert!(Duration::from_mins(1) <= begun.elapsed());
}

/// Answers after a while: what `answer` says.
struct Slow {
    takes: Duration,
    answer: fn() -> Delivery,
    writes: Arc<AtomicUsize>,
}

impl Slow {
    /// What becomes of payloads that are given to it all at once, and when, and how many writes began.
    async fn settles(
        self,
        shape: Shape,
        payloads: std::ops::Range<u32>,
        give_up_after: Duration,
    ) -> (Vec<Settled<u32>>, Duration, usize) {
        let writes = Arc::clone(&self.writes);
        let settings = Settings {
            name: SinkName::new(SinkKind::Custom, "slow"),
            shape,
            patience: Patience { give_up_after: Some(give_up_after), ..patience() },
            observer: Arc::new(()),
        };
        let lane = Lane::start(self, settings);
        let (begun, hold) = (Instant::now(), Arc::new(HoldBoard::default()).task());
        let settled = join_all(payloads.map(|payload| lane.deliver(payload, 10, &hold))).await;
        (settled, begun.elapsed(), writes.load(Ordering::SeqCst))
    }
}

impl Sink for Slow {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.takes).await;
        batch.iter().map(|_| (self.answer)()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_dead_sink_is_given_up_in_time_although_it_was_never_written() {
    for batches in [1, 4] {
        let shape = Shape { batches, ..SMALL };
        let dead =
            Slow { takes: Duration::from_secs(20), answer: transient, writes: Arc::default() };
        let (settled, took, writes) = dead.settles(shape, 0..100, Duration::from_mins(1)).await;
        assert!(settled.iter().all(|settled| class(settled) == "down"), "{settled:?}");
        assert!(Duration::from_mins(1) <= took && took < Duration::from_secs(90), "{took:?}");
        assert!(writes < 12, "{writes}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_slow_sink_is_written_however_long_it_waits() {
    let slow = Slow {
        takes: Duration::from_secs(25),
        answer: || Delivery::Confirmed,
        writes: Arc::default(),
    };
    let (settled, took, _) = slow.settles(SMALL, 0..20, Duration::from_mins(1)).await;
    assert_eq!(settled, vec![Settled::Confirmed; 20]);
    assert!(Duration::from_mins(2) < took, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_far_side_asks_to_wait_does_not_lengthen_the_time_a_payload_is_tried() {
    let limit = Duration::from_secs(10);
    for batches in [1, 4] {
        let limited = Patience { give_up_after: Some(limit), ..patience() };
        let sink = Scripted::ruled(|_, _| {
            let mut error = SinkError::new("busy", "later");
            error.retry_after = Some(Duration::from_mins(5));
            Some(Delivery::Transient(error))
        });
        let desk = Desk::patient(Shape { batches, ..SMALL }, limited, sink);
        let begun = Instant::now();
        let first = desk.send(0);
        tokio::time::sleep(limit / 2).await;
        let second = desk.send(1);
        assert_eq!(class(&first.await.unwrap()), "busy");
        assert_eq!(begun.elapsed(), limit);
        assert_eq!(class(&second.await.unwrap()), "busy");
        assert_eq!(begun.elapsed(), limit + limit / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_holds_what_waits_and_one_probe_finds_the_sink_again() {
    let shape = Shape { batches: 3, batch_items: 1, ..SMALL };
    let patience = Patience { threshold: Some(OPENS_AT_2), ..patience() };
    let desk = Desk::patient(shape, patience, down_until(4));
    let begun = Instant::now();
    let sent: Vec<_> = (0..3).map(|payload| desk.send(payload)).collect();
    settle().await;
    assert_eq!(desk.board.held_tasks(), 3);
    for sent in sent {
        assert_eq!(sent.await.unwrap(), Settled::Confirmed);
    }
    // Three stragglers fail at once and open it; the fourth write is the probe.
    assert!(Duration::from_secs(30) <= begun.elapsed(), "{:?}", begun.elapsed());
    assert_eq!(desk.sink.batches().len(), 6, "three failed, and each was confirmed once");
    assert_eq!(desk.board.held_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_where_that_is_configured() {
    let patience =
        Patience { threshold: Some(OPENS_AT_2), on_open: OnOpen::DeadLetter, ..patience() };
    let desk = Desk::patient(SMALL, patience, down_until(3));
    assert_eq!(class(&desk.send_all([0]).await[0]), "circuit_open");
    assert_eq!(class(&desk.send_all([1]).await[0]), "circuit_open");
    assert_eq!(desk.sink.batches().len(), 2, "the sink is left alone");
    advance(Duration::from_secs(31)).await;
    assert_eq!(class(&desk.send_all([2]).await[0]), "confirmed");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_does_not_lengthen_the_time_a_payload_is_tried() {
    let shape = Shape { batches: 4, batch_items: 1, ..SMALL };
    let minute = Duration::from_mins(1);
    let patience =
        Patience { threshold: Some(OPENS_AT_2), give_up_after: Some(minute), ..patience() };
    let desk = Desk::patient(shape, patience, down_until(usize::MAX));
    let begun = Instant::now();
    let settled = desk.send_all(0..4).await;
    assert!(settled.iter().all(|settled| ["down", "circuit_open"].contains(&class(settled))));
    assert!(minute <= begun.elapsed() && begun.elapsed() < minute * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_let_go_behind_an_open_circuit_is_not_written_when_it_closes() {
    let shape = Shape { batches: 1, batch_items: 2, items: 2, ..SMALL };
    let opens = Threshold { failures: 1, cooldown: Duration::from_secs(30) };
    let circuit = Patience { threshold: Some(opens), ..patience() };
    let desk = Desk::patient(shape, circuit, down_until(2));
    let (fenced, kept) = (desk.send(0), desk.send(1));
    settle().await;
    advance(Duration::from_secs(10)).await;
    fenced.abort(); // Its partition is somebody else's.
    assert_eq!(kept.await.unwrap(), Settled::Confirmed);
    assert_eq!(desk.sink.batches(), [vec![0, 1], vec![1]]);
}
