//! The text of statements. Names are quoted, values are never part of it.
//!
//! Every statement reads its rows from a *source*: a derived table whose columns `c0, c1, ...` have
//! the types of the columns they are for.

use std::{borrow::Cow, collections::HashSet, fmt::Write as _};

use super::{
    plan::{Change, Shape},
    types::Column,
};

/// Longest name the server knows; it cuts off the rest, and a value under a name that was cut is lost.
pub(super) const LONGEST_NAME: usize = 63;

/// `name` as an identifier.
pub(super) fn quoted(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("an empty name".to_owned());
    }
    if name.contains('\0') {
        return Err(format!("{name:?} holds a zero byte, which no name can"));
    }
    if LONGEST_NAME < name.len() {
        return Err(format!("{name:?} is longer than {LONGEST_NAME} bytes"));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// `table` or `schema.table` as an identifier.
pub(super) fn table(name: &str) -> Result<String, String> {
    match name.split_once('.') {
        Some((_, table)) if table.contains('.') => {
            Err(format!("{name:?} is neither `table` nor `schema.table`"))
        }
        Some((schema, table)) => Ok(format!("{}.{}", quoted(schema)?, quoted(table)?)),
        None => quoted(name),
    }
}

/// Identifiers that were checked before.
fn list(names: &[Cow<'_, str>]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| ident(name)).collect();
    quoted.join(", ")
}

fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Rows from JSON texts: the server looks the types up, whatever they are. One parameter with all rows;
/// where a column is both set and looked for, two: a record holds it once.
pub(super) fn from_json(shape: &Shape<'_>) -> String {
    let table = &shape.table;
    let apart = matches!(&shape.change, Change::Update { apart: true, .. });
    let mut text = "(SELECT ".to_owned();
    for (number, column) in shape.columns.iter().enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        let record = if apart && shape.first_filter() <= number { "y" } else { "x" };
        push(&mut text, format_args!("{comma}{record}.{} AS c{number}", ident(column)));
    }
    // Into a row of nulls, not into a null: there the server holds the columns that are not named to
    // their domains as well.
    let base = format!("ROW((NULL::{table}).*)::{table}");
    push(&mut text, format_args!(" FROM json_populate_recordset({base}, $1::text::json) AS x"));
    if apart {
        push(&mut text, format_args!(", json_populate_recordset({base}, $2::text::json) AS y"));
    }
    text.push(')');
    text
}

/// Rows from one array of texts per column. Once the table has other types than these, the statement
/// fails: to find no row would look the same as a table that answers so (a trigger that writes elsewhere).
pub(super) fn from_arrays(table: &str, names: &[Cow<'_, str>], columns: &[&Column]) -> String {
    let each = |text: &dyn Fn(usize, &Column) -> String| {
        let all: Vec<String> = columns.iter().enumerate().map(|(n, of)| text(n, of)).collect();
        all.join(", ")
    };
    format!(
        "(SELECT {} FROM unnest({}) AS u({}) WHERE (SELECT CASE WHEN count(*) = {} THEN 'true' \
         ELSE 'the table was changed' END FROM pg_catalog.pg_attribute WHERE attrelid = {}::regclass \
         AND NOT attisdropped AND (attname, atttypid) IN ({}))::bool)",
        each(&|number, of| format!("u.c{number}::{} AS c{number}", of.type_name)),
        each(&|number, _| format!("${}::text[]", number + 1)),
        each(&|number, _| format!("c{number}")),
        names.iter().collect::<HashSet<_>>().len(),
        literal(table),
        each(&|number, of| format!("({}::name, {}::oid)", literal(&names[number]), of.type_id)),
    )
}

/// A name as a text.
fn literal(name: &str) -> String {
    format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''"))
}

/// The statement that writes what `source` holds.
pub(super) fn statement(shape: &Shape<'_>, source: &str) -> String {
    let (table, columns) = (&shape.table, &shape.columns);
    match &shape.change {
        Change::Insert => insert(shape, source),
        Change::InsertIfAbsent => insert(shape, source) + " ON CONFLICT DO NOTHING",
        Change::Upsert { key, changed } => {
            let set: Vec<String> =
                changed.iter().map(|column| format!("{0} = EXCLUDED.{0}", ident(column))).collect();
            let action = if set.is_empty() {
                "NOTHING".to_owned()
            } else {
                format!("UPDATE SET {}", set.join(", "))
            };
            format!("{} ON CONFLICT ({}) DO {action}", insert(shape, source), list(key))
        }
        Change::Update { filter_nulls, .. } => {
            let first = shape.first_filter();
            let set: Vec<String> = columns[..first]
                .iter()
                .enumerate()
                .map(|(number, column)| format!("{} = r.c{number}", ident(column)))
                .collect();
            let rows = last_of_each(filter_nulls, first, source);
            format!(
                "UPDATE {table} AS t SET {} FROM {rows} AS r WHERE {}",
                set.join(", "),
                matches(columns, filter_nulls, first),
            )
        }
        Change::Delete { filter_nulls } => {
            format!(
                "DELETE FROM {table} AS t USING {source} AS r WHERE {}",
                matches(columns, filter_nulls, 0),
            )
        }
    }
}

fn insert(shape: &Shape<'_>, source: &str) -> String {
    let numbers: Vec<String> = (0..shape.columns.len()).map(|n| format!("r.c{n}")).collect();
    let (table, columns) = (&shape.table, list(&shape.columns));
    format!("INSERT INTO {table} ({columns}) SELECT {} FROM {source} AS r", numbers.join(", "))
}

/// Of source rows that are for the same table row, the server would apply any one: leave it the last.
/// Equal texts never come here together; equal values that are written differently do.
fn last_of_each(filter_nulls: &[bool], first: usize, source: &str) -> String {
    let keys: Vec<String> = filter_nulls
        .iter()
        .enumerate()
        .filter(|(_, is_null)| !**is_null)
        .map(|(number, _)| format!("s.c{}", first + number))
        .collect();
    if keys.is_empty() {
        return source.to_owned(); // Such a statement has one row.
    }
    let keys = keys.join(", ");
    format!(
        "(SELECT DISTINCT ON ({keys}) s.* FROM (SELECT i.*, row_number() OVER () AS n FROM {source} \
         AS i) AS s ORDER BY {keys}, s.n DESC)"
    )
}

fn matches(columns: &[Cow<'_, str>], filter_nulls: &[bool], first: usize) -> String {
    let all: Vec<String> = filter_nulls
        .iter()
        .enumerate()
        .map(|(number, is_null)| {
            let column = ident(&columns[first + number]);
            if *is_null {
                format!("t.{column} IS NULL")
            } else {
                format!("t.{column} = r.c{}", first + number)
            }
        })
        .collect();
    all.join(" AND ")
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let written = text.write_fmt(more);
    debug_assert!(written.is_ok());
}
