//! What must not be shown.
//!
//! Typed secrets mask themselves. This is for the free sections, whose values are plain texts:
//! variables of children, librdkafka properties, addresses with a password in them.

use drakkar_core::secret::MASK;

/// Parts of a name that make its value a secret.
const SECRET: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "salt",
    "sasl.jaas",
    "private",
];

/// Ends of a name that make its value a secret.
const SECRET_END: [&str; 5] = ["_key", "_dsn", "dsn", ".pem", "oauthbearer.config"];

/// Whether the value at `key` may be a secret.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET.iter().any(|part| key.contains(part)) || SECRET_END.iter().any(|end| key.ends_with(end))
}

/// `value` as it may be shown for `key`.
pub(super) fn masked(key: &str, value: &str) -> String {
    if is_secret(key) && !value.is_empty() && !is_path(key) {
        return MASK.to_owned();
    }
    without_password(value)
}

/// Where a key lies is no secret.
fn is_path(key: &str) -> bool {
    key.ends_with("location")
}

/// `scheme://user:password@host` without the password.
pub(super) fn without_password(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((user, _)) = authority.rsplit_once('@') else { return value.to_owned() };
    let name = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{name}:{MASK}{}", &rest[user.len()..])
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
        check("executor.env.LC_ALL", "C", "C");
        check("executor.env.API_KEY", "", "");
    }

    #[test]
    fn passwords_in_addresses_are_masked_wherever_they_stand() {
        check("executor.env.URL", "redis://me:hunter2@db:6379/0", "redis://me:***@db:6379/0");
        check("executor.env.URL", "http://host/a@b", "http://host/a@b");
    }
}
