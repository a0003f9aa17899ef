//! What a PostgreSQL database is to do: rows for a table, or parameters for a statement that stands in
//! the configuration.
//!
//! Rows are serialised here and kept as JSON text, so that no number loses a digit on its way. Which
//! SQL becomes of them is the sink's business.

use serde::{Deserialize, Serialize, ser::Error as _};

use super::{JsonObject, PayloadError};

/// One write to a PostgreSQL database.
///
/// A table is `name` or `schema.name`, as it is written in the catalogue: case matters. A row is
/// anything that serialises as a JSON object; columns that it does not name get their defaults.
///
/// ```
/// use drakkar_core::PostgresPayload;
/// use serde_json::json;
///
/// let new = PostgresPayload::insert("shop.orders", &json!({"id": 7, "state": "new"}))?;
/// let paid = PostgresPayload::update("shop.orders", &json!({"state": "paid"}), &json!({"id": 7}))?;
/// let known = PostgresPayload::upsert("customers", &json!({"email": "a@b", "seen": 7}), &["email"])?;
/// let moved = PostgresPayload::statement("move", &json!({"to": 2, "id": 7}))?.sink("warehouse");
/// # Ok::<(), drakkar_core::PayloadError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresPayload {
    /// Which `sinks.postgres` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// What is done.
    pub write: PostgresWrite,
}

/// What is done by one [`PostgresPayload`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PostgresWrite {
    /// A row is added.
    Insert {
        /// The table.
        table: String,
        /// The row.
        row: JsonObject,
    },
    /// A row is added unless a unique constraint says that it is there.
    InsertIfAbsent {
        /// The table.
        table: String,
        /// The row.
        row: JsonObject,
    },
    /// A row is added, or changed where one with the same key exists.
    Upsert {
        /// The table.
        table: String,
        /// The row.
        row: JsonObject,
        /// The columns of a unique constraint.
        key: Vec<String>,
        /// The columns that are changed; `None`: all but the key.
        changed: Option<Vec<String>>,
    },
    /// Rows are changed.
    Update {
        /// The table.
        table: String,
        /// The columns that are changed, and to what.
        set: JsonObject,
        /// Which rows: all these columns have these values.
        filter: JsonObject,
    },
    /// Rows are removed.
    Delete {
        /// The table.
        table: String,
        /// Which rows: all these columns have these values.
        filter: JsonObject,
    },
    /// A statement of the configuration is executed.
    Statement {
        /// Its name.
        name: String,
        /// A value for each of its parameters.
        params: JsonObject,
    },
}

impl PostgresPayload {
    /// Adds `row` to `table`. Delivery is at least once: where a row must not be there twice, give the
    /// table a key and use [`upsert`](Self::upsert) or [`insert_if_absent`](Self::insert_if_absent).
    ///
    /// # Errors
    ///
    /// When `row` does not serialise as an object with at least one column.
    pub fn insert(table: impl Into<String>, row: &impl Serialize) -> Result<Self, PayloadError> {
        let row = filled("a row", row)?;
        Ok(PostgresWrite::Insert { table: table.into(), row }.into())
    }

    /// Adds `row` to `table` unless any unique constraint says that it is there.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_if_absent(
        table: impl Into<String>,
        row: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        let row = filled("a row", row)?;
        Ok(PostgresWrite::InsertIfAbsent { table: table.into(), row }.into())
    }

    /// Adds `row` to `table`, or changes the row that has the same values in the columns of `key`, for
    /// which there must be a unique constraint.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert), and when `key` is empty.
    pub fn upsert(
        table: impl Into<String>,
        row: &impl Serialize,
        key: &[&str],
    ) -> Result<Self, PayloadError> {
        Self::upsert_as(table, row, key, None)
    }

    /// As [`upsert`](Self::upsert), but of a row that exists only the columns `changed` are changed.
    ///
    /// # Errors
    ///
    /// As [`upsert`](Self::upsert), and when `changed` is empty: that is
    /// [`insert_if_absent`](Self::insert_if_absent).
    pub fn upsert_only(
        table: impl Into<String>,
        row: &impl Serialize,
        key: &[&str],
        changed: &[&str],
    ) -> Result<Self, PayloadError> {
        if changed.is_empty() {
            return Err(invalid("an upsert that changes no column is insert_if_absent"));
        }
        Self::upsert_as(table, row, key, Some(owned(changed)))
    }

    fn upsert_as(
        table: impl Into<String>,
        row: &impl Serialize,
        key: &[&str],
        changed: Option<Vec<String>>,
    ) -> Result<Self, PayloadError> {
        if key.is_empty() {
            return Err(invalid("an upsert needs at least one column as its key"));
        }
        let row = filled("a row", row)?;
        Ok(PostgresWrite::Upsert { table: table.into(), row, key: owned(key), changed }.into())
    }

    /// Sets columns of the rows of `table` whose columns have the values of `filter`; a null there
    /// means "is null". That no row has them is no error.
    ///
    /// # Errors
    ///
    /// When `set` or `filter` does not serialise as an object with at least one column.
    pub fn update(
        table: impl Into<String>,
        set: &impl Serialize,
        filter: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        let set = filled("what is set", set)?;
        let filter = filled("a filter", filter)?;
        Ok(PostgresWrite::Update { table: table.into(), set, filter }.into())
    }

    /// Removes the rows of `table` whose columns have the values of `filter`; a null there means "is
    /// null". That no row has them is no error.
    ///
    /// # Errors
    ///
    /// When `filter` does not serialise as an object with at least one column.
    pub fn delete(table: impl Into<String>, filter: &impl Serialize) -> Result<Self, PayloadError> {
        let filter = filled("a filter", filter)?;
        Ok(PostgresWrite::Delete { table: table.into(), filter }.into())
    }

    /// Executes the statement that the configuration calls `name`: its `:parameters` get the values
    /// that `params` has under their names.
    ///
    /// # Errors
    ///
    /// When `params` does not serialise as an object.
    pub fn statement(
        name: impl Into<String>,
        params: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        Ok(PostgresWrite::Statement { name: name.into(), params: JsonObject::new(params)? }.into())
    }

    /// Bytes it occupies, about.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.write {
            PostgresWrite::Insert { table, row }
            | PostgresWrite::InsertIfAbsent { table, row }
            | PostgresWrite::Upsert { table, row, .. } => table.len() + row.text().len(),
            PostgresWrite::Update { table, set, filter } => {
                table.len() + set.text().len() + filter.text().len()
            }
            PostgresWrite::Delete { table, filter } => table.len() + filter.text().len(),
            PostgresWrite::Statement { name, params } => name.len() + params.text().len(),
        }
    }
}

impl From<PostgresWrite> for PostgresPayload {
    fn from(write: PostgresWrite) -> Self {
        Self { sink: None, write }
    }
}

fn owned(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

fn filled(what: &str, value: &impl Serialize) -> Result<JsonObject, PayloadError> {
    let object = JsonObject::new(value)?;
    if object.fields().len() == 0 {
        return Err(invalid(&format!("{what} needs at least one column")));
    }
    Ok(object)
}

fn invalid(text: &str) -> PayloadError {
    serde_json::Error::custom(text).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{json, value::RawValue};

    use super::*;

    #[test]
    fn a_payload_comes_back_from_json_as_it_was_to_the_last_digit() {
        let exact = RawValue::from_string("123456789012345678901234567890.10".to_owned()).unwrap();
        let row: BTreeMap<&str, Box<RawValue>> = [("amount", exact)].into();
        for payload in [
            PostgresPayload::insert("t", &row).unwrap().sink("a"),
            PostgresPayload::insert_if_absent("t", &row).unwrap(),
            PostgresPayload::upsert("s.t", &row, &["amount"]).unwrap(),
            PostgresPayload::upsert_only("t", &row, &["k"], &["amount"]).unwrap(),
            PostgresPayload::update("t", &row, &json!({"id": null})).unwrap(),
            PostgresPayload::delete("t", &row).unwrap(),
            PostgresPayload::statement("pay", &row).unwrap(),
        ] {
            let text = serde_json::to_string(&payload).unwrap();
            assert!(text.contains("123456789012345678901234567890.10"), "{text}");
            assert_eq!(serde_json::from_str::<PostgresPayload>(&text).unwrap(), payload);
        }
    }

    #[test]
    fn what_is_not_a_row_is_refused_where_it_is_made() {
        #[track_caller]
        fn refused(made: &Result<PostgresPayload, PayloadError>) {
            assert!(made.is_err(), "{made:?}");
        }
        let (row, nothing) = (json!({"a": 1}), json!({}));
        refused(&PostgresPayload::insert("t", &json!([1])));
        refused(&PostgresPayload::insert("t", &nothing));
        refused(&PostgresPayload::upsert("t", &row, &[]));
        refused(&PostgresPayload::upsert_only("t", &row, &["a"], &[]));
        refused(&PostgresPayload::update("t", &nothing, &row));
        refused(&PostgresPayload::update("t", &row, &nothing));
        refused(&PostgresPayload::delete("t", &nothing));
        refused(&PostgresPayload::statement("s", &7));
        assert!(PostgresPayload::statement("s", &nothing).is_ok());
    }
}
