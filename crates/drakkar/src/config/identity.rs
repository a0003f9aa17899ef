//! Who this worker is.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
};

use super::{Config, ConfigError, Loaded, Problem, layer};

/// The id of a worker, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerId {
    /// The id.
    pub id: String,
    /// How it was found.
    pub source: WorkerIdSource,
}

/// How the id of a worker was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerIdSource {
    /// In the variable that `worker_name_env` names.
    Variable(String),
    /// It is the name of the host.
    Hostname,
    /// Nothing names this worker: the id lasts as long as the process.
    Random,
}

impl fmt::Display for WorkerIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Hostname => f.write_str("host name"),
            Self::Random => f.write_str("chance"),
        }
    }
}

/// Finds the id of this worker: the variable, else the host name, else something random.
#[must_use]
pub fn resolve_worker_id(config: &Config) -> WorkerId {
    worker_id(config, variable, hostname)
}

/// Refuses what a worker whose id is new with every start cannot do.
pub(crate) fn require_stable(loaded: &Loaded, worker: &WorkerId) -> Result<(), ConfigError> {
    const KEY: &str = "kafka.group_instance_id";
    if worker.source != WorkerIdSource::Random || loaded.config.kafka.group_instance_id.is_none() {
        return Ok(());
    }
    Err(ConfigError::Wrong(vec![Problem {
        key: KEY.to_owned(),
        origin: layer::origin(&loaded.provenance, KEY),
        message: "static membership needs a worker id that is the same after a restart; set the \
                  variable that worker_name_env names"
            .to_owned(),
    }]))
}

/// The logical cluster: what the variable that `cluster_name_env` names holds, else `cluster_name`.
#[must_use]
pub fn resolve_cluster_name(config: &Config) -> String {
    cluster_name(config, variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    name.or_else(|| variable("HOSTNAME")).map(|name| name.trim().to_owned())
}

fn worker_id(
    config: &Config,
    env: impl Fn(&str) -> Option<String>,
    hostname: impl FnOnce() -> Option<String>,
) -> WorkerId {
    let named = |id: &String| !id.trim().is_empty();
    let variable = &config.worker_name_env;
    let given = if variable.is_empty() { None } else { env(variable) };
    if let Some(id) = given.filter(named) {
        return WorkerId { id, source: WorkerIdSource::Variable(variable.clone()) };
    }
    if let Some(id) = hostname().filter(named) {
        return WorkerId { id, source: WorkerIdSource::Hostname };
    }
    let random = RandomState::new().build_hasher().finish();
    WorkerId { id: format!("worker-{random:016x}"), source: WorkerIdSource::Random }
}

fn cluster_name(config: &Config, env: impl Fn(&str) -> Option<String>) -> String {
    let variable = &config.cluster_name_env;
    let given = if variable.is_empty() { None } else { env(variable) };
    given.filter(|name| !name.is_empty()).unwrap_or_else(|| config.cluster_name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "POD_NAME").then(|| "pod-1".to_owned())
    }

    #[test]
    fn the_variable_wins_over_the_host_name_and_that_over_chance() {
        let named = Config { worker_name_env: "POD_NAME".into(), ..Config::default() };
        let host = || Some("host-1".to_owned());
        let found = worker_id(&named, env, host);
        assert_eq!(
            (found.id.as_str(), found.source),
            ("pod-1", WorkerIdSource::Variable("POD_NAME".into()))
        );
        let found = worker_id(&Config::default(), env, host);
        assert_eq!((found.id.as_str(), found.source), ("host-1", WorkerIdSource::Hostname));
        let one = worker_id(&Config::default(), env, || None);
        let other = worker_id(&Config::default(), env, || None);
        assert_eq!(one.source, WorkerIdSource::Random);
        assert_ne!(one.id, other.id);
    }

    #[test]
    fn static_membership_refuses_an_id_that_is_random_and_no_other() {
        let mut loaded = Loaded::default();
        let by_chance = worker_id(&loaded.config, env, || None);
        let by_host = worker_id(&loaded.config, env, || Some("host-1".to_owned()));
        assert!(require_stable(&loaded, &by_chance).is_ok(), "dynamic membership needs none");
        loaded.config.kafka.group_instance_id = Some("{worker_id}".to_owned());
        assert!(require_stable(&loaded, &by_host).is_ok());
        let refused = require_stable(&loaded, &by_chance).unwrap_err().to_string();
        assert!(refused.contains("kafka.group_instance_id: static membership needs"));
    }

    #[test]
    fn the_cluster_name_comes_from_its_variable_where_that_is_set() {
        let config = |env_name: &str| Config {
            cluster_name: "blue".into(),
            cluster_name_env: env_name.into(),
            ..Config::default()
        };
        assert_eq!(cluster_name(&config("POD_NAME"), env), "pod-1");
        assert_eq!(cluster_name(&config("UNSET"), env), "blue");
        assert_eq!(cluster_name(&config(""), env), "blue");
    }
}
