//! Rows.

use drakkar::sqlx::PgPool;
use drakkar::{PostgresPayload, sqlx};

use super::*;

const PASSWORD: &str = "tell-nobody";

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_encrypted_to_a_server_that_is_trusted_and_to_no_other() {
    let certificates = Certificates::new();
    let server = OwnServer::encrypted("postgres", certificates.path());
    let dsn = |host: &str, mode: &str, more: &[(&str, &str)]| {
        let more = more.iter().map(|(key, file)| format!("&{key}={}", certificates.name(file)));
        let more: String = more.collect();
        let port = server.port;
        json!({
            "dsn": format!("postgres://drakkar:{PASSWORD}@{host}:{port}/postgres?sslmode={mode}{more}")
        })
    };
    let shown = [("sslcert", "client.pem"), ("sslkey", "client.key")];
    let trusting = [("sslrootcert", "ca.pem"), shown[0], shown[1]];

    let connected = connected("postgres", &dsn("localhost", "verify-full", &trusting)).await;
    let pool = connected.ready.sink::<PgPool>("main").expect("the connections").clone();
    sqlx::raw_sql("CREATE TABLE t (n bigint)").execute(&pool).await.unwrap();
    let row = |n: u32| PostgresPayload::insert("t", &json!({ "n": n })).unwrap();
    delivered(&connected.sinks, (0..100).map(row).collect()).await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&pool).await.unwrap();
    assert_eq!(count, 100);
    let ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(ask).fetch_one(&pool).await.unwrap());

    let stranger = [("sslrootcert", "stranger.pem"), shown[0], shown[1]];
    let refused = async |sink, one_of: &[&str]| {
        refused("postgres", &sink, PASSWORD, one_of).await;
    };
    refused(dsn("localhost", "verify-full", &stranger), &["certificate verify failed"]).await;
    refused(dsn("127.0.0.1", "verify-full", &trusting), &["certificate"]).await;
    refused(dsn("localhost", "disable", &[]), &["no encryption"]).await;
    let nameless = dsn("localhost", "verify-full", &trusting[..1]);
    refused(nameless, &["client certificate", "certificate required"]).await;
}
