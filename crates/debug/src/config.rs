//! The `metrics` section: where `/metrics` and the probes listen.

use serde::{Deserialize, Serialize};

/// Metrics and probes over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether `/metrics` is served; `/healthz` and `/readyz` are served in any case. Default:
    /// `true`.
    pub enabled: bool,
    /// Address to listen on. The kubelet and Prometheus come from outside; no payload is shown
    /// here. Default: `0.0.0.0`.
    #[serde(deserialize_with = "drakkar_core::lenient::text")]
    pub host: String,
    /// Port of metrics and probes; 0 takes a free one, which the log names. Default: `9090`.
    pub port: u16,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true, host: "0.0.0.0".to_owned(), port: 9090 }
    }
}

impl MetricsConfig {
    /// What is wrong with the section; every text begins with the key it is about.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.host.is_empty() {
            wrong.push("metrics.host: must not be empty".to_owned());
        }
        wrong
    }
}
