//! One Redis server: `sinks.redis.<name>`.

use std::collections::BTreeMap;

use drakkar_core::Secret;
use serde::{Deserialize, Serialize};

use super::{BatchConfig, TlsConfig};

/// One Redis server: `sinks.redis.<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSinkConfig {
    /// The server, `redis://[user][:password@]host[:port][/database]`, with `rediss` for
    /// encryption; never shown. Default: `redis://localhost:6379/0`.
    pub url: Secret,
    /// What stands before every key, those of scripts too; not before channels. Default: nothing.
    pub key_prefix: String,
    /// Lua scripts, by the name payloads call them. Default: none.
    pub scripts: BTreeMap<String, String>,
    /// Whether `url` is a node of a Redis Cluster. Default: `false`.
    pub cluster: bool,
    /// What to trust and what to show, for `rediss`.
    pub tls: TlsConfig,
    /// How payloads are written together: 1 000 items, 4 MiB, 1 in flight, unless said.
    pub batch: BatchConfig,
}

impl Default for RedisSinkConfig {
    fn default() -> Self {
        Self {
            url: Secret::from("redis://localhost:6379/0"),
            key_prefix: String::new(),
            scripts: BTreeMap::new(),
            cluster: false,
            tls: TlsConfig::default(),
            batch: BatchConfig::default(),
        }
    }
}

/// What an address may begin with.
const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

impl RedisSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        let scheme = self.url.expose().split("://").next().unwrap_or_default();
        if !SCHEMES.contains(&scheme) {
            wrong.push(format!(
                "{at}.url: is not the address of a Redis server: \
                 redis://[user][:password@]host[:port][/database], with rediss for encryption"
            ));
        }
        let mut lacks = |key: &str, what: &str, feature: &str| {
            wrong.push(format!(
                "{at}.{key}: {what} is not compiled in; build with the cargo feature `{feature}`"
            ));
        };
        if ["rediss", "valkeys"].contains(&scheme) && cfg!(not(feature = "ssl")) {
            lacks("url", "encryption", "ssl");
        }
        if self.cluster && cfg!(not(feature = "redis-cluster")) {
            lacks("cluster", "Redis Cluster", "redis-cluster");
        }
        self.tls.validate(at, wrong);
        if self.tls != TlsConfig::default() && !["rediss", "valkeys"].contains(&scheme) {
            wrong.push(format!(
                "{at}.tls: is for an encrypted connection; begin {at}.url with rediss"
            ));
        }
        self.batch.validate(at, wrong);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn wrong(json: &str) -> String {
        let config: RedisSinkConfig = serde_json::from_str(json).unwrap();
        let mut wrong = Vec::new();
        config.validate("sinks.redis.a", &mut wrong);
        wrong.join("\n")
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_its_key_and_without_its_password() {
        assert_eq!(wrong("{}"), "");
        assert_eq!(wrong(r#"{"url": "redis://:hunter2@host:1/3"}"#), "");
        for url in ["http://:hunter2@host", "hunter2", ""] {
            let said = wrong(&format!(r#"{{"url": "{url}"}}"#));
            assert!(said.starts_with("sinks.redis.a.url: is not the address"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn what_to_trust_needs_an_encrypted_connection() {
        let said = wrong(r#"{"url": "redis://:hunter2@host", "tls": {"ca_location": "ca.pem"}}"#);
        assert!(said.contains("sinks.redis.a.tls: is for an encrypted connection"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        let half = wrong(r#"{"url": "rediss://host", "tls": {"key_location": "key.pem"}}"#);
        assert!(half.contains("sinks.redis.a.tls: certificate_location and"), "{half}");
    }

    #[cfg(not(feature = "ssl"))]
    #[test]
    fn encryption_without_its_cargo_feature_is_refused() {
        let said = wrong(r#"{"url": "rediss://host"}"#);
        assert_eq!(
            said,
            "sinks.redis.a.url: encryption is not compiled in; build with the cargo feature `ssl`"
        );
    }

    #[cfg(not(feature = "redis-cluster"))]
    #[test]
    fn a_cluster_without_its_cargo_feature_is_refused() {
        assert!(
            wrong(r#"{"cluster": true}"#).contains("build with the cargo feature `redis-cluster`")
        );
    }
}
