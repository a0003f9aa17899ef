//! One write on one connection: statements are bound and executed.
//!
//! Rows travel as one array of texts per column where every column takes a text, which is fast; in JSON
//! where one does not, where there are few, and wherever the fast way fails: what the server says to
//! the JSON is what counts. A connection that was left in the middle of something is closed, never
//! given to somebody else.

use drakkar_core::SinkError;
use sqlx::{AssertSqlSafe, Connection, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{
    PostgresSink,
    named::Named,
    plan::{Change, Item, Shape, Work},
    settle::Execute,
    sql, types,
    verdict::{self, Said, said},
};

/// Fewer rows are not worth a second kind of statement.
const FEW: usize = 8;

/// A write under way.
pub(super) struct Session<'s> {
    sink: &'s PostgresSink,
    /// When no further statement is begun.
    until: Instant,
    connection: Option<PoolConnection<Postgres>>,
    /// Whether it may be used by others after us.
    is_clean: bool,
    /// The fast way has failed.
    is_careful: bool,
}

impl<'s> Session<'s> {
    pub(super) fn new(sink: &'s PostgresSink, until: Instant) -> Self {
        Self { sink, until, connection: None, is_clean: true, is_careful: false }
    }

    async fn write(&mut self, work: &Work<'_>, items: &[Item<'_>]) -> Result<(), Said> {
        if self.connection.is_none() {
            let acquired = self.sink.pool.acquire().await;
            self.connection = Some(acquired.map_err(not_asked)?);
        }
        self.is_clean = false;
        match work {
            Work::Rows(shape) => self.rows(shape, items).await,
            Work::Named { name, named } => self.calls(name, named, items).await,
        }
    }

    fn connection(&mut self) -> Result<&mut PoolConnection<Postgres>, Said> {
        self.connection.as_mut().ok_or_else(|| Said::Later(SinkError::new("bug", "not connected")))
    }

    async fn rows(&mut self, shape: &Shape<'_>, items: &[Item<'_>]) -> Result<(), Said> {
        if FEW <= items.len() && !self.is_careful && self.as_arrays(shape, items).await? {
            return Ok(());
        }
        self.as_json(shape, items).await
    }

    /// Whether the fast way could be gone: then it has written everything.
    async fn as_arrays(&mut self, shape: &Shape<'_>, items: &[Item<'_>]) -> Result<bool, Said> {
        let sink = self.sink;
        let connection = self.connection()?;
        let known = sink.types.of_table(connection, &shape.table, &shape.columns).await;
        let known = known.map_err(not_asked)?;
        let Some(columns) = known.of(&shape.columns) else {
            return Ok(false);
        };
        let source = sql::from_arrays(&shape.table, &shape.columns, &columns);
        let statement = sql::statement(shape, &source);
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for (number, column) in columns.iter().enumerate() {
            let texts = items.iter().map(|item| types::text(item.values[number], column.is_json));
            query = query.bind(texts.collect::<Vec<_>>());
        }
        match query.execute(&mut **connection).await.map_err(|error| said(&error)) {
            Ok(_) => Ok(true),
            // A row is, or the table was changed: then it has not been written either.
            Err(Said::AtFault(_)) => {
                self.is_careful = true;
                sink.types.forget_table(&shape.table);
                Ok(false)
            }
            Err(said) => Err(said),
        }
    }

    async fn as_json(&mut self, shape: &Shape<'_>, items: &[Item<'_>]) -> Result<(), Said> {
        let statement = sql::statement(shape, &sql::from_json(shape));
        let query = sqlx::query(AssertSqlSafe(statement));
        let query = match &shape.change {
            Change::Update { apart: true, .. } => {
                let filters = items.iter().filter_map(|item| item.filter);
                query.bind(array(items.iter().map(|item| item.object))).bind(array(filters))
            }
            Change::Update { .. } => {
                let merged: Vec<String> = items.iter().map(merged).collect();
                query.bind(array(merged.iter().map(String::as_str)))
            }
            _ => query.bind(array(items.iter().map(|item| item.object))),
        };
        let connection = self.connection()?;
        query.execute(&mut **connection).await.map(|_| ()).map_err(|error| said(&error))
    }

    /// Executes a named statement for each item, all or nothing.
    async fn calls(&mut self, name: &str, named: &Named, items: &[Item<'_>]) -> Result<(), Said> {
        let (sink, until) = (self.sink, self.until);
        let connection = self.connection()?;
        let known = sink.types.call(connection, name, named).await.map_err(not_asked)?;
        let said = match transact(connection, &known.sql, items, until).await {
            Err(said @ Said::AtFault(_)) if !known.is_fresh => said,
            other => return other,
        };
        // What it expects may have changed since.
        sink.types.forget_call(name);
        let again = sink.types.call(connection, name, named).await.map_err(not_asked)?;
        if again.sql == known.sql {
            return Err(said);
        }
        transact(connection, &again.sql, items, until).await
    }
}

impl Execute for Session<'_> {
    async fn execute(&mut self, work: &Work<'_>, items: &[Item<'_>]) -> Said {
        if self.until <= Instant::now() {
            return Said::Later(no_time());
        }
        let said = self.write(work, items).await.err().unwrap_or(Said::Done);
        self.is_clean = match &said {
            Said::Later(error) => verdict::is_about_a_table(&error.class),
            _ => true,
        };
        said
    }
}

/// A write that is dropped, or that lost its connection, leaves nothing for others.
impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection
            && !self.is_clean
        {
            connection.close_on_drop();
        }
    }
}

async fn transact(
    connection: &mut PoolConnection<Postgres>,
    sql: &std::sync::Arc<str>,
    items: &[Item<'_>],
    until: Instant,
) -> Result<(), Said> {
    let call = |item: &Item<'_>| {
        sqlx::query(AssertSqlSafe(std::sync::Arc::clone(sql))).bind(item.object.to_owned())
    };
    if let [item] = items {
        let done = call(item).execute(&mut **connection).await;
        return done.map(|_| ()).map_err(|error| said(&error));
    }
    let mut transaction = connection.begin().await.map_err(not_asked)?;
    for item in items {
        let failed = if until <= Instant::now() {
            Some(Said::TooSlow(no_time()))
        } else {
            call(item).execute(&mut *transaction).await.err().map(|error| said(&error))
        };
        if let Some(failed) = failed {
            // What is not committed is not written, whether or not the server hears of it.
            return match transaction.rollback().await {
                Ok(()) => Err(failed),
                Err(error) => Err(not_asked(error)),
            };
        }
    }
    transaction.commit().await.map_err(|error| said(&error))
}

/// JSON objects as one array of them.
fn array<'a>(objects: impl Iterator<Item = &'a str> + Clone) -> String {
    let length = objects.clone().map(|object| object.len() + 1).sum::<usize>() + 2;
    let mut text = String::with_capacity(length);
    text.push('[');
    for object in objects {
        if 1 < text.len() {
            text.push(',');
        }
        text.push_str(object);
    }
    text.push(']');
    text
}

/// What is set and what is looked for, as one object.
fn merged(item: &Item<'_>) -> String {
    let set = item.object.strip_suffix('}').unwrap_or_default();
    let filter = item.filter.and_then(|filter| filter.strip_prefix('{')).unwrap_or_default();
    format!("{set},{filter}")
}

/// What failed has no value of any payload in it, so none is at fault, whatever code it is refused with: a
/// login may be forbidden by a trigger.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_asked(error: sqlx::Error) -> Said {
    Said::Later(error_of(said(&error)))
}

fn error_of(said: Said) -> SinkError {
    match said {
        Said::AtFault(error) | Said::TooSlow(error) | Said::Later(error) => error,
        Said::Done => SinkError::new("bug", "no error"),
    }
}

fn no_time() -> SinkError {
    SinkError::new("no_time", "the write took too long; the rest is written next time")
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
