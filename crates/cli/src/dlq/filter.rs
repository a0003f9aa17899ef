//! Which letters are meant.

use std::{fmt::Write as _, str::FromStr, time::SystemTime};

use serde_json::Value;

use super::{
    args::Choice,
    letter::{Letter, escape},
};

/// A moment on the command line; keeps its text, so that `2h` is the same filter an hour later.
#[derive(Debug, Clone)]
pub(crate) struct When {
    text: String,
    millis: i64,
    /// It moves on as time does.
    is_age: bool,
}

/// Whether a letter is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    Yes,
    No,
    /// `--until` is an age that it has not reached yet.
    Later,
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, is_age) = moment(text).ok_or_else(|| {
            format!("{text:?} is neither a time (2026-11-21T13:00:00Z, 2026-11-21) nor an age (2h)")
        })?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
        let millis = i64::try_from(since.as_millis()).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), millis, is_age })
    }
}

/// The moment, and whether it was given as an age.
fn moment(text: &str) -> Option<(SystemTime, bool)> {
    if let Ok(age) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(age).map(|at| (at, true));
    }
    let at = humantime::parse_rfc3339_weak(text);
    let at = at.or_else(|_| humantime::parse_rfc3339_weak(&format!("{text}T00:00:00")));
    at.ok().map(|at| (at, false))
}

/// `NAME=VALUE` on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Equal {
    name: String,
    value: String,
}

impl FromStr for Equal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("there is no `=` in it")?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

impl Equal {
    /// The same where the name is a JSON pointer.
    pub(super) fn at_pointer(text: &str) -> Result<Self, String> {
        let equal: Self = text.parse()?;
        if equal.name.is_empty() || equal.name.starts_with('/') {
            Ok(equal)
        } else {
            Err("a JSON pointer begins with `/`: /user/id=42".to_owned())
        }
    }
}

impl Choice {
    /// Whether `letter` is meant now. Partitions are chosen before anything is read.
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        self.meant(letter) == Meant::Yes
    }

    /// Whether `letter` is meant, now or by a later run with the same filters.
    pub(super) fn meant(&self, letter: &Letter) -> Meant {
        let has = |wanted: &[String], name: &str| {
            let found = letter.ours(name);
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|one| *one == *found))
        };
        let at = |limit: &Option<When>, holds: fn(i64, i64) -> bool| {
            let Some(limit) = limit else { return true };
            letter.time().is_some_and(|time| holds(time, limit.millis))
        };
        let matches = has(&self.stage, "stage")
            && has(&self.class, "error-class")
            && has(&self.sink, "sink")
            && at(&self.since, |time, since| since <= time)
            && self.has_key(letter)
            && self.header.iter().all(|wanted| has_header(letter, wanted))
            && self.has_json(letter);
        let grows = self.until.as_ref().is_some_and(|until| until.is_age);
        match (matches, at(&self.until, |time, until| time < until)) {
            (true, true) => Meant::Yes,
            (true, false) if grows && letter.time().is_some() => Meant::Later,
            _ => Meant::No,
        }
    }

    fn has_key(&self, letter: &Letter) -> bool {
        let is = |wanted: &String| letter.record.key.as_ref().is_some_and(|key| same(key, wanted));
        self.key.is_empty() || self.key.iter().any(is)
    }

    fn has_json(&self, letter: &Letter) -> bool {
        if self.json.is_empty() {
            return true;
        }
        let value = letter.record.value.as_ref();
        let value = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        value.is_some_and(|value| self.json.iter().all(|wanted| has_json(&value, wanted)))
    }

    /// The filters as text, to tell whether two runs mean the same letters. Partitions are left out:
    /// progress is kept for each.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |option: &str, value: &str| {
            // A String takes everything that is written to it.
            write!(text, " --{option} {value:?}").ok();
        };
        let lists = [
            ("class", &self.class),
            ("stage", &self.stage),
            ("sink", &self.sink),
            ("key", &self.key),
        ];
        for (option, values) in lists {
            for value in values {
                add(option, value);
            }
        }
        for (option, when) in [("since", &self.since), ("until", &self.until)] {
            if let Some(when) = when {
                add(option, &when.text);
            }
        }
        for (option, pairs) in [("header", &self.header), ("json", &self.json)] {
            for Equal { name, value } in pairs {
                add(option, &format!("{name}={value}"));
            }
        }
        text
    }
}

/// Whether `bytes` are what was typed, as they are or escaped.
fn same(bytes: &[u8], typed: &str) -> bool {
    bytes == typed.as_bytes() || escape(bytes) == typed
}

fn has_header(letter: &Letter, wanted: &Equal) -> bool {
    letter.record.headers.iter().any(|header| {
        let value = header.value.as_ref();
        *header.name == wanted.name && value.is_some_and(|value| same(value, &wanted.value))
    })
}

fn has_json(value: &Value, wanted: &Equal) -> bool {
    match value.pointer(&wanted.name) {
        None => false,
        Some(Value::String(text)) => *text == wanted.value,
        Some(other) => {
            serde_json::from_str::<Value>(&wanted.value).is_ok_and(|typed| typed == *other)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::letter::tests::letter, *};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn choice(line: &[&str]) -> Choice {
        Line::try_parse_from([&["x"], line].concat()).unwrap().choice
    }

    /// Whether the letter with the headers `a: 1` and `b: \xff` is meant.
    fn meant(line: &[&str]) -> bool {
        let mut letter = letter(&[("a", "1")]);
        letter.record.headers.push(drakkar::Header::new("b", &b"\xff"[..]));
        choice(line).matches(&letter)
    }

    #[test]
    fn without_a_filter_every_letter_is_meant() {
        assert!(meant(&[]));
    }

    #[test]
    fn stage_class_and_sink_are_what_the_worker_wrote() {
        assert!(meant(&["--stage", "execute", "--class", "exit_code"]));
        assert!(meant(&["--class", "timeout", "--class", "exit_code"]), "any of them");
        assert!(!meant(&["--class", "timeout"]));
        assert!(!meant(&["--stage", "execute", "--class", "timeout"]), "all of the options");
        assert!(!meant(&["--sink", "kafka/out"]), "no sink refused");
    }

    #[test]
    fn since_includes_its_moment_and_until_does_not() {
        let at = "2026-11-18T11:06:40Z";
        let time = When::from_str(at).unwrap().millis;
        let mut letter = letter(&[]);
        letter.record.timestamp = Some(drakkar::Timestamp::Created(time));
        let meant = |line: &[&str]| choice(line).matches(&letter);
        assert!(meant(&["--since", at]) && !meant(&["--until", at]));
        assert!(meant(&["--since", "2026-11-18", "--until", "2026-11-19"]));
        assert!(!meant(&["--until", "100000h"]) && meant(&["--since", "100000h"]));
    }

    #[test]
    fn a_letter_that_is_too_young_is_meant_later_and_what_else_does_not_match_never() {
        let mut letter = letter(&[]);
        let meant = |letter: &Letter, line: &[&str]| choice(line).meant(letter);
        assert_eq!(meant(&letter, &["--until", "100000h"]), Meant::Later);
        assert_eq!(meant(&letter, &["--until", "100000h", "--class", "timeout"]), Meant::No);
        assert_eq!(meant(&letter, &["--until", "2020-01-01"]), Meant::No, "that stays where it is");
        letter.record.timestamp = None;
        assert_eq!(meant(&letter, &["--until", "100000h"]), Meant::No, "it has no age");
    }

    #[test]
    fn a_key_is_given_as_it_is_or_as_it_is_shown() {
        assert!(meant(&["--key", "\\xff\\u{0}k"]));
        assert!(meant(&["--key", "x", "--key", "\\xff\\u{0}k"]));
        assert!(!meant(&["--key", "k"]));
    }

    #[test]
    fn headers_and_json_must_all_match() {
        assert!(meant(&["--header", "a=1", "--header", "b=\\xff"]));
        assert!(!meant(&["--header", "a=1", "--header", "b=1"]));
        assert!(meant(&["--json", "/user/id=42", "--json", "/user/name=ann"]));
        assert!(meant(&["--json", "/ok=true", "--json", "/user={\"id\":42,\"name\":\"ann\"}"]));
        assert!(!meant(&["--json", "/user/id=\"42\""]), "a number is no text");
        assert!(!meant(&["--json", "/nowhere=null"]));
    }

    #[test]
    fn a_value_that_is_no_json_matches_no_pointer() {
        let mut letter = letter(&[]);
        letter.record.value = None;
        assert!(!choice(&["--json", "/a=1"]).matches(&letter));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        assert!(Line::try_parse_from(["x", "--since", "tomorrow"]).is_err());
        assert!(Line::try_parse_from(["x", "--header", "a"]).is_err());
        assert!(Line::try_parse_from(["x", "--json", "user=1"]).is_err());
    }

    #[test]
    fn the_same_filters_have_the_same_text_and_others_another() {
        let text = |line: &[&str]| choice(line).text();
        assert_eq!(
            text(&["--since", "2h", "--class", "a"]),
            text(&["--class", "a", "--since", "2h"])
        );
        assert_ne!(text(&["--class", "a"]), text(&["--stage", "a"]));
        assert_eq!(text(&["--partition", "1"]), "");
    }
}
