//! The pipes of a process: its input is written and its outputs are read while something else is awaited.

use std::{
    io,
    os::fd::OwnedFd,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    capture::Capture,
    reactor::{Watched, timeout},
};

/// How long, at least, a disk is waited for at a time.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// Our ends of the pipes of a process: its input, if it has one, and its outputs.
pub(crate) struct Ends {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What ends the waiting for a process.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    Exit,
    Deadline,
    Request,
}

/// The pipes of one process, served while something else is awaited.
pub(super) struct Pipes<'a, S> {
    pub(super) serving: Pin<&'a mut S>,
    /// Whether what was read is being written to a disk.
    pub(super) storing: Option<Arc<AtomicBool>>,
    pub(super) ended: Option<io::Result<()>>,
}

impl<S: Future<Output = io::Result<()>>> Pipes<'_, S> {
    pub(super) async fn serve_until<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        loop {
            tokio::select! {
                biased; // The event counts, however much there is to read.
                happened = &mut event => return happened,
                ended = self.serving.as_mut(), if self.ended.is_none() => self.ended = Some(ended),
            }
        }
    }

    /// The program has ended by itself: whatever it printed may wait for the disk until its time is up.
    pub(super) async fn serve_disk(
        &mut self,
        grace: Duration,
        deadline: impl Future<Output = ()>,
        killed: impl Future<Output = ()>,
    ) -> io::Result<Cause> {
        let disk = async {
            while self.ended.is_none() && self.storing.as_ref().is_some_and(|is| is.load(Relaxed)) {
                self.serve_for(grace.max(SHORTEST_LOOK)).await;
            }
        };
        tokio::select! {
            biased; // What is taken is taken.
            () = disk => Ok(Cause::Exit),
            () = killed => Ok(Cause::Request),
            // It ended in time. What has no whole file is told by whoever writes the file.
            () = deadline => Ok(Cause::Exit),
        }
    }

    pub(super) async fn serve_for(&mut self, grace: Duration) {
        if self.ended.is_none()
            && let Some(ended) = timeout(grace, self.serving.as_mut()).await
        {
            self.ended = Some(ended);
        }
    }
}

/// Writes the input while both outputs are read.
pub(super) async fn serve(
    ends: Option<Ends>,
    input: Option<Bytes>,
    out: &mut Capture,
    err: &mut Capture,
) -> io::Result<()> {
    let Some(Ends { stdin, stdout, stderr }) = ends else { return Ok(()) };
    let feed = async {
        if let (Some(stdin), Some(input)) = (stdin, input) {
            match Watched::pipe(stdin)?.write_all(&input).await {
                // It has read what it needs.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        Ok(())
    };
    let read_out = async { out.drain(Watched::pipe(stdout)?).await };
    let read_err = async { err.drain(Watched::pipe(stderr)?).await };
    // Not `try_join`: one broken pipe is no reason to let the program block on another.
    let (input, out, err) = tokio::join!(feed, read_out, read_err);
    input.and(out).and(err)
}
