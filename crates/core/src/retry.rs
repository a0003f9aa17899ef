//! How long to wait before the next attempt.

use std::time::Duration;

/// Exponential backoff with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Upper bound of every wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait before retry number `retry` (from 1). `jitter` is a random number in `0.0..=1.0`.
    ///
    /// Full jitter spreads the retries of many tasks over the whole interval; a tenth of the bound is
    /// always waited, so that a retry is never immediate.
    #[must_use]
    pub fn delay(self, retry: u32, jitter: f64) -> Duration {
        let doublings = retry.saturating_sub(1).min(31);
        let bound = self.initial.saturating_mul(1 << doublings).min(self.max);
        bound.mul_f64(0.1 + 0.9 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff =
        Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let bounds: Vec<u128> = (1..=6).map(|n| BACKOFF.delay(n, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn a_retry_is_never_immediate_and_never_overflows() {
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::from_millis(10));
        assert_eq!(BACKOFF.delay(u32::MAX, 1.0), Duration::from_secs(1));
    }
}
