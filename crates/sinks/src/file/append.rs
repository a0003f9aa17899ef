//! One file: what is to be added to it is made ready, then all of it is appended or none.
//!
//! A write that fails half way is taken back, so that its repetition leaves neither half a line nor a
//! line twice. What a crash left unfinished is closed, with a quote where it is inside one and with a
//! line feed, so that the next line stays whole; the half line stays, for its payload was never
//! confirmed and comes again.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use drakkar_core::{Delivery, FileContent, SinkError};
use tracing::error;

use crate::Fsync;

/// How much of a file is looked at at once.
const LOOK: usize = 64 * 1024;

/// What a file must be able to do.
pub(super) trait Medium: Write {
    fn size(&self) -> io::Result<u64>;
    /// Fills `bytes` with what stands at `position`.
    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn cut(&mut self, size: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, position)
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What some payloads add to a file as it is.
pub(super) struct Addition<'a, M> {
    file: &'a M,
    /// How large the file is.
    size: u64,
    /// Up to here the file is known to end outside of quotes.
    clean: u64,
    /// What is appended.
    bytes: Vec<u8>,
    /// Whether nothing but rows was added.
    is_table: bool,
    outcomes: Vec<Delivery>,
}

/// What is to be appended.
pub(super) struct Added {
    pub bytes: Vec<u8>,
    /// What becomes of each payload that was taken, once the bytes are written; empty where there was
    /// no room for any.
    pub outcomes: Vec<Delivery>,
    /// Up to here the file is then known to end outside of quotes.
    pub clean: u64,
}

impl<'a, M: Medium> Addition<'a, M> {
    /// Nothing yet, for `file`, which is known to end outside of quotes at `clean`.
    pub(super) fn to(file: &'a M, clean: u64) -> io::Result<Self> {
        let size = file.size()?;
        Ok(Self { file, size, clean, bytes: Vec::new(), is_table: true, outcomes: Vec::new() })
    }

    /// Takes as many of `contents` as the file has room for within `max` bytes; an empty file takes one
    /// in any case.
    pub(super) fn take(mut self, contents: &[&FileContent], max: Option<u64>) -> io::Result<Added> {
        for content in contents {
            let before = self.bytes.len();
            let outcome = self.add(content)?;
            let is_over = max.is_some_and(|max| max < self.size + self.bytes.len() as u64);
            if is_over && before < self.bytes.len() && 0 < self.size + before as u64 {
                self.bytes.truncate(before);
                break;
            }
            self.is_table &= matches!(content, FileContent::Row { .. });
            self.outcomes.push(outcome);
        }
        let size = self.size + self.bytes.len() as u64;
        let clean = if self.is_table { size } else { self.clean };
        Ok(Added { bytes: self.bytes, outcomes: self.outcomes, clean })
    }

    fn add(&mut self, content: &FileContent) -> io::Result<Delivery> {
        match content {
            FileContent::Raw(bytes) => self.bytes.extend_from_slice(bytes),
            FileContent::Line(text) => {
                self.begin_line()?;
                self.line(text);
            }
            FileContent::Row { columns, row } => {
                if self.size == 0 && self.bytes.is_empty() {
                    if let Some(columns) = columns {
                        self.line(columns);
                    }
                } else if let Some(columns) = columns
                    && let Some(refused) = self.begin_columns(columns)?
                {
                    return Ok(Delivery::Permanent(refused));
                }
                self.close_quotes()?;
                self.begin_line()?;
                self.line(row);
            }
        }
        Ok(Delivery::Confirmed)
    }

    fn line(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.bytes.push(b'\n');
    }

    /// Whatever ended without a line feed does not spoil what comes next.
    fn begin_line(&mut self) -> io::Result<()> {
        let mut last = [b'\n'];
        match self.bytes.last() {
            Some(&byte) => last = [byte],
            None if 0 < self.size => self.file.read_at(self.size - 1, &mut last)?,
            None => {}
        }
        if last != *b"\n" {
            self.bytes.push(b'\n');
        }
        Ok(())
    }

    /// The file must begin with these columns; says why not. A crash may have left half of them.
    fn begin_columns(&mut self, columns: &[u8]) -> io::Result<Option<SinkError>> {
        let mut expected = columns.to_vec();
        expected.push(b'\n');
        let there = usize::try_from(self.size).unwrap_or(usize::MAX).min(expected.len());
        let mut begin = vec![0; there];
        self.file.read_at(0, &mut begin)?;
        let added = self.bytes.len().min(expected.len() - there);
        begin.extend_from_slice(&self.bytes[..added]);
        if begin == expected {
            return Ok(None);
        }
        if self.bytes.is_empty() && expected.starts_with(&begin) {
            self.bytes.extend_from_slice(&expected[there..]);
            self.clean = self.size;
            return Ok(None);
        }
        let text = format!(
            "the file begins with other columns than {}; write to another file",
            String::from_utf8_lossy(columns)
        );
        Ok(Some(SinkError::new("other_columns", text)))
    }

    /// Half a row may end inside quotes, which would swallow the rows after it. Rows are added with
    /// their quotes closed, so the quotes of a file that ends outside of any are even in number.
    fn close_quotes(&mut self) -> io::Result<()> {
        if self.size <= self.clean {
            return Ok(());
        }
        let mut quotes = 0;
        let mut chunk = vec![0; LOOK];
        while self.clean < self.size {
            let left = usize::try_from(self.size - self.clean).unwrap_or(LOOK).min(LOOK);
            self.file.read_at(self.clean, &mut chunk[..left])?;
            quotes += memchr::memchr_iter(b'"', &chunk[..left]).count();
            self.clean += left as u64;
        }
        if quotes % 2 == 1 {
            self.bytes.push(b'"');
        }
        Ok(())
    }
}

/// Appends `bytes`: all or none.
pub(super) fn append(file: &mut impl Medium, bytes: &[u8], fsync: Fsync) -> io::Result<()> {
    let size = file.size()?;
    let mut written = file.write_all(bytes);
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

        fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
            let position = usize::try_from(position).unwrap();
            bytes.copy_from_slice(&self.bytes[position..position + bytes.len()]);
            Ok(())
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

    fn line(text: &'static str) -> FileContent {
        FileContent::Line(text.into())
    }

    fn raw(bytes: &'static str) -> FileContent {
        FileContent::Raw(bytes.into())
    }

    fn row(columns: Option<&'static str>, row: &'static str) -> FileContent {
        FileContent::Row { columns: columns.map(Into::into), row: row.into() }
    }

    /// Adds what there is room for to a disk that held `before`; how many were taken and the classes
    /// of those that were refused.
    fn add(
        before: &str,
        contents: &[FileContent],
        max: Option<u64>,
    ) -> (String, usize, Vec<String>) {
        let mut disk = Disk { bytes: before.into(), room: 10 * LOOK, ..Disk::default() };
        let contents: Vec<&FileContent> = contents.iter().collect();
        let added = Addition::to(&disk, 0).unwrap().take(&contents, max).unwrap();
        let refused = added.outcomes.iter().filter_map(|outcome| match outcome {
            Delivery::Permanent(error) => Some(error.class.clone()),
            _ => None,
        });
        let refused = refused.collect();
        append(&mut disk, &added.bytes, Fsync::Never).unwrap();
        (String::from_utf8(disk.bytes).unwrap(), added.outcomes.len(), refused)
    }

    #[track_caller]
    fn check(before: &str, contents: &[FileContent], after: &str) {
        assert_eq!(add(before, contents, None), (after.to_owned(), contents.len(), vec![]));
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_neither_half_a_line_nor_a_line_twice() {
        let mut disk = Disk { room: 9, ..Disk::default() };
        append(&mut disk, b"one\n", Fsync::Batch).unwrap();
        let full = append(&mut disk, b"two\nthree\n", Fsync::Batch).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.bytes, b"one\n");

        disk.room = 100;
        append(&mut disk, b"two\nthree\n", Fsync::Batch).unwrap();
        assert_eq!(disk.bytes, b"one\ntwo\nthree\n");
    }

    #[test]
    fn what_cannot_be_synced_is_taken_back() {
        let mut disk = Disk { room: 100, sync_fails: true, ..Disk::default() };
        append(&mut disk, b"one\n", Fsync::Batch).unwrap_err();
        assert_eq!(disk.bytes, b"");
        append(&mut disk, b"one\n", Fsync::Never).unwrap();
        assert_eq!(disk.bytes, b"one\n");
    }

    #[test]
    fn a_half_line_that_a_crash_left_does_not_spoil_the_next() {
        check("one\ntw", &[line("three"), line("")], "one\ntw\nthree\n\n");
    }

    #[test]
    fn raw_bytes_are_added_as_they_are_and_a_line_begins_a_line() {
        let contents = [raw("a"), raw("b\n\n"), raw("c"), line("d"), raw(""), line("e")];
        check("x", &contents, "xab\n\nc\nd\ne\n");
    }

    #[test]
    fn a_table_begins_with_its_columns_once() {
        let rows = [row(Some("a,b"), "1,2"), row(Some("a,b"), "3,4")];
        check("", &rows, "a,b\n1,2\n3,4\n");
        check("a,b\n0,0\n", &rows, "a,b\n0,0\n1,2\n3,4\n");
        check("", &[row(None, "1,2")], "1,2\n");
    }

    #[test]
    fn columns_that_a_crash_left_half_written_are_completed() {
        let rows = [row(Some("a,\"b c\""), "1,2")];
        for left in ["a", "a,\"b", "a,\"b c\""] {
            check(left, &rows, "a,\"b c\"\n1,2\n");
        }
    }

    #[test]
    fn half_a_row_that_ends_inside_quotes_swallows_no_row() {
        let rows = [row(Some("a,b"), "1,\"x\ny\""), row(None, "2,3")];
        let after = "1,\"x\ny\"\n2,3\n";
        for (left, closed) in [("0,\"torn", "\"\n"), ("0,\"torn\n", "\"\n"), ("0,to", "\n")] {
            check(&format!("a,b\n{left}"), &rows, &format!("a,b\n{left}{closed}{after}"));
        }
        let long = format!("a,b\n{}\"\"\n0,\"torn", "x".repeat(LOOK));
        check(&long, &rows, &format!("{long}\"\n{after}"));
    }

    #[test]
    fn rows_of_other_columns_are_refused_alone() {
        let rows =
            [row(Some("a,b"), "1,2"), row(Some("a,c"), "3,4"), row(Some("a,b,c"), "5"), line("x")];
        let refused = vec!["other_columns".to_owned(); 2];
        let expected = ("a,b\n1,2\nx\n".to_owned(), 4, refused.clone());
        assert_eq!(add("", &rows, None), expected);
        assert_eq!(add("a,b\n", &rows, None), expected);
        assert_eq!(add("1,2\n", &rows[..1], None).2, refused[..1]);
    }

    #[test]
    fn a_file_takes_what_it_has_room_for_and_an_empty_one_takes_one_in_any_case() {
        let lines = ["12", "34", "5678"].map(line);
        for (before, max, taken) in [
            ("", 5, 1),
            ("", 6, 2),
            ("", 11, 3),
            ("", 1, 1),
            ("0\n", 4, 0),
            ("0\n", 5, 1),
            ("0", 4, 0),
        ] {
            let found = add(before, &lines, Some(max));
            assert_eq!(found.1, taken, "{before:?} within {max}: {found:?}");
        }
        let wide = [row(Some("columns"), "1"), row(Some("columns"), "2")];
        assert_eq!(add("", &wide, Some(3)), ("columns\n1\n".to_owned(), 1, vec![]));
    }
}
