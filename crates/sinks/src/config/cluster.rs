//! What sections about a Kafka cluster have in common: names of topics, and security.

use drakkar_core::kafka_client::{SaslMechanism, Security};

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
    let mut lacks = |key: &str, what: &str, feature: &str| {
        wrong.push(format!(
            "{at}.security.{key}: {what} is not compiled in; build with the cargo feature \
             `{feature}`"
        ));
    };
    if security.protocol.needs_tls() && cfg!(not(feature = "ssl")) {
        lacks("protocol", "encryption", "ssl");
    }
    match security.sasl_mechanism {
        Some(SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512)
            if cfg!(not(feature = "ssl")) =>
        {
            lacks("sasl_mechanism", "SCRAM", "ssl");
        }
        Some(SaslMechanism::Gssapi) if cfg!(not(feature = "gssapi")) => {
            lacks("sasl_mechanism", "Kerberos", "gssapi");
        }
        _ => {}
    }
}
