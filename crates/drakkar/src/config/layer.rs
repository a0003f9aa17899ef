//! Sorts what a file or a variable says: values to read, keys to note, keys that are wrong.
//!
//! Later layers win. Values are kept as figment reads them, beside where each came from.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{
    Origin, Problem,
    lacking::{Capability, MOVED, Noted},
    note::Note,
    schema::{Kind, Schema, joined},
    tree::{Entry, SyntaxError, Tree, as_bool},
};

/// Everything that was read so far.
#[derive(Debug)]
pub(super) struct Layers {
    schema: Schema,
    read: Vec<Dict>,
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) problems: Vec<Problem>,
    lacking: BTreeMap<String, Lack>,
    strays: Vec<Note>,
}

/// A lacking capability that was named.
#[derive(Debug)]
struct Lack {
    capability: &'static Capability,
    from: Origin,
    is_set: bool,
    enabled: Option<bool>,
}

/// Where the keys of one layer stand.
#[derive(Debug, Clone)]
enum Place {
    File(Arc<Path>),
    Variable(Arc<str>),
}

impl Place {
    fn at(&self, line: u64) -> Origin {
        match self {
            Self::File(path) => Origin::File { path: Arc::clone(path), line },
            Self::Variable(name) => Origin::Variable(Arc::clone(name)),
        }
    }
}

impl Layers {
    pub(super) fn new(schema: Schema) -> Self {
        Self {
            schema,
            read: Vec::new(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
            lacking: BTreeMap::new(),
            strays: Vec::new(),
        }
    }

    /// Adds a file.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), SyntaxError> {
        let tree = Tree::parse(text)?;
        self.add(&Place::File(Arc::from(path)), &tree);
        Ok(())
    }

    /// Adds a variable that names the key `path`, as a tree of one branch.
    pub(super) fn add_variable(&mut self, name: &str, path: &[String], value: Tree) {
        let branch = path
            .iter()
            .rev()
            .fold(value, |tree, key| Tree::Map(vec![Entry { key: key.clone(), line: 0, tree }]));
        self.add(&Place::Variable(Arc::from(name)), &branch);
    }

    /// A variable that names no key.
    pub(super) fn add_stray(&mut self, variable: &str, nearest: Option<String>) {
        self.strays.push(Note::Stray { variable: variable.to_owned(), nearest });
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Names that users chose below `path`, as an earlier layer writes them.
    pub(super) fn names_at(&self, path: &[String]) -> Vec<String> {
        let below = self.read.iter().filter_map(|dict| {
            path.iter().try_fold(dict, |dict, key| dict.get(key).and_then(Value::as_dict))
        });
        below.flat_map(|dict| dict.keys().cloned()).collect()
    }

    /// What is lacking, and variables that mean nothing.
    pub(super) fn notes(&self) -> Vec<Note> {
        let lacking = self.lacking.iter().filter(|(_, lack)| lack.is_worth_a_note());
        let lacking =
            lacking.map(|(key, lack)| Note::Lacking { key: key.clone(), from: lack.from.clone() });
        lacking.chain(self.strays.iter().cloned()).collect()
    }

    /// The layers merged, later ones winning.
    pub(super) fn figment(&self) -> Figment {
        self.read.iter().fold(Figment::new(), |figment, dict| figment.merge(Layer(dict.clone())))
    }

    /// Takes a value out of every layer, so that the rest can be read. `false` if it is in none.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let removed: Vec<bool> = self.read.iter_mut().map(|dict| remove(dict, path)).collect();
        removed.contains(&true)
    }

    /// Where `key` was set; where not itself, then the section it stands in.
    pub(super) fn origin(&self, key: &str) -> Origin {
        origin(&self.origins, key)
    }

    fn add(&mut self, place: &Place, tree: &Tree) {
        let schema = self.schema.clone();
        let mut dict = Dict::new();
        match tree {
            Tree::Null => {}
            Tree::Map(entries) => self.section(&schema, "", entries, place, &mut dict),
            other => {
                let message = format!("must be a section with keys, not {}", other.kind());
                self.wrong("", place.at(1), message);
            }
        }
        self.read.push(dict);
    }

    fn section(
        &mut self,
        schema: &Schema,
        at: &str,
        entries: &[Entry],
        place: &Place,
        dict: &mut Dict,
    ) {
        for entry in entries {
            let key = joined(at, &entry.key);
            let origin = place.at(entry.line);
            match schema.child(&entry.key) {
                Some(below) => {
                    let value = match (schema, below, &entry.tree) {
                        // A name alone is there, with all below it at its default.
                        (Schema::Instances(_), Schema::Section(_), Tree::Null) => {
                            Some(Dict::new().into())
                        }
                        _ => self.value(below, &key, entry, place),
                    };
                    if let Some(value) = value {
                        self.origins.insert(key, origin);
                        dict.insert(entry.key.clone(), value);
                    }
                }
                None => self.unknown(&key, origin),
            }
        }
    }

    fn value(&mut self, schema: &Schema, key: &str, entry: &Entry, place: &Place) -> Option<Value> {
        match (schema, &entry.tree) {
            (Schema::Lacking(capability, below), tree) => {
                self.lacks(capability, key, place.at(entry.line), tree);
                self.names_only(below, key, tree, place);
                None
            }
            (Schema::Section(_) | Schema::Instances(_), Tree::Map(entries)) => {
                let mut dict = Dict::new();
                self.section(schema, key, entries, place, &mut dict);
                (!schema.is_lacking()).then(|| dict.into())
            }
            (Schema::Free, Tree::Map(entries)) => {
                let mut dict = Dict::new();
                for entry in entries {
                    self.origins.insert(joined(key, &entry.key), place.at(entry.line));
                    dict.insert(entry.key.clone(), as_value(Kind::Text, &entry.tree));
                }
                Some(dict.into())
            }
            // `sinks:` with everything below it commented out.
            (Schema::Section(_) | Schema::Instances(_) | Schema::Free, Tree::Null) => None,
            (Schema::Section(_) | Schema::Instances(_) | Schema::Free, other) => {
                let message = format!("must be a section with keys, not {}", other.kind());
                self.wrong(key, place.at(entry.line), message);
                None
            }
            (Schema::Leaf(kind), tree) => Some(as_value(*kind, tree)),
        }
    }

    /// Looks for unknown keys below something that is lacking.
    fn names_only(&mut self, schema: &Schema, at: &str, tree: &Tree, place: &Place) {
        let (Schema::Section(_), Tree::Map(entries)) = (schema, tree) else { return };
        for entry in entries {
            let key = joined(at, &entry.key);
            match schema.child(&entry.key) {
                Some(below) => self.names_only(below, &key, &entry.tree, place),
                None => self.unknown(&key, place.at(entry.line)),
            }
        }
    }

    fn lacks(&mut self, capability: &'static Capability, key: &str, from: Origin, tree: &Tree) {
        let lack = self.lacking.entry(key.to_owned()).or_insert_with(|| Lack {
            capability,
            from,
            is_set: false,
            enabled: None,
        });
        lack.is_set = !is_empty(tree) || (matches!(tree, Tree::Map(_)) && lack.is_set);
        if let Tree::Map(entries) = tree {
            let switch = entries.iter().rfind(|entry| entry.key == "enabled");
            let enabled = switch.and_then(|entry| match &entry.tree {
                Tree::Scalar { read, .. } => as_bool(read),
                _ => None,
            });
            lack.enabled = enabled.or(lack.enabled);
        }
    }

    fn unknown(&mut self, key: &str, origin: Origin) {
        if let Some((_, to)) = MOVED.iter().find(|(moved, _)| *moved == key) {
            return self.wrong(key, origin, (*to).to_owned());
        }
        let message = match self.schema.nearest(key) {
            Some(nearest) => format!("unknown key; did you mean {nearest}?"),
            None => "unknown key".to_owned(),
        };
        self.wrong(key, origin, message);
    }

    pub(super) fn wrong(&mut self, key: &str, origin: Origin, message: String) {
        self.problems.push(Problem { key: key.to_owned(), origin, message });
    }
}

impl Lack {
    fn is_worth_a_note(&self) -> bool {
        match self.capability.noted {
            Noted::Set => self.is_set,
            Noted::UnlessDisabled => self.is_set && self.enabled != Some(false),
            Noted::WhenEnabled => self.enabled == Some(true),
        }
    }
}

/// One layer, as figment merges it.
struct Layer(Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("configuration")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}

/// The value a field of `kind` is given: texts as they were written, the rest as YAML reads it.
fn as_value(kind: Kind, tree: &Tree) -> Value {
    match tree {
        Tree::Null => Value::from(figment::value::Empty::Unit),
        Tree::List(items) => {
            let kind = match kind {
                Kind::Texts => Kind::Text,
                Kind::Numbers => Kind::Number,
                _ => Kind::Unknown,
            };
            Value::from(items.iter().map(|item| as_value(kind, item)).collect::<Vec<_>>())
        }
        Tree::Map(entries) => {
            let entry = |entry: &Entry| (entry.key.clone(), as_value(Kind::Unknown, &entry.tree));
            Value::from(entries.iter().map(entry).collect::<Dict>())
        }
        Tree::Scalar { written, read } => match kind {
            Kind::Text => Value::from(written.as_str()),
            Kind::Bool => as_bool(read).map_or_else(|| read.clone(), Value::from),
            Kind::Number => number(read),
            // A leading zero means something to whoever wrote it: an id, not a number.
            Kind::Unknown if has_leading_zero(written) => Value::from(written.as_str()),
            Kind::Unknown | Kind::Texts | Kind::Numbers => read.clone(),
        },
    }
}

/// Numbers in quotation marks are numbers where a number is expected.
fn number(read: &Value) -> Value {
    let Some(text) = read.as_str() else { return read.clone() };
    match Tree::parse(text) {
        Ok(Tree::Scalar { read: value @ Value::Num(..), .. }) => value,
        _ => read.clone(),
    }
}

fn has_leading_zero(written: &str) -> bool {
    let mut characters = written.chars();
    characters.next() == Some('0') && characters.next().is_some_and(|next| next.is_ascii_digit())
}

fn is_empty(tree: &Tree) -> bool {
    match tree {
        Tree::Null => true,
        Tree::Scalar { written, .. } => written.is_empty(),
        Tree::List(items) => items.is_empty(),
        Tree::Map(entries) => entries.is_empty(),
    }
}

fn remove(dict: &mut Dict, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => dict.remove(last).is_some(),
        [first, rest @ ..] => match dict.get_mut(first) {
            Some(Value::Dict(_, below)) => remove(below, rest),
            // Inside of a list: the list goes as a whole.
            Some(Value::Array(..)) => dict.remove(first).is_some(),
            _ => false,
        },
    }
}

/// Where `key` was set; where not itself, then the section it stands in.
pub(super) fn origin(origins: &BTreeMap<String, Origin>, key: &str) -> Origin {
    let mut at = key;
    loop {
        if let Some(origin) = origins.get(at) {
            return origin.clone();
        }
        match at.rsplit_once('.') {
            Some((section, _)) => at = section,
            None => return Origin::Default,
        }
    }
}
