//! Payloads → files: which belong to which file, when a file is full, what an error means.
//!
//! All of it happens on the sink's one thread, one job at a time: everything that waited is one write
//! and one `fdatasync` per file. A payload is never divided between two files.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc,
    time::SystemTime,
};

use drakkar_core::{Delivery, FileContent, FilePayload, SinkError};
use tracing::debug;

use super::{
    append::{self, Addition},
    directory::{self, Directory, Failed},
    keeper,
    rotation::Rotation,
    template::Places,
};
use crate::Fsync;

/// Files that something is remembered of; beyond that all is looked up again.
const REMEMBERED: usize = 4_096;

/// The time, as the sink is told it.
pub(super) type Clock = Box<dyn Fn() -> SystemTime + Send>;

/// The thread's own: the only one that touches the directory, but for renamed files.
pub(super) struct Writer {
    pub directory: Directory,
    pub places: Places,
    pub rotation: Rotation,
    pub keeper: Option<mpsc::Sender<keeper::Job>>,
    pub fsync: Fsync,
    pub clock: Clock,
    pub seen: HashMap<PathBuf, Seen>,
}

/// What is remembered of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    inode: u64,
    /// Up to here it is known to end outside of quotes.
    clean: u64,
    /// Since when it is there, as far as can be told.
    begun: SystemTime,
}

impl Writer {
    /// Writes what can be written and says what became of each payload.
    pub(super) fn write(&mut self, payloads: &[FilePayload]) -> Vec<Delivery> {
        if let Err(error) = self.follow() {
            debug!(%error, "cannot find the directory");
            return vec![Delivery::Transient(error); payloads.len()];
        }
        let now = (self.clock)();
        let mut outcomes = Vec::with_capacity(payloads.len());
        let mut files: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (index, payload) in payloads.iter().enumerate() {
            outcomes.push(match self.place(payload, now) {
                Err(error) => Delivery::Permanent(error),
                Ok(path) => {
                    files.entry(path).or_default().push(index);
                    Delivery::Confirmed // Unless its file says otherwise.
                }
            });
        }
        for (path, of_file) in files {
            let contents: Vec<_> = of_file.iter().map(|&index| &payloads[index].content).collect();
            let written = self.fill(&path, &contents, now);
            for (index, outcome) in of_file.into_iter().zip(written) {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }

    /// Is the directory there, and does it take files?
    pub(super) fn probe(&mut self) -> Result<(), SinkError> {
        self.follow()?;
        self.directory.prove_writable().map_err(|error| of_directory(&self.directory, &error))
    }

    fn follow(&mut self) -> Result<(), SinkError> {
        match self.directory.follow() {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.seen.clear(); // Inodes of another file system, maybe.
                Ok(())
            }
            Err(error) => Err(of_directory(&self.directory, &error)),
        }
    }

    /// The file of `payload`; an error says why it can never be written.
    fn place(&self, payload: &FilePayload, now: SystemTime) -> Result<PathBuf, SinkError> {
        let path = self.places.of(payload, now)?;
        let shown = path.display();
        if path.file_name().is_some_and(|name| self.rotation.is_too_long(name)) {
            let text = format!("{shown} is too long to be renamed");
            return Err(SinkError::new("name_too_long", text));
        }
        if let FileContent::Line(text) = &payload.content
            && text.contains(&b'\n')
        {
            let text = format!("the line for {shown} contains a line feed");
            return Err(SinkError::new("line_feed", text));
        }
        Ok(path)
    }

    /// Writes `contents` to the file, and to those that take its place when it is full.
    fn fill(&mut self, path: &Path, contents: &[&FileContent], now: SystemTime) -> Vec<Delivery> {
        let mut outcomes = Vec::with_capacity(contents.len());
        while outcomes.len() < contents.len() {
            match self.append(path, &contents[outcomes.len()..], now) {
                Ok(written) => outcomes.extend(written),
                Err(error) => outcomes.resize(contents.len(), judged(path, &error)),
            }
        }
        outcomes
    }

    /// Writes what there is room for; where there is room for nothing, the file is renamed instead.
    fn append(
        &mut self,
        path: &Path,
        contents: &[&FileContent],
        now: SystemTime,
    ) -> Result<Vec<Delivery>, Failed> {
        let mut file = self.directory.open_file(path)?;
        let size = file.metadata()?.len();
        let seen = self.look(path, &file, size, now)?;
        if 0 < size && self.rotation.is_over(seen.begun, now) {
            return Ok(self.rotate(path, file, now)?);
        }
        let added = Addition::to(&file, seen.clean)?.take(contents, self.rotation.max_bytes)?;
        if added.outcomes.is_empty() {
            return Ok(self.rotate(path, file, now)?);
        }
        // Before the lines, so that a failure leaves none to be written twice.
        if self.fsync == Fsync::Batch && size == 0 {
            self.directory.sync_names(path)?;
        }
        append::append(&mut file, &added.bytes, self.fsync)?;
        self.remember(path, Seen { clean: added.clean, ..seen });
        Ok(added.outcomes)
    }

    /// Ends the file; what was confirmed of it is on the disk already. No payload is settled by this.
    fn rotate(&mut self, path: &Path, file: File, now: SystemTime) -> io::Result<Vec<Delivery>> {
        self.directory.rename(path, now)?;
        drop(file); // And with it the lock.
        self.seen.remove(path);
        if let (Some(keeper), Some(name)) = (&self.keeper, path.file_name()) {
            let directory = directory::named(directory::parent(path)).to_owned();
            let base = self.directory.handle();
            let job = keeper::Job { base, directory, name: name.to_owned() };
            if keeper.send(job).is_err() {
                debug!(path = %path.display(), "the thread that looks after renamed files has ended");
            }
        }
        Ok(Vec::new())
    }

    fn look(&self, path: &Path, file: &File, size: u64, now: SystemTime) -> io::Result<Seen> {
        let metadata = file.metadata()?;
        if let Some(seen) = self.seen.get(path)
            && seen.inode == metadata.ino()
            && 0 < size
        // Or it was removed and made again.
        {
            let clean = if seen.clean <= size { seen.clean } else { 0 };
            return Ok(Seen { clean, ..*seen });
        }
        let begun = match metadata.created() {
            _ if size == 0 => now,
            Ok(created) => created,
            // Not every file system knows; not older than its last line, in any case.
            Err(_) => metadata.modified()?,
        };
        Ok(Seen { inode: metadata.ino(), clean: 0, begun })
    }

    fn remember(&mut self, path: &Path, seen: Seen) {
        if let Some(known) = self.seen.get_mut(path) {
            *known = seen;
            return;
        }
        if REMEMBERED <= self.seen.len() {
            self.seen.clear();
        }
        self.seen.insert(path.to_owned(), seen);
    }
}

/// What is wrong with the directory itself.
fn of_directory(directory: &Directory, error: &io::Error) -> SinkError {
    let text = format!("base_path {}: {error}", directory.path().display());
    SinkError::new(format!("{:?}", error.kind()), text)
}

/// What an error of the system means for the payloads of `path`.
fn judged(path: &Path, failed: &Failed) -> Delivery {
    use io::ErrorKind as Kind;
    let shown = path.display();
    let (Failed::Opening(error) | Failed::Writing(error)) = failed;
    let class = |class: &str| SinkError::new(class, format!("{shown}: {error}"));
    // The directory handle's own refusal; the system's `PermissionDenied` has a number.
    let escapes = error.kind() == Kind::PermissionDenied && error.raw_os_error().is_none();
    debug!(path = %shown, %error, "cannot append");
    if escapes {
        return Delivery::Permanent(class("outside_base_path"));
    }
    let error_kind = class(&format!("{:?}", error.kind()));
    if matches!(failed, Failed::Writing(_)) {
        return Delivery::Transient(error_kind);
    }
    match error.kind() {
        Kind::InvalidFilename
        | Kind::InvalidInput
        | Kind::IsADirectory
        | Kind::NotADirectory
        | Kind::AlreadyExists => Delivery::Permanent(error_kind),
        _ => Delivery::Transient(error_kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_is_refused_and_a_disk_that_calls_a_write_invalid_is_waited_for() {
        let path = Path::new("a.jsonl");
        let is_final = |failed| matches!(judged(path, &failed), Delivery::Permanent(_));
        for (code, there_can_be_no_such_file) in [(22, true), (21, true), (20, true), (28, false)] {
            let error = || io::Error::from_raw_os_error(code);
            assert_eq!(is_final(Failed::Opening(error())), there_can_be_no_such_file, "{code}");
            assert!(!is_final(Failed::Writing(error())), "{code}");
        }
    }
}
