//! What people read: links that lead somewhere, keys that exist, code that compiles.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    keys::keys,
    workspace::{files, read, root},
};

fn documents() -> Vec<String> {
    let mut found: Vec<String> = ["README.md", "CHANGELOG.md"].map(str::to_owned).into();
    let below = ["docs", "integration", "crates"].into_iter().flat_map(|top| files(top, "md"));
    found.extend(below.map(|path| path.to_str().unwrap().to_owned()));
    found
}

/// What stands between `open` and `close`, wherever that is in `text`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split_once(close).map(|(inner, _)| inner))
}

#[test]
fn every_link_to_a_file_of_the_repository_leads_to_it_and_to_its_heading() {
    for document in documents() {
        let text = read(&document);
        let here = Path::new(&document).parent().unwrap();
        for target in between(&text, "](", ")") {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            if path.contains("://") {
                continue;
            }
            let leads_to = if path.is_empty() { Path::new(&document) } else { &here.join(path) };
            assert!(root().join(leads_to).exists(), "{document} links to {target}");
            let is_there = heading.is_empty() || anchors(leads_to).contains(heading);
            assert!(is_there, "{document} links to {target}, and there is no such heading");
        }
    }
}

/// The headings of a page as links name them.
fn anchors(document: &Path) -> BTreeSet<String> {
    let text = read(document.to_str().unwrap());
    let headings = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let named = headings.map(|heading| {
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
    });
    named.collect()
}

#[test]
fn every_path_that_is_named_exists() {
    let tops = ["crates/", "integration/", "docs/", "config/", ".ci/"];
    for document in documents() {
        let text = read(&document);
        // Every other piece is between a pair of backticks.
        for named in text.split('`').skip(1).step_by(2) {
            let is_path = tops.iter().any(|top| named.starts_with(top))
                && !named.contains([' ', '\n', '*', '<', '{']);
            assert!(!is_path || root().join(named).exists(), "{document} names {named}");
        }
    }
}

#[test]
fn the_documentation_lists_every_metric_with_what_its_help_says() {
    let documented = read("docs/metrics.md");
    let sources = files("crates/telemetry/src", "rs");
    let sources = sources.iter().filter(|path| !path.ends_with("tests.rs"));
    let text: String = sources.map(|path| read(path.to_str().unwrap())).collect();
    // A name, a comma and the help, between quotation marks.
    let quoted: Vec<&str> = text.split('"').collect();
    let metrics: BTreeMap<&str, &str> = quoted
        .windows(3)
        .filter(|around| around[0].starts_with("drakkar_") && around[1].trim() == ",")
        .map(|around| (around[0], around[2]))
        .collect();
    for (name, help) in &metrics {
        let row = documented.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row for {name}"));
        assert!(row.ends_with(&format!(" | {help} |")), "{row}: the help is {help:?}");
    }
    let tables = documented.split("| metric |").skip(1);
    let rows = tables.flat_map(str::lines).filter(|line| line.starts_with("| `drakkar_"));
    assert_eq!(rows.count(), metrics.len(), "docs/metrics.md lists what is not there");
}

#[test]
fn every_defect_of_the_original_is_listed_once() {
    let page = read("docs/defects-of-the-original.md");
    let (tables, rest) = page.split_once("\nNot in ours yet").unwrap();
    let mut numbers: Vec<usize> = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    for row in tables.lines().filter(|line| line.starts_with("| ")) {
        numbers.extend(row.split('|').nth(1).and_then(|cell| cell.trim().parse::<usize>().ok()));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=59).collect::<Vec<_>>());
}

#[test]
fn the_readme_shows_the_example_that_is_compiled() {
    let readme = read("README.md");
    let shown = between(&readme, "```rust,no_run\n", "```").next().unwrap();
    assert_eq!(shown, read("crates/drakkar/examples/search.rs"));
}

#[test]
fn every_example_in_rust_is_compiled() {
    let sources: String =
        files("crates", "rs").iter().map(|path| read(path.to_str().unwrap())).collect();
    // The one of the readme is compared above, and a decision shows what was thought of.
    let elsewhere = |document: &String| document == "README.md" || document.contains("decisions/");
    for document in documents().into_iter().filter(|document| !elsewhere(document)) {
        if read(&document).contains("\n```rust") {
            let is_included = sources.contains(&format!("include_str!(\"../../../{document}\")"));
            assert!(is_included, "{document} has an example that no crate compiles");
        }
    }
}

#[test]
fn examples_use_only_what_users_depend_on() {
    let users: BTreeSet<_> = ["drakkar", "drakkar_testing", "drakkar_program"].into();
    for document in documents().into_iter().filter(|document| !document.contains("/decisions/")) {
        let text = read(&document);
        for example in between(&text, "```rust", "\n```") {
            let named = example.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in named.filter(|word| word.starts_with("drakkar")) {
                assert!(users.contains(name), "{document} uses {name}, which users do not have");
            }
        }
    }
}

/// The modules of a crate with what the listing says about each, as rows of a table.
fn listing(root_file: &str) -> Vec<String> {
    let text = read(root_file);
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    for (before, line) in lines.iter().zip(&lines[1..]) {
        let declared = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ");
        let Some((name, comment)) = declared.and_then(|rest| rest.split_once(';')) else {
            continue;
        };
        if *before != "#[cfg(test)]" {
            let what = comment.trim().strip_prefix("// ");
            let what = what.unwrap_or_else(|| panic!("{root_file}: {name} is not explained"));
            rows.push(format!("| `{name}` | {what} |"));
        }
    }
    rows
}

#[test]
fn the_code_map_is_the_listing_of_each_crate() {
    let map = read("docs/architecture.md");
    let roots = files("crates", "rs").into_iter().chain(files("integration", "rs"));
    for root_file in roots {
        let name = root_file.file_name().unwrap();
        let directory = root_file.parent().unwrap().parent().unwrap().to_str().unwrap().to_owned();
        if !root_file.parent().unwrap().ends_with("src") || (name != "lib.rs" && name != "main.rs")
        {
            continue;
        }
        let begin = format!("### `{directory}`");
        let section = map.split(&begin).nth(1).unwrap_or_else(|| panic!("{begin} is missing"));
        let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
        let mapped: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let expected = listing(root_file.to_str().unwrap());
        assert_eq!(mapped, expected, "{begin} must list:\n{}", expected.join("\n"));
    }
}

#[test]
fn every_key_that_is_named_exists() {
    let keys = keys();
    let sections = ["kafka.", "executor.", "sinks.", "dlq.", "metrics.", "logging."];
    for document in ["README.md", "docs/delivery.md", "docs/architecture.md"] {
        let text = read(document);
        for named in text.split('`').skip(1).step_by(2) {
            let is_key = sections.iter().any(|section| named.starts_with(section))
                && named.chars().all(|c| c.is_ascii_lowercase() || "._<>".contains(c));
            assert!(!is_key || keys.contains_key(named), "{document} names the key {named}");
        }
    }
}
