//! Bytes that have arrived and are not read yet.

use memchr::memchr;

use super::Garbage;

/// Bytes per read: what a new pipe holds.
const CHUNK: usize = 64 * 1024;

/// A buffer grown beyond this by a large answer is given back.
const LARGE: usize = 1024 * 1024;

/// What a process has printed, from the first byte that is not read.
#[derive(Debug, Default)]
pub(in crate::persistent) struct Inbox {
    bytes: Vec<u8>,
    /// Where what is not read begins.
    begin: usize,
    /// Up to where no line ends, counted from `begin`: a long line is searched once.
    searched: usize,
}

impl Inbox {
    /// Where to append what arrives, with room for a whole pipe.
    pub(in crate::persistent) fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.begin);
        self.begin = 0;
        // Of a busy process the next answer may always have begun.
        if self.bytes.len() < LARGE && LARGE < self.bytes.capacity() / 2 {
            self.bytes.shrink_to(LARGE);
        }
        self.bytes.reserve(CHUNK);
        &mut self.bytes
    }

    /// Whether everything is read.
    pub(in crate::persistent) fn is_empty(&self) -> bool {
        self.begin == self.bytes.len()
    }

    /// What is not read.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// Takes `count` bytes that are there.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let begin = self.begin;
        self.begin += count;
        self.searched = 0;
        &self.bytes[begin..self.begin]
    }

    /// Takes a line without its end, if there is a whole one.
    pub(super) fn line(&mut self, limit: usize) -> Result<Option<&[u8]>, Garbage> {
        let rest = self.rest();
        let found = memchr(b'\n', &rest[self.searched..]).map(|at| self.searched + at);
        let length = found.unwrap_or(rest.len());
        if limit < length {
            return Err(Garbage::TooLong(limit));
        }
        if found.is_none() {
            self.searched = length;
            return Ok(None);
        }
        Ok(Some(&self.take(length + 1)[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_a_large_answer_is_given_back_although_the_next_has_begun() {
        let mut inbox = Inbox::default();
        inbox.space().resize(50 * LARGE, 0);
        inbox.take(50 * LARGE - 1);
        inbox.space();
        assert_eq!(inbox.rest().len(), 1);
        let capacity = inbox.bytes.capacity();
        assert!(capacity <= 2 * LARGE, "{capacity} bytes");
    }
}
