//! What stands behind the magic of a done map: a kind, the position, and runs or bits.
//!
//! Writers stop at their budget and keep what they have; the reader allocates in proportion to the
//! text it was given, whatever lengths the text claims.

use super::{DoneMap, Foreign, Run};
use crate::Offset;

const RUNS: u8 = 0;
const BITS: u8 = 1;
const TOO_LARGE: Foreign = Foreign::Damaged("a number is too large");
const TOO_MANY: Foreign = Foreign::Damaged("it names more offsets than a worker keeps");

/// What fits into the budget.
pub(super) struct Written {
    /// A kind, the position, and runs or bits.
    pub(super) body: Vec<u8>,
    /// How many offsets it names.
    pub(super) kept: u64,
    /// How many it does not.
    pub(super) left_out: u64,
}

/// Writes both encodings side by side; the one that names more offsets wins, then the shorter one.
pub(super) fn write(
    next: Offset,
    settled: impl IntoIterator<Item = Offset>,
    budget: usize,
) -> Written {
    let mut runs = RunWriter::new(next, budget);
    let mut bits = BitWriter::new(next, budget);
    let mut offsets = 0;
    for run in runs_of(next, settled) {
        offsets += run.len();
        runs.add(run);
        bits.add(run);
    }
    let (runs, bits) = (runs.draft, bits.draft);
    let runs_win = (runs.offsets, bits.body.len()) >= (bits.offsets, runs.body.len());
    let best = if runs_win { runs } else { bits };
    Written { body: best.body, kept: best.offsets, left_out: offsets - best.offsets }
}

/// Reads what [`write`] wrote for the same position.
pub(super) fn read(next: Offset, body: &[u8]) -> Result<Vec<Run>, Foreign> {
    let mut reader = Reader::new(body);
    let kind = reader.byte().ok_or(Foreign::Damaged("it is empty"))?;
    let position = Offset(reader.number()?.cast_signed());
    if position != next {
        return Err(Foreign::OtherPosition(position));
    }
    match kind {
        RUNS => reader.runs(next.0),
        BITS => reader.bits(next.0),
        _ => Err(Foreign::Damaged("unknown encoding")),
    }
}

/// Joins ascending offsets into runs. What is below `next` or out of order is left out, which is safe.
fn runs_of(next: Offset, settled: impl IntoIterator<Item = Offset>) -> impl Iterator<Item = Run> {
    let offsets = settled.into_iter().map(|offset| offset.0);
    let mut offsets = offsets.skip_while(move |&offset| offset < next.0).peekable();
    std::iter::from_fn(move || {
        let first = offsets.next()?;
        let mut last = first;
        while let Some(offset) = offsets.next_if(|&offset| offset <= last.saturating_add(1)) {
            last = last.max(offset);
        }
        Some(Run { first, last })
    })
}

/// What one encoding has written so far.
struct Draft {
    body: Vec<u8>,
    offsets: u64,
    budget: usize,
    full: bool,
}

impl Draft {
    fn new(kind: u8, next: Offset, budget: usize) -> Self {
        let mut body = vec![kind];
        push_number(&mut body, next.0.cast_unsigned());
        Self { body, offsets: 0, budget, full: false }
    }
}

/// Per run: how many offsets it is behind the last one, and its length less one.
struct RunWriter {
    draft: Draft,
    /// The first offset that the next run could begin with.
    from: i64,
}

impl RunWriter {
    fn new(next: Offset, budget: usize) -> Self {
        Self { draft: Draft::new(RUNS, next, budget), from: next.0 }
    }

    fn add(&mut self, run: Run) {
        let Draft { body, offsets, budget, full } = &mut self.draft;
        if *full {
            return;
        }
        let before = body.len();
        push_number(body, run.first.abs_diff(self.from));
        push_number(body, run.len() - 1);
        if *budget < body.len() {
            body.truncate(before);
            *full = true;
            return;
        }
        *offsets += run.len();
        self.from = run.last.saturating_add(1);
    }
}

/// How far the first offset is from the position, then one bit per offset from there on.
struct BitWriter {
    draft: Draft,
    next: Offset,
    /// Offset of the first bit, and where in the body it stands.
    start: Option<(i64, usize)>,
}

impl BitWriter {
    fn new(next: Offset, budget: usize) -> Self {
        Self { draft: Draft::new(BITS, next, budget), next, start: None }
    }

    fn add(&mut self, run: Run) {
        let Draft { body, offsets, budget, full } = &mut self.draft;
        if *full {
            return;
        }
        let (origin, head) = *self.start.get_or_insert_with(|| {
            push_number(body, run.first.abs_diff(self.next.0));
            (run.first, body.len())
        });
        let room = budget.saturating_sub(head) as u64 * 8;
        let from = run.first.abs_diff(origin);
        let until = run.last.abs_diff(origin).saturating_add(1).min(room);
        *full = until < run.last.abs_diff(origin).saturating_add(1);
        // Below the budget, which fits any pointer; an empty range leaves everything as it is.
        let (Ok(from), Ok(until)) = (usize::try_from(from), usize::try_from(until)) else {
            return;
        };
        if until <= from {
            return;
        }
        *offsets += (until - from) as u64;
        body.resize(head + until.div_ceil(8), 0);
        set_bits(&mut body[head..], from, until);
    }
}

fn set_bits(bytes: &mut [u8], from: usize, until: usize) {
    let mut bit = from;
    while bit < until {
        if bit.is_multiple_of(8) && bit + 8 <= until {
            bytes[bit / 8] = 0xFF;
            bit += 8;
        } else {
            bytes[bit / 8] |= 1 << (bit % 8);
            bit += 1;
        }
    }
}

/// LEB128: seven bits per byte, lowest first.
pub(super) fn push_number(body: &mut Vec<u8>, mut number: u64) {
    while 0x7F < number {
        body.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    body.push(number.to_le_bytes()[0]);
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A length, and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Foreign> {
        let length = usize::try_from(self.number()?).map_err(|_| TOO_LARGE)?;
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or(Foreign::Damaged("it is cut off"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// What was not read.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    pub(super) fn number(&mut self) -> Result<u64, Foreign> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte().ok_or(Foreign::Damaged("it is cut off"))?;
            let part = u64::from(byte & 0x7F);
            if (part << shift) >> shift != part {
                return Err(TOO_LARGE);
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TOO_LARGE)
    }

    fn runs(&mut self, next: i64) -> Result<Vec<Run>, Foreign> {
        let mut runs = Vec::new();
        let mut from = Some(next);
        let mut left = DoneMap::MOST;
        while !self.rest.is_empty() {
            let (gap, more) = (self.number()?, self.number()?);
            left = left.checked_sub(more).and_then(|left| left.checked_sub(1)).ok_or(TOO_MANY)?;
            let first = from.and_then(|from| from.checked_add_unsigned(gap)).ok_or(TOO_LARGE)?;
            let last = first.checked_add_unsigned(more).ok_or(TOO_LARGE)?;
            runs.push(Run { first, last });
            from = last.checked_add(1);
        }
        Ok(runs)
    }

    fn bits(&mut self, next: i64) -> Result<Vec<Run>, Foreign> {
        let gap = self.number()?;
        let origin = next.checked_add_unsigned(gap).ok_or(TOO_LARGE)?;
        let bytes = self.rest;
        let is_set = |bit: &usize| bytes[bit / 8] & (1 << (bit % 8)) != 0;
        let mut runs: Vec<Run> = Vec::new();
        for bit in (0..bytes.len() * 8).filter(is_set) {
            let offset = origin.checked_add_unsigned(bit as u64).ok_or(TOO_LARGE)?;
            match runs.last_mut() {
                Some(run) if run.last.checked_add(1) == Some(offset) => run.last = offset,
                _ => runs.push(Run { first: offset, last: offset }),
            }
        }
        Ok(runs)
    }
}
