//! A configuration file or variable as it was written.
//!
//! YAML decides what a plain scalar means before anyone knows which field it is for: `007` would
//! become 7 and `on` would become true. So each scalar is kept both ways, as read and as written, and
//! each key remembers its line.

use std::fmt;

use figment::value::{Num, Value};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// One value and what lies below it.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Null,
    Scalar { written: String, read: Value },
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) tree: Tree,
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
}

impl Tree {
    /// Reads a YAML document.
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let options = serde_saphyr::options! { with_snippet: false };
        match serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options) {
            Ok(node) => Ok(Self::from_node(node, text)),
            Err(error) => {
                let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
                let shown = error.without_snippet().to_string();
                let position = format!(" at line {line}, column {column}");
                let message = shown.strip_suffix(&position).unwrap_or(&shown).to_owned();
                Err(SyntaxError { line, column, message })
            }
        }
    }

    /// A text that stands for itself.
    pub(super) fn text(text: impl Into<String>) -> Self {
        let written = text.into();
        Self::Scalar { read: Value::from(written.as_str()), written }
    }

    /// What it is, in the words of a user.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { read: Value::Bool(..), .. } => "true or false",
            Self::Scalar { read: Value::Num(..), .. } => "a number",
            Self::Scalar { .. } => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }

    fn from_node(node: Spanned<Node>, text: &str) -> Self {
        let span = node.defined.span();
        let written = || {
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let end = start + usize::try_from(span.byte_len()?).ok()?;
            text.get(start..end).map(str::to_owned)
        };
        match node.value {
            Node::Null => Self::Null,
            Node::Text(read) => Self::text(read),
            Node::Typed(read, shown) => Self::Scalar { written: written().unwrap_or(shown), read },
            Node::List(items) => {
                Self::List(items.into_iter().map(|item| Self::from_node(item, text)).collect())
            }
            Node::Map(entries) => {
                let entry = |(key, value): (Spanned<String>, _)| Entry {
                    line: key.referenced.line(),
                    key: key.value,
                    tree: Self::from_node(value, text),
                };
                Self::Map(entries.into_iter().map(entry).collect())
            }
        }
    }
}

/// What the YAML reader hands out; scalars that are not text with their own words for it.
enum Node {
    Null,
    Text(String),
    Typed(Value, String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Typed(Value::from(value), value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Typed(Value::from(value), value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Typed(Value::from(value), value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Typed(Value::from(value), value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

/// Whether `value` is the number 0 or 1, as which some write false and true.
pub(super) fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(_, value) => Some(*value),
        Value::Num(_, number) => match number {
            Num::U64(0) | Num::I64(0) => Some(false),
            Num::U64(1) | Num::I64(1) => Some(true),
            _ => None,
        },
        _ => None,
    }
}
