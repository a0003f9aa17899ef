//! Documents → the collections of a MongoDB database.
//!
//! Payloads become `insert`, `update` and `delete` commands, which every server has; what it says of
//! each write is read here, not by the driver. Written counts what a majority of the members has,
//! unless the connection string says otherwise.

use std::time::Duration;

use drakkar_core::{Delivery, MongoPayload, Ready, Sink, SinkError, SinkName};
use mongodb::{
    Client, Database,
    bson::{Bson, Document, RawDocumentBuf, doc},
    error::{Error, ErrorKind},
    options::{Acknowledgment, ClientOptions, ConnectionString, HostInfo, WriteConcern},
};

use crate::{
    MongoSinkConfig,
    connect::{Attempt, Connect, ConnectError, patiently},
    most::Most,
};
use deliver::{How, Server};
use statement::Statements;
use verdict::Failure;
use write::Write;

mod json; // JSON -> BSON
mod statement; // a template and its parameters -> a write
mod write; // a payload -> a write
mod run; // writes -> commands
mod deliver; // commands -> one outcome per payload
mod verdict; // what the server's codes mean
#[cfg(test)]
mod stand_in; // a server of a few lines
#[cfg(test)]
mod concern_tests;

/// Documents → the collections of a MongoDB database.
pub struct MongoSink {
    database: Database,
    /// The handler's own: operations of hooks that stand still keep their connections.
    handle: Database,
    statements: Statements,
    how: How,
    most: Most,
}

/// How long the driver looks for a server that can be written to, unless the connection string says it;
/// then what waits is held, and tried again by the lane.
const SELECTION: Duration = Duration::from_secs(5);

/// How long a server may take to replicate a write before it says that it has not, unless the
/// connection string says it.
const REPLICATION: Duration = Duration::from_secs(10);

/// So many members no replica set has; a server calls such a write concern unreadable.
const MEMBERS: u32 = 51;

impl Connect for MongoSink {
    type Config = MongoSinkConfig;

    async fn connect(
        at: String,
        config: &Self::Config,
        within: Duration,
    ) -> Result<Self, ConnectError> {
        let statements = Statements::new(&at, &config.statements)
            .map_err(|wrong| ConnectError::Invalid(vec![wrong]))?;
        let error = |reason| ConnectError::Server {
            server: format!("MongoDB at {}", hosts(config)),
            reason,
            hint: "check uri (hosts, user, password, authSource, tls), and that the server runs",
            key: at.clone(),
        };
        let Answered { database, handle, concern } =
            patiently(within, error, || attempt(config, within)).await?;
        Ok(Self {
            database,
            handle,
            statements,
            how: How::new(config.ordered, concern),
            most: Most::default(),
        })
    }

    fn dropped_after(&mut self, limit: Duration) {
        self.how.dropped_after(limit);
    }

    fn offer(&self, sink: SinkName, ready: &mut Ready) {
        ready.offer(sink, self.handle.clone());
    }
}

impl Sink for MongoSink {
    type Payload = MongoPayload;

    async fn deliver(&self, batch: &[MongoPayload]) -> Vec<Delivery> {
        let writes = batch.iter().map(|payload| Write::of(payload, &self.statements)).collect();
        deliver::deliver(&self.database, &self.how, &self.most, writes).await
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let asked = self.database.run_command(doc! {"ping": 1}).await;
        asked.map(drop).map_err(|error| SinkError::new("unanswered", error.kind.to_string()))
    }

    /// The handler's connections stay: hooks may use them to the end.
    async fn close(&self) {
        self.database.client().clone().shutdown().immediate(true).await;
    }
}

impl Server for Database {
    async fn run(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        verdict::answer(self.run_raw_command(command).await)
    }
}

/// Who is asked, without secrets.
fn hosts(config: &MongoSinkConfig) -> String {
    match ConnectionString::parse(config.uri.expose()).map(|parsed| parsed.host_info) {
        Ok(HostInfo::HostIdentifiers(hosts)) => {
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        Ok(HostInfo::DnsRecord(name)) => name,
        _ => "the host of uri".to_owned(),
    }
}

/// A server that lets us in.
struct Answered {
    database: Database,
    handle: Database,
    concern: Document,
}

/// Asks once whether we are let in: a server answers `ping` to anybody, so it is asked for what only
/// those may see whom it knows.
async fn attempt(config: &MongoSinkConfig, within: Duration) -> Result<Answered, Attempt> {
    let mut options = ClientOptions::parse(config.uri.expose()).await.map_err(at_start)?;
    options.app_name.get_or_insert_with(|| "drakkar".to_owned());
    options.server_selection_timeout.get_or_insert(SELECTION.min(within / 2));
    options.connect_timeout.get_or_insert(SELECTION);
    let concern = concern(options.write_concern.as_ref())?;
    let open = || Client::with_options(options.clone()).map_err(at_start);
    let database = open()?.database(&config.database);
    let known = doc! {"listCollections": 1, "nameOnly": true, "authorizedCollections": true};
    database.run_command(known).await.map_err(at_start)?;
    if let Some(others) = others(&concern)
        && is_alone(&database).await
    {
        let text = format!("w={others} in uri: the server belongs to no replica set; leave it out");
        return Err(Attempt::Permanent(text));
    }
    let handle = open()?.database(&config.database);
    Ok(Answered { database, handle, concern })
}

/// The `w` of a write concern that no server meets by itself.
fn others(concern: &Document) -> Option<String> {
    match concern.get("w")? {
        Bson::Int64(members) if 1 < *members => Some(members.to_string()),
        Bson::String(tag) if tag != "majority" => Some(tag.clone()),
        _ => None,
    }
}

/// Whether the server is known to belong to no replica set, and not to stand before some.
async fn is_alone(database: &Database) -> bool {
    let hello = database.run_command(doc! {"hello": 1}).await;
    hello.is_ok_and(|hello| !["setName", "msg"].iter().any(|of| hello.contains_key(of)))
}

/// When a write counts: what the connection string says, else when a majority has it.
fn concern(asked: Option<&WriteConcern>) -> Result<Document, Attempt> {
    let mut concern = match asked.and_then(|asked| asked.w.as_ref()) {
        Some(Acknowledgment::Nodes(0)) => {
            let text = "w=0 in uri: the server would confirm nothing; leave it out";
            return Err(Attempt::Permanent(text.to_owned()));
        }
        Some(Acknowledgment::Nodes(members @ MEMBERS..)) => {
            let text = format!("w={members} in uri: a replica set has fewer members");
            return Err(Attempt::Permanent(text));
        }
        Some(Acknowledgment::Nodes(members)) => doc! {"w": i64::from(*members)},
        Some(Acknowledgment::Custom(tags)) => doc! {"w": tags},
        _ => doc! {"w": "majority"},
    };
    if let Some(journal) = asked.and_then(|asked| asked.journal) {
        concern.insert("j", journal);
    }
    let timeout = asked.and_then(|asked| asked.w_timeout).unwrap_or(REPLICATION);
    concern.insert("wtimeout", i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    Ok(concern)
}

/// Whether to ask again. The driver's words about a connection string may quote a part of it, and a
/// password in the wrong place with it: they are not repeated.
fn at_start(error: Error) -> Attempt {
    match *error.kind {
        ErrorKind::InvalidArgument { .. } => Attempt::Permanent(
            "uri is no connection string; write special characters of user and password as %XX"
                .to_owned(),
        ),
        ErrorKind::Authentication { .. } => {
            Attempt::Permanent(format!("we are not let in: {}", error.kind))
        }
        ErrorKind::Command(ref command) if [13, 18].contains(&command.code) => {
            Attempt::Permanent(format!("we are not let in: {}", command.message))
        }
        ErrorKind::InvalidTlsConfig { .. } | ErrorKind::IncompatibleServer { .. } => {
            Attempt::Permanent(error.kind.to_string())
        }
        kind => Attempt::Transient(kind.to_string()),
    }
}
