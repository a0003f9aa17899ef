//! How many requests are sent at once to an endpoint that may be overloaded: additive increase,
//! multiplicative decrease.
//!
//! [`Aimd`] decides, without a clock; [`Limit`] lets requests pass as it says. Nothing here looks at
//! payloads, and a request that is given up leaves its place.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::debug;

/// What a request tells of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered, after this long.
    Answered(Duration),
    /// It said that it is overloaded, or did not answer in time.
    Overloaded,
    /// Nothing of its load: the connection broke.
    Nothing,
}

/// The smallest latency counts for this many answers; then a newer one takes its place.
const MEMORY: u32 = 200;
/// Latency is smoothed over about this many answers.
const SMOOTH: u32 = 8;
/// This much above the smallest latency is no sign of a queue yet, however small that is.
const SLACK: Duration = Duration::from_millis(50);

/// The decision: halve when the endpoint is overloaded, one more when a round of requests went well.
#[derive(Debug, Clone)]
pub(super) struct Aimd {
    limit: usize,
    most: usize,
    /// Answers since the limit changed.
    well: usize,
    /// Counts changes downwards: what was sent before one says nothing new.
    cuts: u64,
    /// Smallest latency of the memory before, and of this one.
    least: [Option<Duration>; 2],
    remembered: u32,
    smoothed: Option<Duration>,
}

impl Aimd {
    pub(super) fn new(most: usize) -> Self {
        Self {
            limit: most.max(1),
            most: most.max(1),
            well: 0,
            cuts: 0,
            least: [None; 2],
            remembered: 0,
            smoothed: None,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes the sign of a request that was sent after `cuts` changes downwards.
    pub(super) fn take(&mut self, sign: Sign, cuts: u64) {
        match sign {
            Sign::Nothing => {}
            _ if cuts < self.cuts => {}
            Sign::Overloaded => self.cut(),
            Sign::Answered(latency) if self.is_queueing(latency) => self.cut(),
            Sign::Answered(_) => {
                self.well += 1;
                if self.limit <= self.well && self.limit < self.most {
                    self.limit += 1;
                    self.well = 0;
                }
            }
        }
    }

    fn cut(&mut self) {
        self.limit = (self.limit / 2).max(1);
        self.well = 0;
        self.cuts += 1;
        self.smoothed = None;
    }

    /// Whether answers take well longer than they must.
    fn is_queueing(&mut self, latency: Duration) -> bool {
        if self.remembered == MEMORY {
            self.least = [self.least[1], None];
            self.remembered = 0;
        }
        self.remembered += 1;
        let now = self.least[1].map_or(latency, |now| now.min(latency));
        self.least[1] = Some(now);
        let least = self.least[0].map_or(now, |before| before.min(now));
        let before = self.smoothed.unwrap_or(latency);
        let smoothed = (before * (SMOOTH - 1) + latency) / SMOOTH;
        self.smoothed = Some(smoothed);
        least * 3 + SLACK < smoothed
    }
}

/// The gate that requests pass.
pub(super) struct Limit {
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    aimd: Aimd,
    /// Places there are, taken ones included; follows the limit as they are left.
    places: usize,
}

/// A request that passed the gate.
pub(super) struct Pass<'a> {
    limit: &'a Limit,
    permit: Option<OwnedSemaphorePermit>,
    cuts: u64,
    since: Instant,
}

impl Limit {
    pub(super) fn new(most: usize) -> Self {
        let aimd = Aimd::new(most);
        let places = aimd.limit();
        let state = Mutex::new(State { aimd, places });
        Self { places: Arc::new(Semaphore::new(places)), state }
    }

    /// Waits for a place.
    pub(super) async fn pass(&self) -> Pass<'_> {
        // The semaphore is never closed: without a permit nothing is counted, and nothing is lost.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        let cuts = self.state().aimd.cuts;
        Pass { limit: self, permit, cuts, since: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// How long ago it was let pass.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// The request is over.
    pub(super) fn ended(self, sign: Sign) {
        let mut state = self.limit.state();
        let before = state.aimd.limit();
        state.aimd.take(sign, self.cuts);
        let now = state.aimd.limit();
        drop(state);
        if now != before {
            debug!(limit = now, before, ?sign, "requests at once to an http endpoint");
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut state = self.limit.state();
        let limit = state.aimd.limit();
        if limit < state.places {
            permit.forget(); // Given back, it would go to whoever waits.
            state.places -= 1;
            state.places -= self.limit.places.forget_permits(state.places - limit);
        } else {
            drop(permit);
        }
        if state.places < limit {
            self.limit.places.add_permits(limit - state.places);
            state.places = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Sign = Sign::Answered(Duration::from_millis(10));
    const SLOW: Sign = Sign::Answered(Duration::from_secs(5));

    fn many(aimd: &mut Aimd, sign: Sign, count: usize) {
        for _ in 0..count {
            aimd.take(sign, aimd.cuts);
        }
    }

    #[test]
    fn overload_halves_once_for_all_requests_that_were_under_way() {
        let mut aimd = Aimd::new(64);
        let sent = aimd.cuts;
        for _ in 0..64 {
            aimd.take(Sign::Overloaded, sent);
        }
        assert_eq!(aimd.limit(), 32);
        aimd.take(Sign::Overloaded, aimd.cuts);
        assert_eq!(aimd.limit(), 16);
    }

    #[test]
    fn a_round_of_requests_that_went_well_allows_one_more() {
        let mut aimd = Aimd::new(8);
        many(&mut aimd, Sign::Overloaded, 10);
        assert_eq!(aimd.limit(), 1);
        many(&mut aimd, FAST, 1);
        assert_eq!(aimd.limit(), 2);
        many(&mut aimd, FAST, 2);
        assert_eq!(aimd.limit(), 3);
        many(&mut aimd, FAST, 100);
        assert_eq!(aimd.limit(), 8);
    }

    #[test]
    fn answers_that_take_well_longer_than_they_must_are_a_sign_of_overload() {
        let mut aimd = Aimd::new(8);
        many(&mut aimd, FAST, 50);
        many(&mut aimd, Sign::Answered(Duration::from_millis(60)), 50);
        assert_eq!(aimd.limit(), 8, "that is jitter");
        many(&mut aimd, SLOW, 3);
        assert!(aimd.limit() < 8, "{aimd:?}");
    }

    #[test]
    fn an_endpoint_that_became_slower_for_good_is_used_in_full_again() {
        let mut aimd = Aimd::new(8);
        many(&mut aimd, FAST, 50);
        many(&mut aimd, SLOW, 3 * MEMORY as usize);
        assert_eq!(aimd.limit(), 8, "{aimd:?}");
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_one_and_what_is_configured(
            most in 0_usize..50,
            signs in prop::collection::vec((0_u8..3, 0_u64..10_000, any::<bool>()), 0..500),
        ) {
            let mut aimd = Aimd::new(most);
            for (which, millis, is_old) in signs {
                let sign = match which {
                    0 => Sign::Overloaded,
                    1 => Sign::Nothing,
                    _ => Sign::Answered(Duration::from_millis(millis)),
                };
                let before = aimd.limit();
                aimd.take(sign, if is_old { 0 } else { aimd.cuts });
                prop_assert!((1..=most.max(1)).contains(&aimd.limit()));
                prop_assert!(aimd.limit() <= before + 1);
            }
        }
    }

    #[tokio::test]
    async fn the_gate_follows_the_limit_down_and_up_again() {
        let limit = Limit::new(4);
        let mut under_way = Vec::new();
        for _ in 0..4 {
            under_way.push(limit.pass().await);
        }
        let first = under_way.remove(0);
        first.ended(Sign::Overloaded); // Two places from here on; three are taken.
        assert_eq!(limit.places.available_permits(), 0);
        drop(under_way); // Given up: their places are left.
        assert_eq!(limit.places.available_permits(), 2);
        for _ in 0..20 {
            let (one, other) = tokio::join!(limit.pass(), limit.pass());
            one.ended(FAST);
            other.ended(FAST);
        }
        assert_eq!(limit.places.available_permits(), 4);
    }
}
