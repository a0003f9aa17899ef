//! The series of the hooks that users write.

use prometheus::{Histogram, IntCounter};

use super::register::{Registrar, Result};

const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// A hook of the handler. `on_startup` is none of them: it runs before there are metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hook {
    /// `on_ready`
    OnReady,
    /// `on_assign`
    OnAssign,
    /// `decode`
    Decode,
    /// `arrange`
    Arrange,
    /// `priority`
    Priority,
    /// `message_label`
    MessageLabel,
    /// `on_task_complete`
    OnTaskComplete,
    /// `on_error`
    OnError,
    /// `on_message_complete`
    OnMessageComplete,
    /// `on_window_complete`
    OnWindowComplete,
    /// `on_delivery_error`
    OnDeliveryError,
    /// `on_revoke`
    OnRevoke,
    /// Work by the clock
    Periodic,
}

impl Hook {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 13] = [
        Self::OnReady,
        Self::OnAssign,
        Self::Decode,
        Self::Arrange,
        Self::Priority,
        Self::MessageLabel,
        Self::OnTaskComplete,
        Self::OnError,
        Self::OnMessageComplete,
        Self::OnWindowComplete,
        Self::OnDeliveryError,
        Self::OnRevoke,
        Self::Periodic,
    ];

    /// The hook as metrics and logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnReady => "on_ready",
            Self::OnAssign => "on_assign",
            Self::Decode => "decode",
            Self::Arrange => "arrange",
            Self::Priority => "priority",
            Self::MessageLabel => "message_label",
            Self::OnTaskComplete => "on_task_complete",
            Self::OnError => "on_error",
            Self::OnMessageComplete => "on_message_complete",
            Self::OnWindowComplete => "on_window_complete",
            Self::OnDeliveryError => "on_delivery_error",
            Self::OnRevoke => "on_revoke",
            Self::Periodic => "periodic",
        }
    }
}

/// Handles to the series of one hook.
#[derive(Debug, Clone)]
pub struct HookMetrics {
    /// `drakkar_handler_duration_seconds`; of `decode` and `priority`,
    /// the time for all messages or tasks of a window.
    pub duration: Histogram,
    /// `drakkar_handler_hook_errors_total`: errors, panics and time-outs. Counted by
    /// [`Metrics::hook_failed`](super::Metrics::hook_failed). An error of `decode` is the message's
    /// fault rather, and counted as such.
    pub errors: IntCounter,
}

/// All of them, in the order of [`Hook::ALL`].
#[derive(Debug)]
pub(super) struct Hooks([HookMetrics; Hook::ALL.len()]);

impl Hooks {
    pub(super) fn new(add: &Registrar<'_>) -> Result<Self> {
        let durations = add.histograms(
            "drakkar_handler_duration_seconds",
            "Time a call of a hook of the handler took; of decode and priority, all calls for one window",
            &["hook"],
            &BUCKETS,
        )?;
        let errors = add.counters(
            "drakkar_handler_hook_errors_total",
            "Hooks that panicked, exceeded their time-out or returned an error; errors of decode are drakkar_message_parse_failures_total",
            &["hook"],
        )?;
        Ok(Self(Hook::ALL.map(|hook| HookMetrics {
            duration: durations.with_label_values(&[hook.as_str()]),
            errors: errors.with_label_values(&[hook.as_str()]),
        })))
    }

    pub(super) fn get(&self, hook: Hook) -> &HookMetrics {
        &self.0[hook as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_stands_at_its_own_place() {
        for (place, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, place, "{}", hook.as_str());
        }
    }
}
