//! User code, contained: an error, a panic and a hook that never returns all come back as data.
//!
//! Nothing here decides what becomes of the messages concerned.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    thread,
    time::Duration,
};

use drakkar_core::{
    Cause, Handler, HookResult, SourceMessage, Stage, TopicPartition,
    contain::{Contained, error_text, panic_text},
};
use drakkar_telemetry::{Hook, prometheus::HistogramTimer};
use futures_util::FutureExt;
use tokio::{
    task::unconstrained,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{partition::Shared, watch::Executing};

/// How much longer than its time-out a hook is waited for that may block its thread.
const MARGIN: Duration = Duration::from_secs(1);

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
            .in_logs("a hook failed; the dead letter has what it said")
    }
}

/// How the pipeline calls user code: contained, timed, counted, and watched while it executes.
impl<H: Handler> Shared<H> {
    /// Runs `call`, which is `hook` for `partition`, for at most the time that hooks have.
    pub(crate) async fn ask<T>(
        &self,
        hook: Hook,
        partition: Option<&TopicPartition>,
        call: impl Future<Output = HookResult<T>> + Send,
    ) -> Result<T, HookFailure> {
        let begun = Instant::now();
        let place = pin!(Some(call));
        let mut call = Contained::new(place);
        let mut since = Some(begun);
        let watched = poll_fn(|cx| {
            let since = since.take().unwrap_or_else(Instant::now);
            let _executing = self.status.hooks.enter(hook, partition, since);
            call.poll_unpin(cx)
        });
        let answer = in_time(begun, self.settings.hook_timeout, watched).await;
        self.metrics.hook(hook).duration.observe(begun.elapsed().as_secs_f64());
        answer.inspect_err(|failure| self.hook_failed(hook, partition, failure))
    }

    /// The same for a hook that does not wait: timed and watched until the guard is dropped, which may
    /// be after several calls of [`Self::ask_now`].
    pub(crate) fn attend(&self, hook: Hook, partition: &TopicPartition) -> Attended {
        Attended {
            _timer: self.metrics.hook(hook).duration.start_timer(),
            _executing: self.status.hooks.enter(hook, Some(partition), Instant::now()),
        }
    }

    /// One call of a hook that does not wait.
    pub(crate) fn ask_now<T>(
        &self,
        hook: Hook,
        partition: &TopicPartition,
        call: impl FnOnce() -> T,
    ) -> Result<T, HookFailure> {
        let answer = catch_unwind(AssertUnwindSafe(call))
            .map_err(|panic| HookFailure::Panic(panic_text(panic)));
        answer.inspect_err(|failure| self.hook_failed(hook, Some(partition), failure))
    }

    /// Says that `hook` failed.
    pub(crate) fn hook_failed(
        &self,
        hook: Hook,
        partition: Option<&TopicPartition>,
        failure: &HookFailure,
    ) {
        self.metrics.hook_failed(hook, partition, failure.class(), &failure.to_string());
    }

    /// What the handler calls `message`, for the logs.
    pub(crate) fn label(&self, message: &SourceMessage) -> Option<String> {
        let _attended = self.attend(Hook::MessageLabel, &message.partition);
        let call = || self.handler.message_label(message);
        self.ask_now(Hook::MessageLabel, &message.partition, call).ok().flatten()
    }
}

/// Some calls of one hook; their time is observed when it is dropped.
pub(crate) struct Attended {
    _timer: HistogramTimer,
    _executing: Executing,
}

/// Runs `hook`, which should end by itself within `limit`, on a task of its own: so its time is over
/// also where it blocks its thread.
///
/// # Errors
///
/// How the hook failed.
pub async fn apart<T: Send + 'static>(
    limit: Duration,
    hook: impl Future<Output = Result<T, HookFailure>> + Send + 'static,
) -> Result<T, HookFailure> {
    let mut task = AbortOnDropHandle::new(tokio::spawn(hook));
    match timeout(limit.saturating_add(MARGIN), &mut task).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(ended)) => Err(HookFailure::Panic(ended.to_string())),
        Err(_) => Err(HookFailure::TimedOut(limit)),
    }
}

/// Runs `hook` for at most `limit`.
///
/// # Errors
///
/// How the hook failed.
pub async fn contained<T>(
    limit: Duration,
    hook: impl Future<Output = HookResult<T>> + Send,
) -> Result<T, HookFailure> {
    let place = pin!(Some(hook));
    in_time(Instant::now(), limit, Contained::new(place)).await
}

/// Waits for `hook`, which began at `begun`.
async fn in_time<T>(
    begun: Instant,
    limit: Duration,
    mut hook: impl Future<Output = thread::Result<HookResult<T>>> + Send + Unpin,
) -> Result<T, HookFailure> {
    let mut over = None;
    let answer = poll_fn(|cx| match hook.poll_unpin(cx) {
        Poll::Ready(answer) => Poll::Ready(Ok(answer)),
        Poll::Pending => {
            // Most have their answer at once: for those no timer is made. It counts also while the hook
            // uses up all that its task may do at a time.
            let left = || limit.saturating_sub(begun.elapsed());
            let over = over.get_or_insert_with(|| Box::pin(unconstrained(sleep(left()))));
            over.as_mut().poll(cx).map(|()| Err(HookFailure::TimedOut(limit)))
        }
    })
    .await?;
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(HookFailure::Error(error_text(error))),
        Err(panic) => Err(HookFailure::Panic(panic_text(panic))),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_panic_comes_back_as_data() {
        let failed = contained::<()>(LIMIT, async { panic!("boom {}", 7) }).await;
        assert_eq!(failed, Err(HookFailure::Panic("boom 7".to_owned())));
    }

    /// An error whose text cannot be had.
    #[derive(Debug)]
    struct Mute;

    impl Error for Mute {}

    impl std::fmt::Display for Mute {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }

    #[tokio::test]
    async fn an_error_that_panics_when_it_is_shown_is_an_error_all_the_same() {
        let failed = contained::<()>(LIMIT, async { Err(Mute.into()) }).await;
        let text = "an error whose text panicked: no text".to_owned();
        assert_eq!(failed, Err(HookFailure::Error(text)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hook_that_never_returns_times_out() {
        let failed = contained::<()>(LIMIT, std::future::pending()).await;
        assert_eq!(failed, Err(HookFailure::TimedOut(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_hook_took_before_it_first_waited_counts_for_its_time_out() {
        let begun = Instant::now();
        let failed = contained::<()>(LIMIT, async {
            tokio::time::advance(LIMIT / 2).await;
            std::future::pending().await
        })
        .await;
        assert_eq!(failed, Err(HookFailure::TimedOut(LIMIT)));
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
