//! How often one event is logged.
//!
//! A broker that is down reports the same error hundreds of times a second. Each kind of event may
//! write [`BURST`] lines in [`WINDOW`]; the first line after that says how many were left out. The
//! metric counts them all.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::Hook;

const WINDOW: Duration = Duration::from_secs(10);
const BURST: u64 = 20;

/// One throttle per kind of event that can flood.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    pub(crate) task_retried: Throttle,
    pub(crate) delivery_retried: Throttle,
    pub(crate) dead_letter: Throttle,
    /// One for each: what fails by the thousand must not keep back what fails once.
    pub(crate) hook_failed: [Throttle; Hook::ALL.len()],
    pub(crate) priority_failed: Throttle,
    pub(crate) output_dropped: Throttle,
    pub(crate) sink_refused: Throttle,
    pub(crate) client_error: Throttle,
    pub(crate) commit_refused: Throttle,
    pub(crate) rewound: Throttle,
    pub(crate) done_map_over: Throttle,
}

#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    window: Option<Instant>,
    lines: u64,
    suppressed: u64,
}

impl Throttle {
    /// `Some(suppressed)` when a line may be written now; it stands for that many more.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        // Plain numbers: a panic elsewhere cannot leave them half changed.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window.is_none_or(|start| WINDOW <= now.duration_since(start)) {
            state.window = Some(now);
            state.lines = 0;
        }
        if BURST <= state.lines {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_the_next_line_says_how_much_was_left_out() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let admitted = (0..BURST + 5).filter(|_| throttle.admit_at(start).is_some()).count();
        assert_eq!(admitted as u64, BURST);
        assert_eq!(throttle.admit_at(start + WINDOW), Some(5));
        assert_eq!(throttle.admit_at(start + WINDOW), Some(0));
    }
}
