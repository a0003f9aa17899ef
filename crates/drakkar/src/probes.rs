//! Probes and metrics, served while the worker lives.
//!
//! On a thread and a runtime of their own: hooks that block every thread of the worker's runtime must
//! not silence the probe that says so.

use std::{io, sync::Arc, thread, time::Duration};

use drakkar_debug::{Probes, Server};
use drakkar_executor::{Pool, PoolStats, ProgramStats};
use drakkar_telemetry::{Metrics, ProgramView};
use tokio::{runtime, sync::oneshot, task::JoinSet};
use tracing::warn;

use crate::{Config, health::WorkerHealth};

/// How often the gauges of the pool are read.
const POOL_GAUGES_EVERY: Duration = Duration::from_secs(1);

/// Probes and metrics, until they are told to stop.
pub(crate) struct ProbeServer {
    /// Its sender goes when the thread ends.
    ended: oneshot::Receiver<()>,
    /// Ended with this: it holds a handle to the pool, and a pool lives as long as its last handle.
    gauges: JoinSet<()>,
    stop: oneshot::Sender<()>,
}

impl ProbeServer {
    pub(crate) fn start(
        server: Server,
        health: WorkerHealth,
        config: &Config,
        metrics: &Arc<Metrics>,
        pool: &Pool,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel::<()>();
        let probes = Probes {
            health: Arc::new(health),
            metrics: config.metrics.enabled.then(|| Arc::clone(metrics)),
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("drakkar-probes".to_owned()).spawn(move || {
            // Told to stop, or its owner is gone: the same.
            let stopped = async move { drop(stopped.await) };
            if let Err(error) = runtime.block_on(server.serve(probes, stopped)) {
                warn!(category = "worker", %error, "probes and metrics are no longer served");
            }
            drop(ending); // By a panic as well.
        })?;
        let mut gauges = JoinSet::new();
        gauges.spawn(show_pool(Arc::clone(metrics), pool.clone()));
        Ok(Self { ended, gauges, stop })
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        drop(self.gauges);
        // Nothing is ever sent: the error is the end.
        drop(self.ended.await);
    }
}

async fn show_pool(metrics: Arc<Metrics>, pool: Pool) {
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.effective_cpus.set(drakkar_executor::effective_cpus());
    let mut tick = tokio::time::interval(POOL_GAUGES_EVERY);
    loop {
        tick.tick().await;
        let PoolStats { slots, active, escaped, paused, pauses, taken_back, .. } = pool.stats();
        metrics.memory_paused.set(paused.into());
        for (shown, total) in [
            (&metrics.memory_pauses, pauses),
            (&metrics.memory_requeued, taken_back),
            (&metrics.escaped_processes, escaped),
        ] {
            shown.inc_by(total.saturating_sub(shown.get()));
        }
        metrics.pool_max.set(signed(slots));
        metrics.pool_active.set(signed(active));
        for (name, stats) in pool.programs() {
            metrics.program(&name, &view(&stats));
        }
    }
}

fn view(stats: &ProgramStats) -> ProgramView {
    ProgramView {
        ready: stats.ready,
        in_flight: stats.in_flight,
        queued: stats.queued,
        is_crash_looping: stats.is_crash_looping(),
        starts: stats.starts,
        failures: stats.failures,
        recycled: stats.recycled,
        requeued: stats.requeued,
        stderr_suppressed: stats.stderr_suppressed,
    }
}
