//! PostgreSQL: tables `open` and `closed`.

use drakkar_core::{Payload, PostgresPayload};
use drakkar_integration::OwnServer;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;

use super::{Mortal, PASSWORD, Rights, Site, Store, UNLUCKY, USER};

pub(crate) struct Postgres {
    server: OwnServer,
    runtime: Runtime,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let site = Self { server: OwnServer::start("postgres"), runtime: Runtime::new().unwrap() };
        site.run(&format!(
            "CREATE ROLE {USER} LOGIN; CREATE TABLE open (n int PRIMARY KEY, ours bool);
             CREATE TABLE closed (n int PRIMARY KEY, ours bool); GRANT ALL ON open TO {USER}"
        ));
        site.set_password(PASSWORD);
        site.obstruct(UNLUCKY);
        site
    }

    async fn connection(&self) -> PgConnection {
        let dsn = format!("postgres://drakkar:tell-nobody@127.0.0.1:{}/postgres", self.server.port);
        PgConnection::connect(&dsn).await.unwrap()
    }

    fn run(&self, sql: &str) {
        self.runtime.block_on(async {
            let sql = AssertSqlSafe(sql.to_owned());
            sqlx::raw_sql(sql).execute(&mut self.connection().await).await.unwrap();
        });
    }

    fn numbers(&self, table: &str) -> Vec<u32> {
        let sql = format!("SELECT n FROM {table} WHERE ours ORDER BY n");
        let found: Vec<i32> = self.runtime.block_on(async {
            let query = sqlx::query_scalar(AssertSqlSafe(sql));
            query.fetch_all(&mut self.connection().await).await.unwrap()
        });
        found.into_iter().map(|number| number.try_into().unwrap()).collect()
    }
}

fn at(port: u16, password: &str) -> Value {
    let password = password.replace('/', "%2F");
    let dsn = format!("postgres://{USER}:{password}@127.0.0.1:{port}/postgres");
    json!({ "dsn": dsn })
}

fn row(table: &str, number: u32) -> Payload {
    let row = json!({"n": number, "ours": true});
    PostgresPayload::insert(table, &row).unwrap().sink("site").into()
}

impl Site for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn section(&self, password: &str) -> Value {
        at(self.server.port, password)
    }

    fn away(&self) -> Value {
        at(1, PASSWORD)
    }

    fn payload(&self, number: u32) -> Payload {
        row("open", number)
    }

    fn set_password(&self, password: &str) {
        self.run(&format!(
            "ALTER ROLE {USER} PASSWORD '{password}';
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'"
        ));
    }
}

impl Mortal for Postgres {
    fn die(&self) {
        self.server.kill();
    }

    fn rise(&self) {
        self.server.restart();
    }

    fn kept(&self) -> Vec<u32> {
        self.written()
    }
}

impl Store for Postgres {
    fn obstruct(&self, number: u32) {
        self.run(&format!("INSERT INTO open VALUES ({number}, false)"));
    }

    fn mend(&self, number: u32) {
        self.run(&format!("DELETE FROM open WHERE n = {number}"));
    }

    fn written(&self) -> Vec<u32> {
        self.numbers("open")
    }
}

impl Rights for Postgres {
    fn closed(&self, number: u32) -> Payload {
        row("closed", number)
    }

    fn allow(&self) {
        self.run(&format!("GRANT ALL ON closed TO {USER}"));
    }

    fn written_closed(&self) -> Vec<u32> {
        self.numbers("closed")
    }
}
