//! What is done with rows, and which of them are refused.

use drakkar_core::PostgresPayload;
use drakkar_integration::{SOON, sinks::deliver_by_tasks, until};
use drakkar_sinks::Settled;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{Db, classes, confirmed, on_thread, refused};

#[tokio::test]
async fn only_the_rows_at_fault_are_refused_and_all_others_land_exactly_once() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE {s}.t (id int PRIMARY KEY, n int CHECK (0 <= n), name varchar(5) NOT NULL); \
         INSERT INTO {s}.t VALUES (200, 0, 'there')",
    )
    .await;
    let sinks = db.sinks(&json!({})).await;
    let row = |id: i32| match id {
        3 => json!({"id": id, "n": -1, "name": "check"}),
        200 => json!({"id": id, "n": 1, "name": "key"}),
        411 => json!({"id": id, "n": "x", "name": "type"}),
        412 => json!({"id": id, "n": 1, "name": null}),
        413 => json!({"id": id, "n": 1, "name": "a".repeat(6)}),
        414 => json!({"id": id, "n": 1, "name": "\u{0}"}),
        415 => json!({"id": id, "n": 99_999_999_999_i64, "name": "range"}),
        _ => json!({"id": id, "n": id, "name": "good"}),
    };
    let payloads = (0..500).map(|id| PostgresPayload::insert(db.table("t"), &row(id)).unwrap());
    let expected = [
        (3, "23514"),
        (200, "23505"),
        (411, "22P02"),
        (412, "23502"),
        (413, "22001"),
        (414, "22P05"),
        (415, "22003"),
    ];
    let expected = expected.map(|(place, class)| (place, class.to_owned()));
    assert_eq!(classes(&sinks, payloads.collect()).await, expected);
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.t WHERE name = 'good'").await, 493);
}

#[tokio::test]
async fn a_row_that_is_too_large_for_its_index_is_refused_alone() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (name text PRIMARY KEY)").await;
    let sinks = db.sinks(&json!({})).await;
    // What repeats would be compressed to less than the 2 704 bytes that an index takes.
    let large: String = (0..4_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_string()).collect();
    let names = ["first".to_owned(), large, "last".to_owned()];
    let row = |name| PostgresPayload::insert(db.table("t"), &json!({"name": name})).unwrap();
    let found = classes(&sinks, names.into_iter().map(row).collect()).await;
    assert_eq!(found, [(1, "54000".to_owned())]);
    assert_eq!(db.rows("t").await, [json!({"name": "first"}), json!({"name": "last"})]);
}

#[tokio::test]
async fn a_row_that_is_refused_says_why_and_not_what_is_in_its_other_columns() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int, n int CONSTRAINT positive CHECK (0 < n), card text)").await;
    let sinks = db.sinks(&json!({})).await;
    let row = json!({"id": 1, "n": -1, "card": "4111-1111"});
    let refused =
        refused(&sinks, vec![PostgresPayload::insert(db.table("t"), &row).unwrap()]).await;
    let text = refused[0].1.to_string();
    assert!(
        text.contains("23514") && text.contains("positive") && !text.contains("4111"),
        "{text}"
    );
}

#[tokio::test]
async fn a_column_that_does_not_exist_is_the_payloads_fault() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int)").await;
    let sinks = db.sinks(&json!({})).await;
    let row = |row: &Value| PostgresPayload::insert(db.table("t"), row).unwrap();
    let batch = vec![row(&json!({"id": 1})), row(&json!({"ID": 2})), row(&json!({"id": 3}))];
    assert_eq!(classes(&sinks, batch).await, [(1, "42703".to_owned())]);
    assert_eq!(db.rows("t").await, [json!({"id": 1}), json!({"id": 3})]);
}

#[tokio::test]
async fn a_table_that_does_not_exist_yet_holds_its_rows_until_it_does() {
    let db = Db::new().await;
    let sinks = db.sinks(&json!({})).await;
    let rows = vec![PostgresPayload::insert(db.table("late"), &json!({"id": 1})).unwrap()];
    let held = sinks.clone();
    let delivery = tokio::spawn(async move { confirmed(&held, rows).await });
    held_back(&sinks).await;
    db.run("CREATE TABLE {s}.late (id int)").await;
    delivery.await.unwrap();
    assert_eq!(db.rows("late").await, [json!({"id": 1})]);
}

/// Waits until the sink holds something.
pub(crate) async fn held_back(sinks: &drakkar_sinks::Sinks) {
    let sinks = sinks.clone();
    let look = move || if sinks.held().is_empty() { Err("nothing is held") } else { Ok(()) };
    on_thread(move || until("the sink to hold", SOON, look)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_at_once_write_their_rows_once_each() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int)").await;
    let sinks = db.sinks(&json!({})).await;
    let row = |id: i32| PostgresPayload::insert(db.table("t"), &json!({"id": id})).unwrap();
    for settled in deliver_by_tasks(&sinks, (0..1_000).map(row)).await {
        assert_eq!(settled, Settled::Confirmed);
    }
    let written = db.rows("t").await;
    assert_eq!(written, (0..1_000).map(|id| json!({"id": id})).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_one_key_the_row_that_was_given_last_wins_and_each_came_in_turn() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE {s}.t (id int PRIMARY KEY, n int); CREATE TABLE {s}.seen (at serial, id int, n int); \
         CREATE FUNCTION {s}.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO {s}.seen (id, n) VALUES (NEW.id, NEW.n); RETURN NEW; END $$; \
         CREATE TRIGGER see AFTER INSERT OR UPDATE ON {s}.t FOR EACH ROW EXECUTE FUNCTION {s}.see()",
    )
    .await;
    let sinks = db.sinks(&json!({})).await;
    let row = |n: usize| {
        PostgresPayload::upsert(db.table("t"), &json!({"id": n % 7, "n": n}), &["id"]).unwrap()
    };
    confirmed(&sinks, (0..1_000).map(row).collect()).await;
    let last: Vec<Value> = db.rows("t").await;
    assert_eq!(last.iter().map(|row| row["n"].as_i64().unwrap()).max(), Some(999));
    assert!(last.iter().all(|row| 993 <= row["n"].as_i64().unwrap()), "{last:?}");
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.seen").await, 1_000);
    let turned = "SELECT count(*) FROM (SELECT n < lag(n) OVER (PARTITION BY id ORDER BY at) AS back \
                  FROM {s}.seen) x WHERE back";
    assert_eq!(db.one::<i64>(turned).await, 0);
}

#[tokio::test]
async fn one_key_written_in_two_ways_is_one_key() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id numeric PRIMARY KEY, n int)").await;
    let sinks = db.sinks(&json!({})).await;
    let ids = [json!(1), json!("1"), json!(1.0), json!("01")];
    let up = |(n, id): (usize, &Value)| {
        PostgresPayload::upsert(db.table("t"), &json!({"id": id, "n": n}), &["id"]).unwrap()
    };
    confirmed(&sinks, ids.iter().enumerate().map(up).collect()).await;
    assert_eq!(db.rows("t").await.len(), 1);
    assert_eq!(db.one::<i32>("SELECT n FROM {s}.t").await, 3);
    let set = |(n, id): (usize, &Value)| {
        PostgresPayload::update(db.table("t"), &json!({"n": 10 + n}), &json!({"id": id})).unwrap()
    };
    confirmed(&sinks, ids.iter().enumerate().map(set).collect()).await;
    assert_eq!(db.one::<i32>("SELECT n FROM {s}.t").await, 13);
    // As many as go the other way.
    let ids: Vec<Value> = (0..16).map(|n| json!(format!("{}1", "0".repeat(n)))).collect();
    confirmed(&sinks, ids.iter().enumerate().map(set).collect()).await;
    assert_eq!(db.one::<i32>("SELECT n FROM {s}.t").await, 25);
}

#[tokio::test]
async fn an_upsert_may_leave_columns_of_a_row_that_exists_alone() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int PRIMARY KEY, made text, seen text)").await;
    let sinks = db.sinks(&json!({})).await;
    let row = |day: &str| json!({"id": 1, "made": day, "seen": day});
    let only =
        |day| PostgresPayload::upsert_only(db.table("t"), &row(day), &["id"], &["seen"]).unwrap();
    confirmed(&sinks, vec![only("monday"), only("friday")]).await;
    let absent = |day| PostgresPayload::insert_if_absent(db.table("t"), &row(day)).unwrap();
    confirmed(&sinks, vec![absent("sunday"), absent("sunday")]).await;
    // A row that is nothing but its key cannot be changed.
    let key = PostgresPayload::upsert(db.table("t"), &json!({"id": 1}), &["id"]).unwrap();
    confirmed(&sinks, vec![key]).await;
    assert_eq!(db.rows("t").await, [json!({"id": 1, "made": "monday", "seen": "friday"})]);
}

#[tokio::test]
async fn updates_and_deletes_are_done_in_turn_and_a_null_means_is_null() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE {s}.t (id int, n int); INSERT INTO {s}.t VALUES (1, 1), (2, NULL), (NULL, 3)",
    )
    .await;
    let sinks = db.sinks(&json!({})).await;
    let set =
        |set: &Value, filter: &Value| PostgresPayload::update(db.table("t"), set, filter).unwrap();
    let delete = |filter: &Value| PostgresPayload::delete(db.table("t"), filter).unwrap();
    let chain = vec![
        set(&json!({"id": 10}), &json!({"id": 1})),
        set(&json!({"id": 11}), &json!({"id": 10})),
        set(&json!({"n": 5}), &json!({"id": 11, "n": 1})),
        set(&json!({"n": 20}), &json!({"id": 2, "n": null})),
        set(&json!({"n": null}), &json!({"id": null})),
        set(&json!({"n": 0}), &json!({"id": 4711})),
    ];
    confirmed(&sinks, chain).await;
    let now = |id: i32, n: i32| json!({"id": id, "n": n});
    assert_eq!(db.rows("t").await, [now(2, 20), now(11, 5), json!({"id": null, "n": null})]);
    confirmed(&sinks, vec![delete(&json!({"id": null, "n": null})), delete(&json!({"id": 11}))])
        .await;
    assert_eq!(db.rows("t").await, [now(2, 20)]);
    // Many at once, the way that few do not go.
    db.run("TRUNCATE {s}.t; INSERT INTO {s}.t SELECT g, NULL FROM generate_series(1, 40) g").await;
    let filter = |id: i32| json!({"id": id, "n": null});
    confirmed(&sinks, (1..=20).map(|id| set(&json!({"n": id}), &filter(id))).collect()).await;
    confirmed(&sinks, (21..=40).map(|id| delete(&filter(id))).collect()).await;
    assert_eq!(db.rows("t").await, (1..=20).map(|id| now(id, id)).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_looks_like_sql_is_a_name_or_a_value() {
    let db = Db::new().await;
    let evil = "x\"; DROP TABLE t; --";
    db.run(&format!(
        "CREATE TABLE {{s}}.t (id int); CREATE TABLE {{s}}.\"{0}\" (\"{0}\" text, \"it's \\ %s $1\" text)",
        evil.replace('"', "\"\"")
    ))
    .await;
    let sinks = db.sinks(&json!({})).await;
    let value = "'); DROP TABLE t; --";
    let row = json!({ evil: value, "it's \\ %s $1": "\\'; DROP" });
    let insert = || PostgresPayload::insert(db.table(evil), &row).unwrap();
    confirmed(&sinks, vec![insert()]).await;
    confirmed(&sinks, (0..20).map(|_| insert()).collect()).await;
    let filter = json!({ evil: value });
    let set = json!({"it's \\ %s $1": value});
    confirmed(&sinks, vec![PostgresPayload::update(db.table(evil), &set, &filter).unwrap()]).await;
    let changed = "SELECT count(*) FROM {s}.\"x\"\"; DROP TABLE t; --\" WHERE \"it's \\ %s $1\" LIKE '%DROP%'";
    assert_eq!(db.one::<i64>(changed).await, 21);
    assert_eq!(db.rows("t").await, [] as [Value; 0]);
    let nobody =
        PostgresPayload::insert(db.table("t(id) VALUES (1); --"), &json!({"id": 1})).unwrap();
    let delivery = {
        let sinks = sinks.clone();
        tokio::spawn(async move { refused(&sinks, vec![nobody]).await })
    };
    held_back(&sinks).await; // There is no table of that name.
    assert!(!delivery.is_finished());
    assert_eq!(db.rows("t").await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_value_of_megabytes_is_written_and_does_not_hold_up_its_neighbours() {
    let db = Db::new().await;
    db.run("CREATE TABLE {s}.t (id int, body text)").await;
    let sinks = db.sinks(&json!({})).await;
    let row = |id: usize| {
        let body = "ä".repeat(if id == 5 { 4_000_000 } else { 10 });
        PostgresPayload::insert(db.table("t"), &json!({"id": id, "body": body})).unwrap()
    };
    confirmed(&sinks, (0..12).map(row).collect()).await;
    assert_eq!(db.one::<i64>("SELECT sum(length(body)) FROM {s}.t").await, 4_000_110);
}

#[tokio::test]
async fn a_table_whose_trigger_writes_elsewhere_is_written_once() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE {s}.t (id int); CREATE TABLE {s}.elsewhere (id int); \
         CREATE FUNCTION {s}.route() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO {s}.elsewhere VALUES (NEW.id); RETURN NULL; END $$; \
         CREATE TRIGGER route BEFORE INSERT ON {s}.t FOR EACH ROW EXECUTE FUNCTION {s}.route()",
    )
    .await;
    let sinks = db.sinks(&json!({})).await;
    let row = |id: i32| PostgresPayload::insert(db.table("t"), &json!({"id": id})).unwrap();
    // The server answers INSERT 0 0.
    confirmed(&sinks, (0..20).map(row).collect()).await;
    assert_eq!(db.one::<i64>("SELECT count(*) FROM {s}.elsewhere").await, 20);
}

#[tokio::test]
async fn a_row_that_a_trigger_refuses_takes_none_of_its_neighbours_along_whatever_code_it_makes_up()
{
    let db = Db::new().await;
    let raise = |code: &str| format!("RAISE EXCEPTION 'not this one' USING ERRCODE = '{code}'");
    // No branch of a CASE fits: 20000.
    let case = "CASE NEW.id WHEN 0 THEN NULL; END CASE".to_owned();
    for (code, refuse) in [
        ("MY001", raise("MY001")),
        ("45000", raise("45000")),
        ("38000", raise("38000")),
        ("20000", case),
    ] {
        let table = format!("t{}", code.to_lowercase());
        db.run(&format!("CREATE TABLE {{s}}.{table} (id int)")).await;
        let body = format!("BEGIN IF NEW.id = 13 THEN {refuse}; END IF; RETURN NEW; END");
        let name = format!("{{s}}.{table}_check");
        db.run(&format!("CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"))
            .await;
        db.run(&format!(
            "CREATE TRIGGER refuses BEFORE INSERT ON {{s}}.{table} FOR EACH ROW EXECUTE FUNCTION {name}()"
        ))
        .await;
        let sinks = db.sinks(&json!({})).await;
        let row = |id: i32| PostgresPayload::insert(db.table(&table), &json!({"id": id})).unwrap();
        let settled = timeout(SOON, classes(&sinks, (0..20).map(row).collect())).await;
        assert_eq!(settled.expect("the row is held"), [(13, code.to_owned())]);
        assert_eq!(db.rows(&table).await.len(), 19, "{code}");
    }
}
