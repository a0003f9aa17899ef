//! Which file a payload belongs to: the one it names, or the sink's template filled in.
//!
//! What a payload fills in is one name each, so that data cannot choose a directory. That the path
//! stays below the base is checked here by its form and by the directory's handle when it is opened.

use std::{
    convert::Infallible,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use drakkar_core::{FilePayload, SinkError};

/// A path with placeholders, `{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(String),
}

impl Template {
    /// Reads a template; `None` where there is none. The error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, found) = rest.split_at(at);
            let inside = found.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            let Some((name, after)) = inside.filter(|(name, _)| is_name(name)) else {
                return Err(format!(
                    "{found:?} does not begin with a placeholder; write {{name}}, of letters, digits \
                     and _"
                ));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Placeholder(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let template = Self(parts);
        let Ok(example) = template.fill::<Infallible>(|_| Ok("x".to_owned()));
        match escape(Path::new(&example)) {
            Some(_) if text.is_empty() => Ok(None),
            Some(why) => Err(why.message),
            None => Ok(Some(template)),
        }
    }

    fn fill<E>(&self, value: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
        let mut path = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Placeholder(name) => path.push_str(&value(name)?),
            }
        }
        Ok(path)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Why `path` is not that of a file below the base, as far as it tells by itself.
fn escape(path: &Path) -> Option<SinkError> {
    let shown = path.display();
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !path.components().all(inside) {
        let text = format!("{shown} is not a path below base_path");
        return Some(SinkError::new("outside_base_path", text));
    }
    if path.file_name().is_none() {
        return Some(SinkError::new("no_file_name", format!("{shown:?} names no file")));
    }
    None
}

/// What placeholders stand for in one sink.
pub(super) struct Places {
    template: Option<Template>,
    worker: String,
}

impl Places {
    pub(super) fn new(template: Option<Template>, worker: &str) -> Self {
        // A name of a worker need not be one of a file.
        let worker =
            if is_part(worker) { worker.to_owned() } else { worker.replace(['/', '.', '\0'], "_") };
        Self { template, worker }
    }

    /// The file of `payload` when it is written `now`; an error says why it can never have one.
    pub(super) fn of(&self, payload: &FilePayload, now: SystemTime) -> Result<PathBuf, SinkError> {
        let path = match &self.template {
            Some(template) if payload.path.as_os_str().is_empty() => {
                template.fill(|name| self.value(name, payload, now))?.into()
            }
            _ => payload.path.clone(),
        };
        match escape(&path) {
            Some(why) => Err(why),
            None => Ok(path),
        }
    }

    fn value(
        &self,
        name: &str,
        payload: &FilePayload,
        now: SystemTime,
    ) -> Result<String, SinkError> {
        // A payload knows better: the date of an event is not that of its line.
        if let Some(value) = payload.params.get(name) {
            if is_part(value) {
                return Ok(value.clone());
            }
            let text = format!("{{{name}}} is {value:?}, which cannot be the name of a file");
            return Err(SinkError::new("param", text));
        }
        match name {
            "date" => Ok(utc(now)[..10].to_owned()),
            "hour" => Ok(utc(now)[11..13].to_owned()),
            "worker_id" => Ok(self.worker.clone()),
            _ => {
                let text =
                    format!("the path of the sink wants {{{name}}}, which the payload lacks");
                Err(SinkError::new("param", text))
            }
        }
    }
}

/// Whether `value` stays one part of a path wherever it is put.
fn is_part(value: &str) -> bool {
    !matches!(value, "" | "." | "..") && !value.contains(['/', '\0'])
}

/// `2026-11-21T15:53:19Z`
pub(super) fn utc(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at.max(SystemTime::UNIX_EPOCH)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2026-11-21, 23:59:59 UTC.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_599)
    }

    #[track_caller]
    fn check(template: &str, payload: &FilePayload, expected: Result<&str, &str>) {
        let places = Places::new(Template::parse(template).unwrap(), "worker-1");
        let place = places.of(payload, now());
        let found = place.as_ref().map(|path| path.to_str().unwrap());
        assert_eq!(found.map_err(|error| error.class.as_str()), expected, "{place:?}");
    }

    #[test]
    fn placeholders_are_the_time_of_writing_the_worker_and_what_the_payload_gives() {
        let payload = FilePayload::line("", "x").param("topic", "orders");
        let template = "{topic}/{date}-{hour}/{worker_id}.jsonl";
        check(template, &payload, Ok("orders/2026-11-21-23/worker-1.jsonl"));
        check(template, &payload.param("date", "1999"), Ok("orders/1999-23/worker-1.jsonl"));
    }

    #[test]
    fn a_path_of_the_payload_is_taken_as_it_is() {
        check("{date}", &FilePayload::line("{date}/{topic}", "x"), Ok("{date}/{topic}"));
        check("", &FilePayload::line("", "x"), Err("no_file_name"));
    }

    #[test]
    fn what_a_payload_fills_in_chooses_no_directory() {
        for value in ["", ".", "..", "/etc", "a/b", "a/../b", "nul\0"] {
            let payload = FilePayload::line("", "x").param("topic", value);
            check("{topic}", &payload, Err("param"));
            check("in/{topic}/x", &payload, Err("param"));
        }
        // Together they could.
        let payload = FilePayload::line("", "x").param("a", ".a").param("b", "...");
        check("{a}{b}", &payload, Ok(".a..."));
        let dot = FilePayload::line("", "x").param("topic", "a.");
        check(".{topic}", &dot, Ok(".a."));
        check("{lacks}", &FilePayload::line("", "x"), Err("param"));
    }

    #[test]
    fn a_worker_whose_name_is_no_name_of_a_file_has_one_all_the_same() {
        let template = || Template::parse("{worker_id}").unwrap();
        for (worker, name) in [("a/b", "a_b"), ("..", "__"), ("a.b", "a.b")] {
            let place = Places::new(template(), worker).of(&FilePayload::line("", "x"), now());
            assert_eq!(place.unwrap(), Path::new(name));
        }
    }

    #[test]
    fn a_template_that_cannot_work_says_why() {
        for (text, why) in [
            ("a{", "\"{\" does not begin with a placeholder"),
            ("a}b", "\"}b\" does not begin"),
            ("{}", "\"{}\" does not begin"),
            ("{a b}", "does not begin"),
            ("/a", "/a is not a path below base_path"),
            ("../{date}", "../x is not a path below base_path"),
            (".", "\".\" names no file"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
