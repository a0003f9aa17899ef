//! MongoDB's protocol: collections `open` and `closed`, behind a [`Gate`].

use drakkar_core::{MongoPayload, Payload};
use drakkar_integration::OwnServer;
use futures_util::TryStreamExt;
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Mortal, PASSWORD, Rights, Site, Store, UNLUCKY, USER, gate::Gate};

const DATABASE: &str = "site";

pub(crate) struct Mongo {
    server: OwnServer,
    gate: Gate,
    runtime: Runtime,
}

impl Mongo {
    pub(crate) fn start() -> Self {
        let server = OwnServer::start("mongo");
        let gate = Gate::before(server.port);
        let site = Self { server, gate, runtime: Runtime::new().unwrap() };
        site.command(doc! {
            "createUser": USER, "pwd": PASSWORD, "roles": [], "mechanisms": ["SCRAM-SHA-256"],
        });
        site.obstruct(UNLUCKY);
        site
    }

    async fn client(&self) -> Client {
        let port = self.server.port;
        let uri = format!("mongodb://drakkar:drakkar-test-secret@127.0.0.1:{port}/");
        Client::with_uri_str(uri).await.unwrap()
    }

    fn command(&self, command: Document) {
        let run = async { self.client().await.database("admin").run_command(command).await };
        self.runtime.block_on(run).unwrap();
    }

    async fn collection(&self, name: &str) -> Collection<Document> {
        self.client().await.database(DATABASE).collection(name)
    }

    fn numbers(&self, name: &str) -> Vec<u32> {
        let found: Vec<Document> = self.runtime.block_on(async {
            let found = self.collection(name).await.find(doc! {"ours": true}).await;
            found.unwrap().try_collect().await.unwrap()
        });
        let number = |found: &Document| found.get_i32("_id").unwrap().try_into().unwrap();
        let mut numbers: Vec<u32> = found.iter().map(number).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn at(port: u16, password: &str) -> Value {
    let password = password.replace('/', "%2F");
    let options = "authSource=admin&serverSelectionTimeoutMS=3000"; // Not half a minute.
    let uri = format!("mongodb://{USER}:{password}@127.0.0.1:{port}/?{options}");
    json!({"uri": uri, "database": DATABASE})
}

fn document(collection: &str, number: u32) -> Payload {
    let document = json!({"_id": number, "ours": true});
    MongoPayload::insert(collection, &document).unwrap().sink("site").into()
}

impl Site for Mongo {
    fn kind(&self) -> &'static str {
        "mongo"
    }

    fn section(&self, password: &str) -> Value {
        at(self.gate.port, password)
    }

    fn away(&self) -> Value {
        at(1, PASSWORD)
    }

    fn payload(&self, number: u32) -> Payload {
        document("open", number)
    }

    fn set_password(&self, password: &str) {
        self.command(doc! {"updateUser": USER, "pwd": password, "mechanisms": ["SCRAM-SHA-256"]});
        self.server.kill(); // Who is let in stays in.
        self.server.restart();
    }
}

impl Mortal for Mongo {
    fn die(&self) {
        self.server.kill();
    }

    fn rise(&self) {
        self.server.restart();
    }

    fn kept(&self) -> Vec<u32> {
        self.written()
    }
}

impl Store for Mongo {
    fn obstruct(&self, number: u32) {
        let insert = async {
            let taken = doc! {"_id": i32::try_from(number).unwrap(), "ours": false};
            self.collection("open").await.insert_one(taken).await
        };
        self.runtime.block_on(insert).unwrap();
    }

    fn mend(&self, number: u32) {
        let delete = async { self.collection("open").await.delete_one(doc! {"_id": number}).await };
        assert_eq!(self.runtime.block_on(delete).unwrap().deleted_count, 1);
    }

    fn written(&self) -> Vec<u32> {
        self.numbers("open")
    }
}

impl Rights for Mongo {
    fn closed(&self, number: u32) -> Payload {
        document("closed", number)
    }

    fn allow(&self) {
        self.gate.open();
    }

    fn written_closed(&self) -> Vec<u32> {
        self.numbers("closed")
    }
}
