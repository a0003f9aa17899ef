//! Variables that begin with `DRAKKAR_`: which key each names and how its text is read.
//!
//! `__` stands between levels and case does not matter, except for the names of variables in sections
//! `env`. In `client_config`, whose keys have dots that a variable cannot have, `_` stands for a dot.
//! Lists may be comma-separated; whole sections may be written as JSON.

use std::ffi::OsString;

use super::{
    Origin,
    layer::Layers,
    schema::{Kind, Schema},
    tree::Tree,
};

const PREFIX: &str = "DRAKKAR_";

/// The variable from which a worker's `main` takes the name of its file.
const CONFIG_PATH: &str = "DRAKKAR_CONFIG";

/// The variable that a worker which is itself the task of another one inherits.
const TASK_OF: &str = "DRAKKAR_TASK_OF";

/// Adds every variable that concerns the configuration.
pub(super) fn add(layers: &mut Layers, env: impl Iterator<Item = (OsString, OsString)>) {
    let ours = env.filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let is_no_key = name == CONFIG_PATH || name == TASK_OF;
        (name.starts_with(PREFIX) && !is_no_key).then_some((name, value))
    });
    let mut variables: Vec<(String, OsString)> = ours.collect();
    variables.sort();
    for (name, value) in variables {
        match value.to_str() {
            Some(value) => add_one(layers, &name, value),
            None => {
                let origin = Origin::Variable(name.as_str().into());
                layers.wrong("", origin, "its value is not UTF-8".to_owned());
            }
        }
    }
}

fn add_one(layers: &mut Layers, name: &str, value: &str) {
    let path = path(layers, &name[PREFIX.len()..]);
    let schema = path.iter().try_fold(layers.schema(), |schema, key| schema.child(key));
    let free = is_in_free_section(layers.schema(), &path);
    // A section may be given as a whole only by name of several levels: DRAKKAR_KAFKA is what
    // Kubernetes or a script may use for something else.
    let named = match schema {
        Some(schema) => 1 < path.len() || matches!(schema, Schema::Leaf(_)),
        None => free || name.contains("__"),
    };
    if !named {
        let nearest = nearest(layers.schema(), name);
        return layers.add_stray(name, nearest);
    }
    match schema.map_or(Ok(Tree::text(value)), |schema| read(schema, value)) {
        Ok(tree) => layers.add_variable(name, &path, tree),
        Err(message) => {
            let origin = Origin::Variable(name.into());
            layers.wrong(&path.join("."), origin, message);
        }
    }
}

/// The key that `name`, without the prefix, stands for.
fn path(layers: &Layers, name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut schema = Some(layers.schema());
    let mut segments = name.split("__");
    while let Some(segment) = segments.next() {
        let lower = segment.to_lowercase();
        match schema {
            Some(Schema::Free) => {
                let rest: Vec<&str> = std::iter::once(segment).chain(segments).collect();
                let written = rest.join("__");
                let name = match path.last().map(String::as_str) {
                    Some("client_config") => written.to_lowercase().replace('_', "."),
                    Some("env") => written,
                    _ => known(layers, &path, &written).unwrap_or(written),
                };
                path.push(name);
                return path;
            }
            Some(Schema::Instances(_)) => {
                let name = known(layers, &path, segment);
                path.push(name.unwrap_or(lower));
            }
            _ => path.push(lower),
        }
        schema = schema.and_then(|schema| schema.child(path.last()?));
    }
    path
}

/// A name that users choose is meant as an earlier layer writes it.
fn known(layers: &Layers, section: &[String], name: &str) -> Option<String> {
    layers.names_at(section).into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

fn is_in_free_section(schema: &Schema, path: &[String]) -> bool {
    let Some((_, section)) = path.split_last() else { return false };
    let section = section.iter().try_fold(schema, |schema, key| schema.child(key));
    matches!(section, Some(Schema::Free))
}

/// Reads the text of a variable as what its key expects.
fn read(schema: &Schema, value: &str) -> Result<Tree, String> {
    let yaml =
        || Tree::parse(value).map_err(|error| format!("not valid JSON or YAML: {}", error.message));
    match schema {
        Schema::Leaf(Kind::Text) => Ok(Tree::text(value)),
        Schema::Leaf(Kind::Texts | Kind::Numbers) if !value.trim_start().starts_with('[') => {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Tree::List(items.map(Tree::text).collect()))
        }
        // What is no YAML is no number either: the error says what was expected.
        Schema::Leaf(Kind::Number | Kind::Bool | Kind::Unknown) => match Tree::parse(value) {
            Ok(Tree::Null) | Err(_) => Ok(Tree::text(value)),
            Ok(tree) => Ok(tree),
        },
        Schema::Lacking(..) => Ok(Tree::parse(value).unwrap_or_else(|_| Tree::text(value))),
        Schema::Leaf(Kind::Texts | Kind::Numbers)
        | Schema::Section(_)
        | Schema::Instances(_)
        | Schema::Free => yaml(),
    }
}

/// The variable that was perhaps meant: one underscore where there must be two, or a small slip.
fn nearest(schema: &Schema, name: &str) -> Option<String> {
    let known = schema.keys().into_iter().filter(|key| !key.contains('<'));
    let known = known.map(|key| format!("{PREFIX}{}", key.to_uppercase().replace('.', "__")));
    let folded = name.replace("__", "_");
    let close = known.filter_map(|known| {
        let distance = strsim::damerau_levenshtein(&folded, &known.replace("__", "_"));
        (distance <= 2 && known != name).then_some((distance, known))
    });
    close.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}
