//! Rows → a PostgreSQL database.
//!
//! Neighbours of one table go into one statement, which is a transaction of its own; so is a group of
//! calls of one named statement. Rows keep their order. A write tries once and ends in time by itself:
//! the server ends a statement that takes too long, so that its outcome is known.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drakkar_core::{Delivery, PostgresPayload, Ready, Sink, SinkError, SinkName};
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::{
    PostgresSinkConfig,
    connect::{Attempt, Connect, ConnectError, patiently},
    most::Most,
};
pub(crate) use dsn::options;
pub(crate) use named::Named;
use session::Session;
use settle::settle;
use types::Types;
use verdict::Said;

mod dsn; // the address of a database, without showing its secrets
mod named; // statements of the configuration: where their parameters are
mod plan; // payloads -> runs that one statement can write
mod sql; // the text of statements
mod session; // one write on one connection
mod types; // what the server expects, asked once
mod verdict; // what an answer means for the payloads
mod settle; // runs -> one outcome per payload

/// Whether every write would be refused: the server is a standby, or nobody may write.
const TAKES_NO_WRITES: &str =
    "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
const READ_ONLY: &str = "the server takes no writes: it is a standby, or read only";

/// How long connections may take to be given back at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A PostgreSQL database as a destination.
pub struct PostgresSink {
    pool: PgPool,
    /// The handler's own. A connection is driven by the threads of whoever opened it: those of the handler may
    /// be blocked.
    handle: PgPool,
    statements: BTreeMap<String, Named>,
    statement_timeout: Duration,
    types: Types,
    most: Most,
}

impl Connect for PostgresSink {
    type Config = PostgresSinkConfig;

    async fn connect(
        at: String,
        config: &Self::Config,
        within: Duration,
    ) -> Result<Self, ConnectError> {
        let invalid =
            |key: &str, why: String| ConnectError::Invalid(vec![format!("{at}.{key}: {why}")]);
        let options = options(&config.dsn).map_err(|why| invalid("dsn", why))?;
        let mut statements = BTreeMap::new();
        for (name, sql) in &config.statements {
            let named =
                Named::parse(sql).map_err(|why| invalid(&format!("statements.{name}"), why))?;
            statements.insert(name.clone(), named);
        }
        let server = dsn::server(&options);
        let error = |reason| ConnectError::Server {
            key: at.clone(),
            server,
            reason,
            hint: "check its dsn and statements, and that the server runs",
        };
        // Owned by each attempt: a future that borrows from its closure is not known to be `Send`.
        let asked = Arc::new((at.clone(), options.clone(), statements.clone()));
        let attempt = move || {
            let asked = Arc::clone(&asked);
            async move { probe(&asked.0, &asked.1, &asked.2).await }
        };
        patiently(within, error, attempt).await?;
        Ok(Self {
            handle: pool(&PostgresSinkConfig { pool_min: 0, ..config.clone() }, options.clone()),
            pool: pool(config, options),
            statements,
            statement_timeout: config.statement_timeout,
            types: Types::default(),
            most: Most::default(),
        })
    }

    fn offer(&self, sink: SinkName, ready: &mut Ready) {
        ready.offer(sink, self.handle.clone());
    }
}

/// Asks the server whether it lets us in, takes writes and understands the statements.
async fn probe(
    at: &str,
    options: &PgConnectOptions,
    statements: &BTreeMap<String, Named>,
) -> Result<(), Attempt> {
    let mut connection = options.connect().await.map_err(|error| refusal(&error))?;
    let asked = sqlx::query_scalar(TAKES_NO_WRITES).fetch_one(&mut connection).await;
    if asked.map_err(|error| refusal(&error))? {
        return Err(Attempt::Transient(READ_ONLY.to_owned()));
    }
    for (name, named) in statements {
        match types::describe(&mut connection, named).await {
            Ok(_) => {}
            Err(error) => match verdict::said(&error) {
                Said::AtFault(error) => {
                    return Err(Attempt::Permanent(format!("statement {name:?}: {error}")));
                }
                Said::Later(error) if verdict::is_about_a_table(&error.class) => warn!(
                    section = at,
                    statement = name,
                    %error,
                    "a statement cannot work yet; what is for it will be held until it can"
                ),
                said => return Err(Attempt::Transient(format!("statement {name:?}: {said:?}"))),
            },
        }
    }
    if let Err(error) = connection.close().await {
        warn!(section = at, %error, "the connection of the start did not close");
    }
    Ok(())
}

/// Whether another attempt may succeed.
fn refusal(error: &sqlx::Error) -> Attempt {
    let text = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        error => error.to_string(),
    };
    let code =
        error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    // invalid_authorization_specification, invalid_catalog_name
    let is_final = ["28", "3D"].iter().any(|class| code.starts_with(class));
    match error {
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => Attempt::Permanent(text),
        _ if is_final => Attempt::Permanent(text),
        _ => Attempt::Transient(text),
    }
}

fn pool(config: &PostgresSinkConfig, options: PgConnectOptions) -> PgPool {
    let limit = dsn::limit(config.statement_timeout);
    PgPoolOptions::new()
        .min_connections(config.pool_min)
        .max_connections(config.pool_max.get())
        .acquire_timeout(config.statement_timeout / 2)
        .after_connect(move |connection: &mut PgConnection, _| {
            let limit = sqlx::AssertSqlSafe(limit.clone());
            Box::pin(async move { connection.execute(limit).await.map(|_| ()) })
        })
        .connect_lazy_with(options)
}

impl Sink for PostgresSink {
    type Payload = PostgresPayload;

    async fn deliver(&self, batch: &[PostgresPayload]) -> Vec<Delivery> {
        let until = Instant::now() + self.statement_timeout;
        let plan = plan::plan(batch, &self.statements);
        let mut session = Session::new(self, until);
        settle(plan, batch.len(), &self.most, &mut session).await
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let asked = sqlx::query_scalar(TAKES_NO_WRITES).fetch_one(&self.pool).await;
        if asked.map_err(|error| SinkError::new("unanswered", error.to_string()))? {
            return Err(SinkError::new("read_only", READ_ONLY));
        }
        Ok(())
    }

    /// The handler's connections stay: hooks may use them to the end.
    async fn close(&self) {
        if timeout(CLOSE_WITHIN, self.pool.close()).await.is_err() {
            debug!("connections of writes that were given up are left open");
        }
    }
}
