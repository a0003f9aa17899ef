//! When to join the group: the moment that workers which start together have in common.
//!
//! A cold start of N workers would cause N rebalances. Each of them waits a shortest time, then up to
//! the next multiple of an interval on the wall clock, so that they join together and cause one.

use std::time::Duration;

/// How long to wait from `now` (since the Unix epoch): `least`, then up to the next multiple of
/// `interval`; exactly on a multiple, no longer.
pub(crate) fn wait(now: Duration, least: Duration, interval: Duration) -> Duration {
    let earliest = now + least;
    let past = earliest.as_nanos().checked_rem(interval.as_nanos()).unwrap_or_default();
    if past == 0 {
        return least;
    }
    // The remainder is less than the interval, so both fit.
    let past = Duration::from_nanos(u64::try_from(past).unwrap_or(u64::MAX));
    least + interval.saturating_sub(past)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(now: f64, least: f64, interval: u64, expected: f64) {
        let [now, least, expected] = [now, least, expected].map(Duration::from_secs_f64);
        assert_eq!(wait(now, least, Duration::from_secs(interval)), expected);
    }

    #[test]
    fn it_waits_for_the_next_multiple_after_the_shortest_wait() {
        check(100.0, 4.0, 10, 10.0);
        check(107.0, 4.0, 10, 13.0);
        check(100.5, 0.0, 10, 9.5);
    }

    #[test]
    fn exactly_on_a_multiple_it_waits_no_longer() {
        check(106.0, 4.0, 10, 4.0);
        check(100.0, 0.0, 10, 0.0);
    }

    #[test]
    fn without_an_interval_only_the_shortest_wait_counts() {
        check(103.0, 4.0, 0, 4.0);
    }
}
