//! What stays refused, where order does not matter: it holds up nothing that is new.

use tokio::time::sleep;

use super::*;

/// No time passes while anything runs.
const AT_ONCE: Duration = Duration::from_millis(1);
const PARALLEL: Shape = Shape { items: 100, batches: 4, ..SMALL };

fn always(what: fn() -> Delivery) -> (Scripted, Arc<AtomicUsize>) {
    let repaired = Arc::new(AtomicUsize::new(0));
    let rule = Arc::clone(&repaired);
    let is_bad = move |payload| payload < 8 && rule.load(Ordering::SeqCst) == 0;
    (Scripted::ruled(move |payload, _| is_bad(payload).then(what)), repaired)
}

/// Sends each once the one before it was tried.
async fn send_apart(
    desk: &Desk,
    payloads: impl IntoIterator<Item = u32>,
) -> Vec<JoinHandle<Settled<u32>>> {
    let mut sent = Vec::new();
    for payload in payloads {
        sent.push(desk.send(payload));
        settle().await;
    }
    sent
}

async fn settled(sent: Vec<JoinHandle<Settled<u32>>>) -> Vec<Settled<u32>> {
    join_all(sent).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(start_paused = true)]
async fn more_payloads_that_stay_refused_than_there_are_places_hold_up_no_other() {
    for (what, permanent) in
        [(transient as fn() -> _, Permanent::Refuse), (permanent, Permanent::Hold)]
    {
        let (sink, repaired) = always(what);
        let desk = Desk::open(Shape { permanent, ..PARALLEL }, sink);
        let bad = send_apart(&desk, 0..8).await;
        for round in 0..10 {
            let good = timeout(AT_ONCE, desk.send_all(8..58)).await;
            assert_eq!(good.unwrap(), vec![Settled::Confirmed; 50], "round {round}");
            assert_eq!(desk.board.held_tasks(), 8, "those that are refused, and no other");
            advance(Duration::from_secs(7)).await;
            settle().await;
        }
        repaired.store(1, Ordering::SeqCst);
        assert_eq!(settled(bad).await, vec![Settled::Confirmed; 8]);
        assert_eq!((desk.board.held_tasks(), desk.lane.held()), (0, None));
        assert_eq!(desk.lane.hopeless(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn others_pass_also_where_the_sink_is_left_alone_for_a_while() {
    let (sink, _) = always(transient);
    let threshold = Threshold { failures: 2, cooldown: Duration::from_secs(30) };
    let desk = Desk::patient(PARALLEL, Patience { threshold: Some(threshold), ..patience() }, sink);
    let bad = send_apart(&desk, 0..8).await;
    let good = timeout(Duration::from_mins(10), desk.send_all(8..58)).await;
    assert_eq!(good.unwrap(), vec![Settled::Confirmed; 50]);
    bad.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn callers_wait_and_are_held_when_all_the_lane_may_take_is_held() {
    let (sink, repaired) = always(transient);
    let desk = Desk::open(Shape { items: 6, ..PARALLEL }, sink);
    let held: Vec<_> = (0..6).map(|payload| desk.send(payload)).collect();
    settle().await;
    assert_eq!(desk.sink.batches(), [[0, 1, 2], [3, 4, 5]], "fewer than there are places");
    let outside = send_apart(&desk, 10..15).await;
    advance(Duration::from_secs(30)).await;
    settle().await;
    assert_eq!(desk.board.held_tasks(), 11);
    let tried = desk.sink.batches().concat();
    assert!(tried.iter().all(|&payload| payload < 6), "more than the lane may take: {tried:?}");
    repaired.store(1, Ordering::SeqCst);
    assert_eq!(settled(held).await, vec![Settled::Confirmed; 6]);
    assert_eq!(settled(outside).await, vec![Settled::Confirmed; 5]);
    assert_eq!(desk.board.held_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_lingers_beside_payloads_that_are_refused_is_not_held() {
    let (sink, _) = always(transient);
    let linger = Patience { linger: Duration::from_secs(5), ..patience() };
    let desk = Desk::patient(PARALLEL, linger, sink);
    let bad = desk.send(0);
    settle().await;
    advance(Duration::from_secs(6)).await;
    settle().await;
    let good = desk.send(8);
    settle().await;
    assert_eq!(desk.board.held_tasks(), 1);
    advance(Duration::from_secs(1)).await;
    settle().await;
    assert_eq!(desk.board.held_tasks(), 1);
    assert_eq!(good.await.unwrap(), Settled::Confirmed);
    bad.abort();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_makes_room_before_its_next_attempt() {
    let (sink, _) = always(transient);
    let desk = Desk::open(Shape { items: 6, ..PARALLEL }, sink);
    let held = send_apart(&desk, 0..6).await;
    let other = desk.send(10);
    settle().await;
    held.iter().for_each(JoinHandle::abort);
    assert_eq!(timeout(AT_ONCE, other).await.unwrap().unwrap(), Settled::Confirmed);
    settle().await;
    assert_eq!((desk.board.held_tasks(), desk.lane.held()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn closing_gives_up_what_is_held_in_bounded_time() {
    let (sink, _) = always(transient);
    let desk = Desk::open(PARALLEL, sink);
    let held = send_apart(&desk, 0..6).await;
    let begun = Instant::now();
    desk.lane.close(begun + Duration::from_secs(2)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert!(timeout(Duration::from_hours(1), join_all(held)).await.is_err(), "nothing is settled");
}

/// A sink that takes long to refuse small numbers.
#[derive(Clone, Default)]
struct Slow {
    under_way: Arc<AtomicUsize>,
    /// Bad writes at once, at most.
    most: Arc<AtomicUsize>,
}

const SLOW: Duration = Duration::from_secs(10);

impl Sink for Slow {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        if batch.iter().all(|&payload| payload >= 100) {
            return vec![Delivery::Confirmed; batch.len()];
        }
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(under_way, Ordering::SeqCst);
        tokio::time::sleep(SLOW).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        vec![transient(); batch.len()]
    }
}

struct SlowDesk {
    lane: Arc<Lane<u32>>,
    sink: Slow,
    board: Arc<HoldBoard>,
}

impl SlowDesk {
    fn open(patience: Patience) -> Self {
        let sink = Slow::default();
        let settings = Settings {
            name: SinkName::new(SinkKind::Custom, "slow"),
            shape: Shape { batch_items: 1, ..PARALLEL },
            patience,
            observer: Arc::new(()),
        };
        Self { lane: Arc::new(Lane::start(sink.clone(), settings)), sink, board: Arc::default() }
    }

    fn send(&self, payload: u32) -> JoinHandle<Settled<u32>> {
        let (lane, hold) = (Arc::clone(&self.lane), self.board.task());
        tokio::spawn(async move { lane.deliver(payload, 10, &hold).await })
    }

    /// Until each of `count` was tried once, four at a time.
    async fn send_bad(&self, count: u32) -> Vec<JoinHandle<Settled<u32>>> {
        let sent = (0..count).map(|payload| self.send(payload)).collect();
        settle().await;
        for _ in 0..count * 10 {
            advance(Duration::from_secs(1)).await;
            settle().await;
        }
        sent
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_takes_half_of_the_places_at_most() {
    let desk = SlowDesk::open(patience());
    let bad = desk.send_bad(20).await;
    desk.sink.most.store(0, Ordering::SeqCst);
    for payload in 100..160 {
        let good = timeout(AT_ONCE, desk.send(payload)).await;
        assert_eq!(good.unwrap().unwrap(), Settled::Confirmed);
        advance(Duration::from_secs(3)).await;
        settle().await;
    }
    assert_eq!(desk.sink.most.load(Ordering::SeqCst), 2, "of four places");
    bad.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_place_to_be_tried_again_is_given_up_in_time_with_its_last_error() {
    let limit = Duration::from_mins(2);
    let desk = SlowDesk::open(Patience { give_up_after: Some(limit), ..patience() });
    let begun = Instant::now();
    for settled in settled((0..20).map(|payload| desk.send(payload)).collect()).await {
        let Settled::Refused(refused) = settled else { panic!("confirmed") };
        assert_eq!(refused.error.class, "down");
    }
    let took = begun.elapsed();
    assert!(limit <= took && took <= limit + 2 * SLOW, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_writes_that_come_to_nothing_is_held() {
    let desk = SlowDesk::open(patience());
    let sent: Vec<_> = (0..40).map(|payload| desk.send(payload)).collect();
    settle().await;
    assert_eq!(desk.board.held_tasks(), 0, "nobody knows yet");
    for _ in 0..30 {
        advance(SLOW / 2).await;
        advance(SLOW / 2).await;
        settle().await;
        assert_eq!(desk.board.held_tasks(), 40);
    }
    sent.iter().for_each(JoinHandle::abort);
    advance(SLOW).await; // What is being written is dropped when that ends.
    settle().await;
    assert_eq!(desk.board.held_tasks(), 0);
    let good = timeout(SLOW * 2, desk.send(100)).await;
    assert_eq!(good.unwrap().unwrap(), Settled::Confirmed);
    assert_eq!(desk.lane.held(), None);
}

/// The circuit opens at five failures in a row.
fn opens_at_5(on_open: OnOpen) -> Patience {
    let threshold = Threshold { failures: 5, cooldown: Duration::from_secs(30) };
    Patience { threshold: Some(threshold), on_open, ..patience() }
}

#[tokio::test(start_paused = true)]
async fn one_payload_that_stays_refused_opens_no_circuit_for_the_few_that_come() {
    for on_open in [OnOpen::Hold, OnOpen::DeadLetter] {
        let sink = Scripted::ruled(|payload, _| (payload == 0).then(transient));
        let desk = Desk::patient(PARALLEL, opens_at_5(on_open), sink);
        let bad = desk.send(0);
        for payload in 1..=100 {
            sleep(Duration::from_secs(3)).await;
            let good = timeout(AT_ONCE, desk.send_all([payload])).await;
            assert_eq!(good, Ok(vec![Settled::Confirmed]), "{payload}, {on_open:?}");
        }
        assert!(!bad.is_finished());
        bad.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_is_left_alone_and_tried_again_also_when_nothing_new_comes() {
    let up = Arc::new(AtomicUsize::new(0));
    let rule = Arc::clone(&up);
    let sink = Scripted::ruled(move |_, _| (rule.load(Ordering::SeqCst) == 0).then(transient));
    let desk = Desk::patient(PARALLEL, opens_at_5(OnOpen::Hold), sink);
    let held = send_apart(&desk, 0..8).await;
    assert_eq!(desk.sink.batches().len(), 5, "first writes open the circuit");
    let begun = Instant::now();
    up.store(1, Ordering::SeqCst);
    assert_eq!(settled(held).await, vec![Settled::Confirmed; 8]);
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_sink_is_left_alone_by_what_is_tried_again_although_nothing_new_comes() {
    let up = Arc::new(AtomicUsize::new(0));
    let rule = Arc::clone(&up);
    let sink = Scripted::ruled(move |_, _| (rule.load(Ordering::SeqCst) == 0).then(transient));
    let desk = Desk::patient(PARALLEL, opens_at_5(OnOpen::Hold), sink);
    let held = send_apart(&desk, 0..2).await;
    sleep(Duration::from_mins(10)).await;
    let writes = desk.sink.batches().len();
    assert!((20..50).contains(&writes), "{writes}: more than one for each cooldown, or fewer");
    up.store(1, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(settled(held).await, vec![Settled::Confirmed; 2]);
    assert!(begun.elapsed() < Duration::from_secs(35), "{:?}", begun.elapsed());

    let dead = Scripted::ruled(|_, _| Some(transient()));
    let desk = Desk::patient(PARALLEL, opens_at_5(OnOpen::DeadLetter), dead);
    for settled in settled(send_apart(&desk, 0..2).await).await {
        let Settled::Refused(refused) = settled else { panic!("confirmed") };
        assert_eq!(refused.error.class, "circuit_open");
    }
}

#[tokio::test(start_paused = true)]
async fn some_payloads_that_stay_refused_open_no_circuit_for_what_is_new() {
    for on_open in [OnOpen::Hold, OnOpen::DeadLetter] {
        let (sink, _) = always(transient);
        let desk = Desk::patient(PARALLEL, opens_at_5(on_open), sink);
        let bad = send_apart(&desk, 0..4).await;
        for round in 0..100 {
            sleep(Duration::from_secs(3)).await;
            let good = timeout(AT_ONCE, desk.send_all(8..40)).await;
            assert_eq!(good, Ok(vec![Settled::Confirmed; 32]), "{round}, {on_open:?}");
        }
        bad.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_new_finds_out_at_once_that_a_sink_is_back_although_something_stays_refused() {
    for on_open in [OnOpen::Hold, OnOpen::DeadLetter] {
        let (sink, _) = always(transient);
        let desk = Desk::patient(PARALLEL, opens_at_5(on_open), sink);
        let bad = send_apart(&desk, 0..5).await;
        sleep(Duration::from_secs(32)).await; // What is tried again fails again meanwhile.
        let good = timeout(AT_ONCE, desk.send_all([8])).await;
        assert_eq!(good, Ok(vec![Settled::Confirmed]), "{on_open:?}");
        bad.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_more_room_than_what_is_held_leaves_free_holds_up_no_other() {
    let sink = Scripted::ruled(|payload, _| (payload == 0).then(transient));
    let desk = Desk::open(PARALLEL, sink);
    for (held, large) in [(10, PARALLEL.bytes), (600, 500), (10, usize::MAX)] {
        let bad = desk.send_sized(0, held);
        settle().await;
        let sent = [(1, large), (2, 10), (3, large), (4, 10)];
        let sent = sent.map(|(payload, size)| desk.send_sized(payload, size));
        let good = timeout(AT_ONCE, settled(sent.into())).await;
        assert_eq!(good, Ok(vec![Settled::Confirmed; 4]), "{large} beside {held}");
        bad.abort();
        sleep(Duration::from_secs(10)).await;
    }
}
