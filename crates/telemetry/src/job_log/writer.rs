//! Lines → file. When it is full it becomes `{path}.1`, in the place of the one before.
//!
//! What cannot be written is counted and not tried again; the file is opened anew for what comes next. The
//! first failure is logged, and that it works again.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::mpsc::Receiver,
};

use prometheus::IntCounter;
use tracing::{debug, info, warn};

use super::Line;

/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;

pub(super) struct Writer {
    path: PathBuf,
    max_bytes: u64,
    dropped: IntCounter,
    /// What is open, and how long it is.
    file: Option<(File, u64)>,
    /// Whether it may be renamed: a regular file, and no link to one as `/dev/stdout` may be.
    is_regular: bool,
    batch: Vec<u8>,
    lines: u64,
    is_failing: bool,
}

impl Writer {
    pub(super) fn new(path: PathBuf, max_bytes: u64, dropped: IntCounter) -> Self {
        Self {
            path,
            max_bytes,
            dropped,
            file: None,
            is_regular: false,
            batch: Vec::new(),
            lines: 0,
            is_failing: false,
        }
    }

    /// Writes until nobody reports any more.
    pub(super) fn run(mut self, queue: &Receiver<Line>) {
        // A path that is wrong is said at the start, not after the first task.
        let opened = self.open();
        self.told(opened);
        while let Ok(line) = queue.recv() {
            self.add(&line);
            // All that waits is one write.
            while let Ok(line) = queue.try_recv() {
                self.add(&line);
            }
            self.flush();
        }
    }

    fn add(&mut self, line: &Line) {
        let before = self.batch.len();
        if serde_json::to_writer(&mut self.batch, line).is_err() {
            self.batch.truncate(before);
            return self.dropped.inc();
        }
        self.batch.push(b'\n');
        self.lines += 1;
        if BATCH <= self.batch.len() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let written = self.write();
        if written.is_err() {
            self.file = None;
            self.dropped.inc_by(self.lines);
        }
        self.batch.clear();
        self.lines = 0;
        self.told(written);
    }

    fn write(&mut self) -> io::Result<()> {
        self.open()?;
        let bytes = self.batch.len() as u64;
        let is_full = |(_, size): &mut (File, u64)| 0 < *size && self.max_bytes < *size + bytes;
        if self.is_regular && self.file.take_if(is_full).is_some() {
            let mut predecessor = OsString::from(&self.path);
            predecessor.push(".1");
            fs::rename(&self.path, predecessor)?;
            self.open()?;
        }
        let Some((file, size)) = &mut self.file else { return Ok(()) };
        let written = file.write_all(&self.batch);
        if written.is_ok() {
            *size += bytes;
        } else if let Err(error) = file.set_len(*size) {
            debug!(category = "executor", %error, "the job log may hold a part of a line");
        }
        written
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let mut file = File::options().read(true).append(true).create(true).open(&self.path)?;
        self.is_regular = fs::symlink_metadata(&self.path)?.is_file();
        let mut size = file.metadata()?.len();
        let mut last = [b'\n'];
        if 0 < size {
            file.read_exact_at(&mut last, size - 1)?;
        }
        if last != *b"\n" {
            // A line of which only a part was written.
            file.write_all(b"\n")?;
            size += 1;
        }
        self.file = Some((file, size));
        Ok(())
    }

    fn told(&mut self, written: io::Result<()>) {
        let path = self.path.display();
        match written {
            Err(error) if !self.is_failing => {
                warn!(category = "executor", %path, %error, "cannot write the job log; its lines are dropped");
                self.is_failing = true;
            }
            Ok(()) if self.is_failing => {
                let dropped = self.dropped.get();
                info!(category = "executor", %path, dropped, "the job log is written again");
                self.is_failing = false;
            }
            Ok(()) | Err(_) => {}
        }
    }
}
