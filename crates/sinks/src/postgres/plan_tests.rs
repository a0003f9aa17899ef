//! What goes together, and what is refused before any server sees it.

use serde_json::json;

use super::{super::sql, *};

fn statements() -> BTreeMap<String, Named> {
    [("move".to_owned(), Named::parse("SELECT :a").unwrap())].into()
}

/// The runs of a batch, by the places of their payloads.
#[track_caller]
fn runs(batch: &[PostgresPayload], expected: &[&[usize]]) {
    let statements = statements();
    let plan = plan(batch, &statements);
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    let runs: Vec<Vec<usize>> =
        plan.runs.iter().map(|run| run.items.iter().map(|item| item.index).collect()).collect();
    assert_eq!(runs, expected);
}

#[track_caller]
fn refused(payload: PostgresPayload, class: &str) {
    let (statements, batch) = (statements(), [payload]);
    let plan = plan(&batch, &statements);
    assert!(plan.runs.is_empty());
    assert_eq!(plan.refused[0].1.class, class, "{:?}", plan.refused);
}

fn insert(table: &str, row: &serde_json::Value) -> PostgresPayload {
    PostgresPayload::insert(table, row).unwrap()
}

fn upsert(id: &serde_json::Value, n: i32) -> PostgresPayload {
    PostgresPayload::upsert("t", &json!({"id": id, "n": n}), &["id"]).unwrap()
}

fn update(set: &serde_json::Value, filter: &serde_json::Value) -> PostgresPayload {
    PostgresPayload::update("t", set, filter).unwrap()
}

#[test]
fn neighbours_of_one_table_and_one_set_of_columns_go_together() {
    let (a, b) = (json!({"a": 1}), json!({"b": 1}));
    runs(
        &[insert("t", &a), insert("t", &a), insert("u", &a), insert("t", &a), insert("t", &b)],
        &[&[0, 1], &[2], &[3], &[4]],
    );
    let call = || PostgresPayload::statement("move", &json!({"a": 1})).unwrap();
    runs(&[call(), call(), insert("t", &a), call()], &[&[0, 1], &[2], &[3]]);
}

#[test]
fn rows_with_other_columns_another_key_or_another_deed_do_not_go_together() {
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
    let rows = [r#"{"a":1,"b":2}"#, r#"{ "\u0061": 3, "b": 4 }"#, r#"{"b":1,"a":2}"#, r#"{"b":1}"#];
    let inserts = rows.map(|row| PostgresPayload::insert("t", &raw(row)).unwrap());
    runs(&inserts, &[&[0, 1], &[2], &[3]]);
    let statements = statements();
    let plan = plan(&inserts, &statements);
    assert_eq!(plan.runs[0].items[1].values, ["3", "4"]);
    assert_eq!(plan.runs[1].items[0].values, ["1", "2"]);
    let row = |n: i32| json!({"a": n, "b": n, "c": n});
    runs(
        &[
            PostgresPayload::upsert("t", &row(0), &["a"]).unwrap(),
            PostgresPayload::upsert("t", &row(1), &["a", "b"]).unwrap(),
            PostgresPayload::upsert_only("t", &row(2), &["a", "b"], &["c"]).unwrap(),
            PostgresPayload::upsert_only("t", &row(3), &["a", "b"], &["c"]).unwrap(),
            PostgresPayload::insert_if_absent("t", &row(4)).unwrap(),
            PostgresPayload::insert("t", &row(5)).unwrap(),
        ],
        &[&[0], &[1, 2, 3], &[4], &[5]],
    );
}

#[test]
fn a_key_occurs_once_in_a_run_because_the_later_row_wins() {
    let (one, two) = (json!(1), json!(2));
    runs(
        &[upsert(&one, 1), upsert(&two, 1), upsert(&one, 2), upsert(&two, 2), upsert(&one, 3)],
        &[&[0, 1], &[2, 3], &[4]],
    );
    let set = |n: i32, id: i32| update(&json!({"n": n}), &json!({"id": id}));
    runs(&[set(1, 1), set(1, 2), set(2, 1)], &[&[0, 1], &[2]]);
}

#[test]
fn an_update_that_the_next_one_may_depend_on_stands_alone() {
    let set = || update(&json!({"id": 2}), &json!({"id": 1}));
    runs(&[set(), set()], &[&[0], &[1]]);
    // Both look for the same rows: there is nothing to tell them apart by.
    let null = || update(&json!({"n": 2}), &json!({"id": null}));
    runs(&[null(), null()], &[&[0], &[1]]);
    let filter = |z: &serde_json::Value| update(&json!({"n": 1}), &json!({"id": z, "z": z}));
    runs(&[filter(&json!(1)), filter(&json!(null))], &[&[0], &[1]]);
}

#[test]
fn names_that_cannot_be_are_refused_before_the_server_cuts_them() {
    let row = json!({"a": 1});
    let long = "c".repeat(64);
    for table in ["", "a.b.c", ".t", "s.", "a\0b", &long] {
        refused(insert(table, &row), "invalid_name");
    }
    refused(insert("t", &json!({"": 1})), "invalid_name");
    refused(insert("t", &json!({ &long: 1 })), "invalid_name");
    refused(insert("t", &json!({"a\u{0}": 1})), "invalid_name");
}

#[test]
fn what_can_never_work_is_refused_with_what_would() {
    let row = json!({"a": 1});
    refused(PostgresPayload::upsert("t", &row, &["id"]).unwrap(), "missing_column");
    refused(PostgresPayload::upsert_only("t", &row, &["a"], &["b"]).unwrap(), "missing_column");
    refused(PostgresPayload::statement("delete", &row).unwrap(), "unknown_statement");
    refused(PostgresPayload::statement("move", &json!({"b": 1})).unwrap(), "missing_parameter");
}

#[test]
fn a_name_is_quoted_and_a_value_is_never_in_the_text() {
    let evil = "x\"; DROP TABLE t; --";
    let batch = [PostgresPayload::update(
        format!("s.{evil}"),
        &json!({ evil: "v'; DROP" }),
        &json!({ "k": "v'; DROP", "z": null }),
    )
    .unwrap()];
    let statements = BTreeMap::new();
    let plan = plan(&batch, &statements);
    let Work::Rows(shape) = &plan.runs[0].work else { panic!("no rows") };
    let text = sql::statement(shape, &sql::from_json(shape));
    let name = "\"x\"\"; DROP TABLE t; --\"";
    assert_eq!(
        text,
        format!(
            "UPDATE \"s\".{name} AS t SET {name} = r.c0 FROM (SELECT DISTINCT ON (s.c1) s.* FROM \
             (SELECT i.*, row_number() OVER () AS n FROM (SELECT x.{name} AS c0, x.\"k\" AS c1, \
             x.\"z\" AS c2 FROM json_populate_recordset(ROW((NULL::\"s\".{name}).*)::\"s\".{name}, \
             $1::text::json) AS x) AS i) AS s ORDER BY s.c1, s.n DESC) AS r WHERE t.\"k\" = r.c1 AND t.\"z\" IS NULL"
        )
    );
}
