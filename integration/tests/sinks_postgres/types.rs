//! Every type arrives as it was given, by both ways that rows travel: few in JSON, many in arrays.

use drakkar_core::PostgresPayload;
use drakkar_integration::SOON;
use drakkar_sinks::Sinks;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use crate::{Db, classes, confirmed, rows::held_back};

const FEW: usize = 2;
const MANY: usize = 20;

/// Type, value as JSON, and what the server shows of it as text.
const SCALARS: &[(&str, &str, Option<&str>)] = &[
    ("smallint", "-32768", Some("-32768")),
    ("bigint", "9223372036854775807", Some("9223372036854775807")),
    (
        "numeric",
        "12345678901234567890.123456789012345678901",
        Some("12345678901234567890.123456789012345678901"),
    ),
    ("numeric(5,2)", "1.239", Some("1.24")),
    ("numeric", "\"1e400\"", None),
    ("real", "0.1", Some("0.1")),
    ("double precision", "1.7976931348623157e308", Some("1.7976931348623157e+308")),
    ("boolean", "true", Some("true")),
    ("text", r#""it's \"ä\" \\ \n $1 :a""#, Some("it's \"ä\" \\ \n $1 :a")),
    ("text", r#""""#, Some("")),
    ("text", r#"{"a": [1,  2]}"#, Some(r#"{"a": [1,  2]}"#)),
    ("text", "12.50", Some("12.50")),
    ("varchar(3)", r#""abc""#, Some("abc")),
    ("character(3)", r#""ab""#, Some("ab")),
    (
        "uuid",
        r#""A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11""#,
        Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ),
    ("timestamptz", r#""2026-01-02T03:04:05.123456+02:00""#, Some("2026-01-02 01:04:05.123456+00")),
    ("timestamp", r#""2026-01-02T03:04:05.5""#, Some("2026-01-02 03:04:05.5")),
    ("date", r#""2026-01-02""#, Some("2026-01-02")),
    ("time", r#""03:04:05""#, Some("03:04:05")),
    ("interval", r#""1 day 2 hours""#, Some("1 day 02:00:00")),
    ("bytea", r#""\\xdeadbeef""#, Some("\\xdeadbeef")),
    ("inet", r#""10.0.0.1/8""#, Some("10.0.0.1/8")),
    ("int4range", r#""[1,3)""#, Some("[1,3)")),
    ("json", r#"{"b":  1.10, "a": "x", "a": null}"#, Some(r#"{"b":  1.10, "a": "x", "a": null}"#)),
    ("json", r#""text""#, Some(r#""text""#)),
    ("jsonb", r#"{"b":  1.10, "a": [1, "ä"]}"#, Some(r#"{"a": [1, "ä"], "b": 1.10}"#)),
    ("jsonb", "[]", Some("[]")),
    ("jsonb", r#""text""#, Some(r#""text""#)),
    ("jsonb", "null", None),
    ("text", "null", None),
    ("{s}.mood", r#""happy""#, Some("happy")),
    ("bit(3)", r#""101""#, Some("101")),
];

/// Types that are written differently as JSON and as text.
const COMPLEX: &[(&str, &str, Option<&str>)] = &[
    ("int[]", "[1, null, 3]", Some("{1,NULL,3}")),
    ("int[]", "[]", Some("{}")),
    ("int[]", "[[1,2],[3,4]]", Some("{{1,2},{3,4}}")),
    ("int[]", r#""{1,2}""#, Some("{1,2}")),
    (
        "text[]",
        r#"["a,b", "c\"d", "", "NULL", null, "{}"]"#,
        Some(r#"{"a,b","c\"d","","NULL",NULL,"{}"}"#),
    ),
    ("jsonb[]", r#"[{"a": 1}, [2]]"#, Some(r#"{"{\"a\": 1}",[2]}"#)),
    ("{s}.point3", r#"{"x": 1, "y": "two"}"#, Some("(1,two)")),
    ("{s}.positive", "7", Some("7")),
];

async fn arrive(columns: &[(&str, &str, Option<&str>)], rows: usize) {
    let db = Db::new().await;
    db.run(
        "CREATE TYPE {s}.mood AS ENUM ('sad', 'happy'); CREATE TYPE {s}.point3 AS (x int, y text); \
         CREATE DOMAIN {s}.positive AS int CHECK (0 < VALUE)",
    )
    .await;
    let declared: Vec<String> =
        columns.iter().enumerate().map(|(n, (of, ..))| format!("\"C {n}\" {of}")).collect();
    db.run(&format!("CREATE TABLE {{s}}.t (n int, {})", declared.join(", "))).await;
    let sinks = db.sinks(&json!({})).await;
    let payloads = (0..rows).map(|n| {
        let values = columns.iter().enumerate();
        let values: Vec<String> =
            values.map(|(n, (_, json, _))| format!("\"C {n}\": {json}")).collect();
        let row = format!("{{\"n\": {n}, {}}}", values.join(", "));
        PostgresPayload::insert(db.table("t"), &RawValue::from_string(row).unwrap()).unwrap()
    });
    confirmed(&sinks, payloads.collect()).await;
    for (n, (of, json, expected)) in columns.iter().enumerate() {
        if (*of, *json) == ("numeric", "\"1e400\"") {
            let digits =
                db.one::<i32>(&format!("SELECT max(length(\"C {n}\"::text)) FROM {{s}}.t")).await;
            assert_eq!(digits, 401);
            continue;
        }
        let same = match expected {
            None => format!("\"C {n}\" IS NULL"),
            Some(text) => format!("\"C {n}\"::text = '{}'", text.replace('\'', "''")),
        };
        let right = db.one::<i64>(&format!("SELECT count(*) FROM {{s}}.t WHERE {same}")).await;
        let shown =
            db.one::<Option<String>>(&format!("SELECT max(\"C {n}\"::text) FROM {{s}}.t")).await;
        assert_eq!(right, i64::try_from(rows).unwrap(), "{of} {json}: {shown:?}");
    }
}

#[tokio::test]
async fn every_scalar_type_arrives_as_it_was_given() {
    arrive(SCALARS, FEW).await;
    arrive(SCALARS, MANY).await;
}

#[tokio::test]
async fn arrays_composites_and_domains_arrive_as_they_were_given() {
    arrive(COMPLEX, FEW).await;
    arrive(COMPLEX, MANY).await;
}

#[tokio::test]
async fn a_column_that_is_not_named_gets_its_default() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE {s}.t (id bigint GENERATED ALWAYS AS IDENTITY, a int, b text DEFAULT 'b', \
         twice int GENERATED ALWAYS AS (a * 2) STORED)",
    )
    .await;
    let sinks = db.sinks(&json!({})).await;
    let row = || PostgresPayload::insert(db.table("t"), &json!({"a": 1})).unwrap();
    confirmed(&sinks, vec![row()]).await;
    confirmed(&sinks, (0..MANY).map(|_| row()).collect()).await;
    let rows = db.rows("t").await;
    assert_eq!(rows.len(), MANY + 1);
    assert!(
        rows.iter().all(|row| row["b"] == "b" && row["twice"] == 2 && row["id"] != Value::Null)
    );
}

#[tokio::test]
async fn a_column_that_is_not_named_need_not_obey_its_domain() {
    let db = Db::new().await;
    db.run(
        "CREATE DOMAIN {s}.email AS text NOT NULL; \
         CREATE TABLE {s}.t (id int PRIMARY KEY, n int, mail {s}.email DEFAULT 'x')",
    )
    .await;
    let sinks = db.sinks(&json!({})).await;
    let insert = |id: usize, n: &Value| {
        PostgresPayload::insert(db.table("t"), &json!({"id": id, "n": n})).unwrap()
    };
    confirmed(&sinks, vec![insert(0, &json!(1))]).await;
    // The one that is bad sends its neighbours the way of few rows.
    let many = (0..MANY).map(|n| insert(n + 1, &if n == 7 { json!("bad") } else { json!(1) }));
    assert_eq!(classes(&sinks, many.collect()).await, [(7, "22P02".to_owned())]);
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t WHERE mail = 'x'").await, 20);

    let this = |id: i32| json!({"id": id});
    let set = |n: i32| PostgresPayload::update(db.table("t"), &json!({"n": n}), &this(0)).unwrap();
    let moved = PostgresPayload::update(db.table("t"), &this(30), &this(0)).unwrap();
    let gone = PostgresPayload::delete(db.table("t"), &this(1)).unwrap();
    confirmed(&sinks, vec![set(2), moved, gone]).await;
    assert_eq!(db.one::<i32>("SELECT n FROM {s}.t WHERE id = 30").await, 2);
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t").await, 19);

    let none = json!({"id": 40, "mail": null});
    let none = PostgresPayload::insert(db.table("t"), &none).unwrap();
    assert_eq!(classes(&sinks, vec![none]).await, [(0, "23502".to_owned())]);
}

#[tokio::test]
async fn a_table_that_is_changed_meanwhile_takes_rows_by_its_new_types() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (a real, at timestamp, \"it's\" int)").await;
    let sinks = db.sinks(&json!({})).await;
    let rows = |value: &Value| -> Vec<PostgresPayload> {
        (0..MANY)
            .map(|_| {
                let row = json!({"a": value, "at": "2026-01-01T00:00:00+05:00", "it's": 1});
                PostgresPayload::insert(db.table("t"), &row).unwrap()
            })
            .collect()
    };
    confirmed(&sinks, rows(&json!(0.5))).await;
    db.run(
        "TRUNCATE {s}.t; ALTER TABLE {s}.t ALTER a TYPE float8, ALTER at TYPE timestamptz, \
         ALTER \"it's\" TYPE bigint",
    )
    .await;
    confirmed(&sinks, rows(&json!(0.1))).await;
    // By the old types this would be 0.10000000149011612 and midnight.
    let right = "a = 0.1::float8 AND at = '2025-12-31T19:00:00Z'";
    assert_eq!(db.one::<i64>(&format!("SELECT count(*) FROM {{s}}.t WHERE {right}")).await, 20);
}

/// Writes many rows again and again until they travel as arrays, `column` too.
async fn become_fast(db: &Db, sinks: &Sinks, row: &Value, column: &str) {
    let ask = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT%{{s}}%late%\"{column}\"%' \
         AND query LIKE '%unnest(%'"
    );
    let deadline = Instant::now() + SOON;
    while db.one::<i64>(&ask).await == 0 {
        assert!(Instant::now() < deadline, "{row} never became fast");
        let row = PostgresPayload::insert(db.table("late"), row).unwrap();
        confirmed(sinks, vec![row; MANY]).await;
    }
}

#[tokio::test]
async fn a_table_and_a_column_that_are_made_later_are_written_as_fast_as_others() {
    let db = Db::new().await;
    let sinks = db.sinks(&json!({})).await;
    let late = sinks.clone();
    let row = PostgresPayload::insert(db.table("late"), &json!({"id": 1})).unwrap();
    let rows = vec![row; MANY];
    let delivery = tokio::spawn(async move { confirmed(&late, rows).await });
    held_back(&sinks).await;
    db.run("CREATE TABLE {s}.late (id int)").await;
    delivery.await.unwrap();
    become_fast(&db, &sinks, &json!({"id": 2}), "id").await;
    let both = json!({"id": 3, "more": "x"});
    let early = PostgresPayload::insert(db.table("late"), &both).unwrap();
    assert_eq!(classes(&sinks, vec![early; MANY]).await.len(), MANY);
    db.run("ALTER TABLE {s}.late ADD more text").await;
    become_fast(&db, &sinks, &both, "more").await;
}
