//! Statements: writes that the configuration writes down and payloads fill in.
//!
//! A parameter is a value. It takes the place of the text `":name"` and of nothing else, and it cannot
//! bring operators along: `{"$ne": null}` in a filter would match everything, and so would a regular
//! expression. Within `$expr` it is a `$literal`: there the text `"$tenant"` would be the field.

use std::collections::BTreeMap;

use drakkar_core::SinkError;
use mongodb::bson::{Bson, Document, doc};

use super::{json, write::Write};
use crate::config::{MongoOp, MongoStatementConfig};

/// Statements by name, read once.
pub(super) struct Statements(BTreeMap<String, Statement>);

struct Statement {
    collection: String,
    op: MongoOp,
    filter: Document,
    update: Option<Document>,
}

impl Statements {
    /// Reads `configs`; says which cannot be read.
    pub(super) fn new(
        at: &str,
        configs: &BTreeMap<String, MongoStatementConfig>,
    ) -> Result<Self, String> {
        let read = |(name, config): (&String, &MongoStatementConfig)| {
            let at = format!("{at}.statements.{name}");
            let statement = Statement::new(config);
            statement
                .map(|read| (name.clone(), read))
                .map_err(|why| format!("{at}: {}", why.message))
        };
        configs.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The write that the statement `name` is with `params`.
    pub(super) fn bind(&self, name: &str, params: &str) -> Result<Write, SinkError> {
        let Some(statement) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let text = format!("there is no statement {name}; configured: {known}");
            return Err(SinkError::new("unknown_statement", text));
        };
        let params = json::document("the parameters", params)?;
        if let Some((param, operator)) = params
            .iter()
            .find_map(|(param, value)| operator(value).map(|operator| (param, operator)))
        {
            return Err(wrong(&format!("the parameter {param} has the operator {operator}")));
        }
        let filled = |document: &Document| filled(document, &params, As::Value);
        let filter = filled(&statement.filter)?;
        let update = statement.update.as_ref().map(filled).transpose()?;
        let (many, upsert) = match statement.op {
            MongoOp::UpdateOne | MongoOp::DeleteOne => (false, false),
            MongoOp::UpdateMany | MongoOp::DeleteMany => (true, false),
            MongoOp::Upsert => (false, true),
        };
        let collection = statement.collection.clone();
        match update {
            Some(update) => Write::update(collection, filter, update.into(), upsert, many),
            None => Write::delete(collection, filter, many),
        }
    }
}

impl Statement {
    fn new(config: &MongoStatementConfig) -> Result<Self, SinkError> {
        let update = match &config.update {
            serde_json::Value::Null => None,
            update => Some(json::document("update", &update.to_string())?),
        };
        Ok(Self {
            collection: config.collection.clone(),
            op: config.op,
            filter: json::document("filter", &config.filter.to_string())?,
            update,
        })
    }
}

fn wrong(text: &str) -> SinkError {
    SinkError::new("wrong_parameter", text)
}

/// What of `value` the server would take for an operator: the first such key, or a type that matches or
/// runs instead of being compared.
fn operator(value: &Bson) -> Option<&str> {
    match value {
        Bson::Document(fields) => fields.iter().find_map(|(key, value)| {
            if key.starts_with('$') { Some(key.as_str()) } else { operator(value) }
        }),
        Bson::Array(items) => items.iter().find_map(operator),
        Bson::RegularExpression(_) => Some("$regularExpression"),
        Bson::JavaScriptCode(_) | Bson::JavaScriptCodeWithScope(_) => Some("$code"),
        Bson::DbPointer(_) => Some("$dbPointer"),
        _ => None,
    }
}

/// What the server takes a text at some place of a template for.
#[derive(Clone, Copy)]
enum As {
    Value,
    /// Within `$expr`: a text that begins with `$` is a field.
    Expression,
}

fn filled(template: &Document, params: &Document, of: As) -> Result<Document, SinkError> {
    let field = |(key, value): (&String, &Bson)| {
        let of = match key.as_str() {
            "$expr" => As::Expression,
            "$literal" => As::Value,
            _ => of,
        };
        Ok((key.clone(), fill(value, params, of)?))
    };
    template.iter().map(field).collect()
}

fn fill(template: &Bson, params: &Document, of: As) -> Result<Bson, SinkError> {
    match template {
        Bson::String(text) => match text.strip_prefix(':') {
            Some(name) => match (params.get(name), of) {
                (Some(value), As::Value) => Ok(value.clone()),
                (Some(value), As::Expression) => Ok(doc! {"$literal": value}.into()),
                (None, _) => Err(wrong(&format!("the parameter {name} is missing"))),
            },
            None => Ok(template.clone()),
        },
        Bson::Document(fields) => filled(fields, params, of).map(Bson::Document),
        Bson::Array(items) => {
            let items = items.iter().map(|item| fill(item, params, of));
            items.collect::<Result<_, _>>().map(Bson::Array)
        }
        other => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::JavaScriptCodeWithScope;
    use serde_json::{Value, json};

    use super::{super::write::Kind, *};

    fn statements(statement: &Value) -> Statements {
        let configs = BTreeMap::from([(
            "s".to_owned(),
            serde_json::from_value::<MongoStatementConfig>(statement.clone()).unwrap(),
        )]);
        Statements::new("sinks.mongo.m", &configs).ok().unwrap()
    }

    fn touch() -> Statements {
        statements(&json!({
            "collection": "c", "op": "upsert", "filter": {"_id": ":id", "in": [":a", "b"]},
            "update": {"$set": {"at": ":at", ":key": ":not:whole"}},
        }))
    }

    #[test]
    fn a_placeholder_that_is_the_whole_value_is_replaced_and_no_key_is() {
        let params = r#"{"id": {"$oid": "0123456789abcdef01234567"}, "a": 1, "at": {"x": [1]},
                         "not:whole": null, "key": "k"}"#;
        let write = touch().bind("s", params).unwrap();
        let id = mongodb::bson::oid::ObjectId::parse_str("0123456789abcdef01234567").unwrap();
        let body = Document::try_from(&*write.body).unwrap();
        assert_eq!(
            body,
            doc! {
                "q": {"_id": id, "in": [1, "b"]},
                "u": {"$set": {"at": {"x": [1]}, ":key": null}},
                "upsert": true,
                "multi": false,
            }
        );
        assert_eq!((write.collection.as_str(), write.kind), ("c", Kind::Update));
    }

    #[test]
    fn a_parameter_cannot_bring_an_operator_along() {
        for value in [r#"{"$ne": null}"#, r#"{"a": {"$gt": 1}}"#, r#"[{"$where": "1"}]"#] {
            let params = format!(r#"{{"id": {value}, "a": 1, "at": 1, "not:whole": 1}}"#);
            let error = touch().bind("s", &params).err().unwrap();
            assert_eq!(error.class, "wrong_parameter");
        }
    }

    #[test]
    fn a_parameter_cannot_be_a_pattern_or_code() {
        let all = r#"{"$regularExpression": {"pattern": "", "options": ""}}"#;
        let delete = json!({"collection": "c", "op": "delete_many", "filter": {"tenant": ":t"}});
        for value in [all.to_owned(), format!(r#"{{"a": {all}}}"#), format!("[1, {all}]")] {
            let error =
                statements(&delete).bind("s", &format!(r#"{{"t": {value}}}"#)).err().unwrap();
            assert_eq!(error.class, "wrong_parameter");
            assert!(error.message.contains("$regularExpression"), "{}", error.message);
        }
        let code = || "1".to_owned();
        let scoped = JavaScriptCodeWithScope { code: code(), scope: doc! {} };
        assert!(operator(&Bson::JavaScriptCode(code())).is_some());
        assert!(operator(&Bson::JavaScriptCodeWithScope(scoped)).is_some());
    }

    #[test]
    fn a_parameter_of_an_expression_is_a_value_and_no_path() {
        let filter = json!({
            "_id": ":t",
            "$or": [{"$expr": {"$eq": ["$tenant", ":t"]}}, {"$expr": {"$in": [{"$literal": ":t"}, ":l"]}}],
            "last": ":t",
        });
        let delete = json!({"collection": "c", "op": "delete_many", "filter": filter});
        let write = statements(&delete).bind("s", r#"{"t": "$tenant", "l": ["$a"]}"#).unwrap();
        let body = Document::try_from(&*write.body).unwrap();
        let q = body.get_document("q").unwrap();
        let value = doc! {"$literal": "$tenant"};
        assert_eq!(
            q.get_array("$or").unwrap(),
            &vec![
                Bson::from(doc! {"$expr": {"$eq": ["$tenant", value.clone()]}}),
                Bson::from(doc! {"$expr": {"$in": [value, {"$literal": ["$a"]}]}}),
            ]
        );
        assert_eq!(
            (q.get_str("_id").ok(), q.get_str("last").ok()),
            (Some("$tenant"), Some("$tenant"))
        );
    }

    #[test]
    fn a_parameter_that_is_missing_and_a_statement_that_is_not_there_are_named() {
        let missing = touch().bind("s", r#"{"id": 1}"#).err().unwrap();
        assert_eq!(missing.message, "the parameter a is missing");
        let unknown = touch().bind("t", "{}").err().unwrap();
        assert_eq!(unknown.message, "there is no statement t; configured: s");
    }

    #[test]
    fn a_delete_takes_one_or_all() {
        for (op, limit) in [("delete_one", 1), ("delete_many", 0)] {
            let delete = json!({"collection": "c", "op": op, "filter": {"_id": ":id"}});
            let write = statements(&delete).bind("s", r#"{"id": 1}"#).unwrap();
            let body = Document::try_from(&*write.body).unwrap();
            assert_eq!(body, doc! {"q": {"_id": 1}, "limit": limit});
        }
    }
}
