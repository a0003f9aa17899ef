//! User code, contained: an error, a panic and a hook that never returns all come back as data.
//!
//! Nothing here decides what becomes of the messages concerned.

use std::{any::Any, error::Error, panic::AssertUnwindSafe, time::Duration};

use drakkar_core::{Cause, HookResult, Stage};
use futures_util::FutureExt;
use tokio::time::timeout;

/// How a hook failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookFailure {
    /// It returned an error.
    #[error("{0}")]
    Error(String),
    /// It panicked.
    #[error("panicked: {0}")]
    Panic(String),
    /// It did not return in time; it was dropped where it waited.
    #[error("did not return within {0:?} (executor.hook_timeout_seconds)")]
    TimedOut(Duration),
    /// A task it returned names a message that is not in the window.
    #[error("task {task} stands for offset {offset}, which is not in its window")]
    ForeignOffset {
        /// The task concerned.
        task: String,
        /// What it names.
        offset: i64,
    },
}

impl HookFailure {
    /// The class as dead letters name it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Error(_) => "hook_error",
            Self::Panic(_) => "hook_panic",
            Self::TimedOut(_) => "hook_timeout",
            Self::ForeignOffset { .. } => "foreign_offset",
        }
    }

    /// Whether the same call may succeed another time.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::ForeignOffset { .. })
    }

    pub(crate) fn cause(&self, stage: Stage) -> Cause {
        Cause::new(stage, self.class(), self.to_string())
    }
}

/// Runs `hook` for at most `limit`.
pub(crate) async fn contained<T>(
    limit: Duration,
    hook: impl Future<Output = HookResult<T>> + Send,
) -> Result<T, HookFailure> {
    match timeout(limit, AssertUnwindSafe(hook).catch_unwind()).await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(error))) => Err(HookFailure::Error(chain(&*error))),
        Ok(Err(panic)) => Err(HookFailure::Panic(panic_text(&*panic))),
        Err(_) => Err(HookFailure::TimedOut(limit)),
    }
}

/// An error with all its sources: `outer: inner: innermost`.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some errors print their source themselves.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is not text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_panic_comes_back_as_data() {
        let failed = contained::<()>(LIMIT, async { panic!("boom {}", 7) }).await;
        assert_eq!(failed, Err(HookFailure::Panic("boom 7".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_never_returns_times_out() {
        let failed = contained::<()>(LIMIT, std::future::pending()).await;
        assert_eq!(failed, Err(HookFailure::TimedOut(LIMIT)));
    }

    #[tokio::test]
    async fn an_error_is_shown_with_its_sources() {
        let failed = contained::<()>(LIMIT, async {
            Err(std::io::Error::other("disk".parse::<i32>().unwrap_err()).into())
        })
        .await;
        assert_eq!(failed, Err(HookFailure::Error("invalid digit found in string".to_owned())));
    }
}
