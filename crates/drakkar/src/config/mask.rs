//! What must not be shown.
//!
//! Typed secrets mask themselves. This is for the free sections, whose values are plain texts:
//! variables of children, librdkafka properties, addresses with a password in them.

use drakkar_core::secret::{self, MASK};

/// `value` as it may be shown for `key`.
pub(super) fn masked(key: &str, value: &str) -> String {
    if secret::is_name(key) && !value.is_empty() && !is_path(key) {
        return MASK.to_owned();
    }
    without_password(value)
}

/// Where a key lies is no secret.
fn is_path(key: &str) -> bool {
    key.ends_with("location")
}

/// Every `scheme://user:password@host` without its password. A password may hold any character, so all
/// up to the last `@` before the next address counts as its end.
pub(super) fn without_password(value: &str) -> String {
    let mut addresses = value.split("://");
    let mut shown = addresses.next().unwrap_or_default().to_owned();
    for rest in addresses {
        shown.push_str("://");
        let name = rest.split([':', '/', '?', '#', '@']).next().unwrap_or_default();
        match rest.rfind('@') {
            Some(at) if rest[name.len()..].starts_with(':') => {
                shown.extend([name, ":", MASK, &rest[at..]]);
            }
            _ => shown.push_str(rest),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, value: &str, shown: &str) {
        assert_eq!(masked(key, value), shown, "{key}");
    }

    #[test]
    fn secrets_in_free_sections_are_masked_by_their_name() {
        check("kafka.client_config.sasl.password", "hunter2", "***");
        check("kafka.client_config.linger.ms", "5", "5");
        check("executor.env.API_KEY", "hunter2", "***");
        check("executor.env.DB_PASSWD", "hunter2", "***");
        for name in ["DB_PASS", "MYSQL_PWD", "PGPASSWORD", "APIKEY", "HTTP_AUTHORIZATION"] {
            check(&format!("executor.env.{name}"), "hunter2", "***");
        }
        check("executor.env.LC_ALL", "C", "C");
        check("executor.env.API_KEY", "", "");
    }

    #[test]
    fn passwords_in_addresses_are_masked_wherever_they_stand() {
        check("executor.env.URL", "redis://me:hunter2@db:6379/0", "redis://me:***@db:6379/0");
        check("executor.env.URL", "http://host/a@b", "http://host/a@b");
        check("executor.env.URL", "http://host:80", "http://host:80");
        check("executor.env.URL", "amqp://me:a/b?c#d@e@mq/v", "amqp://me:***@mq/v");
        check(
            "executor.env.URLS",
            "amqp://a:hunter1@one:1,amqp://b:hunter2@two",
            "amqp://a:***@one:1,amqp://b:***@two",
        );
    }
}
