//! What sections about a Kafka cluster have in common: names of topics, and security.

use drakkar_core::kafka_client::{Built, Security};

/// What is wrong with a topic that is none.
pub(crate) const NOT_A_TOPIC: &str =
    "is not the name of a topic: up to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`";

/// Whether a broker would accept this as the name of a topic.
pub(crate) fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".."
}

/// Checks brokers and security of the section `at`.
pub(super) fn validate(at: &str, brokers: &str, security: &Security, wrong: &mut Vec<String>) {
    if brokers.is_empty() && *security != Security::default() {
        wrong.push(format!(
            "{at}.security: without {at}.brokers, cluster and security are those of kafka:; set \
             {at}.brokers as well"
        ));
    }
    let built = Built { ssl: cfg!(feature = "ssl"), gssapi: cfg!(feature = "gssapi") };
    wrong.extend(security.lacking(at, built));
}
