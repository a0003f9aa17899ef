//! Probes and metrics, served while the worker lives: from before it has reached its broker.
//!
//! On a thread and a runtime of their own: hooks that block every thread of the worker's runtime must
//! not silence the probe that says so.

use std::{io, sync::Arc, thread, time::Duration};

use drakkar_debug::{Probes, Server};
use drakkar_executor::{Pool, PoolStats, ProgramStats};
use drakkar_pipeline::Status;
use drakkar_telemetry::{Metrics, ProgramView};
use tokio::{
    runtime,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{Config, health::WorkerHealth};

/// How often the gauges of the pool and of the partitions are read.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// How long the thread may take to end; requests under way get a second of it.
pub(crate) const PROBES_WITHIN: Duration = Duration::from_secs(2);

/// Probes and metrics, until they are told to stop.
pub(crate) struct ProbeServer {
    /// Its sender goes when the thread ends.
    ended: oneshot::Receiver<()>,
    metrics: Arc<Metrics>,
    /// Ended with this: it holds a handle to the pool, and a pool lives as long as its last handle.
    gauges: JoinSet<()>,
    stop: oneshot::Sender<()>,
}

impl ProbeServer {
    pub(crate) fn start(
        server: Server,
        health: Arc<WorkerHealth>,
        config: &Config,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel::<()>();
        let probes =
            Probes { health, metrics: config.metrics.enabled.then(|| Arc::clone(metrics)) };
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("drakkar-probes".to_owned()).spawn(move || {
            // Told to stop, or its owner is gone: the same.
            let stopped = async move { drop(stopped.await) };
            if let Err(error) = runtime.block_on(server.serve(probes, stopped)) {
                warn!(category = "worker", %error, "probes and metrics are no longer served");
            }
            drop(ending); // By a panic as well.
        })?;
        Ok(Self { ended, metrics: Arc::clone(metrics), gauges: JoinSet::new(), stop })
    }

    /// Shows the gauges of `pool` from now on, and how much the partitions of `status` hold.
    pub(crate) fn show(&mut self, pool: Pool, status: Arc<Status>) {
        self.gauges.spawn(show_pool(Arc::clone(&self.metrics), pool, status));
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        drop(self.gauges);
        // Nothing is ever sent: the error is the end.
        if timeout(PROBES_WITHIN, self.ended).await.is_err() {
            warn!(category = "worker", "the thread of the probes does not end and is left");
        }
    }
}

async fn show_pool(metrics: Arc<Metrics>, pool: Pool, status: Arc<Status>) {
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.effective_cpus.set(drakkar_executor::effective_cpus());
    let mut tick = tokio::time::interval(GAUGES_EVERY);
    let mut looked = Instant::now();
    loop {
        tick.tick().await;
        let held = status.show_loads();
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
        let mut running = active;
        for (name, stats) in pool.programs() {
            running += stats.in_flight;
            metrics.program(&name, &view(&stats));
        }
        metrics.idled(looked.elapsed(), slots.saturating_sub(active), running, held);
        looked = Instant::now();
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use drakkar_core::Task;
    use drakkar_executor::{
        ExecutorConfig, FreeMemory, Job, MemoryGuardConfig, Mode, ProgramConfig, Protocol, Rank,
        StandIn, Ticket,
    };

    fn submit(pool: &Pool, task: Task) -> Ticket {
        let rank = Rank::at(Instant::now());
        pool.submit(Job { task: Arc::new(task), rank, done: Box::new(drop) })
    }

    async fn until_shown(metrics: &Metrics, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = metrics.render().unwrap();
            if text.lines().any(|shown| shown == line) {
                return;
            }
            assert!(Instant::now() < deadline, "no line {line:?} in\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_scrape_shows_what_the_guards_do_and_which_programs_were_replaced() {
        let memory_guard = MemoryGuardConfig { pause_below_percent: 20, kill_below_percent: 10 };
        let mut config = ExecutorConfig { memory_guard, ..ExecutorConfig::default() };
        config.max_executors = 2.try_into().ok();
        let program = ProgramConfig {
            mode: Mode::Persistent,
            protocol: Protocol::Lines,
            instances: 1.try_into().ok(),
            recycle_after_tasks: NonZeroU64::new(1),
            ..ProgramConfig::default()
        };
        config.programs.insert("cat".to_owned(), program);
        let free = FreeMemory::percent(100);
        let stand_in: Arc<dyn StandIn> = Arc::clone(&free) as _;
        let pool = Pool::start_with(&config, Some(&stand_in)).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut gauges = JoinSet::new();
        gauges.spawn(show_pool(Arc::clone(&metrics), pool.clone(), Arc::default()));

        let escape = "setsid sleep 1000 >/dev/null 2>&1 </dev/null &
                      until grep -qs sleep /proc/$!/comm; do sleep 0.01; done";
        drop(submit(&pool, Task::new().program("sh").arg("-c").arg(escape)));
        until_shown(&metrics, "drakkar_executor_escaped_processes_total 1").await;

        drop(submit(&pool, Task::new().program("cat").stdin("a line")));
        until_shown(&metrics, r#"drakkar_program_recycled_total{program="cat"} 1"#).await;
        until_shown(&metrics, r#"drakkar_program_starts_total{program="cat"} 2"#).await;
        until_shown(&metrics, r#"drakkar_program_failures_total{program="cat"} 0"#).await;

        let running = [(); 2].map(|()| submit(&pool, Task::new().program("sleep").arg("1000")));
        until_shown(&metrics, "drakkar_executor_pool_active 2").await;
        until_shown(&metrics, "drakkar_executor_memory_paused 0").await;
        free.set(0);
        until_shown(&metrics, "drakkar_executor_memory_paused 1").await;
        until_shown(&metrics, "drakkar_executor_memory_pauses_total 1").await;
        until_shown(&metrics, "drakkar_executor_memory_requeued_total 1").await;
        until_shown(&metrics, "drakkar_executor_pool_active 1").await;
        drop(running);
        pool.close().await;
    }
}
