//! A value as one row of CSV (RFC 4180, lines end with a line feed), and the names of its columns.

use bytes::Bytes;
use csv::{Writer, WriterBuilder};
use serde::Serialize;

/// The names of the columns where they have some, and the row; both without their line feed.
pub(super) fn row(value: &impl Serialize) -> Result<(Option<Bytes>, Bytes), csv::Error> {
    let row = written(value, false)?;
    let mut both = written(value, true)?;
    // What stands before the row is the names: a value without names has none.
    both.truncate(both.len() - row.len());
    let names = (!both.is_empty()).then(|| line(both));
    Ok((names, line(row)))
}

fn written(value: &impl Serialize, has_names: bool) -> Result<Vec<u8>, csv::Error> {
    let mut writer: Writer<Vec<u8>> =
        WriterBuilder::new().has_headers(has_names).flexible(true).from_writer(Vec::new());
    writer.serialize(value)?;
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

fn line(mut bytes: Vec<u8>) -> Bytes {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Hit<'a> {
        pattern: &'a str,
        #[serde(rename = "the, count")]
        count: Option<u32>,
    }

    #[derive(Serialize)]
    struct Outer<'a> {
        inner: Hit<'a>,
    }

    #[track_caller]
    fn check(value: &impl Serialize, names: Option<&str>, text: &str) {
        let (found, row) = row(value).unwrap();
        assert_eq!(found.as_deref(), names.map(str::as_bytes));
        assert_eq!(row, text);
    }

    #[test]
    fn a_struct_names_its_columns_and_what_must_be_quoted_is() {
        let names = Some("pattern,\"the, count\"");
        check(&Hit { pattern: "plain", count: Some(3) }, names, "plain,3");
        check(&Hit { pattern: "", count: None }, names, ",");
        check(&Hit { pattern: "a\"b,c\nd\r", count: None }, names, "\"a\"\"b,c\nd\r\",");
    }

    #[test]
    fn a_sequence_has_no_names() {
        check(&("a", 1.5, true), None, "a,1.5,true");
        check(&["x", ""], None, "x,");
        check(&[""], None, "\"\"");
    }

    #[test]
    fn what_has_no_columns_in_order_is_an_error() {
        let map = std::collections::BTreeMap::from([("a", 1)]);
        assert!(row(&map).is_err());
        assert!(row(&Outer { inner: Hit { pattern: "", count: None } }).is_err());
    }
}
