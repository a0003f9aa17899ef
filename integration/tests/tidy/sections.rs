//! What the sources say of the sections of the configuration: fields, their types, their comments.
//!
//! Reads text, not Rust: a section is a struct with `deny_unknown_fields` whose fields are public, each
//! on a line of its own. What it does not understand fails the check; it never guesses.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::{files, read};

/// One field of a section.
pub(crate) struct Field {
    pub name: String,
    /// As it is declared.
    pub declared: String,
    /// What it is for.
    pub description: String,
    /// What it is when it is not set, in words; begins with the value if there is one.
    pub default: String,
}

/// The types of the configuration by their names.
pub(crate) struct Sources {
    pub sections: BTreeMap<String, Vec<Field>>,
    /// Enums that are not just one of several words.
    pub free: BTreeSet<String>,
    /// Those that are.
    pub choices: BTreeSet<String>,
}

impl Sources {
    pub(crate) fn read() -> Self {
        let mut sources =
            Self { sections: BTreeMap::new(), free: BTreeSet::new(), choices: BTreeSet::new() };
        for path in files("crates", "rs") {
            let text = read(path.to_str().unwrap());
            for (head, body) in types(&text) {
                sources.add(head, body);
            }
        }
        sources
    }

    fn add(&mut self, head: &str, body: &str) {
        let (attributes, declaration) = head.rsplit_once('\n').unwrap_or(("", head));
        let words: Vec<&str> = declaration.split(' ').collect();
        match words[..] {
            ["pub", "struct", name, "{"] if attributes.contains("deny_unknown_fields") => {
                let before = self.sections.insert(name.to_owned(), fields(name, body));
                assert!(before.is_none(), "there are two sections {name}");
            }
            ["pub", "enum", name, "{"] => {
                let mut code = body.lines().filter(|line| !line.trim().starts_with(['/', '#']));
                let is_free = code.any(|line| line.contains(['(', '{']));
                let kind = if is_free { &mut self.free } else { &mut self.choices };
                kind.insert(name.to_owned());
            }
            _ => {}
        }
    }
}

/// Every type that is declared at the top level: its attributes and declaration, and what is in it.
fn types(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("\n\n").filter_map(|item| {
        let at = item.find("pub struct ").or_else(|| item.find("pub enum "))?;
        let open = at + item[at..].find('\n')?;
        Some((&item[..open], item[open..].split("\n}").next()?))
    })
}

fn fields(section: &str, body: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
        } else if let Some((name, declared)) = declared(line) {
            let text = comment.join(" ");
            comment.clear();
            let (description, default) = text.split_once(" Default: ").unwrap_or((&text, ""));
            fields.push(Field {
                name: name.to_owned(),
                declared: declared.to_owned(),
                description: description.to_owned(),
                default: default.strip_suffix('.').unwrap_or_default().to_owned(),
            });
        } else {
            // Another name in the file than in the sources would need more than this reads.
            let is_known = line.starts_with("#[serde(") && !line.contains("rename");
            assert!(is_known, "{section}: {line}");
        }
    }
    fields
}

/// `pub name: Type,`
fn declared(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("pub ")?.strip_suffix(',')?.split_once(": ")
}
