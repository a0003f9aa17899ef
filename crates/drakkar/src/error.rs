//! Why a worker did not start, or stopped although nobody asked it to.

use std::{fmt, process::ExitCode};

use drakkar_core::contain::sources;
use drakkar_pipeline::HookFailure;
use drakkar_sinks::MissingSink;

use crate::ConfigError;

/// Why a worker did not start, or stopped although nobody asked it to.
///
/// `Debug` prints the same text as `Display` and the sources below it, because that is what
/// `fn main() -> Result<(), RunError>` shows.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration is wrong.
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    /// The configuration asks for sinks that this build cannot serve.
    #[error("this build lacks sinks: {}", listed(.0))]
    MissingSinks(Vec<MissingSink>),
    /// A part could not be started: a broker, a sink, a port.
    #[error("cannot start {part}")]
    Start {
        /// Which part.
        part: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A hook that is called at the start returned an error, panicked or did not return in time.
    #[error("the hook {hook} failed")]
    Hook {
        /// `on_startup` or `on_ready`.
        hook: &'static str,
        /// How it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The worker failed while it ran; what could be handed over was.
    #[error("the worker stopped")]
    Failed(#[from] drakkar_pipeline::PipelineError),
    /// A second signal came while the worker was finishing its work.
    #[error("stopped at once by a second signal; unfinished messages will be processed again")]
    Interrupted,
}

fn listed(missing: &[MissingSink]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl RunError {
    pub(crate) fn start(
        part: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Start { part, source: Box::new(source) }
    }

    pub(crate) fn hook(hook: &'static str, failure: HookFailure) -> Self {
        Self::Hook { hook, source: Box::new(failure) }
    }

    /// The exit code: 1 failed while running, 2 configuration, 3 could not start, 130 interrupted.
    ///
    /// 0 is a clean stop. [`Worker::main`](crate::Worker::main) exits with these; a `main` that
    /// returns `Result<(), RunError>` exits with 1 for each.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Config(_) | Self::MissingSinks(_) => 2,
            Self::Start { .. } | Self::Hook { .. } => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<&RunError> for ExitCode {
    fn from(error: &RunError) -> Self {
        Self::from(error.exit_code())
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        sources(self).try_for_each(|inner| write!(f, "\n  because: {inner}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_chain_of_reasons() {
        let error = RunError::start("the Kafka source", std::io::Error::other("no route to host"));
        assert_eq!(
            format!("{error:?}"),
            "cannot start the Kafka source\n  because: no route to host"
        );
        assert_eq!(error.exit_code(), 3);
    }
}
