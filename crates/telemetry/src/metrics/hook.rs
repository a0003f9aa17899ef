//! The series of the hooks that users write.

use prometheus::{Histogram, IntCounter};

use super::register::{Registrar, Result};

const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// A hook of the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hook {
    /// `arrange`
    Arrange,
    /// `on_task_complete`
    OnTaskComplete,
    /// `on_message_complete`
    OnMessageComplete,
    /// `on_window_complete`
    OnWindowComplete,
    /// `on_error`
    OnError,
}

impl Hook {
    /// The hook as metrics and logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arrange => "arrange",
            Self::OnTaskComplete => "on_task_complete",
            Self::OnMessageComplete => "on_message_complete",
            Self::OnWindowComplete => "on_window_complete",
            Self::OnError => "on_error",
        }
    }
}

/// Handles to the series of one hook.
#[derive(Debug, Clone)]
pub struct HookMetrics {
    /// `drakkar_handler_duration_seconds`
    pub duration: Histogram,
    /// `drakkar_handler_hook_errors_total`: errors, panics and time-outs. Counted by
    /// [`Metrics::hook_failed`](super::Metrics::hook_failed).
    pub errors: IntCounter,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Hooks {
    arrange: HookMetrics,
    on_task_complete: HookMetrics,
    on_message_complete: HookMetrics,
    on_window_complete: HookMetrics,
    on_error: HookMetrics,
}

impl Hooks {
    pub(super) fn new(add: &Registrar<'_>) -> Result<Self> {
        let durations = add.histograms(
            "drakkar_handler_duration_seconds",
            "Time a hook of the handler took",
            &["hook"],
            &BUCKETS,
        )?;
        let errors = add.counters(
            "drakkar_handler_hook_errors_total",
            "Hooks that returned an error, panicked or exceeded their time-out",
            &["hook"],
        )?;
        let of = |hook: Hook| HookMetrics {
            duration: durations.with_label_values(&[hook.as_str()]),
            errors: errors.with_label_values(&[hook.as_str()]),
        };
        Ok(Self {
            arrange: of(Hook::Arrange),
            on_task_complete: of(Hook::OnTaskComplete),
            on_message_complete: of(Hook::OnMessageComplete),
            on_window_complete: of(Hook::OnWindowComplete),
            on_error: of(Hook::OnError),
        })
    }

    pub(super) fn get(&self, hook: Hook) -> &HookMetrics {
        match hook {
            Hook::Arrange => &self.arrange,
            Hook::OnTaskComplete => &self.on_task_complete,
            Hook::OnMessageComplete => &self.on_message_complete,
            Hook::OnWindowComplete => &self.on_window_complete,
            Hook::OnError => &self.on_error,
        }
    }
}
