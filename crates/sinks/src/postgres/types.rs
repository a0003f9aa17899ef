//! What the server expects: the types of a table's columns and of a statement's parameters, asked once
//! and kept.
//!
//! Tables are changed while we run. What is kept here may therefore be wrong, and whoever uses it must
//! either notice or ask again; a statement that uses it names the types it relies on. What is missing
//! here may be there by now, and is asked for again now and then.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Executor, PgConnection, postgres::types::Oid};
use tokio::time::Instant;

use super::named::Named;

/// How often a column that was not found is asked for, at most.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Types {
    tables: Mutex<HashMap<String, Arc<Table>>>,
    calls: Mutex<HashMap<String, Arc<str>>>,
}

/// The columns of a table that a text can be cast to; none where there is no such table.
#[derive(Debug)]
pub(super) struct Table {
    columns: HashMap<String, Column>,
    asked: Instant,
}

/// The type of a column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// As it is written in a cast.
    pub type_name: String,
    pub type_id: u32,
    /// It takes any JSON as it is.
    pub is_json: bool,
}

/// How a named statement is called.
pub(super) struct Call {
    pub sql: Arc<str>,
    /// It was asked just now.
    pub is_fresh: bool,
}

impl Table {
    /// The types of these columns, if it has them all.
    pub(super) fn of(&self, columns: &[Cow<'_, str>]) -> Option<Vec<&Column>> {
        columns.iter().map(|column| self.columns.get(&**column)).collect()
    }

    /// Whether asking for these columns would tell nothing new.
    fn serves(&self, columns: &[Cow<'_, str>]) -> bool {
        self.of(columns).is_some() || self.asked.elapsed() < AGAIN_AFTER
    }
}

/// Arrays and composites are written differently as JSON and as text, and a domain may be over one.
/// The name has no length: a cast would cut what is too long, where an assignment refuses it.
const COLUMNS: &str = "SELECT a.attname::text, format_type(t.oid, -1), t.oid, \
     t.oid IN ('json'::regtype, 'jsonb'::regtype) FROM pg_catalog.pg_attribute a \
     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass($1) \
     AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype IN ('b', 'e', 'r', 'm') \
     AND t.typcategory <> 'A'";

impl Types {
    /// The columns of `table`, an identifier, of which `columns` are needed.
    pub(super) async fn of_table(
        &self,
        connection: &mut PgConnection,
        table: &str,
        columns: &[Cow<'_, str>],
    ) -> Result<Arc<Table>, sqlx::Error> {
        if let Some(known) = lock(&self.tables).get(table)
            && known.serves(columns)
        {
            return Ok(Arc::clone(known));
        }
        let rows: Vec<(String, String, Oid, bool)> =
            sqlx::query_as(COLUMNS).bind(table).fetch_all(connection).await?;
        let columns = rows.into_iter().map(|(name, type_name, Oid(type_id), is_json)| {
            (name, Column { type_name, type_id, is_json })
        });
        let found = Arc::new(Table { columns: columns.collect(), asked: Instant::now() });
        lock(&self.tables).insert(table.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    pub(super) fn forget_table(&self, table: &str) {
        lock(&self.tables).remove(table);
    }

    /// How the statement `name` is called.
    pub(super) async fn call(
        &self,
        connection: &mut PgConnection,
        name: &str,
        named: &Named,
    ) -> Result<Call, sqlx::Error> {
        if let Some(known) = lock(&self.calls).get(name) {
            return Ok(Call { sql: Arc::clone(known), is_fresh: false });
        }
        let sql: Arc<str> = describe(connection, named).await?.into();
        lock(&self.calls).insert(name.to_owned(), Arc::clone(&sql));
        Ok(Call { sql, is_fresh: true })
    }

    pub(super) fn forget_call(&self, name: &str) {
        lock(&self.calls).remove(name);
    }
}

/// Asks the server which types the parameters of a statement have; answers with how it is called.
pub(super) async fn describe(
    connection: &mut PgConnection,
    named: &Named,
) -> Result<String, sqlx::Error> {
    let prepare = format!("PREPARE drakkar_described AS {}", named.numbered());
    connection.execute(sqlx::raw_sql(AssertSqlSafe(prepare))).await?;
    let types: Result<Vec<String>, _> = sqlx::query_scalar(
        "SELECT format_type(t, -1) FROM pg_catalog.pg_prepared_statements, \
         unnest(parameter_types) WITH ORDINALITY AS u(t, n) WHERE name = 'drakkar_described' \
         ORDER BY n",
    )
    .fetch_all(&mut *connection)
    .await;
    connection.execute(sqlx::raw_sql("DEALLOCATE drakkar_described")).await?;
    Ok(named.called(&types?))
}

/// A value as text: what a cast to its type reads.
pub(super) fn text(json: &str, is_json: bool) -> Option<Cow<'_, str>> {
    if json == "null" {
        return None;
    }
    if is_json || !json.starts_with('"') {
        return Some(Cow::Borrowed(json));
    }
    let inside = json.get(1..json.len() - 1)?;
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    // It was valid when it was made; were it not, the cast says so.
    Some(serde_json::from_str(json).map_or(Cow::Borrowed(json), Cow::Owned))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_becomes_the_text_that_its_type_reads() {
        #[track_caller]
        fn reads(json: &str, is_json: bool, expected: Option<&str>) {
            assert_eq!(text(json, is_json).as_deref(), expected);
        }
        reads("null", false, None);
        reads("null", true, None);
        reads("1.10", false, Some("1.10"));
        reads("true", false, Some("true"));
        reads(r#""""#, false, Some(""));
        reads(r#""a\"b\u00e4\n""#, false, Some("a\"bä\n"));
        reads(r#""a""#, true, Some(r#""a""#));
        reads(r#"{"a": 1}"#, false, Some(r#"{"a": 1}"#));
    }
}
