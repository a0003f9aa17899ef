//! Rows of a table, beside a loop that inserts a thousand per statement.

use drakkar::{Config, Payload, PayloadError, PostgresPayload, sections::PostgresSinkConfig};
use sqlx::{PgPool, Row as _};
use tokio::runtime::Runtime;

use super::{Far, Feed, Row};

/// A database with a table per lap.
pub(super) struct Tables {
    dsn: String,
    pool: PgPool,
}

impl Tables {
    pub(super) fn at_hand(runtime: &Runtime) -> anyhow::Result<Self> {
        let dsn = super::server("DRAKKAR_TEST_POSTGRES")?;
        let pool = runtime.block_on(PgPool::connect(&dsn))?;
        Ok(Self { dsn, pool })
    }

    fn run(&self, runtime: &Runtime, sql: String) -> anyhow::Result<()> {
        runtime.block_on(sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&self.pool))?;
        Ok(())
    }
}

/// Names of laps are letters, digits and dashes.
fn table(lap: &str) -> String {
    format!("bench-{lap}")
}

impl Far for Tables {
    const NAME: &'static str = "PostgreSQL";
    const GOAL: f64 = 0.5;

    fn prepare(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<()> {
        let table = table(lap);
        self.run(runtime, format!(r#"DROP TABLE IF EXISTS "{table}""#))?;
        self.run(runtime, format!(r#"CREATE TABLE "{table}" (id int8 PRIMARY KEY, value text)"#))
    }

    fn configure(&self, _: &str, config: &mut Config) -> anyhow::Result<()> {
        let sink =
            PostgresSinkConfig { dsn: self.dsn.as_str().into(), ..PostgresSinkConfig::default() };
        config.sinks.postgres.insert("rows".to_owned(), sink);
        Ok(())
    }

    fn payload(lap: &str, row: Row<'_>) -> Result<Payload, PayloadError> {
        Ok(PostgresPayload::insert(table(lap), &row)?.into())
    }

    fn by_hand(&self, runtime: &Runtime, lap: &str, rows: &mut Feed<'_>) -> anyhow::Result<()> {
        let sql = format!(
            r#"INSERT INTO "{}" (id, value) SELECT * FROM unnest($1::int8[], $2::text[])"#,
            table(lap)
        );
        runtime.block_on(async {
            loop {
                let some = rows.next()?;
                if some.is_empty() {
                    return Ok(());
                }
                let ids: Vec<i64> = some.iter().map(|row| row.id.cast_signed()).collect();
                let values: Vec<&str> = some.iter().map(|row| row.value).collect();
                let insert = sqlx::query(sqlx::AssertSqlSafe(sql.as_str()));
                insert.bind(ids).bind(values).execute(&self.pool).await?;
            }
        })
    }

    fn count(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<usize> {
        let sql = sqlx::AssertSqlSafe(format!(r#"SELECT count(*) FROM "{}""#, table(lap)));
        let counted = runtime.block_on(sqlx::query(sql).fetch_one(&self.pool))?;
        Ok(usize::try_from(counted.try_get::<i64, _>(0)?)?)
    }
}
