//! Which hosts are never asked: the metadata services of clouds, which hand credentials to whoever
//! can make this machine send a request.
//!
//! Checked where the url is configured, and again for every address a name resolves to. What a proxy
//! resolves is the proxy's to guard.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Names under which clouds offer them.
const NAMES: [&str; 5] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
];

/// Addresses outside of the link-local network: Alibaba, Oracle, Azure.
const ADDRESSES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same for IPv6: Amazon, Google.
const ADDRESSES_6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether requests may be sent to `url`, as far as can be said without resolving its host.
pub(crate) fn check(url: &Url, allow_metadata: bool) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let refused = literal.is_ok_and(is_metadata) || NAMES.contains(&name.as_str());
    if refused && !allow_metadata {
        return Err(format!("{host} is the metadata service of a cloud"));
    }
    Ok(())
}

/// Whether `address` is one that a cloud offers metadata at.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || ADDRESSES.contains(&address),
        IpAddr::V6(address) => {
            let [.., high, low] = address.segments();
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            // The same address inside the networks that translate to IPv4.
            let is_translated = matches!(
                address.segments(),
                [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _]
            );
            ADDRESSES_6.contains(&address)
                || (is_translated && is_metadata(IpAddr::V4(Ipv4Addr::new(a, b, c, d))))
        }
    }
}

/// A name that resolves to a metadata service.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(host) = self;
        write!(f, "{host} resolves to the metadata service of a cloud")
    }
}

impl Error for Refused {}

/// Resolves names, but not to metadata services.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolver {
    pub allow_metadata: bool,
}

impl Resolver {
    /// The addresses of `host`.
    pub(crate) async fn addresses(
        self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        Ok(self.filter(host, found)?)
    }

    /// One bad address is enough: which one is asked would be up to whoever answers for the name.
    fn filter(self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let is_bad = found.iter().any(|address| is_metadata(address.ip()));
        if is_bad && !self.allow_metadata { Err(Refused(host.to_owned())) } else { Ok(found) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = *self;
        Box::pin(async move {
            let found = resolver.addresses(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_refused_in_every_spelling() {
        for url in [
            "http://169.254.169.254/latest",
            "http://169.254.170.2",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://metadata.google.internal/",
            "http://METADATA.google.internal./",
        ] {
            let parsed = Url::parse(url).unwrap();
            assert!(check(&parsed, false).is_err(), "{url}");
            assert!(check(&parsed, true).is_ok(), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://[::1]/", "http://metadata.example/"] {
            assert!(check(&Url::parse(url).unwrap(), false).is_ok(), "{url}");
        }
        for url in ["ftp://h/", "file:///etc/passwd", "unix:/run/x"] {
            assert!(check(&Url::parse(url).unwrap(), true).is_err(), "{url}");
        }
    }

    #[test]
    fn a_name_that_resolves_to_a_metadata_service_is_refused() {
        let of = |address: &str| SocketAddr::new(address.parse().unwrap(), 80);
        let found = vec![of("10.0.0.1"), of("169.254.169.254")];
        let filter = |allow_metadata| Resolver { allow_metadata }.filter("h", found.clone());
        assert_eq!(
            filter(false).unwrap_err().to_string(),
            "h resolves to the metadata service of a cloud"
        );
        assert_eq!(filter(true).unwrap(), found);
        let harmless = vec![of("10.0.0.1")];
        let resolver = Resolver { allow_metadata: false };
        assert_eq!(resolver.filter("h", harmless.clone()).unwrap(), harmless);
    }
}
