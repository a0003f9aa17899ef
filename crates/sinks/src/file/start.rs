//! Opening the directory at the start: tried until it works, or until the time is up.
//!
//! A disk may be mounted later than we start, and one that hangs may hang for ever. Where we may not write
//! that is said at once: most often nobody gives us the right while we wait. Each attempt is on
//! a thread of its own, which nobody waits for beyond that time, not even the end of the process.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::sync::oneshot;

use super::FileSink;
use crate::{
    FileSinkConfig,
    connect::{Attempt, ConnectError, patiently},
};

type Open = dyn Fn() -> io::Result<FileSink> + Send + Sync;

/// Opens the sink of the section `at` within that time.
pub(crate) async fn connect(
    at: String,
    config: &FileSinkConfig,
    worker: &str,
    within: Duration,
) -> Result<FileSink, ConnectError> {
    let error =
        |reason| ConnectError::Directory { key: at, path: config.base_path.clone(), reason };
    let (config, worker) = (config.clone(), worker.to_owned());
    let open: Arc<Open> = Arc::new(move || FileSink::open(&config, &worker));
    patiently(within, error, || attempt(Arc::clone(&open))).await
}

async fn attempt(open: Arc<Open>) -> Result<FileSink, Attempt> {
    let (reply, opened) = oneshot::channel();
    let started = thread::Builder::new()
        .name("file-sink-open".to_owned())
        // Whoever gave up waiting does not want it.
        .spawn(move || drop(reply.send(open())));
    started.map_err(|error| Attempt::Transient(error.to_string()))?;
    let opened = opened.await.map_err(|_| Attempt::Permanent("the thread panicked".to_owned()))?;
    opened.map_err(|error| {
        use io::ErrorKind as Kind;
        match error.kind() {
            // Waiting changes none of these.
            Kind::InvalidInput
            | Kind::InvalidFilename
            | Kind::NotADirectory
            | Kind::PermissionDenied
            | Kind::ReadOnlyFilesystem => Attempt::Permanent(error.to_string()),
            _ => Attempt::Transient(error.to_string()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
    };

    use tokio::time::Instant;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    fn config(base_path: &Path) -> FileSinkConfig {
        FileSinkConfig { base_path: base_path.to_owned(), ..FileSinkConfig::default() }
    }

    async fn refused(base_path: &Path, within: Duration) -> String {
        let at = "sinks.filesystem.f".to_owned();
        let Err(error) = connect(at, &config(base_path), "worker-1", within).await else {
            panic!("{} was opened", base_path.display());
        };
        error.to_string()
    }

    async fn patient(open: Arc<Open>) -> Result<FileSink, String> {
        let error = |reason| ConnectError::Directory {
            key: "sinks.filesystem.f".to_owned(),
            path: "/mnt/disk".into(),
            reason,
        };
        let opened = patiently(WITHIN, error, || attempt(Arc::clone(&open))).await;
        opened.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_disk_that_is_mounted_while_we_start_is_waited_for() {
        let temp = tempfile::TempDir::new().unwrap();
        let config = config(temp.path());
        let attempts = AtomicUsize::new(0);
        let open = move || match attempts.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::ErrorKind::NotFound.into()),
            1 => Err(io::ErrorKind::StorageFull.into()),
            _ => FileSink::open(&config, "worker-1"),
        };
        patient(Arc::new(open)).await.unwrap();
    }

    #[tokio::test]
    async fn what_this_user_may_not_write_is_said_at_once_with_what_to_do() {
        use io::ErrorKind as Kind;
        for kind in [Kind::PermissionDenied, Kind::ReadOnlyFilesystem, Kind::NotADirectory] {
            let error = patient(Arc::new(move || Err(kind.into()))).await.err().unwrap();
            let said = format!("/mnt/disk cannot be written to: {}; ", io::Error::from(kind));
            let advice =
                "make it a directory that this user may write to, on a disk that is mounted";
            assert!(error.starts_with(&format!("sinks.filesystem.f.base_path: {said}{advice}")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_does_not_hold_up_the_start() {
        let (end, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let open = move || {
            let ended = hang.lock().unwrap().recv();
            Err(io::Error::other(format!("{ended:?}")))
        };
        let begun = Instant::now();
        let error = patient(Arc::new(open)).await.err().unwrap();
        assert_eq!(begun.elapsed(), WITHIN);
        assert!(error.starts_with("sinks.filesystem.f.base_path: /mnt/disk "), "{error}");
        assert!(error.contains("no answer within 30s"), "{error}");
        drop(end);
    }

    #[tokio::test]
    async fn what_no_disk_changes_is_said_at_once_and_the_rest_when_the_time_is_up() {
        let temp = tempfile::TempDir::new().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = refused(&file.join("below"), Duration::from_hours(1)).await;
        assert!(error.contains("Not a directory"), "{error}");
        let dangling = temp.path().join("dangling");
        std::os::unix::fs::symlink(temp.path().join("not-there"), &dangling).unwrap();
        let error = refused(&dangling, Duration::from_millis(300)).await;
        assert!(error.contains("no answer within 300ms: "), "{error}");
    }
}
