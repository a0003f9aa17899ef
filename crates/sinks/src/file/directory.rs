//! The directory below which every file is: finding it again, opening, locking, renaming.
//!
//! Containment is the directory handle's (`cap-std`): a path that leaves it, by `..`, as an absolute
//! path or through a symlink, is refused. Files are opened for each write, so no descriptor is kept,
//! however many there are.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io, iter,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Once},
    thread,
    time::{Duration, SystemTime},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, MetadataExt as _, OpenOptions},
};
use tokio::time::Instant;
use tracing::warn;

use super::rotation::{self, Age, COMPRESSED};

/// How long another process may hold the lock on a file.
const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// No locks are available; the standard library has no kind for it.
const ENOLCK: i32 = 37;
/// How often in a row a file may be renamed while its lock is waited for.
const RENAMED_MEANWHILE: usize = 100;

/// Why a file was not written to.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was not opened: maybe there can be no such file.
    Opening(io::Error),
    /// It is there; whatever the error is called, it is about the disk.
    Writing(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Writing(error)
    }
}

/// A directory that files are appended to.
pub(super) struct Directory {
    path: PathBuf,
    dir: Arc<Dir>,
}

impl Directory {
    /// Makes the directory where it does not exist, on the disk as well, and proves that files can be
    /// made in it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let made = missing(path);
        Dir::create_ambient_dir_all(path, ambient_authority())?;
        for level in made {
            sync_opened(&File::open(named(parent(level)))?)?;
        }
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        let directory = Self { path: path.to_owned(), dir: Arc::new(dir) };
        directory.prove_writable()?;
        Ok(directory)
    }

    /// Goes on in the directory that has the name now, and says whether that is another one. It is not
    /// made: where it is missing it may be on a disk that is not there, and what was written below its
    /// name meanwhile would be hidden later.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        let named = fs::metadata(&self.path)?;
        let opened = self.dir.dir_metadata().map(|opened| (opened.dev(), opened.ino()));
        if is_still((named.dev(), named.ino()), opened) {
            return Ok(false);
        }
        self.dir = Arc::new(Dir::open_ambient_dir(&self.path, ambient_authority())?);
        warn!(
            base_path = %self.path.display(),
            "another directory has this name now, or what was opened is gone; what comes is written there"
        );
        Ok(true)
    }

    /// Which one it is, for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file and removes it.
    pub(super) fn prove_writable(&self) -> io::Result<()> {
        let name = format!(".drakkar-{:016x}", fastrand::u64(..));
        self.dir.create(&name)?;
        self.dir.remove_file(&name)
    }

    pub(super) fn handle(&self) -> Arc<Dir> {
        Arc::clone(&self.dir)
    }

    /// Opens the file for appending, makes it where it does not exist, and keeps other workers out
    /// until it is closed: taking back a write, or renaming the file, must not take theirs.
    pub(super) fn open_file(&self, path: &Path) -> Result<File, Failed> {
        for _ in 0..RENAMED_MEANWHILE {
            let file = self.append_to(path).map_err(Failed::Opening)?;
            lock(&file)?;
            match self.dir.metadata(path) {
                Ok(named) if is_same(&named, &file)? => return Ok(file),
                // Renamed or removed between opening and locking: what is written now comes too late.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::from(io::ErrorKind::WouldBlock).into())
    }

    fn append_to(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let file = match self.dir.open_with(path, &options) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    self.dir.create_dir_all(parent)?;
                }
                self.dir.open_with(path, &options)?
            }
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(file.into_std())
    }

    /// A file is on the disk when the directories that name it are.
    pub(super) fn sync_names(&self, path: &Path) -> io::Result<()> {
        for dir in path.ancestors().skip(1) {
            sync_opened(&self.dir.open(named(dir))?.into_std())?;
        }
        Ok(())
    }

    /// Gives the file a name that is younger than those of all that were renamed before it. Whoever calls
    /// this has locked the file.
    pub(super) fn rename(&self, path: &Path, now: SystemTime) -> io::Result<()> {
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let dir = self.dir.open_dir(named(parent(path)))?;
        let exists = |name: &OsStr| match dir.symlink_metadata(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true),
        };
        let there = dir.entries()?.map(|entry| Ok(entry?.file_name()));
        let first = rotation::next(name, now, there.collect::<io::Result<Vec<_>>>()?);
        // The list may lack a file that is being compressed meanwhile.
        for age in iter::successors(first, Age::following) {
            let renamed = rotation::renamed(name, &age);
            let mut compressed = renamed.clone();
            compressed.push(COMPRESSED);
            // In this order: a file that is being compressed has one of the two names all the time, and
            // the compressed one last. Nobody else renames a file of this name without its lock.
            if !exists(&renamed)? && !exists(&compressed)? {
                return dir.rename(name, &dir, &renamed);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Whether the directory that was opened has the name still. One that cannot be asked any more has not: network
/// file systems forget what was opened when they are mounted anew, or their server starts again.
fn is_still(named: (u64, u64), opened: io::Result<(u64, u64)>) -> bool {
    opened.is_ok_and(|opened| opened == named)
}

/// The levels of `path` that do not exist.
fn missing(path: &Path) -> Vec<&Path> {
    path.ancestors().take_while(|level| !named(level).exists()).collect()
}

/// The directory of a file, empty for the top one.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Opening needs a name.
pub(super) fn named(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn is_same(named: &cap_std::fs::Metadata, file: &File) -> io::Result<bool> {
    let opened = file.metadata()?;
    Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino()))
}

/// A name is on the disk when its directory is.
pub(super) fn sync(dir: &Dir) -> io::Result<()> {
    sync_opened(&dir.open(".")?.into_std())
}

fn sync_opened(dir: &File) -> io::Result<()> {
    where_possible(dir.sync_all())
}

/// Some file systems cannot sync a directory, and call that invalid: their names are as safe as they
/// make them, now and at any later attempt.
fn where_possible(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// Locks the file until it is closed.
pub(super) fn lock(file: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // Then nothing can be done about neighbours.
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    warn!(
                        %error,
                        "files cannot be locked here; workers that append to the same file may mix their \
                         lines: put {{worker_id}} into `path`"
                    );
                });
                return Ok(());
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Whether files cannot be locked there at all: the file system knows no locks, or nobody keeps them for it
/// (NFS without a lock manager).
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_asked_any_more_is_opened_anew() {
        const ESTALE: i32 = 116;
        const ENOTCONN: i32 = 107;
        assert!(is_still((1, 2), Ok((1, 2))));
        assert!(!is_still((1, 2), Ok((1, 3))));
        for dead in [ESTALE, ENOTCONN] {
            assert!(!is_still((1, 2), Err(io::Error::from_raw_os_error(dead))));
        }
    }

    #[test]
    fn a_file_system_without_locks_is_written_to_and_one_whose_locks_fail_is_not() {
        const ENOSYS: i32 = 38;
        const EOPNOTSUPP: i32 = 95;
        const EBADF: i32 = 9;
        const EIO: i32 = 5;
        let has_none = |code| has_no_locks(&io::Error::from_raw_os_error(code));
        assert_eq!([ENOLCK, ENOSYS, EOPNOTSUPP].map(has_none), [true; 3]);
        assert_eq!([EBADF, EIO].map(has_none), [false; 2]);
    }

    #[test]
    fn a_file_system_that_cannot_sync_directories_is_written_to_and_one_that_fails_is_not() {
        let [invalid, broken] = [22, 5].map(|code| Err(io::Error::from_raw_os_error(code)));
        assert!(where_possible(invalid).is_ok());
        assert!(where_possible(broken).is_err());
    }

    #[test]
    fn the_levels_that_are_missing_end_at_the_first_that_is_there() {
        let temp = tempfile::TempDir::new().unwrap();
        let path = temp.path().join("a/b");
        assert_eq!(missing(&path), [&*path, &temp.path().join("a")]);
        assert_eq!(missing(temp.path()), [] as [&Path; 0]);
        let relative = Path::new("not-there/b");
        assert_eq!(missing(relative), [relative, Path::new("not-there")]);
    }
}
