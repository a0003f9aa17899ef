//! Lines → files below a directory.
//!
//! All I/O is done by one thread per sink, one job at a time: everything that waited is one write and
//! one `fdatasync` per file. Files are opened for each write, so one that was renamed or removed
//! meanwhile is made anew, and no descriptor is kept. Containment is the directory handle's
//! (`cap-std`): a path that leaves it, by `..`, as an absolute path or through a symlink, is refused.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Component, Path, PathBuf},
    sync::mpsc,
    thread,
};

use bytes::Bytes;
use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions},
};
use drakkar_core::{Delivery, FilePayload, Sink, SinkError};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{FileSinkConfig, Fsync};

mod append; // one file: all lines or none

/// A directory as a destination.
pub struct FileSink {
    jobs: mpsc::Sender<Job>,
}

enum Job {
    Write {
        lines: Vec<Line>,
        reply: oneshot::Sender<Vec<Delivery>>,
    },
    /// Is the directory there, and does it take files?
    Probe(oneshot::Sender<io::Result<()>>),
}

struct Line {
    path: PathBuf,
    text: Bytes,
}

impl FileSink {
    /// Opens the directory, makes it where it does not exist, and starts the thread that writes.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, opened or written to.
    pub fn open(config: &FileSinkConfig) -> io::Result<Self> {
        Dir::create_ambient_dir_all(&config.base_path, ambient_authority())?;
        let dir = Dir::open_ambient_dir(&config.base_path, ambient_authority())?;
        prove_writable(&dir)?;
        let writer = Writer { dir, fsync: config.fsync };
        let (jobs, queue) = mpsc::channel();
        thread::Builder::new().name("file-sink".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(Self { jobs })
    }
}

fn prove_writable(dir: &Dir) -> io::Result<()> {
    let name = format!(".drakkar-{:016x}", fastrand::u64(..));
    dir.create(&name)?;
    dir.remove_file(&name)
}

impl Sink for FileSink {
    type Payload = FilePayload;

    async fn deliver(&self, batch: &[FilePayload]) -> Vec<Delivery> {
        let lines = batch
            .iter()
            .map(|payload| Line { path: payload.path.clone(), text: payload.line.clone() })
            .collect();
        let (reply, outcomes) = oneshot::channel();
        if self.jobs.send(Job::Write { lines, reply }).is_ok()
            && let Ok(outcomes) = outcomes.await
        {
            return outcomes;
        }
        vec![Delivery::Transient(ended()); batch.len()]
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Probe(reply)).map_err(|_| ended())?;
        let answer = answer.await.map_err(|_| ended())?;
        answer.map_err(|error| SinkError::new(format!("{:?}", error.kind()), error.to_string()))
    }
}

fn ended() -> SinkError {
    SinkError::new("writer_ended", "the thread that writes has ended")
}

/// The thread's own: the only one that touches the directory.
struct Writer {
    dir: Dir,
    fsync: Fsync,
}

impl Writer {
    /// Works until the sink is dropped.
    fn run(&self, queue: &mpsc::Receiver<Job>) {
        // Whoever gave up waiting does not want to know.
        while let Ok(job) = queue.recv() {
            match job {
                Job::Write { lines, reply } => drop(reply.send(self.write(&lines))),
                Job::Probe(reply) => drop(reply.send(prove_writable(&self.dir))),
            }
        }
    }

    fn write(&self, lines: &[Line]) -> Vec<Delivery> {
        let mut outcomes = Vec::with_capacity(lines.len());
        let mut files: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            outcomes.push(match refusal(line) {
                Some(error) => Delivery::Permanent(error),
                None => {
                    files.entry(&line.path).or_default().push(index);
                    Delivery::Confirmed // Unless its file says otherwise.
                }
            });
        }
        for (path, of_file) in files {
            let texts = of_file.iter().map(|&index| &*lines[index].text);
            if let Err(error) = self.append(path, texts) {
                let delivery = judged(path, &error);
                for index in of_file {
                    outcomes[index] = delivery.clone();
                }
            }
        }
        outcomes
    }

    fn append<'a>(&self, path: &Path, lines: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let mut file = self.open(path)?;
        append::lock(&file)?;
        // Before the lines, so that a failure leaves none to be written twice.
        if self.fsync == Fsync::Batch && file.metadata()?.len() == 0 {
            self.sync_dirs(path)?;
        }
        append::append(&mut file, lines, self.fsync)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
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
    fn sync_dirs(&self, path: &Path) -> io::Result<()> {
        for dir in path.ancestors().skip(1) {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            self.dir.open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Why this line can never be written, as far as the line itself tells.
fn refusal(line: &Line) -> Option<SinkError> {
    let shown = line.path.display();
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !line.path.components().all(inside) {
        let text = format!("{shown} is not a path below base_path");
        return Some(SinkError::new("outside_base_path", text));
    }
    if line.path.file_name().is_none() {
        return Some(SinkError::new("no_file_name", format!("{shown:?} names no file")));
    }
    if line.text.contains(&b'\n') {
        let text = format!("the line for {shown} contains a line feed");
        return Some(SinkError::new("line_feed", text));
    }
    None
}

/// What an error of the system means for the lines of `path`.
fn judged(path: &Path, error: &io::Error) -> Delivery {
    use io::ErrorKind as Kind;
    let shown = path.display();
    let class = |class: &str| SinkError::new(class, format!("{shown}: {error}"));
    // The directory handle's own refusal; the system's `PermissionDenied` has a number.
    let escapes = error.kind() == Kind::PermissionDenied && error.raw_os_error().is_none();
    debug!(path = %shown, %error, "cannot append");
    if escapes {
        return Delivery::Permanent(class("outside_base_path"));
    }
    let error_kind = class(&format!("{:?}", error.kind()));
    match error.kind() {
        Kind::InvalidFilename
        | Kind::InvalidInput
        | Kind::IsADirectory
        | Kind::NotADirectory
        | Kind::AlreadyExists => Delivery::Permanent(error_kind),
        _ => Delivery::Transient(error_kind),
    }
}
