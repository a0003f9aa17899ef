//! Every key of the configuration with its default, as the program has them.

use std::collections::BTreeMap;

use drakkar::sections;
use serde::Serialize;
use serde_json::Value;

/// Every key with its default; `<name>` where users choose one.
pub(crate) fn keys() -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    collect("", &json(&drakkar::Config::default()), &mut keys);
    let statement = json(&sections::MongoStatementConfig::default());
    let instances = [
        ("sinks.kafka", json(&sections::KafkaSinkConfig::default())),
        ("sinks.filesystem", json(&sections::FileSinkConfig::default())),
        ("sinks.http", json(&sections::HttpSinkConfig::default())),
        ("sinks.mongo", json(&sections::MongoSinkConfig::default())),
        ("sinks.mongo.<name>.statements", statement),
        ("sinks.postgres", json(&sections::PostgresSinkConfig::default())),
        ("executor.programs", json(&sections::ProgramConfig::default())),
        ("sinks.redis", json(&sections::RedisSinkConfig::default())),
        ("sinks.custom", json(&sections::CustomSinkConfig::default())),
    ];
    for (kind, mut instance) in instances {
        // Described once, for every kind.
        if let Some(batch) = instance.as_object_mut().and_then(|keys| keys.remove("batch")) {
            collect("sinks.<kind>.<name>.batch", &batch, &mut keys);
        }
        assert_eq!(keys.remove(kind), Some(Value::Object(serde_json::Map::new())), "{kind}");
        if instance != json(&serde_json::Map::new()) {
            collect(&format!("{kind}.<name>"), &instance, &mut keys);
        }
    }
    keys
}

fn json(section: &impl Serialize) -> Value {
    serde_json::to_value(section).unwrap()
}

fn collect(at: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(below) if !below.is_empty() => {
            for (name, value) in below {
                collect(&joined(at, name), value, keys);
            }
        }
        value => drop(keys.insert(at.to_owned(), value.clone())),
    }
}

/// `at.name`, or `name` alone at the top.
pub(crate) fn joined(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
