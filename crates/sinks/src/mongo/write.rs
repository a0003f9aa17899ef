//! One payload as the server takes it: an element of the array of a write command.

use drakkar_core::{MongoPayload, MongoWrite, SinkError};
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};

use super::{json, statement::Statements};

/// What a document may be large, in every MongoDB; and what a command may hold of them, as long as it
/// holds one.
pub(super) const MAX_DOCUMENT: usize = 16 << 20;

/// Which command a write belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Insert,
    Update,
    Delete,
}

/// A write, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) collection: String,
    pub(super) kind: Kind,
    /// The document to insert, or what to change and how.
    pub(super) body: RawDocumentBuf,
    /// The `_id` was made for this payload: no other has it.
    pub(super) generated_id: bool,
    /// Another write may insert the same document first; then this one is an update.
    pub(super) upsert: bool,
}

impl Write {
    /// `payload`, or why it can never be written.
    pub(super) fn of(payload: &MongoPayload, statements: &Statements) -> Result<Self, SinkError> {
        match &payload.write {
            MongoWrite::Insert { collection, document, generated_id } => {
                let document = json::document("the document", document)?;
                Self::insert(collection.clone(), document, *generated_id)
            }
            MongoWrite::Replace { collection, filter, document, upsert } => {
                let filter = json::document("the filter", filter)?;
                let document = json::document("the document", document)?;
                Self::update(collection.clone(), filter, document.into(), *upsert, false)
            }
            MongoWrite::Update { collection, filter, update, upsert, many } => {
                let filter = json::document("the filter", filter)?;
                let update = json::value("the update", update)?;
                Self::update(collection.clone(), filter, update, *upsert, *many)
            }
            MongoWrite::Delete { collection, filter, many } => {
                Self::delete(collection.clone(), json::document("the filter", filter)?, *many)
            }
            MongoWrite::Statement { name, params } => statements.bind(name, params),
            _ => Err(SinkError::new("unknown_write", "this build does not know such a write")),
        }
    }

    /// The `_id` goes first, where the server would put it: what is stored is what was sent.
    fn insert(
        collection: String,
        mut document: Document,
        generated_id: bool,
    ) -> Result<Self, SinkError> {
        let Some(id) = document.remove("_id") else {
            return Err(SinkError::new("invalid_document", "the document has no _id"));
        };
        let mut ordered = doc! {"_id": id};
        ordered.extend(document);
        Self::new(collection, Kind::Insert, &ordered, generated_id, false)
    }

    pub(super) fn update(
        collection: String,
        filter: Document,
        update: Bson,
        upsert: bool,
        multi: bool,
    ) -> Result<Self, SinkError> {
        let body = doc! {"q": filled(filter)?, "u": update, "upsert": upsert, "multi": multi};
        Self::new(collection, Kind::Update, &body, false, upsert)
    }

    pub(super) fn delete(
        collection: String,
        filter: Document,
        many: bool,
    ) -> Result<Self, SinkError> {
        let body = doc! {"q": filled(filter)?, "limit": i32::from(!many)};
        Self::new(collection, Kind::Delete, &body, false, false)
    }

    /// A document that is too large would break the connection, for its neighbours as well.
    fn new(
        collection: String,
        kind: Kind,
        body: &Document,
        generated_id: bool,
        upsert: bool,
    ) -> Result<Self, SinkError> {
        let body = RawDocumentBuf::try_from(body)
            .map_err(|error| SinkError::new("invalid_document", error.to_string()))?;
        let size = body.as_bytes().len();
        if MAX_DOCUMENT < size {
            let text = format!("{size} bytes of BSON; MongoDB takes {MAX_DOCUMENT}");
            return Err(SinkError::new("BSONObjectTooLarge", text));
        }
        Ok(Self { collection, kind, body, generated_id, upsert })
    }
}

/// An empty filter matches whatever comes first, or everything. A payload is checked when it is made;
/// one that was written elsewhere and read back is not.
fn filled(filter: Document) -> Result<Document, SinkError> {
    if filter.is_empty() {
        return Err(SinkError::new("empty_filter", "the filter is empty"));
    }
    Ok(filter)
}
