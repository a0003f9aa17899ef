//! What a user should know about a configuration that is not wrong.

use std::fmt;

use drakkar_sinks::MissingSink;

use super::Origin;

/// Something that is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A key of the Python original whose capability this build does not have.
    Lacking {
        /// The key or section.
        key: String,
        /// Where it was read.
        from: Origin,
    },
    /// A sink of a kind that this build lacks: it refuses to run.
    Sink(MissingSink),
    /// A variable that begins with `DRAKKAR_` and means nothing. Kubernetes injects some for a
    /// Service of that name.
    Stray {
        /// The variable.
        variable: String,
        /// The one that was perhaps meant.
        nearest: Option<String>,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacking { key, from } => {
                write!(f, "{from}: {key}: this build lacks it; it is ignored")
            }
            Self::Sink(missing) => write!(f, "{missing}; without it a worker refuses to run"),
            Self::Stray { variable, nearest: None } => {
                write!(f, "{variable}: names no key; it is ignored")
            }
            Self::Stray { variable, nearest: Some(nearest) } => {
                write!(f, "{variable}: names no key; it is ignored; did you mean {nearest}?")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_is_not_compiled_in_is_named_with_what_brings_it_and_what_happens_without() {
        let missing = MissingSink { key: "sinks.redis.cache".to_owned(), feature: "redis" };
        assert_eq!(
            Note::Sink(missing).to_string(),
            "sinks.redis.cache: is not compiled in; build with the cargo feature `redis`; without \
             it a worker refuses to run"
        );
    }
}
