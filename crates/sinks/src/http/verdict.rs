//! What the endpoint said → what becomes of the payload.

use std::time::{Duration, SystemTime};

use drakkar_core::{Delivery, SinkError, contain::sources};
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

use super::{
    guard::Refused,
    secrets::{Excerpt, Secrets},
};
use crate::HttpSinkConfig;

/// What a status is a sign of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Confirmed,
    Transient,
    Permanent,
}

/// Which status means what, for one sink.
#[derive(Debug, Clone)]
pub(super) struct Statuses {
    transient: Vec<u16>,
    permanent: Vec<u16>,
}

impl Statuses {
    pub(super) fn of(config: &HttpSinkConfig) -> Self {
        Self {
            transient: config.transient_statuses.clone(),
            permanent: config.permanent_statuses.clone(),
        }
    }

    /// `is_addressed`: whether the payload has a part in the address.
    ///
    /// What no payload can be at fault for is transient: were it permanent, a token that expired or a
    /// route that is not there yet would give up one message after the other, and so would whoever
    /// stands before an endpoint and sends everybody to a page that says "back soon" or "log in".
    pub(super) fn class(&self, status: StatusCode, is_addressed: bool) -> Class {
        let status = status.as_u16();
        if self.transient.contains(&status) {
            return Class::Transient;
        }
        if self.permanent.contains(&status) {
            return Class::Permanent;
        }
        // No payload is at fault for these, nor for an address that is the same for all of them.
        let is_ours = matches!(status, 401 | 407 | 408 | 425 | 429 | 500 | 502..=504 | 506..=599)
            || (!is_addressed && matches!(status, 300..=399 | 404 | 410 | 421));
        match status {
            200..=299 => Class::Confirmed,
            _ if is_ours => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

/// The verdict on an answer; `excerpt` is how its body begins.
pub(super) fn of_answer(
    class: Class,
    status: StatusCode,
    headers: &HeaderMap,
    excerpt: &Excerpt<'_>,
    secrets: &Secrets,
) -> Delivery {
    if class == Class::Confirmed {
        return Delivery::Confirmed;
    }
    let mut message = format!("the endpoint answered {status}");
    let words = secrets.masked(excerpt);
    if !words.is_empty() {
        message = format!("{message}: {words}");
    }
    let mut error = SinkError::new(format!("http_{}", status.as_u16()), message);
    if class == Class::Permanent {
        return Delivery::Permanent(error);
    }
    error.retry_after = retry_after(headers, SystemTime::now());
    error.pauses_sink = is_overload(status);
    Delivery::Transient(error)
}

/// How long the endpoint asks us to wait: seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    Some(match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(said).ok()?.duration_since(now).unwrap_or_default(),
    })
}

/// Whether the endpoint has too much to do, whatever it is asked.
pub(super) fn is_overload(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503)
}

/// The verdict on a request without an answer, or with half of one. The error of the client names the
/// url, which may hold secrets: only what lies below is repeated.
pub(super) fn of_error(error: &reqwest::Error, timeout: Duration) -> Delivery {
    let mut reasons = Vec::new();
    for cause in sources(error) {
        if cause.is::<Refused>() {
            return Delivery::Transient(SinkError::new("metadata_address", cause.to_string()));
        }
        let text = cause.to_string();
        if reasons.last() != Some(&text) {
            reasons.push(text);
        }
    }
    let reason = reasons.join(": ");
    if error.is_builder() {
        return Delivery::Permanent(SinkError::new("request", reason));
    }
    Delivery::Transient(match (error.is_timeout(), error.is_connect()) {
        (true, true) => SinkError::new("connect", "no connection in time"),
        (true, false) => SinkError::new("timeout", format!("no answer within {timeout:?}")),
        (false, true) => SinkError::new("connect", reason),
        (false, false) => SinkError::new("connection", reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, is_addressed: bool) -> Class {
        let statuses = Statuses::of(&HttpSinkConfig::default());
        statuses.class(StatusCode::from_u16(status).unwrap(), is_addressed)
    }

    #[test]
    fn a_status_is_permanent_only_where_the_payload_can_be_at_fault() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(class(status, false), Class::Confirmed, "{status}");
        }
        for status in [401, 407, 408, 425, 429, 500, 502, 503, 504, 507, 529] {
            assert_eq!(class(status, true), Class::Transient, "{status}");
        }
        for status in [400, 403, 405, 409, 413, 415, 422, 451, 501, 505] {
            assert_eq!(class(status, false), Class::Permanent, "{status}");
        }
        for status in [300, 301, 302, 303, 307, 308, 404, 410, 421] {
            assert_eq!(class(status, false), Class::Transient, "{status}: no payload chose where");
            assert_eq!(class(status, true), Class::Permanent, "{status}");
        }
    }

    #[test]
    fn the_configuration_has_the_last_word_on_a_status() {
        let config = HttpSinkConfig {
            transient_statuses: vec![409],
            permanent_statuses: vec![500],
            ..HttpSinkConfig::default()
        };
        let statuses = Statuses::of(&config);
        assert_eq!(statuses.class(StatusCode::CONFLICT, false), Class::Transient);
        assert_eq!(statuses.class(StatusCode::INTERNAL_SERVER_ERROR, false), Class::Permanent);
    }

    #[track_caller]
    fn waits(said: &str, wait: Option<Duration>) {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, said.parse().unwrap())]);
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(&headers, now), wait, "{said}");
    }

    #[test]
    fn the_wait_that_the_endpoint_asks_for_is_read_as_seconds_or_date() {
        waits("7", Some(Duration::from_secs(7)));
        waits("Sun, 06 Nov 1994 08:50:07 GMT", Some(Duration::from_secs(30)));
        waits("Sun, 06 Nov 1994 08:00:00 GMT", Some(Duration::ZERO));
        waits("86400", Some(Duration::from_hours(24)));
        waits("soon", None);
    }
}
