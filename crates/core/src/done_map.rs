//! Which offsets above the committed position are settled, as the metadata text of a commit.
//!
//! Kafka stores one number per partition; the messages behind a slow one may be settled all the same.
//! Their offsets travel in the metadata of the commit, so that after a restart or a rebalance the next
//! owner settles them without running them again. The text is `drk1` and, in base64, the kind of
//! encoding, the committed position it was written for, and either run lengths or a bit set, whichever
//! is smaller. Where all of it does not fit, the lowest offsets are kept: the rest only runs again.
//!
//! Only what was named settled is ever answered as settled; gaps (compaction, transaction markers)
//! stay gaps. Text of another program, another version or another position is refused as a whole: a
//! copied offset (mirroring, reset tools) must not make us skip messages.
//!
//! Where there is more to say ([`Extras`]), the text is `drk2` and its body begins with that, behind
//! its length. A reader of version 1 refuses it, which loses nothing; without extras version 1 is
//! written.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::Offset;

mod body;
mod extras;

pub use extras::Extras;

/// What a broker accepts as metadata unless `offset.metadata.max.bytes` says otherwise.
pub const DEFAULT_LIMIT: usize = 4096;

/// Longest text that is written or read: a string of the Kafka protocol is no longer.
const MAX_TEXT: usize = 32_767;
const FAMILY: &str = "drk";
/// A done map alone.
const PLAIN: &str = "1";
/// Extras, then a done map.
const WITH_EXTRAS: &str = "2";

/// The done map as text, and how well it fitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Metadata of the commit; empty when it says nothing.
    pub metadata: String,
    /// Whether all of it fitted.
    pub fits: Fits,
}

/// How much of the limit a done map took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// Every settled offset is in the text.
    All {
        /// How much of the limit is used, in percent.
        percent: usize,
    },
    /// The highest offsets are not in the text; they may run again after a restart.
    Over {
        /// How many are missing.
        left_out: u64,
    },
}

/// Why the metadata of a commit is not a done map for this position. Nothing is lost by ignoring
/// it: what was settled may run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Another program wrote it.
    #[error("the commit metadata is not a done map")]
    NotOurs,
    /// Another release wrote it.
    #[error("the done map has a version that this release does not read")]
    OtherVersion,
    /// It was written for another position; somebody moved the committed offset.
    #[error("the done map was written for position {0}, which is not the committed one")]
    OtherPosition(Offset),
    /// It begins like a done map and makes no sense.
    #[error("the done map is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: i64,
    last: i64,
}

impl Run {
    fn len(self) -> u64 {
        self.last.abs_diff(self.first) + 1
    }
}

/// Offsets at or above a committed position that are settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoneMap {
    /// Ascending and disjoint.
    runs: Vec<Run>,
}

/// What the metadata of a commit says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// What is settled above the position.
    pub done: DoneMap,
    /// What else the next owner must know.
    pub extras: Extras,
}

impl Noted {
    /// Writes `settled` (ascending) and `extras` for a commit of `next`, in at most `limit`
    /// characters. The extras come first; where not even they fit, nothing is written.
    ///
    /// One pass; memory is bounded by `limit`, however much is settled.
    pub fn encode(
        next: Offset,
        settled: impl IntoIterator<Item = Offset>,
        extras: &Extras,
        limit: usize,
    ) -> Encoded {
        let limit = limit.min(MAX_TEXT);
        let budget = limit.saturating_sub(FAMILY.len() + PLAIN.len()) * 3 / 4;
        let mut prefix = Vec::new();
        let entries = extras.write();
        if !entries.is_empty() {
            body::push_number(&mut prefix, entries.len() as u64);
            prefix.extend(entries);
        }
        let version = if prefix.is_empty() { PLAIN } else { WITH_EXTRAS };
        let written = body::write(next, settled, budget.saturating_sub(prefix.len()));
        let says_nothing = written.kept == 0 && prefix.is_empty();
        prefix.extend(&written.body);
        let metadata = if says_nothing || budget < prefix.len() {
            String::new()
        } else {
            format!("{FAMILY}{version}{}", URL_SAFE_NO_PAD.encode(&prefix))
        };
        let fits = match written.left_out {
            0 => Fits::All { percent: metadata.len() * 100 / limit.max(1) },
            left_out => Fits::Over { left_out },
        };
        Encoded { metadata, fits }
    }

    /// Reads the metadata of a commit of `next`. Empty metadata says nothing.
    ///
    /// # Errors
    ///
    /// When it was not written by us for this position; log it and go on without.
    pub fn decode(next: Offset, metadata: &str) -> Result<Self, Foreign> {
        if metadata.is_empty() {
            return Ok(Self::default());
        }
        let text = metadata.strip_prefix(FAMILY).ok_or(Foreign::NotOurs)?;
        let (text, has_extras) = match (text.strip_prefix(PLAIN), text.strip_prefix(WITH_EXTRAS)) {
            (Some(text), _) => (text, false),
            (_, Some(text)) => (text, true),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(Foreign::OtherVersion);
            }
            _ => return Err(Foreign::NotOurs),
        };
        if MAX_TEXT < metadata.len() {
            return Err(Foreign::Damaged("it is too long"));
        }
        let body = URL_SAFE_NO_PAD.decode(text).map_err(|_| Foreign::Damaged("no base64"))?;
        let mut reader = body::Reader::new(&body);
        let extras = if has_extras { reader.bytes()? } else { &[] };
        let runs = body::read(next, reader.rest())?;
        Ok(Self { done: DoneMap { runs }, extras: Extras::read(extras)? })
    }

    /// `metadata`, which was encoded for `next`, in at most `limit` bytes: of the settled offsets the
    /// lowest are kept. Empty where nothing of it fits, or where it is not ours.
    #[must_use]
    pub fn shorten(next: Offset, metadata: &str, limit: usize) -> String {
        let Ok(Self { done, extras }) = Self::decode(next, metadata) else {
            return String::new();
        };
        Self::encode(next, done.iter(), &extras, limit).metadata
    }
}

impl DoneMap {
    /// How many offsets a map may name: several times what a worker keeps behind one that is stuck. What
    /// is read is walked offset by offset, and a few characters can claim any number.
    pub const MOST: u64 = 4_000_000;

    /// Writes `settled` (ascending) and nothing else; see [`Noted::encode`].
    pub fn encode(
        next: Offset,
        settled: impl IntoIterator<Item = Offset>,
        limit: usize,
    ) -> Encoded {
        Noted::encode(next, settled, &Extras::default(), limit)
    }

    /// Reads what is settled and nothing else; see [`Noted::decode`].
    ///
    /// # Errors
    ///
    /// When it was not written by us for this position; log it and go on without.
    pub fn decode(next: Offset, metadata: &str) -> Result<Self, Foreign> {
        Noted::decode(next, metadata).map(|noted| noted.done)
    }

    /// Whether the message at `offset` was settled.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        let index = self.runs.partition_point(|run| run.last < offset.0);
        self.runs.get(index).is_some_and(|run| run.first <= offset.0)
    }

    /// The settled offsets, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Offset> {
        self.runs.iter().flat_map(|run| run.first..=run.last).map(Offset)
    }

    /// How many offsets are settled.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// Whether nothing is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}
