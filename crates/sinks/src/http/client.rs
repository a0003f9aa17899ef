//! The client of one sink: connections, redirects, proxy and certificates as configured; and whether
//! the endpoint is there at all.

use std::{net::SocketAddr, time::Duration};

use drakkar_core::{Secret, SinkError};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::{Client, ClientBuilder, Proxy, Url, redirect::Policy};
use tokio::{net::TcpStream, time::timeout};

use super::{
    address::Address,
    guard::{self, Refused, Resolver},
};
use crate::{
    HttpSinkConfig,
    connect::{Attempt, ConnectError, patiently},
};

/// Builds the client; the error names the key below the section.
pub(super) fn build(config: &HttpSinkConfig) -> Result<Client, String> {
    let resolver = Resolver { allow_metadata: config.allow_metadata_addresses };
    let mut builder = Client::builder()
        .user_agent(concat!("drakkar/", env!("CARGO_PKG_VERSION")))
        .timeout(config.timeout_seconds)
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(config.max_idle_connections)
        .pool_idle_timeout(config.idle_timeout)
        .redirect(redirects(config.max_redirects))
        .referer(false)
        .dns_resolver(resolver)
        .no_proxy();
    if let Some(url) = proxy_url(&config.proxy)? {
        let proxy = Proxy::all(url).map_err(|_| ".proxy: is not the url of a proxy".to_owned())?;
        builder = builder.proxy(proxy);
    }
    let builder = tls(builder, config)?;
    builder.build().map_err(|error| format!(": {}", error.without_url()))
}

pub(super) fn proxy_url(proxy: &Secret) -> Result<Option<Url>, String> {
    if proxy.is_empty() {
        return Ok(None);
    }
    let url =
        Url::parse(proxy.expose()).map_err(|error| format!(".proxy: is not a url: {error}"))?;
    // A proxy of one's own may stand anywhere.
    guard::check(&url, true).map_err(|reason| format!(".proxy: {reason}"))?;
    Ok(Some(url))
}

/// Follows what keeps method and body, on the same host: the headers may hold secrets of that host, and
/// a request that lost its body would count as delivered.
fn redirects(most: usize) -> Policy {
    Policy::custom(move |attempt| {
        let keeps = matches!(attempt.status().as_u16(), 307 | 308);
        let from = attempt.previous().last();
        let stays = from.is_some_and(|from| is_same_host(from, attempt.url()));
        if keeps && stays && attempt.previous().len() <= most {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// The same origin, or the same host encrypted.
fn is_same_host(from: &Url, to: &Url) -> bool {
    from.origin() == to.origin() || (from.host() == to.host() && to.scheme() == "https")
}

#[cfg(feature = "ssl")]
fn tls(mut builder: ClientBuilder, config: &HttpSinkConfig) -> Result<ClientBuilder, String> {
    use std::{fs, path::Path};

    use reqwest::{Certificate, Identity};

    let read = |key: &str, path: &Path| {
        fs::read(path).map_err(|error| format!(".tls.{key}: {}: {error}", path.display()))
    };
    let tls = &config.tls;
    if let Some(path) = &tls.ca_location {
        let pem = read("ca_location", path)?;
        let authorities = certificates(&pem);
        if authorities.is_empty() {
            return Err(format!(".tls.ca_location: {}: holds no certificate", path.display()));
        }
        for one in authorities {
            let read = Certificate::from_pem(one);
            let certificate = read.map_err(|error| format!(".tls.ca_location: {error}"))?;
            builder = builder.tls_certs_merge([certificate]);
        }
    }
    if let (Some(certificate), Some(key)) = (&tls.certificate_location, &tls.key_location) {
        let certificate = read("certificate_location", certificate)?;
        let key = read("key_location", key)?;
        let identity = Identity::from_pkcs8_pem(&certificate, &key);
        builder = builder.identity(identity.map_err(|error| format!(".tls: {error}"))?);
    }
    Ok(builder)
}

/// The certificates of a PEM file, one by one.
#[cfg(feature = "ssl")]
fn certificates(pem: &[u8]) -> Vec<&[u8]> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = str::from_utf8(pem).unwrap_or_default();
    text.split_inclusive(END).filter(|one| one.contains(END)).map(str::as_bytes).collect()
}

/// `validate` has seen that nothing is asked of it.
#[cfg(not(feature = "ssl"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
fn tls(builder: ClientBuilder, _: &HttpSinkConfig) -> Result<ClientBuilder, String> {
    Ok(builder)
}

/// Where connections are made: at the endpoint, or at the proxy before it.
pub(super) struct Door {
    host: String,
    port: u16,
    is_proxy: bool,
    resolver: Resolver,
    within: Duration,
}

impl Door {
    pub(super) fn of(address: &Address, config: &HttpSinkConfig) -> Self {
        let proxy = proxy_url(&config.proxy).unwrap_or_default();
        let (asked, is_proxy) = (proxy.as_ref().unwrap_or(address.base()), proxy.is_some());
        Self {
            host: asked.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: asked.port_or_known_default().unwrap_or_default(),
            is_proxy,
            resolver: Resolver { allow_metadata: config.allow_metadata_addresses || is_proxy },
            within: config.connect_timeout,
        }
    }

    /// Makes a connection, and sends nothing.
    async fn knock(&self) -> Result<(), Attempt> {
        let found = timeout(self.within, self.resolver.addresses(&self.host, self.port)).await;
        let no_answer = |_| Attempt::Transient("its name is not resolved in time".to_owned());
        let addresses = found.map_err(no_answer)?.map_err(|error| {
            let text = error.to_string();
            if error.is::<Refused>() { Attempt::Permanent(text) } else { Attempt::Transient(text) }
        })?;
        any_of(&addresses, self.within).await.map_err(Attempt::Transient)
    }

    /// Whether it accepts connections.
    pub(super) async fn is_open(&self) -> Result<(), SinkError> {
        match self.knock().await {
            Ok(()) => Ok(()),
            Err(Attempt::Transient(reason) | Attempt::Permanent(reason)) => {
                Err(SinkError::new("connect", reason))
            }
        }
    }
}

/// Makes a connection to one of `addresses`, all of which are tried at once: requests find the one that answers,
/// whichever it is.
async fn any_of(addresses: &[SocketAddr], within: Duration) -> Result<(), String> {
    let mut attempts: FuturesUnordered<_> =
        addresses.iter().map(|address| timeout(within, TcpStream::connect(address))).collect();
    let mut reason = None;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => reason = Some(error.to_string()),
            Err(_) => {}
        }
    }
    Err(reason.unwrap_or_else(|| "no connection in time".to_owned()))
}

/// Waits until the endpoint, or the proxy before it, accepts connections.
pub(super) async fn reach(
    key: String,
    address: &Address,
    door: &Door,
    within: Duration,
) -> Result<(), ConnectError> {
    let (server, hint) = if door.is_proxy {
        ("its proxy", "check its `proxy`, and that the proxy runs")
    } else {
        (
            address.shown(),
            "check its `url`, and that the endpoint runs; `check_on_start: false` starts without it",
        )
    };
    let error = |reason| ConnectError::Server { key, server: server.to_owned(), reason, hint };
    patiently(within, error, || door.knock()).await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A listener that answers nobody any more: as many wait to be accepted as may.
    async fn silent() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let backlog = 1;
        let listener = socket.listen(backlog).unwrap();
        let (address, mut waiting) = (listener.local_addr().unwrap(), Vec::new());
        for _ in 0..=backlog {
            waiting.push(TcpStream::connect(address).await.unwrap());
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn one_address_that_does_not_answer_hides_none_that_does() {
        let (silent, _waiting) = silent().await;
        let answers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [silent, answers] = [&silent, &answers].map(|of| of.local_addr().unwrap());
        let long = Duration::from_secs(10);
        assert_eq!(any_of(&[silent, answers], long).await, Ok(()));
        let short = Duration::from_millis(100);
        let none = any_of(&[silent], short).await;
        assert_eq!(none, Err("no connection in time".to_owned()));
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = any_of(&[port, silent], short).await.unwrap_err();
        assert!(refused.contains("refused"), "what is known is said: {refused}");
    }

    #[test]
    fn a_redirect_stays_on_its_host_and_does_not_leave_encryption() {
        let is_followed = |from: &str, to: &str| {
            is_same_host(&Url::parse(from).unwrap(), &Url::parse(to).unwrap())
        };
        assert!(is_followed("http://h/a", "http://h/b"));
        assert!(is_followed("http://h/a", "https://h/a"));
        assert!(!is_followed("https://h/a", "http://h/a"));
        assert!(!is_followed("http://h/a", "http://h:81/a"));
        assert!(!is_followed("http://h/a", "http://169.254.169.254/latest"));
    }
}
