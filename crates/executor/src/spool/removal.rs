//! Files go on a thread of their own: a disk that hangs stops whoever waits for it, and whoever lets go
//! of a result must not.
//!
//! What waits to be removed keeps its room, and there is no end to neither: with too much of it no
//! further file is begun. What is not removed when the worker ends is left to the next one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use tokio::sync::{Notify, watch};
use tracing::warn;

/// Files that wait to be removed; with more, no file is begun.
pub(super) const MOST: usize = 1_024;

/// What the files of a spool come to.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Bytes of all that are there.
    pub(super) used: AtomicU64,
    /// Files that nobody holds and that are there all the same.
    leaving: AtomicUsize,
    one_left: Notify,
}

impl Books {
    /// Takes room for `bytes` more of `most`; `false` where there is none. What nobody holds any more is
    /// waited for, as long as the disk takes to remove it.
    pub(super) async fn reserve(&self, bytes: u64, most: u64) -> bool {
        let room = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
        self.until(|leaving| match self.used.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => Some(true),
            Err(_) => (leaving == 0).then_some(false),
        })
        .await
    }

    /// Waits until `look` finds an answer at how many files are to be removed.
    async fn until<T>(&self, look: impl Fn(usize) -> Option<T>) -> T {
        loop {
            let mut one_left = pin!(self.one_left.notified());
            one_left.as_mut().enable(); // Before the look, so that nothing is missed.
            if let Some(answer) = look(self.leaving.load(Acquire)) {
                return answer;
            }
            one_left.await;
        }
    }
}

/// A file that nobody holds.
struct Leaving {
    path: PathBuf,
    reserved: u64,
}

/// The way to the thread. With it the directory goes.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) books: Arc<Books>,
    queue: Sender<Leaving>,
    ended: watch::Receiver<()>,
}

impl Removal {
    /// Starts the thread, which removes files by `remove`, and at last the directory with its `lock`.
    pub(super) fn start(
        dir: PathBuf,
        lock: File,
        remove: impl Fn(&Path) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let books = Arc::<Books>::default();
        let (queue, leaving) = mpsc::channel();
        let (ending, ended) = watch::channel(());
        let theirs = Arc::clone(&books);
        thread::Builder::new().name("drakkar-spool".to_owned()).spawn(move || {
            remove_all(&leaving, &theirs, remove);
            if let Err(error) = fs::remove_dir_all(&dir) {
                let path = dir.display();
                warn!(category = "executor", %path, %error, "cannot remove the spool directory");
            }
            drop(lock); // Until here nobody else may take the directory for abandoned.
            drop(ending);
        })?;
        Ok(Self { books, queue, ended })
    }

    /// Has a file removed. Waits for nothing.
    pub(super) fn add(&self, path: PathBuf, reserved: u64) {
        self.books.leaving.fetch_add(1, Relaxed);
        // The thread ends after this: by a fault of ours at the worst, and then the directory is left.
        drop(self.queue.send(Leaving { path, reserved }));
    }

    /// Waits until there is not too much to be removed.
    pub(super) async fn keeps_up(&self) {
        self.books.until(|leaving| (leaving < MOST).then_some(())).await;
    }

    pub(super) fn watch(&self) -> SpoolWatch {
        SpoolWatch(self.ended.clone())
    }
}

fn remove_all(files: &Receiver<Leaving>, books: &Books, remove: impl Fn(&Path) -> io::Result<()>) {
    for Leaving { path, reserved } in files {
        match remove(&path) {
            Ok(()) => {}
            // The handler has moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                warn!(category = "executor", %path, %error, "cannot remove a spooled file");
            }
        }
        books.used.fetch_sub(reserved, Relaxed);
        books.leaving.fetch_sub(1, Release); // Whoever sees it sees the room as well.
        books.one_left.notify_waiters();
    }
}

/// Sees the end of a spool; does not put it off.
#[derive(Debug, Clone)]
pub struct SpoolWatch(watch::Receiver<()>);

impl SpoolWatch {
    /// Waits until the last file and the directory are removed.
    pub async fn gone(mut self) {
        // Nothing is ever sent: the error is the end.
        while self.0.changed().await.is_ok() {}
    }
}
