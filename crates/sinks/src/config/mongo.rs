//! One MongoDB database: `sinks.mongo.<name>`.

use std::collections::BTreeMap;

use drakkar_core::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BatchConfig;

/// One MongoDB database: `sinks.mongo.<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MongoSinkConfig {
    /// Where the server is and who we are: `mongodb://` or `mongodb+srv://` with hosts, user,
    /// password, options; never shown. Default: none, required.
    pub uri: Secret,
    /// Database whose collections are written. Default: none, required.
    pub database: String,
    /// Whether writes are carried out in the order of payloads. Without, those of one collection
    /// and kind go together, which is faster. Default: `true`.
    pub ordered: bool,
    /// Writes that payloads call by name. Default none.
    pub statements: BTreeMap<String, MongoStatementConfig>,
    /// How payloads are written together: 1 000 items, 4 MiB, one in flight, unless said.
    pub batch: BatchConfig,
}

impl Default for MongoSinkConfig {
    fn default() -> Self {
        Self {
            uri: Secret::default(),
            database: String::new(),
            ordered: true,
            statements: BTreeMap::new(),
            batch: BatchConfig::default(),
        }
    }
}

/// A write with placeholders: `sinks.mongo.<name>.statements.<name>`.
///
/// A value that is the text `":name"` and nothing else is replaced by the parameter `name`; keys
/// never are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MongoStatementConfig {
    /// Collection that is written. Default: none, required.
    pub collection: String,
    /// What is done: `update_one`, `update_many`, `upsert`, `delete_one` or `delete_many`. Default:
    /// `update_one`.
    pub op: MongoOp,
    /// Which documents; must not be empty. A value that is `":name"` and nothing else is replaced
    /// by the parameter. Default: none, required.
    pub filter: Value,
    /// What is done to them: an object of update operators. Default: none, required but for
    /// deletes.
    pub update: Value,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MongoOp {
    /// Changes the first document that matches.
    #[default]
    UpdateOne,
    /// Changes every document that matches.
    UpdateMany,
    /// Changes the first document that matches, or makes one.
    Upsert,
    /// Deletes the first document that matches.
    DeleteOne,
    /// Deletes every document that matches.
    DeleteMany,
}

impl MongoOp {
    fn is_delete(self) -> bool {
        matches!(self, Self::DeleteOne | Self::DeleteMany)
    }
}

impl MongoSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
        let uri = self.uri.expose();
        if uri.is_empty() {
            wrong.push(format!("{at}.uri: is required; name a server, mongodb://host:27017"));
        } else if !["mongodb://", "mongodb+srv://"].iter().any(|scheme| uri.starts_with(scheme)) {
            wrong.push(format!("{at}.uri: must begin with mongodb:// or mongodb+srv://"));
        }
        if self.database.is_empty() {
            wrong.push(format!("{at}.database: is required; name a database"));
        } else if self.database.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
            wrong.push(format!("{at}.database: is not the name of a database"));
        }
        for (name, statement) in &self.statements {
            statement.validate(&format!("{at}.statements.{name}"), wrong);
        }
    }
}

impl MongoStatementConfig {
    fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        if self.collection.is_empty() {
            wrong.push(format!("{at}.collection: is required; name a collection"));
        }
        if self.filter.as_object().is_none_or(serde_json::Map::is_empty) {
            wrong.push(format!("{at}.filter: is required, and must not be empty"));
        }
        if self.op.is_delete() {
            if !self.update.is_null() {
                wrong.push(format!("{at}.update: a delete has none"));
            }
        } else {
            let is_update = |keys: &serde_json::Map<String, Value>| {
                !keys.is_empty() && keys.keys().all(|key| key.starts_with('$'))
            };
            if !self.update.as_object().is_some_and(is_update) {
                wrong.push(format!(
                    "{at}.update: is required, and must be an object of update operators"
                ));
            }
        }
        for (key, value) in [("filter", &self.filter), ("update", &self.update)] {
            if let Some(operator) = runs_code(value) {
                wrong.push(format!("{at}.{key}: {operator} runs code on the server"));
            }
        }
    }
}

/// The operator anywhere in `value` that runs code on the server, if there is one.
fn runs_code(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let code = ["$where", "$function", "$accumulator"].into_iter().find(|of| of == key);
            code.or_else(|| runs_code(value))
        }),
        Value::Array(items) => items.iter().find_map(runs_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn wrong(config: &Value, expected: &str) {
        let config: MongoSinkConfig = serde_json::from_value(config.clone()).unwrap();
        let mut wrong = Vec::new();
        config.validate("sinks.mongo.m", &mut wrong);
        assert!(wrong.iter().any(|text| text.starts_with(expected)), "{wrong:?}");
        assert!(!format!("{wrong:?} {config:?}").contains("hunter2"));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key_and_without_the_secret() {
        wrong(&json!({}), "sinks.mongo.m.uri: is required");
        wrong(&json!({}), "sinks.mongo.m.database: is required");
        wrong(&json!({"uri": "postgres://u:hunter2@h"}), "sinks.mongo.m.uri: must begin with");
        wrong(&json!({"database": "a/b"}), "sinks.mongo.m.database: is not the name");
    }

    #[test]
    fn a_statement_that_would_do_too_much_is_refused() {
        let statement = |statement: Value| json!({"statements": {"s": statement}});
        let at = |key: &str| format!("sinks.mongo.m.statements.s.{key}");
        let set = json!({"$set": {"a": ":a"}});
        for (config, expected) in [
            (json!({}), at("collection: is required")),
            (json!({"filter": {}}), at("filter: is required")),
            (json!({"update": {"a": 1}}), at("update: is required")),
            (json!({"op": "delete_one", "update": set}), at("update: a delete has none")),
            (json!({"filter": {"$where": "1"}}), at("filter: $where runs code")),
            (
                json!({"filter": {"$or": [{"$expr": {"$function": {}}}]}}),
                at("filter: $function runs code"),
            ),
        ] {
            wrong(&statement(config), &expected);
        }
    }

    #[test]
    fn a_statement_as_it_is_meant_is_valid() {
        let config: MongoSinkConfig = serde_json::from_value(json!({
            "uri": "mongodb://u:hunter2@h:1", "database": "d",
            "statements": {
                "touch": {"collection": "c", "op": "upsert", "filter": {"_id": ":id"},
                          "update": {"$set": {"at": ":at"}}},
                "drop": {"collection": "c", "op": "delete_many", "filter": {"tenant": ":tenant"}},
            },
        }))
        .unwrap();
        let mut wrong = Vec::new();
        config.validate("sinks.mongo.m", &mut wrong);
        assert_eq!(wrong, Vec::<String>::new());
    }
}
