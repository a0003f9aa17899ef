//! The section `executor` of a configuration, as the pipeline is told it: in one place for the worker and
//! for tests.

use drakkar_core::{OnInvalid, flood::FloodLimits, retry::Backoff};
use drakkar_executor::ExecutorConfig;

use crate::{CommitPace, Settings};

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
