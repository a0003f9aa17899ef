//! Which keys there are.
//!
//! Known keys are not listed anywhere: they are what the default configuration serialises to. What a
//! key that is absent by default is read as, or an item of a list, is found out by giving it a text.
//! Keys of the Python original whose capability this build lacks are added from the table in
//! [`super::lacking`].

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};

use super::{
    Config,
    lacking::{CAPABILITIES, Capability},
};

/// What may stand at a key.
#[derive(Debug, Clone)]
pub(super) enum Schema {
    /// These keys.
    Section(BTreeMap<String, Schema>),
    /// Any names, each with the same keys.
    Instances(Box<Schema>),
    /// Any names with a text each.
    Free,
    /// One value.
    Leaf(Kind),
    /// Something this build lacks, with the keys it has where it exists.
    Lacking(&'static Capability, Box<Schema>),
}

/// What a value is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
    Texts,
    Numbers,
    /// A value that is absent by default and takes something else than texts.
    Unknown,
}

impl Schema {
    /// Every key this build knows.
    pub(super) fn new() -> Self {
        let mut schema = Self::of::<Config>();
        let instances = [
            ("kafka", Self::of::<drakkar_sinks::KafkaSinkConfig>()),
            ("filesystem", Self::of::<drakkar_sinks::FileSinkConfig>()),
            ("postgres", Self::of::<drakkar_sinks::PostgresSinkConfig>()),
            ("mongo", Self::mongo()),
            ("redis", Self::of::<drakkar_sinks::RedisSinkConfig>()),
            ("http", Self::of::<drakkar_sinks::HttpSinkConfig>()),
            ("custom", Self::of::<drakkar_sinks::CustomSinkConfig>()),
        ];
        if let Self::Section(keys) = &mut schema
            && let Some(Self::Section(sinks)) = keys.get_mut("sinks")
        {
            for (kind, instance) in instances {
                sinks.insert(kind.to_owned(), Self::Instances(Box::new(instance)));
            }
        }
        if let Self::Section(keys) = &mut schema
            && let Some(Self::Section(executor)) = keys.get_mut("executor")
        {
            let program = Self::of::<drakkar_executor::ProgramConfig>();
            executor.insert("programs".to_owned(), Self::Instances(Box::new(program)));
        }
        for capability in CAPABILITIES {
            let path: Vec<&'static str> = capability.at.split('.').collect();
            schema.add_lacking(&path, capability);
        }
        schema
    }

    /// A section with sections in it whose names users choose.
    fn mongo() -> Self {
        let mut mongo = Self::of::<drakkar_sinks::MongoSinkConfig>();
        if let Self::Section(keys) = &mut mongo {
            let statement = Self::of::<drakkar_sinks::MongoStatementConfig>();
            keys.insert("statements".to_owned(), Self::Instances(Box::new(statement)));
        }
        mongo
    }

    fn of<T: Default + Serialize + DeserializeOwned>() -> Self {
        // A section that cannot be written would have no known keys; a test reads every one.
        let default = serde_json::to_value(T::default()).unwrap_or_default();
        let takes = |at: &[&str], value: Json| {
            let section = at.iter().rev().fold(value, |below, key| json!({*key: below}));
            T::deserialize(section).is_ok()
        };
        Self::from_json(&default, &[], &takes)
    }

    /// What the `value` at a path serialised to; where that does not say what may stand there, `takes`
    /// is asked.
    fn from_json(value: &Json, at: &[&str], takes: &dyn Fn(&[&str], Json) -> bool) -> Self {
        match value {
            Json::Object(keys) if keys.is_empty() => Self::Free,
            Json::Object(keys) => {
                let known = |(key, value): (&String, &Json)| {
                    let below = [at, &[key.as_str()]].concat();
                    (key.clone(), Self::from_json(value, &below, takes))
                };
                Self::Section(keys.iter().map(known).collect())
            }
            Json::String(_) => Self::Leaf(Kind::Text),
            Json::Number(_) => Self::Leaf(Kind::Number),
            Json::Bool(_) => Self::Leaf(Kind::Bool),
            Json::Array(_) if takes(at, json!(["any text"])) => Self::Leaf(Kind::Texts),
            Json::Array(_) => Self::Leaf(Kind::Numbers),
            // What takes a section as well is no text: it is any JSON.
            Json::Null if takes(at, json!("any text")) && !takes(at, json!({})) => {
                Self::Leaf(Kind::Text)
            }
            Json::Null => Self::Leaf(Kind::Unknown),
        }
    }

    /// Adds what is lacking at `path`, unless this build has it after all.
    fn add_lacking(&mut self, path: &[&'static str], capability: &'static Capability) {
        let Some((first, rest)) = path.split_first() else { return };
        match self {
            Self::Instances(instance) => instance.add_lacking(rest, capability),
            Self::Section(keys) if rest.is_empty() => {
                keys.entry((*first).to_owned()).or_insert_with(|| capability.schema());
            }
            Self::Section(keys) => keys
                .entry((*first).to_owned())
                .or_insert_with(|| match rest.first() {
                    Some(&"*") => Self::Instances(Box::new(capability.schema())),
                    _ => Self::Section(BTreeMap::new()),
                })
                .add_lacking(rest, capability),
            Self::Free | Self::Leaf(_) | Self::Lacking(..) => {}
        }
    }

    /// What stands at `key` below this.
    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Section(keys) => keys.get(key),
            Self::Instances(instance) => Some(instance),
            Self::Lacking(_, below) => below.child(key),
            Self::Free | Self::Leaf(_) => None,
        }
    }

    /// Whether there is nothing below this that the build has.
    pub(super) fn is_lacking(&self) -> bool {
        match self {
            Self::Lacking(..) => true,
            Self::Instances(instance) => instance.is_lacking(),
            Self::Section(keys) => !keys.is_empty() && keys.values().all(Self::is_lacking),
            Self::Free | Self::Leaf(_) => false,
        }
    }

    /// Every key with its full name; `<name>` where users choose one.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        self.collect("", &mut keys);
        keys
    }

    fn collect(&self, at: &str, keys: &mut Vec<String>) {
        if !at.is_empty() {
            keys.push(at.to_owned());
        }
        match self {
            Self::Section(below) => {
                for (key, schema) in below {
                    schema.collect(&joined(at, key), keys);
                }
            }
            Self::Instances(instance) => instance.collect(&joined(at, "<name>"), keys),
            Self::Lacking(_, below) => {
                keys.pop();
                below.collect(at, keys);
            }
            Self::Free | Self::Leaf(_) => {}
        }
    }

    /// The known key that `key` was probably meant to be: a similar name in the same section, else
    /// the same name in another one.
    pub(super) fn nearest(&self, key: &str) -> Option<String> {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let known = self.keys();
        let named: Vec<String> = known.into_iter().map(|known| filled_in(&known, key)).collect();
        let beside = named.iter().filter_map(|known| {
            let (of, other) = known.rsplit_once('.').unwrap_or(("", known));
            let distance = strsim::damerau_levenshtein(name, other);
            (of == section && distance <= 1 + name.len() / 4).then_some((distance, known))
        });
        let similar = beside.min_by_key(|(distance, _)| *distance).map(|(_, known)| known);
        let elsewhere =
            || named.iter().find(|known| known.rsplit('.').next() == Some(name) && *known != key);
        similar.or_else(elsewhere).cloned()
    }
}

/// `known` with the names that `key` has in the place of `<name>`.
fn filled_in(known: &str, key: &str) -> String {
    let mut given = key.split('.');
    let parts = known.split('.').map(|part| match (part, given.next()) {
        ("<name>", Some(name)) => name,
        _ => part,
    });
    parts.collect::<Vec<_>>().join(".")
}

/// `at.key`, or `key` alone at the top.
pub(super) fn joined(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}
