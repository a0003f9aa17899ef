//! The section `executor` of a configuration, as the pipeline is told it: in one place for the worker and
//! for tests.

use std::time::Duration;

use drakkar_core::{OnInvalid, flood::FloodLimits, order, retry::Backoff};
use drakkar_executor::ExecutorConfig;

use crate::CommitPace;

/// What the pipeline is told by the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Messages per window (`executor.window_size`).
    pub window_size: usize,
    /// Messages of a partition that may be arranged and not settled.
    pub max_in_flight: usize,
    /// Tasks of a partition that the pool may hold, queued or running: of each program of the
    /// configuration, and of all others. With more in all, no further window is begun.
    pub max_in_pool: usize,
    /// Tasks of a partition whose results may be in hooks or on their way to sinks
    /// (`executor.max_hooks`).
    pub max_hooks: usize,
    /// Bytes of output that these may hold, and those kept for the hooks that aggregate
    /// (`executor.max_result_bytes`).
    pub max_result_bytes: usize,
    /// The same for all partitions together (`executor.max_result_bytes_total`).
    pub max_result_bytes_total: usize,
    /// Bytes of the files of a worker (`executor.spool.max_bytes`); results hold no more than half.
    pub max_spooled_bytes: u64,
    /// Which messages are processed one after the other (`executor.ordering`).
    pub ordering: order::Ordering,
    /// When a task goes first whatever its priority (`executor.priority_ageing`).
    pub priority_ageing: Duration,
    /// Retries of one task (`executor.max_retries`).
    pub max_retries: u32,
    /// Length of a chain of replacements (`executor.max_replacements`).
    pub max_replacements: u32,
    /// Wait before a retry.
    pub backoff: Backoff,
    /// How long a hook may take (`executor.hook_timeout_seconds`).
    pub hook_timeout: Duration,
    /// What becomes of a message that does not decode (`kafka.on_invalid`).
    pub on_invalid: OnInvalid,
    /// How many messages of a partition may be dead-lettered (`dlq.max_consecutive`,
    /// `dlq.max_ratio`, `dlq.probe_interval`).
    pub flood: FloodLimits,
    /// How often to report what is settled.
    pub commit: CommitPace,
}

impl Settings {
    /// What `executor` says, and these of other sections.
    #[must_use]
    pub fn new(
        executor: &ExecutorConfig,
        on_invalid: OnInvalid,
        flood: FloodLimits,
        commit: CommitPace,
    ) -> Self {
        let window_size = executor.window_size.get();
        Self {
            window_size,
            max_in_flight: window_size.saturating_mul(executor.max_windows.get()),
            max_in_pool: executor
                .capacity()
                .saturating_mul(executor.backpressure_high_multiplier.get()),
            max_hooks: executor.max_hooks.get(),
            max_result_bytes: executor.max_result_bytes,
            max_result_bytes_total: executor.max_result_bytes_total,
            max_spooled_bytes: executor.spool.max_bytes,
            ordering: executor.ordering,
            priority_ageing: executor.priority_ageing,
            max_retries: executor.max_retries,
            max_replacements: executor.max_replacements,
            backoff: Backoff {
                initial: executor.retry_backoff_initial,
                max: executor.retry_backoff_max,
            },
            hook_timeout: executor.hook_timeout_seconds,
            on_invalid,
            flood,
            commit,
        }
    }
}
