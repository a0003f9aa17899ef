//! A file sink with a directory of its own, written to by tests.

#![allow(dead_code, reason = "each test program uses what it needs")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use drakkar_core::{FilePayload, Payload, hold::HoldBoard, retry::Backoff};
use drakkar_sinks::{FileSink, FileSinkConfig, Settled, Sinks};
use flate2::read::MultiGzDecoder;
use futures_util::future::join_all;
use tempfile::TempDir;

/// Longest wait for anything that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(40);

pub(crate) struct Desk {
    pub base: TempDir,
    pub sinks: Sinks,
    pub board: Arc<HoldBoard>,
    /// What the sink takes for the time.
    pub now: Arc<Mutex<SystemTime>>,
    config: FileSinkConfig,
}

impl Desk {
    pub(crate) fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub(crate) fn open_with(set: impl FnOnce(&mut FileSinkConfig)) -> Self {
        let base = TempDir::new().unwrap();
        let mut config =
            FileSinkConfig { base_path: base.path().join("out/results"), ..Default::default() };
        set(&mut config);
        let now = Arc::new(Mutex::new(SystemTime::now()));
        let sinks = sinks(&config, &now);
        Self { base, sinks, board: Arc::default(), now, config }
    }

    /// What a worker does that starts again, configured otherwise or not.
    pub(crate) fn restart_with(&mut self, set: impl FnOnce(&mut FileSinkConfig)) {
        set(&mut self.config);
        self.sinks = sinks(&self.config, &self.now);
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.base.path().join("out/results").join(path)
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// The names in the directory, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.path(""))
    }

    pub(crate) async fn append(&self, path: impl AsRef<Path>, text: &str) -> Settled {
        self.deliver(FilePayload::line(path.as_ref(), text.to_owned())).await
    }

    pub(crate) async fn deliver(&self, payload: FilePayload) -> Settled {
        self.sinks.deliver(Payload::File(payload), &self.board.task()).await
    }

    /// All at once; they come in this order.
    pub(crate) async fn deliver_all(&self, payloads: Vec<FilePayload>) -> Vec<Settled> {
        let hold = self.board.task();
        let one = |payload| self.sinks.deliver(Payload::File(payload), &hold);
        join_all(payloads.into_iter().map(one)).await
    }

    /// The class of the error that refuses this path.
    pub(crate) async fn refusal(&self, path: impl AsRef<Path>) -> String {
        class(self.append(&path, "x").await)
    }
}

fn sinks(config: &FileSinkConfig, now: &Arc<Mutex<SystemTime>>) -> Sinks {
    let backoff = Backoff { initial: Duration::from_millis(5), max: Duration::from_millis(20) };
    let now = Arc::clone(now);
    let clock = move || *now.lock().unwrap();
    let sink = FileSink::open_with_clock(config, "worker-1", clock).unwrap();
    Sinks::builder(Arc::new(())).backoff(backoff).filesystem("files", sink).build()
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// What a file says, compressed or not.
pub(crate) fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    let mut text = String::new();
    if is_compressed(path) {
        MultiGzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text
}

pub(crate) fn class(settled: Settled) -> String {
    match settled {
        Settled::Refused(refused) => refused.error.class,
        Settled::Confirmed => "confirmed".to_owned(),
    }
}

pub(crate) fn line_for(path: impl AsRef<Path>, text: &str) -> Payload {
    Payload::File(FilePayload::line(path.as_ref(), text.to_owned()))
}
