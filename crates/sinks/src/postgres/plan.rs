//! Payloads → runs: neighbours that one statement can write, in the order they were given.
//!
//! Pure: it decides what goes together and what can never be written, and touches no server. A run
//! holds each key once where the server could not tell which of two rows comes last.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use super::{named::Named, sql};
use drakkar_core::{JsonObject, PostgresPayload, PostgresWrite, SinkError};

/// Neighbours that are written together, or not at all.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// What the first of them is.
    first: &'a PostgresWrite,
    pub work: Work<'a>,
    /// Never empty.
    pub items: Vec<Item<'a>>,
}

/// What a run does.
#[derive(Debug)]
pub(super) enum Work<'a> {
    /// Writes rows of one table.
    Rows(Shape<'a>),
    /// Executes a statement of the configuration, once per item.
    Named { name: &'a str, named: &'a Named },
}

/// What rows have in common that one statement can write.
#[derive(Debug, PartialEq)]
pub(super) struct Shape<'a> {
    /// As the payload calls it.
    name: &'a str,
    /// As an identifier.
    pub table: String,
    /// The columns of the source; of an update those that are set, then those of the filter.
    pub columns: Vec<Cow<'a, str>>,
    pub change: Change<'a>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Change<'a> {
    Insert,
    InsertIfAbsent,
    Upsert {
        key: Vec<Cow<'a, str>>,
        changed: Vec<Cow<'a, str>>,
    },
    Update {
        /// For each column of the filter whether it is to be null.
        filter_nulls: Vec<bool>,
        /// A column is both set and looked for: the next row may look for what this one sets.
        apart: bool,
    },
    Delete {
        filter_nulls: Vec<bool>,
    },
}

impl Shape<'_> {
    /// Where the columns of the filter begin.
    pub(super) fn first_filter(&self) -> usize {
        match &self.change {
            Change::Update { filter_nulls, .. } | Change::Delete { filter_nulls } => {
                self.columns.len() - filter_nulls.len()
            }
            _ => self.columns.len(),
        }
    }

    /// Whether a row cannot share its statement.
    fn is_alone(&self) -> bool {
        match &self.change {
            Change::Update { filter_nulls, apart } => {
                *apart || filter_nulls.iter().all(|is_null| *is_null)
            }
            _ => false,
        }
    }

    /// What must not occur twice in one statement, of these values.
    fn key(&self, values: &[&str]) -> Option<String> {
        let texts: Vec<&str> = match &self.change {
            Change::Upsert { key, .. } => key
                .iter()
                .filter_map(|of| self.columns.iter().position(|column| column == of))
                .map(|position| values[position])
                .collect(),
            Change::Update { .. } => values[self.first_filter()..].to_vec(),
            _ => return None,
        };
        Some(texts.join(","))
    }
}

/// One payload of a run.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// Its place in the batch.
    pub index: usize,
    /// The row; of an update what is set. Or the parameters.
    pub object: &'a str,
    /// The filter of an update.
    pub filter: Option<&'a str>,
    /// One value per column.
    pub values: Vec<&'a str>,
}

/// What is to be done with a batch.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub runs: Vec<Run<'a>>,
    /// What can never be written, and why.
    pub refused: Vec<(usize, SinkError)>,
}

/// Plans how `batch` is written.
pub(super) fn plan<'a>(
    batch: &'a [PostgresPayload],
    statements: &'a BTreeMap<String, Named>,
) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut keys = HashSet::new();
    for (index, payload) in batch.iter().enumerate() {
        if plan.extend(index, &payload.write, &mut keys) {
            continue;
        }
        let last = plan.runs.last().map(|run| &run.work);
        match planned(index, &payload.write, statements, last) {
            Ok((work, item)) => plan.add(&payload.write, work, item, &mut keys),
            Err(error) => plan.refused.push((index, error)),
        }
    }
    plan
}

impl<'a> Plan<'a> {
    /// Adds to the last run what is as the first of it but for its values; whether it is. `keys` are those
    /// of the last run.
    fn extend(
        &mut self,
        index: usize,
        write: &'a PostgresWrite,
        keys: &mut HashSet<String>,
    ) -> bool {
        let Some(Run { first, work: Work::Rows(shape), items }) = self.runs.last_mut() else {
            return false;
        };
        let Some(row) = row_of_the_same(first, write) else {
            return false;
        };
        let Some(values) = values_of(row, &shape.columns) else {
            return false;
        };
        let key = shape.key(&values);
        if key.as_ref().is_some_and(|key| keys.contains(key)) {
            return false;
        }
        keys.extend(key);
        items.push(Item { index, object: row.text(), filter: None, values });
        true
    }

    /// Adds to the last run what can go with it. `keys` are those of the last run.
    fn add(
        &mut self,
        first: &'a PostgresWrite,
        work: Work<'a>,
        item: Item<'a>,
        keys: &mut HashSet<String>,
    ) {
        let key = match &work {
            Work::Rows(shape) => shape.key(&item.values),
            Work::Named { .. } => None,
        };
        if let Some(last) = self.runs.last_mut()
            && last.work.goes_with(&work)
            && key.as_ref().is_none_or(|key| !keys.contains(key))
        {
            keys.extend(key);
            last.items.push(item);
            return;
        }
        keys.clear();
        keys.extend(key);
        self.runs.push(Run { first, work, items: vec![item] });
    }
}

/// The row of `next`, where that does with it what `first` does with its own.
fn row_of_the_same<'a>(first: &PostgresWrite, next: &'a PostgresWrite) -> Option<&'a JsonObject> {
    use PostgresWrite::{Insert, InsertIfAbsent, Upsert};
    match (first, next) {
        (Insert { table: first, .. }, Insert { table, row })
        | (InsertIfAbsent { table: first, .. }, InsertIfAbsent { table, row }) => {
            (first == table).then_some(row)
        }
        (
            Upsert { table: first, key: first_key, changed: first_changed, .. },
            Upsert { table, row, key, changed },
        ) => ((first, first_key, first_changed) == (table, key, changed)).then_some(row),
        _ => None,
    }
}

impl Work<'_> {
    fn goes_with(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Rows(this), Self::Rows(next)) => !this.is_alone() && this == next,
            (Self::Named { name: this, .. }, Self::Named { name: next, .. }) => this == next,
            _ => false,
        }
    }
}

fn planned<'a>(
    index: usize,
    write: &'a PostgresWrite,
    statements: &'a BTreeMap<String, Named>,
    last: Option<&Work<'a>>,
) -> Result<(Work<'a>, Item<'a>), SinkError> {
    let rows = |table: &'a str, change, row: Row<'a>| {
        let work = Work::Rows(shape(table, row.columns, change, last)?);
        Ok((work, Item { index, object: row.text, filter: None, values: row.values }))
    };
    match write {
        PostgresWrite::Insert { table, row } => rows(table, Change::Insert, Row::of(row)),
        PostgresWrite::InsertIfAbsent { table, row } => {
            rows(table, Change::InsertIfAbsent, Row::of(row))
        }
        PostgresWrite::Upsert { table, row, key, changed } => {
            let row = Row::of(row);
            rows(table, upsert(&row, key, changed.as_deref())?, row)
        }
        PostgresWrite::Update { table, set, filter } => {
            let (mut set, filter) = (Row::of(set), Row::of(filter));
            let apart = filter.columns.iter().any(|column| set.columns.contains(column));
            let change = Change::Update { filter_nulls: filter.nulls(), apart };
            set.columns.extend(filter.columns);
            set.values.extend(filter.values);
            let (work, item) = rows(table, change, set)?;
            Ok((work, Item { filter: Some(filter.text), ..item }))
        }
        PostgresWrite::Delete { table, filter } => {
            let filter = Row::of(filter);
            rows(table, Change::Delete { filter_nulls: filter.nulls() }, filter)
        }
        PostgresWrite::Statement { name, params } => named(index, name, params, statements),
        other => Err(SinkError::new("unsupported", format!("this sink cannot do {other:?}"))),
    }
}

fn shape<'a>(
    name: &'a str,
    columns: Vec<Cow<'a, str>>,
    change: Change<'a>,
    last: Option<&Work<'a>>,
) -> Result<Shape<'a>, SinkError> {
    let table = match last {
        // Its names were looked at with the row before.
        Some(Work::Rows(last)) if last.name == name && last.columns == columns => {
            last.table.clone()
        }
        _ => identifier(name, &columns)?,
    };
    Ok(Shape { name, table, columns, change })
}

/// The table `name` as an identifier, if that and the columns are names.
fn identifier(name: &str, columns: &[Cow<'_, str>]) -> Result<String, SinkError> {
    let refused = |text| SinkError::new("invalid_name", text);
    let table = sql::table(name).map_err(refused)?;
    for column in columns {
        sql::quoted(column).map_err(refused)?;
    }
    if columns.is_empty() {
        return Err(SinkError::new("no_columns", "the row has no columns"));
    }
    Ok(table)
}

fn upsert<'a>(
    row: &Row<'a>,
    key: &'a [String],
    changed: Option<&'a [String]>,
) -> Result<Change<'a>, SinkError> {
    let is_missing = |of: &&String| row.columns.iter().all(|column| column != *of);
    if let Some(missing) = key.iter().chain(changed.unwrap_or_default()).find(is_missing) {
        let text = format!("the row has no column {missing:?}, which the upsert names");
        return Err(SinkError::new("missing_column", text));
    }
    let is_key = |column: &Cow<'_, str>| key.iter().any(|of| column == of);
    let changed = match changed {
        Some(changed) => changed.iter().map(|column| Cow::Borrowed(column.as_str())).collect(),
        None => row.columns.iter().filter(|column| !is_key(column)).cloned().collect(),
    };
    Ok(Change::Upsert { key: key.iter().map(|of| Cow::Borrowed(of.as_str())).collect(), changed })
}

fn named<'a>(
    index: usize,
    name: &'a str,
    params: &'a JsonObject,
    statements: &'a BTreeMap<String, Named>,
) -> Result<(Work<'a>, Item<'a>), SinkError> {
    let Some(named) = statements.get(name) else {
        let exist: Vec<&str> = statements.keys().map(String::as_str).collect();
        let exist = if exist.is_empty() { "none".to_owned() } else { exist.join(", ") };
        let text = format!("there is no statement {name:?}; configured: {exist}");
        return Err(SinkError::new("unknown_statement", text));
    };
    let given = Row::of(params);
    if let Some(missing) = named.params().iter().find(|of| !given.columns.contains(&Cow::from(*of)))
    {
        let text = format!("statement {name:?} needs a value for :{missing}");
        return Err(SinkError::new("missing_parameter", text));
    }
    let item = Item { index, object: params.text(), filter: None, values: Vec::new() };
    Ok((Work::Named { name, named }, item))
}

/// An object, taken apart.
struct Row<'a> {
    text: &'a str,
    columns: Vec<Cow<'a, str>>,
    values: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn of(object: &'a JsonObject) -> Self {
        let (columns, values) = object.fields().unzip();
        Self { text: object.text(), columns, values }
    }

    fn nulls(&self) -> Vec<bool> {
        self.values.iter().map(|value| *value == "null").collect()
    }
}

/// The values of `row`, if it has these columns in this order.
fn values_of<'a>(row: &'a JsonObject, columns: &[Cow<'_, str>]) -> Option<Vec<&'a str>> {
    let fields = row.fields();
    if fields.len() != columns.len() {
        return None;
    }
    let value = |((name, value), column): ((Cow<'a, str>, &'a str), &Cow<'_, str>)| {
        (name == *column).then_some(value)
    };
    fields.zip(columns).map(value).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
