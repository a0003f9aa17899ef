//! How long a test waits for what it expects, and what it says when that does not come.

use std::{
    fmt::Display,
    panic::Location,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use crate::state::State;

/// How long a test waits for what it expects before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The same where time is paused, and waiting costs none.
const PAUSED_PATIENCE: Duration = Duration::from_hours(1);

/// Whether tokio's clock stands still: `#[tokio::test(start_paused = true)]`.
pub(crate) fn is_paused() -> bool {
    let before = Instant::now();
    std::thread::sleep(Duration::from_millis(1));
    before.elapsed() == Duration::ZERO
}

/// Waits for `happened`; fails the test when that takes too long or has become impossible.
pub(crate) async fn wait(
    what: impl Display,
    world: &Weak<State>,
    patience: Duration,
    at: &Location<'_>,
    happened: impl Future<Output = ()>,
) {
    let world = world.upgrade();
    let mut happened = pin!(happened);
    let reason = tokio::select! {
        biased;
        in_time = within(patience, happened.as_mut()) => match in_time {
            Some(()) => return,
            None => format!("waited for {what}, in vain"),
        },
        fault = fault_of(world.as_ref()) => match happened.now_or_never() {
            Some(()) => return,
            None => format!("waited for {what}, but {fault}"),
        },
    };
    let state = world.map(|world| world.to_string()).unwrap_or_default();
    panic!("{at}: {reason}\n{state}");
}

/// What `happened` answers, unless that takes too long.
pub(crate) async fn within<T>(
    patience: Duration,
    mut happened: impl Future<Output = T> + Unpin,
) -> Option<T> {
    match timeout(patience, &mut happened).await {
        Ok(answer) => Some(answer),
        Err(_) if is_paused() => timeout(PAUSED_PATIENCE, happened).await.ok(),
        Err(_) => None,
    }
}

async fn fault_of(world: Option<&Arc<State>>) -> String {
    match world {
        Some(world) => world.fault().await,
        None => std::future::pending().await,
    }
}
