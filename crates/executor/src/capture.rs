//! What a process prints: its beginning and its end are kept up to a limit, the rest is read and counted.
//!
//! A pipe is drained to its end whatever the limit is, or the program would block. What was captured
//! outlives the reading: whoever stops reading early keeps what came until then.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use drakkar_core::Keep;
use tracing::debug;

use crate::{reactor::Watched, spool::SpoolWriter};

/// Bytes per read: what a new pipe holds.
const CHUNK: usize = 64 * 1024;

/// What the pipe of a program that prints much shall hold: the most that needs no privilege.
const WIDE: usize = 1024 * 1024;

/// One output stream. Its buffer is used again by the next process of the slot.
pub(crate) struct Capture {
    chunk: Box<[u8]>,
    head: Vec<u8>,
    /// What came after a full head; trimmed when it is twice as long as it has to be.
    tail: Vec<u8>,
    dropped: u64,
    keep: Keep,
    /// Takes everything.
    pub(crate) spool: Option<SpoolWriter>,
}

impl Capture {
    pub(crate) fn new(keep: Keep) -> Self {
        let chunk = vec![0; CHUNK].into();
        Self { chunk, head: Vec::new(), tail: Vec::new(), dropped: 0, keep, spool: None }
    }

    /// Sets what is kept of the next process.
    pub(crate) fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// Whether a disk is waited for, and not the other side.
    pub(crate) fn storing(&self) -> Option<Arc<AtomicBool>> {
        self.spool.as_ref().map(SpoolWriter::under_way)
    }

    /// Reads until the other side closes.
    pub(crate) async fn drain(&mut self, pipe: Watched) -> io::Result<()> {
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
            if let Some(spool) = &mut self.spool {
                spool.write(&self.chunk[..read]).await;
                continue;
            }
            let room = self.keep.head - self.head.len();
            let (head, rest) = self.chunk[..read].split_at(read.min(room));
            self.head.extend_from_slice(head);
            self.tail.extend_from_slice(rest);
            if self.tail.len() >= self.keep.tail.saturating_mul(2) {
                self.trim();
            }
        }
    }

    /// Drops what is neither head nor tail.
    fn trim(&mut self) {
        let excess = self.tail.len().saturating_sub(self.keep.tail);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    /// What came so far: the bytes kept and the number of those dropped.
    pub(crate) fn take(&mut self) -> (Bytes, u64) {
        self.trim();
        let mut kept = std::mem::take(&mut self.head);
        kept.append(&mut self.tail);
        self.tail.shrink_to(CHUNK);
        // Results are budgeted by their length: spare capacity would be memory nobody counts.
        kept.shrink_to_fit();
        (kept.into(), std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd, thread};

    use super::*;
    use crate::reactor::{Alarm, block_on};

    fn check(keep: Keep, printed: &[&[u8]], kept: &[(&[u8], u64)]) {
        let mut capture = Capture::new(keep);
        for (printed, (kept, dropped)) in printed.iter().zip(kept) {
            let (reader, mut writer) = io::pipe().unwrap();
            thread::scope(|scope| {
                scope.spawn(move || writer.write_all(printed).unwrap());
                let read = async { capture.drain(Watched::pipe(OwnedFd::from(reader))?).await };
                block_on(&Alarm::new().unwrap(), read).unwrap();
            });
            assert_eq!(capture.take(), (Bytes::copy_from_slice(kept), *dropped));
        }
    }

    #[test]
    fn what_exceeds_the_limit_is_read_and_counted() {
        let (printed, kept) = (vec![7; 5 * WIDE], [7; 10]);
        check(head(10), &[&printed], &[(&kept, 5 * WIDE as u64 - 10)]);
    }

    #[test]
    fn the_next_process_starts_with_nothing() {
        check(head(3), &[b"abcd", b"xy", b""], &[(b"abc", 1), (b"xy", 0), (b"", 0)]);
    }

    fn head(head: usize) -> Keep {
        Keep { head, tail: 0 }
    }

    #[test]
    fn the_end_is_kept_behind_the_beginning() {
        let keep = Keep { head: 2, tail: 3 };
        let printed: [&[u8]; 5] = [b"", b"abc", b"abcde", b"abcdef", b"abcdefghijklmnop"];
        let kept: [(&[u8], u64); 5] =
            [(b"", 0), (b"abc", 0), (b"abcde", 0), (b"abdef", 1), (b"abnop", 11)];
        check(keep, &printed, &kept);
        let mut much = vec![1; 5 * WIDE];
        much.extend_from_slice(b"end");
        check(keep, &[&much], &[(b"\x01\x01end", 5 * WIDE as u64 - 2)]);
    }
}
