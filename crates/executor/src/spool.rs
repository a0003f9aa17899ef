//! Standard output in files: written while it is read, bounded per run and for all runs together.
//!
//! Every pool has a directory of its own below `executor.spool.dir` and holds a lock on it while it
//! lives. At its start it removes those that nobody holds: what workers that died have left. Nothing else
//! in the directory is touched.
//!
//! A file goes with the last handle to it. Where there is no room a program is not held up and its output
//! not cut off in silence: it is read to its end, and the run fails.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use drakkar_core::{Failure, SpooledFile};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    runtime::Handle,
};
use tokio_util::context::TokioContext;
use tracing::{info, warn};

use crate::Run;

mod removal; // what nobody holds any more

use removal::Removal;
pub use removal::SpoolWatch;

/// How the directories are called: `drakkar-spool-{token}`.
const PREFIX: &str = "drakkar-spool-";

/// Held while directories are made and removed.
const DOOR: &str = "drakkar-spool.lock";

/// In each directory; held while its owner lives.
const LOCK: &str = "lock";

/// The `executor.spool` section: where standard output goes that is too large for memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Directory for the output of tasks that ask for a file (`docs/executor.md#output-in-a-file`);
    /// workers may share it. Default: none: such a task fails.
    pub dir: Option<PathBuf>,
    /// Bytes of one file; the rest is read, discarded and counted. Default: `1073741824` (1 GiB).
    pub max_task_bytes: u64,
    /// Bytes of all files of a worker together; a run for which there is no room fails. When
    /// results that wait hold half of it, nothing more begins
    /// (`docs/executor.md#output-in-a-file`). Default: `8589934592` (8 GiB).
    pub max_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { dir: None, max_task_bytes: 1 << 30, max_bytes: 8 << 30 }
    }
}

impl SpoolConfig {
    /// What cannot be, each text with its key below `executor`.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            wrong.push("spool.dir: must not be empty; leave it out to spool nothing".to_owned());
        }
        if self.max_task_bytes == 0 {
            wrong.push("spool.max_task_bytes: must be at least 1".to_owned());
        }
        if self.max_bytes < self.max_task_bytes {
            wrong.push(
                "spool.max_bytes: must not be less than executor.spool.max_task_bytes".to_owned(),
            );
        }
        wrong
    }
}

/// The directory of one pool. Removed when the pool and all its files are gone; by a thread, which also
/// removes the files.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    removal: Removal,
    max_task_bytes: u64,
    max_bytes: u64,
    files: AtomicU64,
    /// Whose threads write, so that a slot can wait for them and for other things.
    runtime: Handle,
}

impl Spool {
    /// Makes the directory, and removes those of workers that are dead; `None` where none is configured.
    pub(crate) fn open(config: &SpoolConfig) -> io::Result<Option<Arc<Self>>> {
        Self::open_with(config, |path| fs::remove_file(path))
    }

    fn open_with(
        config: &SpoolConfig,
        remove: impl Fn(&Path) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Option<Arc<Self>>> {
        let Some(parent) = &config.dir else { return Ok(None) };
        let parent = std::path::absolute(parent)?;
        fs::create_dir_all(&parent)?;
        let door =
            File::options().write(true).create(true).truncate(false).open(parent.join(DOOR))?;
        door.lock()?;
        remove_abandoned(&parent)?;
        let token = format!("{PREFIX}{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = parent.join(token);
        // What programs print is nobody else's business.
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::create_new(path.join(LOCK))?;
        // Whoever can lock it knows that nobody owns the directory.
        lock.lock()?;
        let removal = Removal::start(path.clone(), lock, remove)?;
        Ok(Some(Arc::new(Self {
            path,
            removal,
            max_task_bytes: config.max_task_bytes,
            max_bytes: config.max_bytes,
            files: AtomicU64::default(),
            runtime: Handle::try_current().map_err(io::Error::other)?,
        })))
    }

    /// A file for one run.
    pub(crate) async fn create(self: &Arc<Self>) -> io::Result<SpoolWriter> {
        self.removal.keeps_up().await;
        let number = self.files.fetch_add(1, Relaxed);
        let path = self.path.join(number.to_string());
        let spool = Arc::clone(self);
        // The slip is made where the file is: it removes the file if nobody waits for it any more.
        let open = move || {
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            io::Result::Ok((file, Slip { path, reserved: 0, spool }))
        };
        let (file, slip) = self.runtime.spawn_blocking(open).await??;
        Ok(SpoolWriter::new(file, slip))
    }

    /// Sees the end of it.
    pub(crate) fn watch(&self) -> SpoolWatch {
        self.removal.watch()
    }

    async fn reserve(&self, bytes: u64) -> io::Result<()> {
        if self.removal.books.reserve(bytes, self.max_bytes).await {
            return Ok(());
        }
        let full = format!("executor.spool.max_bytes ({}) is used up", self.max_bytes);
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, full))
    }
}

/// Removes the directories whose lock nobody holds.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if !is_ours || !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        let lock = File::options().write(true).open(path.join(LOCK));
        match lock.map(|lock| lock.try_lock()) {
            Ok(Ok(())) => {}
            Ok(Err(fs::TryLockError::WouldBlock)) => continue,
            Ok(Err(fs::TryLockError::Error(error))) => return Err(error),
            // Whoever made it died before the lock was there: making is done behind the door.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(category = "executor", path = %path.display(), %error, "cannot see whether the owner of a spool directory lives");
                continue;
            }
        }
        // It may be another user's. It is in nobody's way.
        if let Err(error) = fs::remove_dir_all(&path) {
            warn!(category = "executor", path = %path.display(), %error, "cannot remove what a dead worker spooled");
        } else {
            info!(category = "executor", path = %path.display(), "removed what a dead worker spooled");
        }
    }
    Ok(())
}

/// Entitles to a file and the room it takes; dropped, it has the one removed and the other given back.
struct Slip {
    path: PathBuf,
    reserved: u64,
    spool: Arc<Spool>,
}

impl Drop for Slip {
    fn drop(&mut self) {
        self.spool.removal.add(std::mem::take(&mut self.path), self.reserved);
    }
}

/// A file while it is written. Dropped, it is removed.
pub(crate) struct SpoolWriter {
    file: BufWriter<tokio::fs::File>,
    slip: Slip,
    written: u64,
    dropped: u64,
    trouble: Option<io::Error>,
    /// Whether the disk has been given something and has not answered. It stays so when nobody waits for
    /// the answer: then the file is not whole.
    under_way: Arc<AtomicBool>,
}

impl SpoolWriter {
    fn new(file: File, slip: Slip) -> Self {
        Self {
            file: BufWriter::new(file.into()),
            slip,
            written: 0,
            dropped: 0,
            trouble: None,
            under_way: Arc::default(),
        }
    }

    /// Whether the disk is waited for.
    pub(crate) fn under_way(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.under_way)
    }

    /// Takes what there is room for. What goes wrong is told at the end: the program must not block.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // Until it is written: whoever stops waiting has dropped it.
        self.dropped += bytes.len() as u64;
        let room = self.slip.spool.max_task_bytes.saturating_sub(self.written);
        let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if taken == 0 || self.trouble.is_some() {
            return;
        }
        let bytes = &bytes[..taken];
        self.under_way.store(true, Relaxed);
        let stored = self.store(bytes).await;
        self.under_way.store(false, Relaxed);
        match stored {
            Ok(()) => {
                self.written += taken as u64;
                self.dropped -= taken as u64;
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    async fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.slip.spool.reserve(bytes.len() as u64).await?;
        self.slip.reserved += bytes.len() as u64;
        let runtime = self.slip.spool.runtime.clone();
        TokioContext::new(self.file.write_all(bytes), runtime).await
    }

    /// Waits until the disk has taken everything. Who does not wait to the end has no file.
    pub(crate) async fn finish(&mut self) {
        if self.trouble.is_some() || self.under_way.swap(true, Relaxed) {
            return;
        }
        let runtime = self.slip.spool.runtime.clone();
        self.trouble = TokioContext::new(self.file.flush(), runtime).await.err();
        self.under_way.store(false, Relaxed);
    }

    /// Puts the file, if it is whole, into the run. Where it is not a run that succeeded has failed.
    pub(crate) fn attach(mut self, run: Run) -> Run {
        let trouble = match self.trouble.take() {
            Some(error) => Err(error),
            None if self.under_way.load(Relaxed) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the disk did not take it in time, and not all of it was read",
            )),
            None => Ok(()),
        };
        let (mut output, failure) = match run {
            Run::Finished(output) => (output, None),
            Run::Failed { failure, output } => (output, Some(failure)),
        };
        let failure = match trouble {
            Ok(()) => {
                output.stdout_dropped += self.dropped;
                let path = self.slip.path.clone();
                output.spooled = Some(SpooledFile::new(path, self.written, self.slip));
                failure
            }
            Err(error) => {
                output.stdout_dropped += self.dropped + self.written;
                let lost = || Failure::Io(format!("cannot spool standard output: {error}"));
                Some(failure.unwrap_or_else(lost))
            }
        };
        match failure {
            None => Run::Finished(output),
            Some(failure) => Run::Failed { failure, output },
        }
    }
}

#[cfg(test)]
mod tests;
