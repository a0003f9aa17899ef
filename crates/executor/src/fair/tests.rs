//! The lanes beside a list that is searched from end to end, and shares over a long time.

use proptest::{prelude::*, sample::Index};

use super::*;

const AGEING: Duration = Duration::from_mins(1);

fn share(limit: usize, weight: u32) -> Share {
    let weight = NonZeroU32::new(weight).unwrap();
    Share { limit: NonZeroUsize::new(limit), weight }
}

#[derive(Debug, Clone)]
enum Op {
    Push { lane: LaneId, priority: i64, sequence: u64, waits: u64 },
    Pop,
    End(Index),
    PutBack(Index),
    Withdraw(Index),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let push = (0..3_usize, -1..2_i64, 0..3_u64, 0..90_u64);
    prop_oneof![
        6 => push.prop_map(|(lane, priority, sequence, waits)| {
            Op::Push { lane, priority, sequence, waits }
        }),
        6 => Just(Op::Pop),
        2 => any::<Index>().prop_map(Op::End),
        1 => any::<Index>().prop_map(Op::PutBack),
        1 => any::<Index>().prop_map(Op::Withdraw),
        2 => (0..20_u64).prop_map(Op::Pass),
    ]
}

/// Everything that waits and runs, in no order.
struct Naive {
    shares: Vec<Share>,
    waiting: Vec<(Spot, usize)>,
    running: Vec<(Spot, usize)>,
}

impl Naive {
    fn running_of(&self, lane: LaneId) -> usize {
        self.running.iter().filter(|(spot, _)| spot.lane == lane).count()
    }

    fn may_start(&self, lane: LaneId) -> bool {
        self.shares[lane].limit.is_none_or(|limit| self.running_of(lane) < limit.get())
    }

    /// Takes who is next; `had` is what the lanes have had.
    fn pop(&mut self, had: &[Service], now: Instant) -> Option<(Spot, usize)> {
        let standing = |spot: &Spot| match spot.place.rank().standing(AGEING, now) {
            Standing::Overdue(..) => (0, None, Some(spot.place.age()), spot.lane),
            Standing::Waiting(rank) => {
                (1, Some((rank.priority, had[spot.lane], spot.place)), None, spot.lane)
            }
        };
        let may_start = |(_, (spot, _)): &(usize, &(Spot, usize))| self.may_start(spot.lane);
        let waiting = self.waiting.iter().enumerate().filter(may_start);
        let (at, _) = waiting.min_by_key(|(_, (spot, _))| standing(spot))?;
        Some(self.waiting.swap_remove(at))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_limit_is_exceeded_and_nobody_waits_who_may_start_and_the_right_one_does(
        limits in prop::collection::vec((0..4_usize, 1..4_u32), 3),
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut now = Instant::now() + Duration::from_secs(1_000);
        let shares: Vec<Share> = limits.into_iter().map(|(limit, weight)| share(limit, weight)).collect();
        let mut fair = FairQueue::new(AGEING, shares.clone(), now);
        let mut naive = Naive { shares, waiting: Vec::new(), running: Vec::new() };
        for (item, op) in ops.into_iter().enumerate() {
            match op {
                Op::Push { lane, priority, sequence, waits } => {
                    let since = now - Duration::from_secs(waits);
                    let spot = fair.push(lane, Rank { priority, since, sequence }, item, now);
                    naive.waiting.push((spot, item));
                }
                Op::Pop => {
                    let had: Vec<Service> = fair.lanes.iter().map(|lane| lane.had(now)).collect();
                    let expected = naive.pop(&had, now);
                    let popped = fair.pop(now);
                    prop_assert_eq!(popped, expected);
                    naive.running.extend(popped);
                }
                Op::End(pick) | Op::PutBack(pick) if !naive.running.is_empty() => {
                    let (spot, item) = naive.running.swap_remove(pick.index(naive.running.len()));
                    let again = matches!(op, Op::PutBack(_)).then_some(item);
                    fair.end(spot, again, now);
                    naive.waiting.extend(again.map(|item| (spot, item)));
                }
                Op::Withdraw(pick) if !naive.waiting.is_empty() => {
                    let (spot, item) = naive.waiting.swap_remove(pick.index(naive.waiting.len()));
                    prop_assert_eq!(fair.withdraw(spot, now), Some(item));
                    prop_assert_eq!(fair.withdraw(spot, now), None);
                }
                Op::End(_) | Op::PutBack(_) | Op::Withdraw(_) => {}
                Op::Pass(seconds) => now += Duration::from_secs(seconds),
            }
            prop_assert_eq!(fair.len(), naive.waiting.len());
            for (lane, share) in naive.shares.iter().enumerate() {
                prop_assert!(share.limit.is_none_or(|limit| naive.running_of(lane) <= limit.get()));
            }
        }
        prop_assert_eq!(fair.clear().len(), naive.waiting.len());
        prop_assert!(fair.pop(now).is_none());
    }
}

/// Slots that are never without work: each lane always has more waiting.
struct Simulation {
    fair: FairQueue<()>,
    slots: usize,
    now: Instant,
    /// Milliseconds that a task of a lane takes, at most.
    tasks: Vec<u64>,
    running: Vec<(Instant, Spot)>,
    random: fastrand::Rng,
    /// Time in slots, by lane.
    had: Vec<Duration>,
}

impl Simulation {
    fn new(slots: usize, lanes: &[(Share, u64)]) -> Self {
        let now = Instant::now();
        Self {
            fair: FairQueue::new(Duration::MAX, lanes.iter().map(|(share, _)| *share), now),
            slots,
            now,
            tasks: lanes.iter().map(|(_, task)| *task).collect(),
            running: Vec::new(),
            random: fastrand::Rng::with_seed(1),
            had: vec![Duration::ZERO; lanes.len()],
        }
    }

    fn run(&mut self, time: Duration, busy: &[LaneId]) {
        let end = self.now + time;
        for &lane in busy {
            for _ in 0..=self.slots {
                self.fair.push(lane, Rank::at(self.now), (), self.now);
            }
        }
        while self.now < end {
            while self.running.len() < self.slots
                && let Some((spot, ())) = self.fair.pop(self.now)
            {
                let lane = spot.lane;
                if busy.contains(&lane) {
                    self.fair.push(lane, Rank::at(self.now), (), self.now);
                }
                let took = Duration::from_millis(self.random.u64(1..=self.tasks[lane]));
                self.running.push((self.now + took, spot));
                self.had[lane] += took;
            }
            self.running.sort_by_key(|(end, _)| *end);
            let (end, spot) = self.running.remove(0);
            self.now = end;
            self.fair.end(spot, None, end);
        }
    }
}

/// What of `slots` each lane should have: by weight, and what one may not have goes to the others.
fn due(slots: f64, shares: &[Share]) -> Vec<f64> {
    let limit = |share: &Share| share.limit.map_or(f64::INFINITY, |limit| exact(limit.get()));
    let mut due = vec![None; shares.len()];
    loop {
        let taken: f64 = due.iter().flatten().sum();
        let open = || shares.iter().zip(&due).filter(|(_, due)| due.is_none());
        let weights: f64 = open().map(|(share, _)| f64::from(share.weight.get())).sum();
        let equal = |share: &Share| (slots - taken) * f64::from(share.weight.get()) / weights;
        let full = shares
            .iter()
            .enumerate()
            .position(|(lane, share)| due[lane].is_none() && limit(share) <= equal(share));
        match full {
            Some(lane) => due[lane] = Some(limit(&shares[lane])),
            None => {
                let rest =
                    |(share, due): (&Share, &Option<f64>)| due.unwrap_or_else(|| equal(share));
                return shares.iter().zip(&due).map(rest).collect();
            }
        }
    }
}

fn exact(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_a_long_time_slots_are_shared_by_weight_as_far_as_limits_allow(
        slots in 1..6_usize,
        lanes in prop::collection::vec((0..4_usize, 1..6_u32, 200..2_000_u64), 1..5),
    ) {
        const TIME: Duration = Duration::from_secs(1_000);
        let lanes: Vec<(Share, u64)> =
            lanes.into_iter().map(|(limit, weight, task)| (share(limit, weight), task)).collect();
        let shares: Vec<Share> = lanes.iter().map(|(share, _)| *share).collect();
        let mut simulation = Simulation::new(slots, &lanes);
        let busy: Vec<LaneId> = (0..lanes.len()).collect();
        simulation.run(TIME, &busy);
        for (lane, due) in due(exact(slots), &shares).into_iter().enumerate() {
            let had = simulation.had[lane].as_secs_f64() / TIME.as_secs_f64();
            prop_assert!((had - due).abs() < 0.03 * exact(slots), "lane {lane} had {had} slots, due {due}");
        }
    }
}

#[test]
fn who_was_idle_gets_its_share_and_not_what_it_did_not_use() {
    let lanes = [(Share::default(), 400), (Share::default(), 400)];
    let mut simulation = Simulation::new(2, &lanes);
    simulation.run(Duration::from_secs(1_000), &[0]);
    let before = simulation.had.clone();
    assert_eq!(before[1], Duration::ZERO);
    simulation.run(Duration::from_secs(20), &[0, 1]);
    for (had, before) in simulation.had.iter().zip(&before) {
        let got = had.saturating_sub(*before).as_secs_f64();
        assert!((18.0..22.0).contains(&got), "{got} of 40");
    }
}

#[test]
fn short_tasks_get_as_much_time_as_long_ones_not_as_many_turns() {
    let lanes = [(Share::default(), 100), (Share::default(), 10_000)];
    let mut simulation = Simulation::new(4, &lanes);
    simulation.run(Duration::from_secs(1_000), &[0, 1]);
    let [short, long] = [0, 1].map(|lane| simulation.had[lane].as_secs_f64());
    assert!((0.9..1.1).contains(&(short / long)), "{short} beside {long}");
}

#[test]
fn no_flood_of_better_priority_keeps_a_lane_waiting_for_longer_than_the_ageing() {
    let started = Instant::now();
    let mut fair = FairQueue::new(AGEING, [Share::default(), share(0, 100)], started);
    let mut now = started;
    fair.push(0, Rank { priority: 9, since: now, sequence: 0 }, "unimportant", now);
    loop {
        fair.push(1, Rank { priority: -9, since: now, sequence: 0 }, "urgent", now);
        let (spot, item) = fair.pop(now).unwrap();
        if item == "unimportant" {
            break;
        }
        now += Duration::from_secs(1);
        fair.end(spot, None, now);
    }
    assert_eq!(now, started + AGEING);
}
