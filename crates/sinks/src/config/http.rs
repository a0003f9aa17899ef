//! One HTTP endpoint: `sinks.http.<name>`.

use std::{collections::BTreeMap, time::Duration};

use drakkar_core::{Secret, lenient};
use serde::{Deserialize, Serialize};

use super::{BatchConfig, TlsConfig};

/// One HTTP endpoint: `sinks.http.<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSinkConfig {
    /// Where requests go; `{name}` in its path or query is filled in by the payload. Never shown:
    /// user, path and query often hold a secret. Default: none, required.
    pub url: Secret,
    /// Method of requests that name none. Default: `POST`.
    #[serde(deserialize_with = "lenient::text")]
    pub method: String,
    /// How values are sent: `json`, `form`, `multipart` or `ndjson` (many in one request). Default:
    /// `json`.
    pub encoding: HttpEncoding,
    /// Headers of every request; the values are never shown. Default: none.
    pub headers: BTreeMap<String, Secret>,
    /// Header that carries the idempotency key; empty: none does. Default: `Idempotency-Key`.
    #[serde(deserialize_with = "lenient::text")]
    pub idempotency_header: String,
    /// What is put before each key, a handler's own as well. Default: nothing.
    #[serde(deserialize_with = "lenient::text")]
    pub idempotency_prefix: String,
    /// How long a request may take, with its answer. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub timeout_seconds: Duration,
    /// How long a connection may take to be made. Default: `5s`.
    #[serde(with = "lenient::duration")]
    pub connect_timeout: Duration,
    /// Whether a worker starts only when the endpoint accepts connections, and asks whether it still
    /// does while nothing is for it. Default: `true`.
    pub check_on_start: bool,
    /// Bytes of an answer that are read; a longer one costs its connection. Default: `65536` (64
    /// KiB).
    pub max_response_bytes: usize,
    /// Redirects that are followed, if they are 307 or 308 and on the same host. Default: `0`.
    pub max_redirects: usize,
    /// Statuses that are tried again, beside those that always are. Default: none.
    pub transient_statuses: Vec<u16>,
    /// Statuses that refuse a payload for good, beside those that always do. Default: none.
    pub permanent_statuses: Vec<u16>,
    /// Connections that are kept while they are not used. Default: `8`.
    pub max_idle_connections: usize,
    /// How long a connection that is not used is kept. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub idle_timeout: Duration,
    /// Proxy that requests go through; never shown. Default: none, also where `HTTP_PROXY` is set.
    pub proxy: Secret,
    /// What to trust and what to show, for `https`.
    pub tls: TlsConfig,
    /// Whether the metadata services of clouds may be asked. Default: `false`.
    pub allow_metadata_addresses: bool,
    /// Whether fewer requests than `batch.in_flight` are sent at once while the endpoint is
    /// overloaded. Default: `false`.
    pub adaptive_concurrency: bool,
    /// How payloads are written together: one per request (`ndjson`: 500 and 4 MiB), 8 in flight,
    /// unless said.
    pub batch: BatchConfig,
}

/// How the value of a payload is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpEncoding {
    /// As JSON.
    #[default]
    Json,
    /// Its members as the fields of a form.
    Form,
    /// Its members as parts of `multipart/form-data`.
    Multipart,
    /// As a line of JSON, together with those of other payloads.
    Ndjson,
}

impl Default for HttpSinkConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            method: "POST".to_owned(),
            encoding: HttpEncoding::default(),
            headers: BTreeMap::new(),
            idempotency_header: "Idempotency-Key".to_owned(),
            idempotency_prefix: String::new(),
            timeout_seconds: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            check_on_start: true,
            max_response_bytes: 64 << 10,
            max_redirects: 0,
            transient_statuses: Vec::new(),
            permanent_statuses: Vec::new(),
            max_idle_connections: 8,
            idle_timeout: Duration::from_secs(30),
            proxy: Secret::default(),
            tls: TlsConfig::default(),
            allow_metadata_addresses: false,
            adaptive_concurrency: false,
            batch: BatchConfig::default(),
        }
    }
}

/// Lines of one request, unless said.
#[cfg(feature = "http")]
const NDJSON_ITEMS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(500).unwrap();

impl HttpSinkConfig {
    /// How payloads are joined: only lines are.
    #[cfg(feature = "http")]
    pub(crate) fn joined(&self) -> BatchConfig {
        let mut batch = self.batch.clone();
        if self.encoding == HttpEncoding::Ndjson {
            batch.max_items.get_or_insert(NDJSON_ITEMS);
        }
        batch
    }

    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        if self.url.is_empty() {
            wrong.push(format!("{at}.url: is required; name an http or https url"));
        }
        for (key, duration) in
            [("timeout_seconds", self.timeout_seconds), ("connect_timeout", self.connect_timeout)]
        {
            if duration.is_zero() {
                wrong.push(format!("{at}.{key}: must not be zero"));
            }
        }
        let joins = self.batch.max_items.is_some_and(|items| 1 < items.get());
        if joins && self.encoding != HttpEncoding::Ndjson {
            wrong.push(format!(
                "{at}.batch.max_items: only `encoding: ndjson` joins payloads into one request"
            ));
        }
        self.validate_headers(at, wrong);
        self.validate_statuses(at, wrong);
        self.tls.validate(at, wrong);
        self.batch.validate(at, wrong);
        #[cfg(feature = "http")]
        crate::http::validate(self, at, wrong);
    }

    /// Which of two values would be sent, nobody could tell.
    fn validate_headers(&self, at: &str, wrong: &mut Vec<String>) {
        let mut seen = BTreeMap::new();
        for name in self.headers.keys() {
            if let Some(first) = seen.insert(name.to_ascii_lowercase(), name) {
                wrong.push(format!("{at}.headers.{name}: is the header {first} once more"));
            }
        }
    }

    fn validate_statuses(&self, at: &str, wrong: &mut Vec<String>) {
        let lists = [
            ("transient_statuses", &self.transient_statuses),
            ("permanent_statuses", &self.permanent_statuses),
        ];
        for (key, statuses) in lists {
            if let Some(status) = statuses.iter().find(|status| !(300..=599).contains(*status)) {
                wrong.push(format!("{at}.{key}: {status} is not between 300 and 599"));
            }
        }
        if let Some(status) =
            self.transient_statuses.iter().find(|status| self.permanent_statuses.contains(status))
        {
            wrong.push(format!(
                "{at}.permanent_statuses: {status} is in {at}.transient_statuses as well"
            ));
        }
    }
}
