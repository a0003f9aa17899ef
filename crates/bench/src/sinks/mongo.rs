//! Documents of a collection, beside a loop that inserts a thousand at once.

use drakkar::{Config, MongoPayload, Payload, PayloadError, sections::MongoSinkConfig};
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};
use tokio::runtime::Runtime;

use super::{Far, Feed, Row};

const DATABASE: &str = "bench";

/// A database with a collection per lap.
pub(super) struct Collections {
    uri: String,
    client: Client,
}

impl Collections {
    pub(super) fn at_hand(runtime: &Runtime) -> anyhow::Result<Self> {
        let uri = super::server("DRAKKAR_TEST_MONGO")?;
        let client = runtime.block_on(Client::with_uri_str(&uri))?;
        Ok(Self { uri, client })
    }

    fn collection(&self, lap: &str) -> Collection<Document> {
        self.client.database(DATABASE).collection(lap)
    }
}

impl Far for Collections {
    const NAME: &'static str = "MongoDB";
    const GOAL: f64 = 0.5;

    fn prepare(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<()> {
        let collection = self.collection(lap);
        runtime.block_on(async { collection.drop().await })?;
        Ok(())
    }

    fn configure(&self, _: &str, config: &mut Config) -> anyhow::Result<()> {
        let sink = MongoSinkConfig {
            uri: self.uri.as_str().into(),
            database: DATABASE.into(),
            ..MongoSinkConfig::default()
        };
        config.sinks.mongo.insert("rows".to_owned(), sink);
        Ok(())
    }

    fn payload(lap: &str, row: Row<'_>) -> Result<Payload, PayloadError> {
        Ok(MongoPayload::insert(lap, &row)?.into())
    }

    fn by_hand(&self, runtime: &Runtime, lap: &str, rows: &mut Feed<'_>) -> anyhow::Result<()> {
        let collection = self.collection(lap);
        runtime.block_on(async {
            loop {
                let some = rows.next()?;
                if some.is_empty() {
                    return Ok(());
                }
                let document =
                    |row: &Row<'_>| doc! {"id": row.id.cast_signed(), "value": row.value};
                collection.insert_many(some.iter().map(document)).await?;
            }
        })
    }

    fn count(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<usize> {
        let collection = self.collection(lap);
        let counted = runtime.block_on(async { collection.count_documents(doc! {}).await })?;
        Ok(usize::try_from(counted)?)
    }
}
