//! One PostgreSQL database: `sinks.postgres.<name>`.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use drakkar_core::{Secret, lenient};
use serde::{Deserialize, Serialize};

use super::BatchConfig;

/// One PostgreSQL database: `sinks.postgres.<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSinkConfig {
    /// Where it is, as `postgres://user:password@host:port/database?sslmode=...`; never shown.
    /// Default: none, required.
    pub dsn: Secret,
    /// Connections that are kept open. Default: `2`.
    pub pool_min: u32,
    /// Connections at most; a handler that uses the pool has as many of its own. Default: `10`.
    pub pool_max: NonZeroU32,
    /// SQL that payloads ask for by name, with `:parameters`. Default: none.
    #[serde(deserialize_with = "lenient::map")]
    pub statements: BTreeMap<String, String>,
    /// How long one statement may take; the server ends it then, and its rows are tried again.
    /// Default: `10s`.
    #[serde(with = "lenient::duration")]
    pub statement_timeout: Duration,
    /// How rows are written together: 1 000 items, 4 MiB, one in flight, unless said.
    pub batch: BatchConfig,
}

impl Default for PostgresSinkConfig {
    fn default() -> Self {
        Self {
            dsn: Secret::default(),
            pool_min: 2,
            pool_max: NonZeroU32::MIN.saturating_add(9),
            statements: BTreeMap::new(),
            statement_timeout: Duration::from_secs(10),
            batch: BatchConfig::default(),
        }
    }
}

impl PostgresSinkConfig {
    /// `within` is how long a write of several statements may take.
    pub(super) fn validate(&self, at: &str, within: Duration, wrong: &mut Vec<String>) {
        if self.pool_max.get() < self.pool_min {
            wrong.push(format!("{at}.pool_max: must not be less than {at}.pool_min"));
        }
        let in_flight = self.batch.in_flight.map_or(1, std::num::NonZeroUsize::get);
        if u32::try_from(in_flight).is_ok_and(|many| self.pool_max.get() < many) {
            wrong.push(format!("{at}.pool_max: must not be less than {at}.batch.in_flight"));
        }
        if self.statement_timeout < Duration::from_millis(1) {
            wrong.push(format!("{at}.statement_timeout: must not be zero"));
        }
        if within < self.statement_timeout * 5 / 2 {
            wrong.push(format!(
                "{at}.statement_timeout: must not be longer than two fifths of \
                 sinks.delivery_timeout_seconds"
            ));
        }
        self.batch.validate(at, wrong);
        #[cfg(feature = "postgres")]
        {
            if let Err(why) = crate::postgres::options(&self.dsn) {
                wrong.push(format!("{at}.dsn: {why}"));
            }
            for (name, sql) in &self.statements {
                if let Err(why) = crate::postgres::Named::parse(sql) {
                    wrong.push(format!("{at}.statements.{name}: {why}"));
                }
            }
        }
    }
}
