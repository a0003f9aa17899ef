//! How long a payload waits for others when ten arrive per second: it should be the linger and no more.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use anyhow::ensure;
use drakkar::{CustomPayload, Delivery, Sink};
use drakkar_core::hold::HoldBoard;
use drakkar_sinks::{BatchConfig, Settled, Sinks};
use tokio::{runtime::Runtime, time::Instant};

use crate::report::{Figure, Goal, Round};

const LINGER: Duration = Duration::from_millis(20);

/// What the engine may add.
const ADDED: Duration = Duration::from_millis(2);

const EVERY: Duration = Duration::from_millis(100);

const PAYLOADS: u32 = 50;

/// Confirms everything at once: what is measured is the engine alone.
struct Sponge;

impl Sink for Sponge {
    type Payload = u32;

    async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
        vec![Delivery::Confirmed; batch.len()]
    }
}

/// Milliseconds at the median beside what is allowed.
pub(super) fn measure(runtime: &Runtime, rounds: NonZeroUsize) -> anyhow::Result<Figure> {
    let name = format!("wait for others, linger {LINGER:?}, 10/s, p50 beside linger + {ADDED:?}");
    let mut figure = Figure::new(name, "ms", Goal::AtMost(1.0));
    for _ in 0..rounds.get() {
        let ours = runtime.block_on(round())?.as_secs_f64() * 1e3;
        figure.add(Round { ours, reference: (LINGER + ADDED).as_secs_f64() * 1e3 });
    }
    Ok(figure)
}

async fn round() -> anyhow::Result<Duration> {
    let batch = BatchConfig { linger: LINGER, ..BatchConfig::default() };
    let sinks = Sinks::builder(Arc::new(())).batch(&batch).custom("sponge", Sponge).build();
    let hold = Arc::new(HoldBoard::default()).task();
    let mut took = Vec::new();
    let mut next = Instant::now();
    for number in 0..PAYLOADS {
        tokio::time::sleep_until(next).await;
        next += EVERY;
        let start = Instant::now();
        let payload = CustomPayload::new("sponge", number, size_of_val(&number));
        let settled = sinks.deliver(payload.into(), &hold).await;
        ensure!(settled == Settled::Confirmed, "the sponge refused: {settled:?}");
        took.push(start.elapsed());
    }
    sinks.close(EVERY).await;
    took.sort_unstable();
    Ok(took[took.len() / 2])
}
