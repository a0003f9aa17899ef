//! Lines, rows and bytes → files below a directory.
//!
//! All writing is done by one thread per sink: a disk that hangs blocks it and nobody else. The sink
//! hands it what it is given and waits for its answer.

use std::{collections::HashMap, io, sync::mpsc, thread, time::SystemTime};

use drakkar_core::{Delivery, FilePayload, Sink, SinkError};
use tokio::sync::oneshot;

use crate::FileSinkConfig;

pub(crate) mod template; // payload -> path
mod writer; // payloads -> their files, on the thread
mod directory; // below which every file is
mod append; // one file: all or nothing
mod rotation; // when a file is renamed, and to what
mod keeper; // what becomes of renamed files
pub(crate) mod start; // the directory, opened in bounded time

use directory::Directory;
use rotation::Rotation;
use template::{Places, Template};
use writer::Writer;

/// A directory as a destination.
pub struct FileSink {
    jobs: mpsc::Sender<Job>,
}

enum Job {
    Write {
        payloads: Vec<FilePayload>,
        reply: oneshot::Sender<Vec<Delivery>>,
    },
    /// Is the directory there, and does it take files?
    Probe(oneshot::Sender<Result<(), SinkError>>),
}

impl FileSink {
    /// Opens the directory, makes it where it does not exist, and starts the thread that writes;
    /// `worker` is what `{worker_id}` in the path stands for.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, opened or written to, or the path is no template.
    pub fn open(config: &FileSinkConfig, worker: &str) -> io::Result<Self> {
        Self::open_with_clock(config, worker, SystemTime::now)
    }

    /// The same by another clock, which tells when files are too old and what they are called then.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with_clock(
        config: &FileSinkConfig,
        worker: &str,
        clock: impl Fn() -> SystemTime + Send + 'static,
    ) -> io::Result<Self> {
        let template = Template::parse(&config.path)
            .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let directory = Directory::open(&config.base_path)?;
        let rotation = Rotation::new(&config.rotate);
        let mut writer = Writer {
            places: Places::new(template, worker),
            keeper: keeper::start(rotation)?,
            directory,
            rotation,
            fsync: config.fsync,
            clock: Box::new(clock),
            seen: HashMap::new(),
        };
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("file-sink".to_owned()).spawn(move || {
            for job in queue {
                // Whoever gave up waiting does not want to know.
                match job {
                    Job::Write { payloads, reply } => drop(reply.send(writer.write(&payloads))),
                    Job::Probe(reply) => drop(reply.send(writer.probe())),
                }
            }
        })?;
        Ok(Self { jobs })
    }
}

impl Sink for FileSink {
    type Payload = FilePayload;

    async fn deliver(&self, batch: &[FilePayload]) -> Vec<Delivery> {
        let (reply, outcomes) = oneshot::channel();
        if self.jobs.send(Job::Write { payloads: batch.to_vec(), reply }).is_ok()
            && let Ok(outcomes) = outcomes.await
        {
            return outcomes;
        }
        vec![Delivery::Transient(ended()); batch.len()]
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Probe(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

fn ended() -> SinkError {
    SinkError::new("writer_ended", "the thread that writes has ended")
}
