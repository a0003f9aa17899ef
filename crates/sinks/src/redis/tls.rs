//! Whom an encrypted connection trusts, and what it shows.

use redis::ConnectionInfo;

use crate::TlsConfig;

/// How a server is reached, with what the files of `tls` hold; otherwise what is wrong, after the key of
/// the section.
#[cfg(feature = "ssl")]
pub(super) fn secured(entry: ConnectionInfo, tls: &TlsConfig) -> Result<ConnectionInfo, String> {
    use std::{fs, path::PathBuf};

    use redis::{Client, ClientTlsConfig, TlsCertificates};

    if *tls == TlsConfig::default() {
        return Ok(entry);
    }
    let read = |key: &str, path: &PathBuf| {
        fs::read(path).map_err(|error| format!("tls.{key}: {}: {error}", path.display()))
    };
    let root_cert = tls.ca_location.as_ref().map(|path| read("ca_location", path)).transpose()?;
    let client_tls = match (&tls.certificate_location, &tls.key_location) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: read("certificate_location", certificate)?,
            client_key: read("key_location", key)?,
        }),
        _ => None,
    };
    let client = Client::build_with_tls(entry, TlsCertificates { client_tls, root_cert });
    client
        .map(|client| client.get_connection_info().clone())
        .map_err(|error| format!("tls: {error}"))
}

/// `validate` has seen that nothing is asked of it.
#[cfg(not(feature = "ssl"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(super) fn secured(entry: ConnectionInfo, _: &TlsConfig) -> Result<ConnectionInfo, String> {
    Ok(entry)
}
