//! The page of the configuration: its tables are made of the comments on the fields that are read.
//!
//! `UPDATE_DOCS=1 cargo test --workspace --test tidy` writes them; the prose around them is by hand.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::{
    keys::{joined, keys},
    sections::{Field, Sources},
    workspace::{read, root},
};

const PAGE: &str = "docs/configuration.md";

/// One line of a table.
struct Row {
    key: String,
    kind: &'static str,
    default: String,
    description: String,
}

/// Every key, in the order in which the fields are declared.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    collect(&Sources::read(), "Config", "", &mut rows);
    rows
}

fn collect(sources: &Sources, section: &str, at: &str, rows: &mut Vec<Row>) {
    for field in &sources.sections[section] {
        let key = joined(at, &field.name);
        let declared = inside(&field.declared, "Option<");
        let instance = inside(declared, "BTreeMap<String, ");
        if declared == "BatchConfig" {
            // Described once, for every kind.
            let key = "sinks.<kind>.<name>.batch";
            if !rows.iter().any(|row| row.key.starts_with(key)) {
                collect(sources, declared, key, rows);
            }
        } else if sources.sections.contains_key(declared) {
            collect(sources, declared, &key, rows);
        } else if sources.sections.contains_key(instance) {
            collect(sources, instance, &format!("{key}.<name>"), rows);
        } else {
            rows.push(row(sources, key, declared, field));
        }
    }
}

/// What is between `open` and `>`, or all of it.
fn inside<'a>(declared: &'a str, open: &str) -> &'a str {
    declared.strip_prefix(open).and_then(|rest| rest.strip_suffix('>')).unwrap_or(declared)
}

fn row(sources: &Sources, key: String, declared: &str, field: &Field) -> Row {
    let Field { description, default, .. } = field;
    assert!(description.ends_with('.'), "{key}: is not described in a sentence");
    assert!(!default.is_empty(), "{key}: its comment does not end with `Default: `, words, a dot");
    for text in [description, default] {
        // A link of rustdoc leads nowhere on a page; `docs/page.md#heading` is one on both.
        assert!(!text.contains("](") && !text.contains('|'), "{key}: {text}");
    }
    let kind = kind(sources, declared, description).unwrap_or_else(|| panic!("{key}: {declared}?"));
    Row { key, kind, default: linked(default), description: linked(description) }
}

/// What is written there. The unit of a number is the first word of its description.
fn kind(sources: &Sources, declared: &str, description: &str) -> Option<&'static str> {
    let number = |otherwise| match description.split(' ').next() {
        Some("Bytes") => "bytes",
        Some("Seconds") => "seconds",
        Some("Milliseconds") => "milliseconds",
        Some("Percent") => "percent",
        _ => otherwise,
    };
    Some(match declared {
        "bool" => "boolean",
        "String" => "text",
        "PathBuf" => "path",
        "Secret" => "secret",
        "Duration" => "duration",
        "Value" => "object",
        "Vec<String>" => "list of texts",
        "Vec<u16>" => "list of integers",
        "BTreeMap<String, String>" | "Variables" => "texts by name",
        "BTreeMap<String, Secret>" => "secrets by name",
        "f64" => number("number"),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" => number("integer"),
        other if other.starts_with("NonZero") => number("integer"),
        other if sources.choices.contains(other) => "choice",
        other if sources.free.contains(other) => "text",
        _ => return None,
    })
}

/// `text` with each `docs/page.md#heading` between backticks as a link to it.
fn linked(text: &str) -> String {
    let link = |(at, piece): (usize, &str)| match piece.strip_prefix("docs/") {
        Some(target) if at % 2 == 1 => {
            let name = target.split(".md").next().unwrap_or_default();
            format!("[{}]({target})", name.rsplit('/').next().unwrap_or_default())
        }
        _ if at % 2 == 1 => format!("`{piece}`"),
        _ => piece.to_owned(),
    };
    text.split('`').enumerate().map(link).collect()
}

/// A default as the comment has to begin with it; none where nothing is set, or not shown.
fn shown(value: &Value) -> Option<String> {
    let quoted = |value: &Value| format!("`{value}`").replace('"', "");
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() || text == "***" => None,
        Value::Object(below) if below.is_empty() => None,
        Value::Array(values) if values.is_empty() => None,
        Value::Array(values) => Some(values.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        value => Some(quoted(value)),
    }
}

/// The page with its tables as they have to be.
fn page(text: &str, rows: &[Row]) -> String {
    let (open, close) = ("<!-- keys: ", "<!-- end of keys -->");
    let marks: Vec<&str> =
        text.split(open).skip(1).filter_map(|rest| Some(rest.split_once(" -->")?.0)).collect();
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for Row { key, kind, default, description } in rows {
        let is_in =
            |mark: &&&str| key.strip_prefix(**mark).is_some_and(|rest| rest.starts_with('.'));
        let nearest = marks.iter().filter(is_in).max_by_key(|mark| mark.len());
        let mark = if key.contains('.') { nearest } else { Some(&"top") };
        let mark = mark.unwrap_or_else(|| panic!("{PAGE} has no table for {key}"));
        let line = format!("| `{key}` | {kind} | {default} | {description} |\n");
        tables.entry(mark).or_default().push_str(&line);
    }
    let mut written = text.split(open).next().unwrap().to_owned();
    for part in text.split(open).skip(1) {
        let (mark, rest) = part.split_once(" -->").unwrap();
        let (_, after) = rest.split_once(close).unwrap_or_else(|| panic!("{mark}: has no end"));
        let lines = tables.remove(mark).unwrap_or_else(|| panic!("{PAGE}: {mark}: has no keys"));
        let head = "| key | type | default | |\n|---|---|---|---|";
        written.extend([open, mark, " -->\n\n", head, "\n", &lines, "\n", close, after]);
    }
    written
}

#[test]
fn the_tables_of_the_configuration_are_what_the_comments_of_the_fields_say() {
    let text = read(PAGE);
    let expected = page(&text, &rows());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), expected).unwrap();
        return;
    }
    for (is, should) in text.lines().zip(expected.lines()) {
        assert_eq!(is, should, "{PAGE}: UPDATE_DOCS=1 cargo test --workspace --test tidy");
    }
    assert_eq!(text, expected, "{PAGE}: UPDATE_DOCS=1 cargo test --workspace --test tidy");
}

#[test]
fn each_key_is_described_once_with_the_default_it_has_and_none_that_is_not_read() {
    let mut keys = keys();
    for Row { key, default, .. } in rows() {
        let value = keys.remove(&key).unwrap_or_else(|| panic!("{key}: is twice, or is not read"));
        match shown(&value) {
            Some(shown) => assert!(default.starts_with(&shown), "{key}: {default}, but {shown}"),
            None => assert!(!default.starts_with('`') || value == "***", "{key}: {default}"),
        }
    }
    assert_eq!(keys, BTreeMap::new(), "these are not described");
}
