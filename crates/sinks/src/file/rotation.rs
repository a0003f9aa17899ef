//! When a file is renamed, and what it is called then. Nothing here touches a file.
//!
//! `counts.jsonl` becomes `counts.20261121T155319Z.jsonl`, with `-1`, `-2` … behind the time where that
//! name is taken, and with `.gz` behind it once it is compressed.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    time::{Duration, SystemTime},
};

use super::template::utc;
use crate::config::{Compress, RotateConfig};

/// What is behind the name of a file that is compressed.
pub(super) const COMPRESSED: &str = ".gz";
/// What is behind that while it is being written.
pub(super) const PARTIAL: &str = ".partial";
/// How much longer a name gets, at most.
const LONGER: usize = ".20261121T155319Z-4294967295.gz.partial".len();
/// As long as a name may be.
const LONGEST: usize = 255;

/// When a file is renamed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    pub max_bytes: Option<u64>,
    max_age: Option<Duration>,
    pub compress: Compress,
    pub keep: usize,
}

impl Rotation {
    pub(super) fn new(config: &RotateConfig) -> Self {
        Self {
            max_bytes: config.max_bytes.map(Into::into),
            max_age: config.max_age,
            compress: config.compress,
            keep: config.keep,
        }
    }

    /// Whether a file that was begun then is too old `now`.
    pub(super) fn is_over(&self, begun: SystemTime, now: SystemTime) -> bool {
        // A clock that was set back makes a file young, not old.
        let age = now.duration_since(begun).unwrap_or_default();
        self.max_age.is_some_and(|max| max <= age)
    }

    /// Whether a file of this name could not be renamed.
    pub(super) fn is_too_long(&self, name: &OsStr) -> bool {
        let is_on = self.max_bytes.is_some() || self.max_age.is_some();
        is_on && LONGEST < name.len() + LONGER
    }
}

/// What `name` is called when it is renamed.
pub(super) fn renamed(name: &OsStr, age: &Age) -> OsString {
    let (stem, extension) = parts(name);
    let mut renamed = stem.to_owned();
    renamed.push(".");
    renamed.push(&age.time);
    if age.n > 0 {
        renamed.push(format!("-{}", age.n));
    }
    renamed.push(extension);
    renamed
}

/// The age of `name` when it is renamed `now` beside the files that are there: younger than all of them,
/// whatever the clock says, or the youngest would be deleted for the oldest. `None`: no number is left.
///
/// The youngest file is never deleted. So no age comes twice, although others are.
pub(super) fn next(
    name: &OsStr,
    now: SystemTime,
    there: impl IntoIterator<Item = OsString>,
) -> Option<Age> {
    let ages = there.into_iter().filter_map(|found| Some(recognise(name, &found)?.age));
    let time = utc(now).replace(['-', ':'], "");
    match ages.max() {
        Some(youngest) if time <= youngest.time => youngest.following(),
        _ => Some(Age { time, n: 0 }),
    }
}

/// When a renamed file was renamed; they sort by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    time: String,
    /// How many of that time are older.
    n: u32,
}

impl Age {
    /// The next one of the same time.
    pub(super) fn following(&self) -> Option<Self> {
        Some(Self { time: self.time.clone(), n: self.n.checked_add(1)? })
    }
}

/// A file that `name` was renamed to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Renamed {
    pub age: Age,
    pub is_compressed: bool,
}

/// What `found` says of itself if it is a file that `name` was renamed to.
pub(super) fn recognise(name: &OsStr, found: &OsStr) -> Option<Renamed> {
    let (stem, extension) = parts(name);
    let found = found.to_str()?.strip_prefix(stem.to_str()?)?.strip_prefix('.')?;
    let plain = found.strip_suffix(COMPRESSED);
    let stamp_of = |found: &str| Some(found.strip_suffix(extension.to_str()?)?.to_owned());
    // A file may be called `.gz` from the beginning.
    let (stamp, is_compressed) = match stamp_of(found).filter(|stamp| age(stamp).is_some()) {
        Some(stamp) => (stamp, false),
        None => (stamp_of(plain?)?, true),
    };
    Some(Renamed { age: age(&stamp)?, is_compressed })
}

fn age(stamp: &str) -> Option<Age> {
    let (time, n) = match stamp.split_once('-') {
        Some((time, n)) => (time, n.parse().ok().filter(|n| *n > 0)?),
        None => (stamp, 0),
    };
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    (shape == "00000000T000000Z").then(|| Age { time: time.to_owned(), n })
}

/// `counts` and `.jsonl`.
fn parts(name: &OsStr) -> (&OsStr, OsString) {
    let path = Path::new(name);
    let mut extension = OsString::new();
    if let Some(found) = path.extension() {
        extension.push(".");
        extension.push(found);
    }
    (path.file_stem().unwrap_or(name), extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_renamed_file_has_the_time_before_its_extension_and_is_recognised() {
        for (name, n, renamed_to) in [
            ("counts.jsonl", 0, "counts.20261121T155319Z.jsonl"),
            ("counts.jsonl", 2, "counts.20261121T155319Z-2.jsonl"),
            ("counts", 0, "counts.20261121T155319Z"),
            (".hidden", 1, ".hidden.20261121T155319Z-1"),
            ("a.b.gz", 0, "a.b.20261121T155319Z.gz"),
        ] {
            let (name, to) = (OsStr::new(name), OsStr::new(renamed_to));
            let age = Age { n, ..next(name, at(1_795_276_399), []).unwrap() };
            assert_eq!(renamed(name, &age), to);
            let found = recognise(name, to).unwrap();
            assert_eq!((found.age.n, found.is_compressed), (n, false), "{renamed_to}");
            let mut compressed = to.to_owned();
            compressed.push(COMPRESSED);
            let found = recognise(name, &compressed).unwrap();
            assert_eq!((found.age.n, found.is_compressed), (n, true), "{compressed:?}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_a_renamed_file() {
        for other in [
            "counts.jsonl",
            "counts.20261121T155319Z.csv",
            "counts.20261121.jsonl",
            "counts.20261121T155319Z-.jsonl",
            "counts.20261121T155319Z-0.jsonl",
            "counts.20261121T155319Z-x.jsonl",
            "counts.20261121T155319Z.jsonl.gz.partial",
            "other.20261121T155319Z.jsonl",
            "my-counts.20261121T155319Z.jsonl",
            "counts.old.20261121T155319Z.jsonl",
        ] {
            assert_eq!(recognise("counts.jsonl".as_ref(), other.as_ref()), None, "{other}");
        }
    }

    #[test]
    fn renamed_files_sort_by_age() {
        let names = [
            "c.20261121T155319Z",
            "c.20261121T155319Z-2.gz",
            "c.20261121T155319Z-10",
            "c.20261121T155320Z.gz",
        ];
        let ages: Vec<Age> =
            names.iter().map(|name| recognise("c".as_ref(), name.as_ref()).unwrap().age).collect();
        assert!(ages.is_sorted(), "{ages:?}");
    }

    #[test]
    fn the_next_file_is_younger_than_all_that_are_there() {
        for (there, expected) in [
            (
                &["c", "c.20261121T155318Z-7.gz", "d.20261121T155320Z"][..],
                Some("c.20261121T155319Z"),
            ),
            (&["c.20261121T155319Z.gz"], Some("c.20261121T155319Z-1")),
            // What is older was deleted, and is not made again.
            (&["c.20261121T155319Z-10", "c.20261121T155319Z-9"], Some("c.20261121T155319Z-11")),
            (&["c.20261121T155319Z", "c.20261121T160000Z-2.gz"], Some("c.20261121T160000Z-3")),
            (&["c.20261121T155319Z-4294967295"], None),
        ] {
            let age = next("c".as_ref(), at(1_795_276_399), there.iter().map(OsString::from));
            let name = age.map(|age| renamed("c".as_ref(), &age));
            assert_eq!(name.as_deref(), expected.map(OsStr::new), "{there:?}");
        }
    }

    #[test]
    fn a_file_is_over_when_it_has_its_age_and_never_because_a_clock_went_back() {
        let config = RotateConfig { max_age: Some(Duration::from_mins(1)), ..Default::default() };
        let rotation = Rotation::new(&config);
        assert!(!rotation.is_over(at(100), at(159)));
        assert!(rotation.is_over(at(100), at(160)));
        assert!(!rotation.is_over(at(100), at(0)));
        assert!(!Rotation::new(&RotateConfig::default()).is_over(at(0), at(1_000_000)));
    }
}
