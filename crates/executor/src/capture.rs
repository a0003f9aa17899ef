//! What a process prints: kept up to a limit, read and counted beyond it.
//!
//! A pipe is drained to its end whatever the limit is, or the program would block. What was captured
//! outlives the reading: whoever stops reading early keeps what came until then.

use std::{io, os::fd::AsFd};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::debug;

/// Bytes per read: what a new pipe holds.
const CHUNK: usize = 64 * 1024;

/// What the pipe of a program that prints much shall hold: the most that needs no privilege.
const WIDE: usize = 1024 * 1024;

/// One output stream. Its buffer is used again by the next process of the slot.
pub(crate) struct Capture {
    chunk: Box<[u8]>,
    kept: Vec<u8>,
    dropped: u64,
    limit: usize,
}

impl Capture {
    pub(crate) fn new(limit: usize) -> Self {
        Self { chunk: vec![0; CHUNK].into(), kept: Vec::new(), dropped: 0, limit }
    }

    /// Reads until the other side closes.
    pub(crate) async fn drain(
        &mut self,
        mut pipe: impl AsyncRead + AsFd + Unpin,
    ) -> io::Result<()> {
        let mut is_wide = false;
        loop {
            let read = pipe.read(&mut self.chunk).await?;
            if read == 0 {
                return Ok(());
            }
            if read == CHUNK && !is_wide {
                // The program waits for us: with a wider pipe both sides are woken less often.
                is_wide = true;
                if let Err(error) = rustix::pipe::fcntl_setpipe_size(&pipe, WIDE) {
                    debug!(category = "executor", %error, "too many wide pipes; this one stays");
                }
            }
            let room = self.limit - self.kept.len();
            let kept = read.min(room);
            self.kept.extend_from_slice(&self.chunk[..kept]);
            self.dropped += (read - kept) as u64;
        }
    }

    /// What came so far: the bytes kept and the number of those dropped.
    pub(crate) fn take(&mut self) -> (Bytes, u64) {
        let mut kept = std::mem::take(&mut self.kept);
        // Results are budgeted by their length: spare capacity would be memory nobody counts.
        kept.shrink_to_fit();
        (kept.into(), std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::unix::pipe};

    use super::*;

    async fn check(limit: usize, printed: &[&[u8]], kept: &[(&[u8], u64)]) {
        let mut capture = Capture::new(limit);
        for (printed, (kept, dropped)) in printed.iter().zip(kept) {
            let (mut writer, reader) = pipe::pipe().unwrap();
            let print = async move { writer.write_all(printed).await };
            let (written, read) = tokio::join!(print, capture.drain(reader));
            written.and(read).unwrap();
            assert_eq!(capture.take(), (Bytes::copy_from_slice(kept), *dropped));
        }
    }

    #[tokio::test]
    async fn what_exceeds_the_limit_is_read_and_counted() {
        let (printed, kept) = (vec![7; 5 * WIDE], [7; 10]);
        check(10, &[&printed], &[(&kept, 5 * WIDE as u64 - 10)]).await;
    }

    #[tokio::test]
    async fn the_next_process_starts_with_nothing() {
        check(3, &[b"abcd", b"xy", b""], &[(b"abc", 1), (b"xy", 0), (b"", 0)]).await;
    }
}
