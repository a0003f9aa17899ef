//! A server of a test's own that is no broker, to be stopped, killed, frozen and started while it is used.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{broker::two_free_ports, home::Home, proc};

/// A server on loopback; gone with its data when dropped, or when this process ends.
///
/// `integration/<kind>/server` starts and stops it: `start DIR PORT [CERTIFICATES]`, which returns when it serves and
/// leaves its process id in `DIR/pid`; `stop DIR`, `kill DIR`; `wipe DIR`.
pub struct OwnServer {
    kind: &'static str,
    home: Home,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    certificates: Option<PathBuf>,
}

impl OwnServer {
    /// One of this kind, running.
    #[must_use]
    pub fn start(kind: &'static str) -> Self {
        let server = Self::down(kind);
        server.restart();
        server
    }

    /// One of this kind, running, that speaks TLS alone and wants to see a client's certificate, with
    /// what `integration/certificates` made in this directory.
    #[must_use]
    pub fn encrypted(kind: &'static str, certificates: &Path) -> Self {
        let mut server = Self::down(kind);
        server.certificates = Some(certificates.to_owned());
        server.restart();
        server
    }

    /// One of this kind that does not run yet.
    #[must_use]
    pub fn down(kind: &'static str) -> Self {
        Self { kind, home: Home::of(&script(kind)), port: two_free_ports(), certificates: None }
    }

    /// Starts it (again, on the same data) and waits until it serves.
    pub fn restart(&self) {
        let (path, port) = (self.path(), self.port.to_string());
        let mut words = vec!["start", &path, &port];
        words.extend(self.certificates.iter().filter_map(|directory| directory.to_str()));
        self.run(&words);
    }

    /// Stops it in order.
    pub fn stop(&self) {
        self.run(&["stop", &self.path()]);
    }

    /// Kills it: what a crash leaves behind.
    pub fn kill(&self) {
        self.run(&["kill", &self.path()]);
    }

    /// Sends a signal to its process: `STOP` freezes it, `CONT` lets it go on.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.home.path().join("server/pid")).unwrap();
        proc::signal(pid.trim().parse().unwrap(), name);
    }

    fn path(&self) -> String {
        self.home.path().join("server").to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) {
        let output = Command::new(script(self.kind)).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {error}", self.kind);
    }
}

fn script(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join("server")
}
