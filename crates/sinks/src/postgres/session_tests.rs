//! What becomes of rows while the server lets nobody in.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use drakkar_core::{Delivery, PostgresPayload, Secret, Sink as _};
use serde_json::json;

use super::super::{PostgresSink, options, pool, types::Types};
use crate::{PostgresSinkConfig, most::Most};

/// Ends a session before it begins, as a login trigger that raises `code` does.
fn forbid(mut whom: TcpStream, code: &str) -> io::Result<()> {
    let mut length = [0; 4];
    whom.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - length.len()];
    whom.read_exact(&mut startup)?;
    let fields = format!("SFATAL\0VFATAL\0C{code}\0Mlogin forbidden\0\0");
    whom.write_all(b"E")?;
    whom.write_all(&u32::try_from(fields.len() + 4).unwrap().to_be_bytes())?;
    whom.write_all(fields.as_bytes())
}

/// A sink whose server forbids every login.
fn shut_out(code: &'static str) -> PostgresSink {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for whom in listener.incoming() {
            // Whoever has gone already is not told.
            drop(whom.and_then(|whom| forbid(whom, code)));
        }
    });
    let dsn = format!("postgres://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let config = PostgresSinkConfig { pool_min: 0, ..PostgresSinkConfig::default() };
    let options = options(&Secret::from(&*dsn)).unwrap();
    PostgresSink {
        pool: pool(&config, options.clone()),
        handle: pool(&config, options),
        statements: BTreeMap::new(),
        statement_timeout: config.statement_timeout,
        types: Types::default(),
        most: Most::default(),
    }
}

#[tokio::test]
async fn rows_wait_while_the_server_lets_nobody_in_whatever_code_it_has_for_that() {
    let rows = [1, 2].map(|n| PostgresPayload::insert("t", &json!({"n": n})).unwrap());
    for code in ["P0001", "22023", "42501", "0A000", "54000"] {
        let outcomes = shut_out(code).deliver(&rows).await;
        let waits = |of: &Delivery| matches!(of, Delivery::Transient(error) if error.class == code);
        assert!(outcomes.len() == rows.len() && outcomes.iter().all(waits), "{outcomes:?}");
    }
}
