//! A broker of a test's own, to be stopped, killed and started while it is used.

use std::{
    env::temp_dir,
    fs::{File, OpenOptions},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use crate::{
    home::Home,
    kafka::{Ends, Kafka},
    proc,
    wait::{SOON, until},
};

/// One Apache Kafka node on loopback; gone with its data when dropped, or when this process ends.
pub struct OwnBroker {
    home: Home,
    port: u16,
    /// Where its partitions ended when it was last stopped.
    had: Mutex<Ends>,
    /// Certificates, and where it listens with them.
    encrypted: Option<(PathBuf, [u16; 2])>,
}

impl OwnBroker {
    /// Starts one and waits until it serves.
    #[must_use]
    pub fn start() -> Self {
        Self::new(None)
    }

    /// Starts one that listens for TLS as well, with what `integration/certificates` made in this
    /// directory; see [`Self::encrypted_servers`].
    #[must_use]
    pub fn encrypted(certificates: &Path) -> Self {
        Self::new(Some((certificates.to_owned(), [two_free_ports(), two_free_ports()])))
    }

    fn new(encrypted: Option<(PathBuf, [u16; 2])>) -> Self {
        let (home, port) = (Home::of(&script()), two_free_ports());
        let broker = Self { home, port, had: Mutex::default(), encrypted };
        broker.restart();
        broker
    }

    /// How to reach it.
    #[must_use]
    pub fn kafka(&self) -> Kafka {
        Kafka { servers: format!("127.0.0.1:{}", self.port) }
    }

    /// Has it, when it is started next, ask clients on another port for a password, beside those on its
    /// own. Which port that is.
    pub fn ask_on(&self, port: Option<u16>, user: &str, password: &str) -> u16 {
        let port = port.unwrap_or_else(two_free_ports);
        let credentials = format!(
            "listener.name.more.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.more.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_{user}=\"{password}\";\n"
        );
        self.listen_on(port, port, "SASL_PLAINTEXT", &credentials);
        port
    }

    /// Has it, when it is started next, listen on another port as well, of which it says to clients that it
    /// is `port`: they go through whoever listens there. Which port that is.
    pub fn listen_for(&self, port: u16) -> u16 {
        let behind = two_free_ports();
        self.listen_on(behind, port, "PLAINTEXT", "");
        behind
    }

    fn listen_on(&self, port: u16, said: u16, protocol: &str, more: &str) {
        let (own, controller) = (self.port, self.port + 1);
        // The last of several lines wins.
        let lines = format!(
            "\nlisteners=PLAINTEXT://127.0.0.1:{own},CONTROLLER://127.0.0.1:{controller},MORE://127.0.0.1:{port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{own},MORE://127.0.0.1:{said}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,MORE:{protocol}\n{more}"
        );
        let properties = self.home.path().join("broker/server.properties");
        let mut file = OpenOptions::new().append(true).open(properties).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// Where it speaks TLS; and where it also wants a client's certificate and a user, `drakkar` with the
    /// password `tell-nobody` (SCRAM-SHA-256). Its name is `localhost` there.
    #[must_use]
    pub fn encrypted_servers(&self) -> [String; 2] {
        let (_, ports) = self.encrypted.as_ref().unwrap();
        ports.map(|port| format!("localhost:{port}"))
    }

    /// Starts it again, on the same data, and waits until it shows them.
    ///
    /// A node says that it serves before each of its partitions ends where it ended: who reads a topic
    /// to its end at once misses records.
    pub fn restart(&self) {
        self.run(&["start", &self.path(), &self.port.to_string()]);
        let had = std::mem::take(&mut *self.had.lock().unwrap());
        let observer = self.kafka().observer("none");
        until("the broker to show what it had", SOON, || {
            let has = observer.all_ends().map_err(|error| error.to_string())?;
            let less = had.iter().find(|(at, end)| has.get(at).is_none_or(|now| now < end));
            less.map_or(Ok(()), |(at, end)| Err(format!("{at:?}: {:?} of {end}", has.get(at))))
        });
    }

    /// Stops it in order.
    pub fn stop(&self) {
        self.end("stop");
    }

    /// Kills it: what a crash leaves behind.
    pub fn kill(&self) {
        self.end("kill");
    }

    /// Sends a signal to its process: `STOP` freezes it, `CONT` lets it go on.
    pub fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.home.path().join("broker/pid")).unwrap();
        proc::signal(pid.trim().parse().unwrap(), name);
    }

    fn end(&self, how: &str) {
        let observer = self.kafka().observer("none");
        *self.had.lock().unwrap() = until("the ends of all topics", SOON, || observer.all_ends());
        self.run(&[how, &self.path()]);
    }

    fn path(&self) -> String {
        self.home.path().join("broker").to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(script());
        if let Some((certificates, [tls, user])) = &self.encrypted {
            command.env("KAFKA_CERTIFICATES", certificates);
            command.env("KAFKA_TLS_PORT", tls.to_string()).env("KAFKA_USER_PORT", user.to_string());
        }
        let output = command.args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "broker {arguments:?} on port {}: {error}", self.port);
    }
}

pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/broker")
}

/// A port that is free together with the next one, below those that clients are given; nobody else who
/// asks here is given it before this process ends, also while no server listens on it.
pub(crate) fn two_free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static OURS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let seed = u16::try_from(std::process::id() % 1_000).unwrap() * 4;
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let (port, lock) = (0..4_000)
        .map(|_| 24_000 + (seed + NEXT.fetch_add(2, Ordering::Relaxed)) % 8_000)
        .find_map(|port| {
            let lock = File::create(temp_dir().join(format!("drakkar-port-{port}"))).ok()?;
            lock.try_lock().ok()?;
            (is_free(port) && is_free(port + 1)).then_some((port, lock))
        })
        .expect("two free ports");
    OURS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    port
}
