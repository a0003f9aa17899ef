//! What a MongoDB collection is to take.
//!
//! This crate knows no driver: documents, filters and updates are JSON text, in the order of their
//! fields. MongoDB's own types are written as extended JSON (`{"$oid": ".."}`, `{"$date": ".."}`),
//! which is how the types of the driver serialise; the sink reads them.

#![allow(clippy::zero_sized_map_values, reason = "an object is read as a map, for its keys")]

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::Error, de::IgnoredAny};

use super::PayloadError;

/// One write to a MongoDB sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MongoPayload {
    /// Which `sinks.mongo` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// What is written.
    pub write: MongoWrite,
}

/// What is written; documents, filters and updates are JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MongoWrite {
    /// A new document.
    Insert {
        /// Where.
        collection: String,
        /// The document, with an `_id`.
        document: String,
        /// Whether the `_id` was made here: then nobody else can have used it.
        generated_id: bool,
    },
    /// A document in the place of another one.
    Replace {
        /// Where.
        collection: String,
        /// Which document; the first that matches.
        filter: String,
        /// What takes its place.
        document: String,
        /// Whether it is inserted where none matches.
        upsert: bool,
    },
    /// A change of documents.
    Update {
        /// Where.
        collection: String,
        /// Which documents.
        filter: String,
        /// Update operators, or a pipeline.
        update: String,
        /// Whether a document is inserted where none matches.
        upsert: bool,
        /// Whether every document that matches is changed, or the first.
        many: bool,
    },
    /// The end of documents.
    Delete {
        /// Where.
        collection: String,
        /// Which documents.
        filter: String,
        /// Whether every document that matches goes, or the first.
        many: bool,
    },
    /// A statement that the configuration writes down.
    Statement {
        /// Its name in `sinks.mongo.<name>.statements`.
        name: String,
        /// What stands for its placeholders, by name.
        params: String,
    },
}

impl MongoPayload {
    /// Inserts `document` into `collection`.
    ///
    /// A document without `_id` gets one here, once: however often it is sent, it is stored once.
    ///
    /// # Errors
    ///
    /// When `document` does not serialise, or not as an object.
    pub fn insert(collection: &str, document: &impl Serialize) -> Result<Self, PayloadError> {
        let (mut document, keys) = object("a document", document)?;
        let generated_id = !keys.contains_key("_id");
        if generated_id {
            let separator = if keys.is_empty() { "" } else { "," };
            let id = format!(r#""_id":{{"$oid":"{}"}}{separator}"#, object_id());
            document.insert_str(1, &id);
        }
        Ok(Self::of(MongoWrite::Insert { collection: collection.into(), document, generated_id }))
    }

    /// Puts `document` in the place of the first document of `collection` that matches `filter`;
    /// where none does, nothing happens.
    ///
    /// # Errors
    ///
    /// When one of them does not serialise as an object, `filter` is empty, or `document` has update
    /// operators.
    pub fn replace(
        collection: &str,
        filter: &impl Serialize,
        document: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        Self::replacement(collection, filter, document, false)
    }

    /// As [`Self::replace`]; where no document matches, `document` is inserted.
    ///
    /// # Errors
    ///
    /// As [`Self::replace`].
    pub fn replace_or_insert(
        collection: &str,
        filter: &impl Serialize,
        document: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        Self::replacement(collection, filter, document, true)
    }

    /// Applies `update`, an object of update operators or a pipeline, to the first document of
    /// `collection` that matches `filter`.
    ///
    /// # Errors
    ///
    /// When one of them does not serialise, `filter` is no object or empty, or `update` is neither
    /// operators nor a pipeline.
    pub fn update(
        collection: &str,
        filter: &impl Serialize,
        update: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        Self::change(collection, filter, update, false, false)
    }

    /// As [`Self::update`], to every document that matches.
    ///
    /// # Errors
    ///
    /// As [`Self::update`].
    pub fn update_many(
        collection: &str,
        filter: &impl Serialize,
        update: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        Self::change(collection, filter, update, false, true)
    }

    /// As [`Self::update`]; where no document matches, one is made of `filter` and `update`.
    ///
    /// # Errors
    ///
    /// As [`Self::update`].
    pub fn upsert(
        collection: &str,
        filter: &impl Serialize,
        update: &impl Serialize,
    ) -> Result<Self, PayloadError> {
        Self::change(collection, filter, update, true, false)
    }

    /// Deletes the first document of `collection` that matches `filter`.
    ///
    /// # Errors
    ///
    /// When `filter` does not serialise as an object, or is empty.
    pub fn delete(collection: &str, filter: &impl Serialize) -> Result<Self, PayloadError> {
        Self::removal(collection, filter, false)
    }

    /// Deletes every document of `collection` that matches `filter`.
    ///
    /// # Errors
    ///
    /// As [`Self::delete`].
    pub fn delete_many(collection: &str, filter: &impl Serialize) -> Result<Self, PayloadError> {
        Self::removal(collection, filter, true)
    }

    /// Runs the statement `name` of the configuration; `params` is an object of what stands for its
    /// placeholders.
    ///
    /// # Errors
    ///
    /// When `params` does not serialise as an object.
    pub fn statement(name: &str, params: &impl Serialize) -> Result<Self, PayloadError> {
        let (params, _) = object("parameters", params)?;
        Ok(Self::of(MongoWrite::Statement { name: name.into(), params }))
    }

    /// Bytes of its JSON.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.write {
            MongoWrite::Insert { collection, document, .. } => collection.len() + document.len(),
            MongoWrite::Replace { collection, filter, document, .. } => {
                collection.len() + filter.len() + document.len()
            }
            MongoWrite::Update { collection, filter, update, .. } => {
                collection.len() + filter.len() + update.len()
            }
            MongoWrite::Delete { collection, filter, .. } => collection.len() + filter.len(),
            MongoWrite::Statement { name, params } => name.len() + params.len(),
        }
    }

    fn of(write: MongoWrite) -> Self {
        Self { sink: None, write }
    }

    fn replacement(
        collection: &str,
        filter: &impl Serialize,
        document: &impl Serialize,
        upsert: bool,
    ) -> Result<Self, PayloadError> {
        let filter = filled("a filter", filter)?;
        let (document, keys) = object("a document", document)?;
        if keys.keys().any(|key| key.starts_with('$')) {
            return Err(wrong("a document that replaces another must not have update operators"));
        }
        let collection = collection.into();
        Ok(Self::of(MongoWrite::Replace { collection, filter, document, upsert }))
    }

    fn change(
        collection: &str,
        filter: &impl Serialize,
        update: &impl Serialize,
        upsert: bool,
        many: bool,
    ) -> Result<Self, PayloadError> {
        let filter = filled("a filter", filter)?;
        let update = serde_json::to_string(update)?;
        if !is_update(&update) {
            return Err(wrong("an update must be an object of update operators, or a pipeline"));
        }
        let collection = collection.into();
        Ok(Self::of(MongoWrite::Update { collection, filter, update, upsert, many }))
    }

    fn removal(
        collection: &str,
        filter: &impl Serialize,
        many: bool,
    ) -> Result<Self, PayloadError> {
        let filter = filled("a filter", filter)?;
        Ok(Self::of(MongoWrite::Delete { collection: collection.into(), filter, many }))
    }
}

type Keys = BTreeMap<String, IgnoredAny>;

/// `value` as JSON, with the keys at its top.
fn object(what: &str, value: &impl Serialize) -> Result<(String, Keys), PayloadError> {
    let text = serde_json::to_string(value)?;
    match serde_json::from_str::<Keys>(&text) {
        Ok(keys) => Ok((text, keys)),
        Err(_) => Err(wrong(&format!("{what} must be an object"))),
    }
}

/// As [`object`], with something in it: an empty filter matches whatever comes first.
fn filled(what: &str, value: &impl Serialize) -> Result<String, PayloadError> {
    match object(what, value)? {
        (_, keys) if keys.is_empty() => Err(wrong(&format!("{what} must not be empty"))),
        (text, _) => Ok(text),
    }
}

/// Anything else would be taken for a whole document, in the place of the one that is there.
fn is_update(json: &str) -> bool {
    let is_pipeline =
        || serde_json::from_str::<Vec<Keys>>(json).is_ok_and(|stages| !stages.is_empty());
    match serde_json::from_str::<Keys>(json) {
        Ok(keys) => !keys.is_empty() && keys.keys().all(|key| key.starts_with('$')),
        Err(_) => is_pipeline(),
    }
}

fn wrong(text: &str) -> PayloadError {
    PayloadError::from(serde_json::Error::custom(text))
}

/// An id as MongoDB makes them: the time, the process, a count.
fn object_id() -> String {
    static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(PROCESS.hash_one(1_u8)));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let process = PROCESS.hash_one(0_u8);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{:08x}{:010x}{:06x}",
        seconds & 0xffff_ffff,
        process & 0x00ff_ffff_ffff,
        count & 0x00ff_ffff
    )
}

#[cfg(test)]
mod tests;
