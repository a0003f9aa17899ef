//! From merged layers to a [`Config`], with every wrong value reported, not only the first.

use drakkar_core::secret;
use figment::error::{Actual, Kind};

use super::{Config, Origin, layer::Layers, mask};

/// Wrong values after which we stop looking for more.
const MOST_PROBLEMS: usize = 50;

/// Reads the configuration. A value that is wrong is noted in `layers` and left at its default, so
/// that the next one is found as well.
pub(super) fn config(layers: &mut Layers) -> Config {
    for _ in 0..MOST_PROBLEMS {
        let error = match layers.figment().extract::<Config>() {
            Ok(config) => return config,
            Err(error) => error,
        };
        let mut path = error.path.clone();
        let message = worded(&error.kind, &path.join("."));
        if let Kind::MissingField(field) = &error.kind {
            path.push(field.clone().into_owned());
        }
        let key = path.join(".");
        let origin = layers.origin(&key);
        layers.wrong(&key, origin, message);
        // What cannot be removed itself goes with the section it stands in.
        while !path.is_empty() && !layers.remove(&path) {
            path.pop();
        }
        if path.is_empty() {
            break;
        }
    }
    if layers.problems.is_empty() {
        let message = "cannot be read".to_owned();
        layers.wrong("", Origin::Default, message);
    }
    Config::default()
}

/// What is wrong, in the words of a user.
fn worded(kind: &Kind, key: &str) -> String {
    match kind {
        Kind::Message(text) => text.clone(),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("expected {}, found {}", expectation(expected), shown(found, key))
        }
        Kind::InvalidLength(length, expected) => {
            format!("expected {}, found {length} of them", expectation(expected))
        }
        Kind::UnknownVariant(found, known) => {
            format!("expected one of {}, found {found:?}", known.join(", "))
        }
        Kind::MissingField(_) => "is required".to_owned(),
        Kind::UnknownField(field, _) => format!("has no key {field}"),
        Kind::DuplicateField(field) => format!("has the key {field} twice"),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "is out of range".to_owned(),
        Kind::Unsupported(found) | Kind::UnsupportedKey(found, _) => {
            format!("cannot be {}", shown(found, key))
        }
    }
}

fn expectation(expected: &str) -> String {
    let words = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" | "u128" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a section with keys",
        "a string" => "text",
        "enum" => "one word",
        nonzero if nonzero.starts_with("a nonzero") => "a whole number of at least 1",
        section if section.starts_with("struct ") => "a section with keys",
        other => other,
    };
    words.to_owned()
}

fn shown(found: &Actual, key: &str) -> String {
    match found {
        Actual::Str(_) if secret::is_name(key) => "text".to_owned(),
        Actual::Str(text) => format!("{:?}", mask::without_password(text)),
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Unit | Actual::Option => "nothing".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}
