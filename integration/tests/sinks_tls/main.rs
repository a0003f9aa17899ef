//! Encryption, of every kind of sink that has a server and of the cluster that is consumed: servers that
//! speak TLS alone and want to see a certificate. Who is trusted and shows it is served; who is not, is
//! told what to look at, and no secret is said.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails the test")]

mod postgres; // rows
mod redis; // commands
mod mongo; // documents
mod http; // requests
mod kafka; // records, there and back

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{Payload, SinkError, SinkName, observe::SinkObserver};
use drakkar_integration::{OwnServer, SOON, sinks, until};
use drakkar_sinks::{ConnectError, Connected, Settled, Sinks};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Certificates that are made for one test.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certificates");
        let made = Command::new(script).arg(dir.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// As the text of a configuration.
    fn name(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// The section `tls` of a sink that trusts `authority`, and shows who it is.
    fn tls(&self, authority: &str) -> Value {
        json!({
            "ca_location": self.file(authority),
            "certificate_location": self.file("client.pem"),
            "key_location": self.file("client.key"),
        })
    }
}

/// The section `sinks` with one sink `main` of this kind.
fn section(kind: &str, sink: &Value) -> Value {
    json!({
        kind: {"main": sink},
        "retry_backoff_max": "100ms",
        "circuit_breaker": {"failure_threshold": 0},
    })
}

async fn connected(kind: &str, sink: &Value) -> Connected {
    sinks::connect(section(kind, sink)).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts what is said when a sink cannot be connected: one of these, the name of the sink, and no secret.
async fn refused(kind: &str, sink: &Value, secret: &str, one_of: &[&str]) {
    let mut within = Duration::from_secs(2);
    loop {
        let said = said(kind, sink, secret, within).await.to_lowercase();
        if one_of.iter().any(|words| said.contains(words)) {
            break;
        }
        // A machine that stands still for so long hears no reason.
        assert!(within < SOON, "{said}");
        within *= 4;
    }
}

async fn said(kind: &str, sink: &Value, secret: &str, within: Duration) -> String {
    let error = match sinks::connect_within(section(kind, sink), within).await {
        Ok(_) => panic!("{sink} is let in"),
        Err(error @ (ConnectError::Server { .. } | ConnectError::Unreachable { .. })) => error,
        Err(other) => panic!("{other}"),
    };
    let said = error.to_string();
    assert!(said.starts_with(&format!("sinks.{kind}.main: ")), "{said}");
    assert!(said.contains("; check "), "{said}");
    assert!(!format!("{said} {error:?}").contains(secret), "{said}");
    said
}

async fn delivered(sinks: &Sinks, payloads: Vec<impl Into<Payload>>) {
    for settled in sinks::deliver_all(sinks, payloads).await {
        assert_eq!(settled, Settled::Confirmed);
    }
}
