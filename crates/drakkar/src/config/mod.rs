//! The configuration: what can be set, where it is read, and what is wrong with it.
//!
//! [`Config`] only gathers the sections; each is defined, documented and checked by the crate that
//! reads it. Values come from the defaults, then a YAML file, then `DRAKKAR_` variables, and each
//! remembers where it came from. Every key that is wrong is reported, with its place.

mod error; // what is wrong, and where it stands
mod note; // what is not wrong, but worth a word
mod tree; // a file as it was written
mod schema; // which keys there are
mod lacking; // which there were in the Python original
mod layer; // a file or variable, sorted
mod env; // variables
mod extract; // layers to Config
mod mask; // what must not be shown
mod explain; // the configuration in effect
mod identity; // who this worker is
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use drakkar_core::lenient;
use drakkar_debug::MetricsConfig;
use drakkar_executor::ExecutorConfig;
use drakkar_kafka::KafkaConfig;
use drakkar_sinks::{DlqConfig, SinksConfig};
use drakkar_telemetry::LoggingConfig;
use serde::{Deserialize, Serialize};

use crate::health::HealthConfig;

pub use error::{ConfigError, Origin, Problem};
pub use explain::Line;
pub(crate) use identity::require_stable;
pub use identity::{WorkerId, WorkerIdSource, resolve_cluster_name, resolve_worker_id};
pub use note::Note;

use layer::Layers;
use schema::Schema;

/// Everything that can be configured.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Variable that holds the id of this worker; without it, the host name; without that, a random
    /// name with a warning. Default: `WORKER_ID`.
    #[serde(deserialize_with = "lenient::text")]
    pub worker_name_env: String,
    /// Logical cluster this worker belongs to, for logs. Default: none.
    #[serde(deserialize_with = "lenient::text")]
    pub cluster_name: String,
    /// Variable that holds the cluster name and wins over `cluster_name`. Default: none.
    #[serde(deserialize_with = "lenient::text")]
    pub cluster_name_env: String,
    /// Where to read.
    pub kafka: KafkaConfig,
    /// The subprocesses.
    pub executor: ExecutorConfig,
    /// Where results go.
    pub sinks: SinksConfig,
    /// Where messages go that were given up.
    pub dlq: DlqConfig,
    /// Metrics and probes over HTTP.
    pub metrics: MetricsConfig,
    /// When probes fail.
    pub health: HealthConfig,
    /// The logs.
    pub logging: LoggingConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker_name_env: "WORKER_ID".to_owned(),
            cluster_name: String::new(),
            cluster_name_env: String::new(),
            kafka: KafkaConfig::default(),
            executor: ExecutorConfig::default(),
            sinks: SinksConfig::default(),
            dlq: DlqConfig::default(),
            metrics: MetricsConfig::default(),
            health: HealthConfig::default(),
            logging: LoggingConfig::default(),
        }
    }
}

impl Config {
    /// Checks every section.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Wrong`] names each key that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = self.problems(&BTreeMap::new());
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Wrong(problems)) }
    }

    fn problems(&self, origins: &BTreeMap<String, Origin>) -> Vec<Problem> {
        let endless = self.endless();
        if !endless.is_empty() {
            // Nor can anything else be computed with them.
            return endless.iter().map(|text| located(text, origins)).collect();
        }
        let sections = [
            self.kafka.validate(),
            self.executor.validate(),
            self.sinks.validate(),
            self.dlq.validate(),
            self.metrics.validate(),
            self.health.validate(),
            self.circles(),
        ];
        let texts = sections.into_iter().flatten();
        texts.map(|text| located(&text, origins)).collect()
    }

    /// What a program has set to more than a file may; a moment so far away cannot be computed.
    fn endless(&self) -> Vec<String> {
        let too_long = format!("{:?}", lenient::duration::TOO_LONG);
        let lines = explain::lines(self, &BTreeMap::new()).into_iter();
        let endless = lines.filter(|line| line.value == too_long);
        endless.map(|line| format!("{}: is {}", line.key, lenient::duration::TOO_LONG)).collect()
    }

    /// A dead letter that is consumed again would be given up again, for ever.
    fn circles(&self) -> Vec<String> {
        let topics = self.kafka.topics();
        let is_consumed = |topic: &String| self.dlq.brokers.is_empty() && topics.contains(topic);
        let letters = match self.dlq.topic.as_str() {
            "" => topics.iter().map(|topic| format!("{topic}_dlq")).collect(),
            topic => vec![topic.to_owned()],
        };
        let circle = letters.iter().filter(|topic| is_consumed(topic));
        let wrong =
            |topic| format!("dlq.topic: {topic} is consumed by this worker (kafka.source_topics)");
        circle.map(wrong).collect()
    }
}

/// A text that begins with its key, with where that key was read.
fn located(text: &str, origins: &BTreeMap<String, Origin>) -> Problem {
    let (key, message) = text.split_once(": ").unwrap_or(("", text));
    Problem {
        key: key.to_owned(),
        origin: layer::origin(origins, key),
        message: message.to_owned(),
    }
}

/// A configuration, and what is to be said about how it came to be.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What is worth a word.
    pub notes: Vec<Note>,
    /// Where each key that is not at its default was set.
    pub provenance: BTreeMap<String, Origin>,
}

impl From<Config> for Loaded {
    fn from(config: Config) -> Self {
        Self { config, ..Self::default() }
    }
}

impl Loaded {
    /// What only shows when a part is started; `text` begins with the key it is about.
    pub(crate) fn refused(&self, text: &str) -> ConfigError {
        ConfigError::Wrong(vec![located(text, &self.provenance)])
    }

    /// Reads the configuration of this process: defaults, then the file at `path` if there is one,
    /// then `DRAKKAR_` variables.
    ///
    /// # Errors
    ///
    /// When the file is missing or is not YAML, or when keys are wrong: then all of them are named.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        load(path, std::env::vars_os())
    }

    /// Every key with its value (secrets masked) and where it came from.
    #[must_use]
    pub fn explain(&self) -> Vec<Line> {
        explain::lines(&self.config, &self.provenance)
    }
}

/// Reads the configuration: defaults, then the file, then the `DRAKKAR_` variables of `env`.
///
/// # Errors
///
/// When the file is missing or is not YAML, or when keys are wrong: then all of them are named.
pub fn load<N, V>(
    path: Option<&Path>,
    env: impl Iterator<Item = (N, V)>,
) -> Result<Loaded, ConfigError>
where
    N: Into<OsString>,
    V: Into<OsString>,
{
    let mut layers = Layers::new(Schema::new());
    if let Some(path) = path {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        layers.add_file(path, &text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.line,
            column: error.column,
            message: error.message,
        })?;
    }
    env::add(&mut layers, env.map(|(name, value)| (name.into(), value.into())));
    let config = extract::config(&mut layers);
    let unread: Vec<String> = layers.problems.iter().map(|problem| problem.key.clone()).collect();
    let invalid = config.problems(&layers.origins);
    // A key that could not be read stands at its default, which says nothing about the file.
    layers.problems.extend(invalid.into_iter().filter(|problem| !unread.contains(&problem.key)));
    if layers.problems.is_empty() {
        let mut notes = layers.notes();
        notes.extend(config.sinks.missing().into_iter().map(Note::Sink));
        Ok(Loaded { config, notes, provenance: layers.origins })
    } else {
        Err(ConfigError::Wrong(layers.problems))
    }
}
