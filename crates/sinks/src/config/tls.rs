//! What is trusted and what is shown where a sink has an encrypted connection.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// TLS of one server: `sinks.<kind>.<name>.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with authorities to trust: in place of those of the system, with HTTP beside them.
    /// Default: none.
    pub ca_location: Option<PathBuf>,
    /// PEM file with the worker's certificate. Default: none.
    pub certificate_location: Option<PathBuf>,
    /// PEM file with its private key (PKCS #8). Default: none.
    pub key_location: Option<PathBuf>,
}

impl TlsConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        if self.certificate_location.is_some() != self.key_location.is_some() {
            wrong.push(format!("{at}.tls: certificate_location and key_location belong together"));
        }
        if cfg!(not(feature = "ssl")) && *self != Self::default() {
            wrong.push(format!("{at}.tls: is not compiled in; build with the cargo feature `ssl`"));
        }
    }
}
