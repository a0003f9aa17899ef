//! What a commit says beside its done map: small entries of a type each.
//!
//! An entry is a tag, a length and that many bytes. A reader skips tags it does not know, and what
//! stands behind the part of an entry it knows: a release that knows more can be followed by one that
//! knows less.

use super::{Foreign, body::Reader, body::push_number};
use crate::flood::{FloodMark, FloodReason};

const FLOOD: u64 = 1;

/// What a commit says beside its done map. The default says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extras {
    /// What was counted of the dead letters of the partition.
    pub flood: FloodMark,
}

impl Extras {
    /// All entries behind each other.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        if self.flood != FloodMark::default() {
            push_entry(&mut entries, FLOOD, &write_flood(self.flood));
        }
        entries
    }

    pub(super) fn read(entries: &[u8]) -> Result<Self, Foreign> {
        let mut extras = Self::default();
        let mut reader = Reader::new(entries);
        while !reader.is_empty() {
            let tag = reader.number()?;
            let content = reader.bytes()?;
            if tag == FLOOD {
                extras.flood = read_flood(content)?;
            }
        }
        Ok(extras)
    }
}

fn push_entry(entries: &mut Vec<u8>, tag: u64, content: &[u8]) {
    push_number(entries, tag);
    push_number(entries, content.len() as u64);
    entries.extend_from_slice(content);
}

fn write_flood(mark: FloodMark) -> Vec<u8> {
    let held = match mark.held {
        None => 0,
        Some(FloodReason::Consecutive) => 1,
        Some(FloodReason::Ratio) => 2,
    };
    let mut content = vec![held];
    for number in [mark.consecutive, mark.recent, mark.recent_dead] {
        push_number(&mut content, number.into());
    }
    content
}

fn read_flood(content: &[u8]) -> Result<FloodMark, Foreign> {
    let mut reader = Reader::new(content);
    let held = match reader.number()? {
        0 => None,
        1 => Some(FloodReason::Consecutive),
        2 => Some(FloodReason::Ratio),
        _ => return Err(Foreign::Damaged("unknown limit")),
    };
    let mut number = || Ok(u32::try_from(reader.number()?).unwrap_or(u32::MAX));
    Ok(FloodMark { held, consecutive: number()?, recent: number()?, recent_dead: number()? })
}
