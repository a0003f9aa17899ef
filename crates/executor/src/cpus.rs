//! How many processors the worker may really use.

use std::num::NonZeroUsize;

/// Processors this process may use: its affinity, capped by the quota of its cgroup (v1 or v2,
/// rounded down, at least 1).
#[must_use]
pub fn effective_cpus() -> f64 {
    f64::from(u32::try_from(count().get()).unwrap_or(u32::MAX))
}

/// The same as a number of slots; one where the system does not tell.
pub(crate) fn count() -> NonZeroUsize {
    // The standard library knows affinity masks and both versions of cgroups.
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
