//! One file: all lines of a batch are appended, or none.
//!
//! A write that fails half way is taken back, so that its repetition leaves neither half a line nor a
//! line twice. What a crash left unfinished is closed with a line feed, so that the next line stays
//! whole; the half line stays, for its payload was never confirmed and comes again.

use std::{
    fs::{File, TryLockError},
    io::{self, Write},
    os::unix::fs::FileExt,
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tracing::error;

use crate::Fsync;

/// How long another process may hold the lock on a file.
const LOCK_WITHIN: Duration = Duration::from_secs(5);

/// What a file must be able to do.
pub(super) trait Medium: Write {
    fn size(&self) -> io::Result<u64>;
    fn byte_at(&self, position: u64) -> io::Result<u8>;
    fn cut(&mut self, size: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn byte_at(&self, position: u64) -> io::Result<u8> {
        let mut byte = [0];
        self.read_exact_at(&mut byte, position)?;
        Ok(byte[0])
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Keeps other workers out until the file is closed: taking back a write must not take theirs.
pub(super) fn lock(file: &File) -> io::Result<()> {
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // Some network file systems have no locks; then nothing can be done about neighbours.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
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

/// Appends `lines`: all or none.
pub(super) fn append<'a>(
    file: &mut impl Medium,
    lines: impl Iterator<Item = &'a [u8]>,
    fsync: Fsync,
) -> io::Result<()> {
    let size = file.size()?;
    let mut text = Vec::new();
    if size > 0 && file.byte_at(size - 1)? != b'\n' {
        text.push(b'\n');
    }
    for line in lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    let mut written = file.write_all(&text);
    if written.is_ok() && fsync == Fsync::Batch {
        written = file.sync();
    }
    let Err(failure) = written else {
        return Ok(());
    };
    if let Err(error) = file.cut(size) {
        error!(%error, "cannot take back a write that failed; it may leave half a line or a line twice");
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes, which can be told to fail.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        sync_fails: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.bytes.len());
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Medium for Disk {
        fn size(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn byte_at(&self, position: u64) -> io::Result<u8> {
            Ok(self.bytes[usize::try_from(position).unwrap()])
        }

        fn cut(&mut self, size: u64) -> io::Result<()> {
            self.bytes.truncate(usize::try_from(size).unwrap());
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.sync_fails {
                return Err(io::ErrorKind::Other.into());
            }
            Ok(())
        }
    }

    fn lines<'a>(lines: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> {
        lines.iter().map(|line| line.as_bytes())
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_neither_half_a_line_nor_a_line_twice() {
        let mut disk = Disk { room: 9, ..Disk::default() };
        append(&mut disk, lines(&["one"]), Fsync::Batch).unwrap();
        let full = append(&mut disk, lines(&["two", "three"]), Fsync::Batch).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.bytes, b"one\n");

        disk.room = 100;
        append(&mut disk, lines(&["two", "three"]), Fsync::Batch).unwrap();
        assert_eq!(disk.bytes, b"one\ntwo\nthree\n");
    }

    #[test]
    fn what_cannot_be_synced_is_taken_back() {
        let mut disk = Disk { room: 100, sync_fails: true, ..Disk::default() };
        append(&mut disk, lines(&["one"]), Fsync::Batch).unwrap_err();
        assert_eq!(disk.bytes, b"");
        append(&mut disk, lines(&["one"]), Fsync::Never).unwrap();
        assert_eq!(disk.bytes, b"one\n");
    }

    #[test]
    fn a_half_line_that_a_crash_left_does_not_spoil_the_next() {
        let mut disk = Disk { bytes: b"one\ntw".to_vec(), room: 100, ..Disk::default() };
        append(&mut disk, lines(&["three"]), Fsync::Batch).unwrap();
        assert_eq!(disk.bytes, b"one\ntw\nthree\n");
    }
}
