//! The guide for those who come from the Python original: every key and hook, theirs and ours.

use std::{collections::BTreeSet, iter};

use crate::{keys::keys, workspace::read};

const GUIDE: &str = "docs/migration.md";

/// Key and second cell of each row below `heading` whose first cell is a key.
fn rows(heading: &str) -> Vec<(String, String)> {
    let text = read(GUIDE);
    let (_, text) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = text.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.strip_suffix('`')?;
        Some((key.to_owned(), cells.next()?.trim_end_matches('|').trim().to_owned()))
    });
    let rows: Vec<_> = cells.collect();
    assert!(!rows.is_empty(), "{GUIDE}: {heading}");
    rows
}

#[test]
fn the_guide_for_migration_says_same_and_different_only_of_keys_that_exist() {
    let keys = keys();
    for (key, verdict) in rows("Keys") {
        let expected = match verdict.as_str() {
            "same" | "different" => true,
            "not in this build" => false,
            other => panic!("{GUIDE}: {key}: {other}"),
        };
        assert_eq!(keys.contains_key(&key), expected, "{GUIDE}: {key}: {verdict}");
    }
}

#[test]
fn each_key_that_the_original_does_not_have_is_listed_once_as_new_with_what_for() {
    let theirs: BTreeSet<String> = rows("Keys").into_iter().map(|(key, _)| key).collect();
    let keys = keys();
    let mut new: BTreeSet<&String> = keys.keys().filter(|key| !theirs.contains(*key)).collect();
    // Names of hooks begin with a capital.
    let listed = rows("New").into_iter().filter(|(key, _)| key.starts_with(char::is_lowercase));
    for (pattern, what_for) in listed {
        assert!(!what_for.is_empty(), "{GUIDE}: {pattern}: what for?");
        let before = new.len();
        match pattern.strip_suffix('*') {
            Some(below) => {
                assert!(!theirs.iter().any(|key| key.starts_with(below)), "{GUIDE}: {pattern}");
                new.retain(|key| !key.starts_with(below));
            }
            None => new.retain(|key| **key != pattern),
        }
        assert!(new.len() < before, "{GUIDE}: {pattern} is not new, or listed twice");
    }
    assert_eq!(new, BTreeSet::new(), "{GUIDE}: these are neither theirs nor new");
}

#[test]
fn each_hook_of_the_handler_has_a_row() {
    let source = read("crates/core/src/handler.rs");
    let (_, text) = source.split_once("pub trait Handler").unwrap();
    let hooks = text.split("\n}").next().unwrap().split("    fn ").skip(1);
    let guide = read(GUIDE);
    let (_, table) = guide.split_once("\n## Hooks\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    for hook in hooks.map(|hook| hook.split('(').next().unwrap()) {
        let named = [format!("`{hook}`"), format!("`{hook}(")];
        assert!(named.iter().any(|name| table.contains(name)), "{GUIDE} does not name {hook}");
    }
}

#[test]
fn a_file_of_the_original_is_accepted_with_every_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (key, _) in rows("Keys") {
        // `a.b.c` as nested sections in the flow style of YAML.
        let path: Vec<&str> = key.split('.').collect();
        let written = format!("{}: 1{}", path.join(": {"), "}".repeat(path.len() - 1));
        std::fs::write(file.path(), written.replace("<name>", "name")).unwrap();
        let loaded = drakkar::config::load(Some(file.path()), iter::empty::<(String, String)>());
        if let Err(error) = loaded {
            // A number may be no value for it, but the key is known.
            assert!(!error.to_string().contains("unknown key"), "{key}: {error}");
        }
    }
}
