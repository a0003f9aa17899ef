//! One worker process: started, told to stop, killed, asked over HTTP.
//!
//! Its log goes to a file, of which the end is shown when the test that started it fails. With
//! `TEST_KEEP_LOGS=DIRECTORY` every log is copied there.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    proc,
    wait::{SOON, until},
};

/// Lines of the log that a failing test shows.
const SHOWN: usize = 80;

/// A running worker; killed when dropped.
pub struct WorkerProcess {
    child: Child,
    /// Its id.
    pub id: String,
    log: PathBuf,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All it wrote.
    pub log: String,
}

impl WorkerProcess {
    pub(crate) fn spawn(config: &Path, id: &str, variables: &[(String, String)]) -> Self {
        let log = config.with_file_name(format!("{id}.log"));
        let file = File::create(&log).unwrap();
        let child = Command::new(built("drakkar-test-worker"))
            .arg(config)
            .env_clear() // Nothing of the test's own, above all no DRAKKAR_ variable.
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("WORKER_ID", id)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, id: id.to_owned(), log }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Panics unless it still runs.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "{} has ended by itself", self.id);
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends the signal `name` (`STOP`).
    pub fn signal(&self, name: &str) {
        proc::signal(self.pid(), name);
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> Ended {
        let what = format!("the end of {}", self.id);
        let status = until(&what, within, || self.child.try_wait().unwrap().ok_or("it still runs"));
        Ended { code: status.code(), log: self.log() }
    }

    /// Sends SIGTERM and waits for exit code 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.wait(SOON).code, Some(0), "exit code of {}", self.id);
    }

    /// Waits until the log holds `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let what = format!("{text:?} in the log of {}", self.id);
        until(&what, SOON, || if self.log().contains(text) { Ok(()) } else { Err("not there") });
    }

    /// Asks `path` of the metrics and probes server: status and body.
    ///
    /// # Errors
    ///
    /// When nobody answers.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let address = until("the address of the probes", SOON, || {
            self.log().lines().find_map(served_at).ok_or("not in the log")
        });
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let malformed = || std::io::Error::other(format!("no HTTP answer: {answer}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.ok_or_else(malformed)?, body.to_owned()))
    }

    /// The status with which `path` is answered.
    #[track_caller]
    #[must_use]
    pub fn status(&self, path: &str) -> u16 {
        self.get(path).unwrap().0
    }

    /// The value of the series `series` (`name` or `name{label="value"}`), which counts something; 0
    /// when it is not there.
    #[track_caller]
    #[must_use]
    pub fn metric(&self, series: &str) -> usize {
        let (status, body) = self.get("/metrics").unwrap();
        assert_eq!(status, 200);
        let mut lines =
            body.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        lines.next().map_or(0, |count| count.parse().unwrap())
    }

    /// The most memory it has had resident, in MiB.
    #[must_use]
    pub fn peak_mib(&self) -> u64 {
        proc::peak_mib(self.pid()).expect("it runs")
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may have ended: then there is nothing to kill, and nothing to say about it.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(kept) = std::env::var_os("TEST_KEEP_LOGS") {
            let name = self.log.parent().and_then(Path::file_name).unwrap_or_default();
            let copy = Path::new(&kept).join(name).with_extension(format!("{}.log", self.id));
            if let Err(error) = fs::copy(&self.log, &copy) {
                eprintln!("cannot keep the log of {}: {error}", self.id);
            }
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- the last lines of {} ---\n{}\n---", self.id, last.join("\n"));
        }
    }
}

/// The address in the line that says where probes are served.
fn served_at(line: &str) -> Option<String> {
    if !line.contains("serving probes and metrics") {
        return None;
    }
    find(&serde_json::from_str(line).ok()?, "address")
}

/// The text of the field `name`, however deep the log format puts it.
fn find(value: &Value, name: &str) -> Option<String> {
    let fields = value.as_object()?;
    match fields.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => fields.values().find_map(|below| find(below, name)),
    }
}

/// A program of the workspace, which cargo builds beside the tests.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(program.exists(), "{} is missing: cargo test --workspace builds it", program.display());
    program
}
