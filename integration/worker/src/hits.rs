//! What `grep --null --line-number` prints, and the report we make of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::search::{Request, SHOWN};

/// One matching line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hit {
    file: String,
    line: u64,
    text: String,
}

/// All matching lines of one run, in the order of `grep`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hits(Vec<Hit>);

/// A line that is not of the form `file NUL line : text`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "grep printed a line we do not understand: {:?}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Hits {
    /// Reads the output of `grep`. A last line without an end was cut off by the capture limit and is
    /// left out; the report says so.
    pub(crate) fn parse(stdout: &[u8]) -> Result<Self, Malformed> {
        let whole = stdout.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&stdout[..whole]);
        text.split_terminator('\n').map(parse_line).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

fn parse_line(printed: &str) -> Result<Hit, Malformed> {
    let hit = || {
        let (file, rest) = printed.split_once('\0')?;
        let (line, text) = rest.split_once(':')?;
        Some(Hit { file: file.to_owned(), line: line.parse().ok()?, text: text.to_owned() })
    };
    hit().ok_or_else(|| Malformed(printed.to_owned()))
}

/// The answer to one request.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    request_id: &'a str,
    pattern: &'a str,
    /// Matching lines.
    matches: usize,
    /// Matching lines per file.
    files: BTreeMap<&'a str, usize>,
    /// Whether `grep` printed more than the worker keeps.
    truncated: bool,
    hits: &'a [Hit],
}

impl<'a> Report<'a> {
    /// Counts everything, shows the first lines.
    pub(crate) fn new(request: &'a Request, hits: &'a Hits, truncated: bool) -> Self {
        let mut files = BTreeMap::new();
        for hit in &hits.0 {
            *files.entry(hit.file.as_str()).or_default() += 1;
        }
        Self {
            request_id: &request.id,
            pattern: &request.pattern,
            matches: hits.count(),
            files,
            truncated,
            hits: &hits.0[..hits.count().min(SHOWN)],
        }
    }

    /// The same with every line.
    pub(crate) fn with_all(self, hits: &'a Hits) -> Self {
        Self { hits: &hits.0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_file_is_called_and_the_text_holds() {
        let hits = Hits::parse(b"a:b.txt\x007:see: \xff here\n").unwrap();
        let expected = Hit { file: "a:b.txt".into(), line: 7, text: "see: \u{fffd} here".into() };
        assert_eq!(hits, Hits(vec![expected]));
    }

    #[test]
    fn nothing_printed_is_no_hit() {
        assert_eq!(Hits::parse(b"").unwrap().count(), 0);
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out() {
        assert_eq!(Hits::parse(b"a\x001:x\na\x002:y\na\x0030").unwrap().count(), 2);
    }

    #[test]
    fn output_of_another_form_is_an_error_that_shows_it() {
        let error = Hits::parse(b"Binary file x matches\n").unwrap_err();
        assert!(error.to_string().contains("Binary file x matches"), "{error}");
    }
}
