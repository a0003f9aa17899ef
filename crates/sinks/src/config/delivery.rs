//! How payloads are joined into writes, and when a sink is left alone for a while.

use std::{num::NonZeroUsize, time::Duration};

use drakkar_core::lenient;
use serde::{Deserialize, Serialize};

use crate::lane::{OnOpen, Shape, Threshold};

/// Payloads of a write, or writes at once: beyond this it is a mistake.
const MOST: usize = 1_000_000;

/// How payloads of many tasks are joined into one write: `sinks.<kind>.<name>.batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Payloads of one write, at most; not above 1 000 000. Default: what suits the kind: `kafka`,
    /// `postgres`, `mongo` and `redis` 1000, `filesystem` 4096, `http` 1, as `ndjson` 500, `custom`
    /// 500.
    pub max_items: Option<NonZeroUsize>,
    /// Bytes of one write, at most; a larger payload is written alone. Default: what suits the
    /// kind: `filesystem` 8 MiB, the others 4 MiB.
    pub max_bytes: Option<NonZeroUsize>,
    /// How long a payload waits for others; with 0 a write takes what is there. Default: `0s`.
    #[serde(with = "lenient::duration")]
    pub linger: Duration,
    /// Writes under way at once, not above 1 000 000; with 1 the order of payloads is kept, but for
    /// what shares a refused record set of Kafka. Default: what suits the kind: `kafka` 64,
    /// `filesystem`, `postgres`, `mongo` and `redis` 1, `http` 8, `custom` 4.
    pub in_flight: Option<NonZeroUsize>,
}

impl BatchConfig {
    /// `usual` with what is said here.
    pub(crate) fn shape(&self, usual: Shape) -> Shape {
        let batch_items = self.max_items.map_or(usual.batch_items, NonZeroUsize::get);
        let batch_bytes = self.max_bytes.map_or(usual.batch_bytes, NonZeroUsize::get);
        Shape {
            items: usual.items.max(batch_items),
            bytes: usual.bytes.max(batch_bytes),
            batch_items,
            batch_bytes,
            batches: self.in_flight.map_or(usual.batches, NonZeroUsize::get),
            permanent: usual.permanent,
        }
    }

    pub(crate) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        if Duration::from_mins(1) < self.linger {
            wrong.push(format!("{at}.batch.linger: must not be longer than 1 min"));
        }
        for (key, count) in [("max_items", self.max_items), ("in_flight", self.in_flight)] {
            if count.is_some_and(|count| MOST < count.get()) {
                wrong.push(format!("{at}.batch.{key}: must not be larger than {MOST}"));
            }
        }
    }
}

/// When a sink that fails again and again is left alone: `sinks.circuit_breaker`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreakerConfig {
    /// Writes in a row of which nothing was accepted, until the sink is left alone; 0: never.
    /// Default: `5`.
    pub failure_threshold: u32,
    /// How long it is left alone before one write tries it. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub cooldown_seconds: Duration,
    /// What becomes of payloads for it meanwhile: `hold` (they wait) or `dead_letter` (they count
    /// as refused for good). Default: `hold`.
    pub on_open: OnOpen,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            cooldown_seconds: Duration::from_secs(30),
            on_open: OnOpen::Hold,
        }
    }
}

impl CircuitBreakerConfig {
    pub(crate) fn threshold(&self) -> Option<Threshold> {
        let failures = self.failure_threshold;
        (0 < failures).then_some(Threshold { failures, cooldown: self.cooldown_seconds })
    }
}
