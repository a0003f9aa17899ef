//! How to reach a Kafka cluster and authenticate to it: one typed block, shared by the consumer, the
//! Kafka sinks and the dead-letter topic, rendered as librdkafka properties.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    Secret, lenient,
    secret::{self, MASK},
};

/// Wire protocol to the brokers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Protocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// Encrypted; needs the cargo feature `ssl`.
    Ssl,
    /// Authenticated in clear text.
    SaslPlaintext,
    /// Encrypted and authenticated; needs the cargo feature `ssl`.
    SaslSsl,
}

impl Protocol {
    /// Whether the protocol encrypts.
    #[must_use]
    pub fn needs_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

/// How the client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// User name and password as they are.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response with SHA-256; needs the cargo feature `ssl`.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response with SHA-512; needs the cargo feature `ssl`.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// Kerberos; needs the cargo feature `gssapi`.
    #[serde(rename = "GSSAPI")]
    Gssapi,
}

impl SaslMechanism {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Gssapi => "GSSAPI",
        }
    }
}

/// Encryption and authentication towards the brokers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Wire protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`. Default: `PLAINTEXT`.
    pub protocol: Protocol,
    /// How to authenticate, where the protocol does: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or
    /// `GSSAPI`. Default: none.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// User name. Default: none.
    #[serde(deserialize_with = "lenient::text")]
    pub sasl_username: String,
    /// Password; never shown. Default: none.
    pub sasl_password: Secret,
    /// PEM file with the authorities that may sign the brokers' certificates. Default: those of the
    /// system.
    #[serde(deserialize_with = "lenient::text")]
    pub ssl_ca_location: String,
    /// PEM file with the worker's certificate. Default: none.
    #[serde(deserialize_with = "lenient::text")]
    pub ssl_certificate_location: String,
    /// PEM file with its private key. Default: none.
    #[serde(deserialize_with = "lenient::text")]
    pub ssl_key_location: String,
    /// Passphrase of the key; never shown. Default: none.
    pub ssl_key_password: Secret,
    /// How the brokers' host names are verified: `https` or `none`. Default: that of the client,
    /// `https`.
    #[serde(deserialize_with = "lenient::option")]
    pub ssl_endpoint_identification_algorithm: Option<String>,
}

impl Security {
    /// The librdkafka properties this block stands for.
    #[must_use]
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let mut properties = vec![("security.protocol", self.protocol.as_str().to_owned())];
        if let Some(mechanism) = self.sasl_mechanism {
            properties.push(("sasl.mechanism", mechanism.as_str().to_owned()));
        }
        let texts = [
            ("sasl.username", self.sasl_username.as_str()),
            ("sasl.password", self.sasl_password.expose()),
            ("ssl.ca.location", &self.ssl_ca_location),
            ("ssl.certificate.location", &self.ssl_certificate_location),
            ("ssl.key.location", &self.ssl_key_location),
            ("ssl.key.password", self.ssl_key_password.expose()),
            (
                "ssl.endpoint.identification.algorithm",
                self.ssl_endpoint_identification_algorithm.as_deref().unwrap_or_default(),
            ),
        ];
        let set = texts.into_iter().filter(|(_, value)| !value.is_empty());
        properties.extend(set.map(|(name, value)| (name, value.to_owned())));
        properties
    }

    /// What is wrong with the section `at`, which this is the security of, for clients that were built so.
    #[must_use]
    pub fn lacking(&self, at: &str, built: Built) -> Vec<String> {
        use SaslMechanism as Sasl;
        let (encrypts, sasl) = (self.protocol.needs_tls(), self.sasl_mechanism);
        let is_scram = matches!(sasl, Some(Sasl::ScramSha256 | Sasl::ScramSha512));
        [
            (encrypts && !built.ssl, "protocol: encryption", "ssl"),
            (is_scram && !built.ssl, "sasl_mechanism: SCRAM", "ssl"),
            (sasl == Some(Sasl::Gssapi) && !built.gssapi, "sasl_mechanism: Kerberos", "gssapi"),
        ]
        .into_iter()
        .filter(|(is_lacking, ..)| *is_lacking)
        .map(|(_, what, feature)| {
            format!(
                "{at}.security.{what} is not compiled in; build with the cargo feature `{feature}`"
            )
        })
        .collect()
    }
}

/// Cargo features that clients were built with.
#[derive(Debug, Clone, Copy)]
pub struct Built {
    /// Encryption and SCRAM.
    pub ssl: bool,
    /// Kerberos.
    pub gssapi: bool,
}

/// A cluster: where it is, how to authenticate, and what else librdkafka shall be told.
#[derive(Clone, Default, PartialEq)]
pub struct Cluster {
    /// Bootstrap servers, comma-separated.
    pub brokers: String,
    /// Encryption and authentication.
    pub security: Security,
    /// Any other librdkafka property; wins over what we set, except for what we own.
    pub client_config: BTreeMap<String, String>,
}

impl Cluster {
    /// The same cluster with only the properties that are about the connection: for clients that do
    /// something else there than the one it was configured for.
    #[must_use]
    pub fn connection(mut self) -> Self {
        let is_connection = |name: &String| CONNECTION.iter().any(|begin| name.starts_with(begin));
        self.client_config.retain(|name, _| is_connection(name));
        self
    }
}

/// How the names of properties about the connection begin; the others are about consuming or
/// producing.
const CONNECTION: [&str; 14] = [
    "api.version.",
    "broker.",
    "client.dns.",
    "client.rack",
    "connections.",
    "debug",
    "enable.sasl.",
    "enable.ssl.",
    "metadata.",
    "reconnect.",
    "sasl.",
    "security.",
    "socket.",
    "ssl.",
];

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, security, client_config } = self;
        let shown = client_config
            .iter()
            .map(|(name, value)| (name, if secret::is_name(name) { MASK } else { value.as_str() }));
        f.debug_struct("Cluster")
            .field("brokers", brokers)
            .field("security", security)
            .field("client_config", &shown.collect::<BTreeMap<_, _>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_clients_of_the_cluster_reach_it_as_the_consumer_does() {
        let property = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let connection = [("sasl.mechanism", "PLAIN"), ("security.protocol", "SASL_PLAINTEXT")];
        let consuming = [("fetch.wait.max.ms", "10"), ("auto.offset.reset", "latest")];
        let client_config = connection.into_iter().chain(consuming).map(property).collect();
        let cluster = Cluster { client_config, ..Cluster::default() }.connection();
        assert_eq!(cluster.client_config, connection.into_iter().map(property).collect());
    }

    #[test]
    fn a_password_among_the_properties_is_not_printed() {
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let cluster = Cluster {
            client_config: BTreeMap::from([
                property("sasl.password", "hunter2"),
                property("fetch.wait.max.ms", "10"),
            ]),
            ..Cluster::default()
        };
        let shown = format!("{cluster:?}");
        assert!(!shown.contains("hunter2") && shown.contains("fetch.wait.max.ms"), "{shown}");
    }
}
