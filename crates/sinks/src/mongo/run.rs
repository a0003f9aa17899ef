//! Writes → commands: which go together, and in which order they are sent. Pure.

use std::collections::VecDeque;

use mongodb::bson::{Document, RawArrayBuf, RawBson, RawDocumentBuf, cstr};

use super::write::{Kind, MAX_DOCUMENT, Write};

/// What a server takes of writes in one command.
const MAX_WRITES: usize = 100_000;

/// Bytes that an element of an array takes beside itself: type, index, its end.
const ELEMENT: usize = 8;

/// Writes of one command: places in a batch, in order, all of one collection and kind.
pub(super) type Run = Vec<usize>;

/// Joins `writes` (those that are there) into runs of at most `most`. In order: what follows each other and
/// is of one collection and kind. Else: all that is of one collection and kind.
pub(super) fn runs(writes: &[Option<Write>], ordered: bool, most: usize) -> VecDeque<Run> {
    let mut runs: VecDeque<(Run, usize)> = VecDeque::new();
    for (place, write) in writes.iter().enumerate() {
        let Some(write) = write else { continue };
        let size = write.body.as_bytes().len() + ELEMENT;
        let fits = |(run, bytes): &&mut (Run, usize)| {
            let first = run.first().and_then(|&first| writes[first].as_ref());
            first.is_some_and(|first| goes_with(first, write))
                && run.len() < MAX_WRITES.min(most)
                && *bytes + size <= MAX_DOCUMENT
        };
        let with = if ordered { runs.back_mut().filter(fits) } else { runs.iter_mut().find(fits) };
        match with {
            Some((run, bytes)) => {
                run.push(place);
                *bytes += size;
            }
            None => runs.push_back((vec![place], size)),
        }
    }
    runs.into_iter().map(|(run, _)| run).collect()
}

fn goes_with(one: &Write, other: &Write) -> bool {
    one.kind == other.kind && one.collection == other.collection
}

/// The command that carries `run` out.
pub(super) fn command(
    collection: &str,
    kind: Kind,
    run: &[&Write],
    ordered: bool,
    concern: &Document,
) -> Result<RawDocumentBuf, mongodb::bson::error::Error> {
    let mut array = RawArrayBuf::new();
    for write in run {
        array.push(write.body.clone());
    }
    let mut command = RawDocumentBuf::new();
    let concern = RawDocumentBuf::try_from(concern)?;
    match kind {
        Kind::Insert => {
            command.append(cstr!("insert"), collection);
            command.append(cstr!("documents"), RawBson::Array(array));
        }
        Kind::Update => {
            command.append(cstr!("update"), collection);
            command.append(cstr!("updates"), RawBson::Array(array));
        }
        Kind::Delete => {
            command.append(cstr!("delete"), collection);
            command.append(cstr!("deletes"), RawBson::Array(array));
        }
    }
    command.append(cstr!("ordered"), ordered);
    command.append(cstr!("writeConcern"), concern);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "a batch has places without one")]
    fn write(kind: Kind, collection: &str, bytes: usize) -> Option<Write> {
        let body = RawDocumentBuf::try_from(&doc! {"b": "x".repeat(bytes)}).unwrap();
        let collection = collection.to_owned();
        Some(Write { collection, kind, body, generated_id: false, upsert: false })
    }

    #[test]
    fn in_order_only_neighbours_go_together() {
        let writes = [
            write(Kind::Insert, "a", 1),
            write(Kind::Insert, "a", 1),
            None,
            write(Kind::Insert, "a", 1),
            write(Kind::Update, "a", 1),
            write(Kind::Insert, "b", 1),
            write(Kind::Insert, "a", 1),
        ];
        let ordered: Vec<Run> = runs(&writes, true, 9).into();
        assert_eq!(ordered, [vec![0, 1, 3], vec![4], vec![5], vec![6]]);
        let unordered: Vec<Run> = runs(&writes, false, 9).into();
        assert_eq!(unordered, [vec![0, 1, 3, 6], vec![4], vec![5]]);
        let few: Vec<Run> = runs(&writes, true, 2).into();
        assert_eq!(few, [vec![0, 1], vec![3], vec![4], vec![5], vec![6]]);
    }

    #[test]
    fn a_command_holds_no_more_than_a_server_takes() {
        let half = MAX_DOCUMENT / 2 - 64;
        let writes = [half, half, half].map(|bytes| write(Kind::Insert, "a", bytes));
        let joined: Vec<Run> = runs(&writes, true, 9).into();
        assert_eq!(joined, [vec![0, 1], vec![2]]);
        let whole = [write(Kind::Insert, "a", MAX_DOCUMENT - 16), write(Kind::Insert, "a", 1)];
        let joined: Vec<Run> = runs(&whole, false, 9).into();
        assert_eq!(joined, [vec![0], vec![1]]);
    }
}
