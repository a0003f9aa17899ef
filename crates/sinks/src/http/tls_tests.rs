//! The client against `openssl s_server`: whom it trusts, and that it shows who it is.

#![allow(clippy::unwrap_used, reason = "a test, though behind a feature")]

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use drakkar_core::{Delivery, HttpPayload, Secret, Sink, SinkError};
use tempfile::TempDir;

use super::HttpSink;
use crate::{HttpSinkConfig, TlsConfig, connect::Connect};

/// An endpoint that shows a page to whoever shows a certificate; ended when dropped.
struct Encrypted {
    dir: TempDir,
    port: u16,
    process: Child,
}

fn openssl(dir: &TempDir, arguments: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Encrypted {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let made = openssl(
            &dir,
            "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem \
             -subj /CN=localhost -addext subjectAltName=DNS:localhost",
        )
        .status();
        assert!(made.unwrap().success(), "openssl makes certificates");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let serve = format!(
            "s_server -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -CAfile cert.pem -www \
             -Verify 1 -verify_return_error"
        );
        let process = openssl(&dir, &serve).spawn().unwrap();
        Self { dir, port, process }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What becomes of a request to the host `name` of it.
    async fn ask(&self, name: &str, tls: TlsConfig) -> Delivery {
        let config = HttpSinkConfig {
            url: Secret::from(format!("https://{name}:{}/", self.port).as_str()),
            method: "GET".to_owned(),
            max_response_bytes: 1 << 20,
            tls,
            ..HttpSinkConfig::default()
        };
        let within = Duration::from_secs(20);
        let sink = HttpSink::connect("sinks.http.a".to_owned(), &config, within).await.unwrap();
        let payload = HttpPayload::empty();
        sink.deliver(&[payload]).await.remove(0)
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        if self.process.kill().and_then(|()| self.process.wait()).is_err() {
            eprintln!("a server is left behind");
        }
    }
}

#[track_caller]
fn is_refused(outcome: &Delivery) {
    let Delivery::Transient(SinkError { class, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(["connect", "connection"].contains(&class.as_str()), "{outcome:?}");
}

#[tokio::test]
async fn an_endpoint_is_trusted_by_its_authority_and_name_and_is_shown_our_certificate() {
    let endpoint = Encrypted::start();
    let trusting = TlsConfig { ca_location: Some(endpoint.file("cert.pem")), ..Default::default() };
    let known = TlsConfig {
        certificate_location: Some(endpoint.file("cert.pem")),
        key_location: Some(endpoint.file("key.pem")),
        ..trusting.clone()
    };
    is_refused(&endpoint.ask("localhost", TlsConfig::default()).await);
    is_refused(&endpoint.ask("localhost", trusting).await);
    is_refused(&endpoint.ask("127.0.0.1", known.clone()).await);
    assert_eq!(endpoint.ask("localhost", known).await, Delivery::Confirmed);
}

#[tokio::test]
async fn a_certificate_that_is_none_is_named_with_its_key() {
    let config = HttpSinkConfig {
        url: Secret::from("https://localhost/"),
        tls: TlsConfig { ca_location: Some("/dev/null".into()), ..Default::default() },
        ..HttpSinkConfig::default()
    };
    let refused = HttpSink::connect("sinks.http.a".to_owned(), &config, Duration::ZERO).await;
    let text = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.starts_with("sinks.http.a.tls.ca_location: /dev/null"), "{text}");
}
