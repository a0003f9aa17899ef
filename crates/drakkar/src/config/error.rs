//! What is wrong with a configuration: every key at once, with where it was read.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A line of the configuration file.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// The line of the key, from 1.
        line: u64,
    },
    /// An environment variable.
    Variable(Arc<str>),
    /// The hook `on_startup`.
    Startup,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Startup => f.write_str("on_startup"),
        }
    }
}

/// One key that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The full key, `kafka.brokers`.
    pub key: String,
    /// Where it was read.
    pub origin: Origin,
    /// What is wrong with it. Never shows a value that may be secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, message } = self;
        match (origin, key.is_empty()) {
            (Origin::Default, false) => write!(f, "{key}: {message}"),
            (_, false) => write!(f, "{origin}: {key}: {message}"),
            (Origin::Default, true) => f.write_str(message),
            (_, true) => write!(f, "{origin}: {message}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file is not YAML.
    #[error("{path}:{line}:{column}: not valid YAML: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What the reader stumbled over.
        message: String,
    },
    /// Keys are wrong: all of them, one per line.
    #[error("{}", Listed(.0))]
    Wrong(Vec<Problem>),
}

impl ConfigError {
    /// The keys that are wrong; none where the file could not be read at all.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Wrong(problems) => problems,
            Self::Unreadable { .. } | Self::Syntax { .. } => &[],
        }
    }
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if 0 < index {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
