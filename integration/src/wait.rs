//! Conditions with a deadline: the only place of the harness where time passes.

use std::{fmt::Display, thread, time::Duration};

use tokio::time::Instant;

/// Longest wait for anything that must happen, on a machine that is slow and busy with other things. Only
/// a test that fails waits for that long.
pub const SOON: Duration = Duration::from_mins(3);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` answers with `Ok`; panics with its last `Err` when that does not happen in time.
#[track_caller]
pub fn until<T, E: Display>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(state) if deadline < Instant::now() => {
                panic!("waited {within:?} for {what}: {state}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
