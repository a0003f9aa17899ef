//! What a process prints: kept up to a limit, read and counted beyond it.
//!
//! A pipe is drained to its end whatever the limit is, or the program would block. What was captured
//! outlives the reading: whoever stops reading early keeps what came until then.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes per read: what a pipe holds.
const CHUNK: usize = 64 * 1024;

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
    pub(crate) async fn drain(&mut self, mut pipe: impl AsyncRead + Unpin) -> io::Result<()> {
        loop {
            let read = pipe.read(&mut self.chunk).await?;
            if read == 0 {
                return Ok(());
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
    use super::*;

    #[tokio::test]
    async fn what_exceeds_the_limit_is_read_and_counted() {
        let mut capture = Capture::new(10);
        let input = vec![7_u8; 3 * CHUNK];
        capture.drain(input.as_slice()).await.unwrap();
        assert_eq!(capture.take(), (Bytes::from_static(&[7; 10]), 3 * CHUNK as u64 - 10));
    }

    #[tokio::test]
    async fn the_next_process_starts_with_nothing() {
        let mut capture = Capture::new(3);
        capture.drain(&b"abcd"[..]).await.unwrap();
        assert_eq!(capture.take(), (Bytes::from_static(b"abc"), 1));
        capture.drain(&b"xy"[..]).await.unwrap();
        assert_eq!(capture.take(), (Bytes::from_static(b"xy"), 0));
    }
}
