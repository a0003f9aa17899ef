//! The sinks that a world plays: of each kind one, or those that the test names.

use std::sync::Arc;

use drakkar_core::{
    FilePayload, HttpPayload, KafkaPayload, MongoPayload, PostgresPayload, RedisPayload,
};
use drakkar_sinks::SinksBuilder;

use crate::{Recorded, Script, state::State};

/// Sinks of one kind. All clones are the same sinks.
#[derive(Clone)]
pub(crate) struct Kind<P> {
    add: fn(SinksBuilder, &str, Script<P>) -> SinksBuilder,
    /// The one that is there if the test names none.
    usual: (&'static str, Script<P>),
    named: Vec<(String, Script<P>)>,
}

impl<P: Clone + Send + Sync + 'static> Kind<P> {
    fn new(usual: &'static str, add: fn(SinksBuilder, &str, Script<P>) -> SinksBuilder) -> Self {
        Self { add, usual: (usual, Script::confirming()), named: Vec::new() }
    }

    /// Adds a sink that answers as `script` says.
    pub(crate) fn push(&mut self, name: &str, script: &Script<P>) {
        self.named.push((name.to_owned(), script.clone()));
    }

    /// What the first of them accepted.
    pub(crate) fn first(&self) -> Recorded<P> {
        self.each().next().map_or_else(Recorded::new, |(_, script)| script.recorded())
    }

    fn each(&self) -> impl Iterator<Item = (&str, &Script<P>)> {
        let usual = self.named.is_empty().then_some((self.usual.0, &self.usual.1));
        usual.into_iter().chain(self.named.iter().map(|(name, script)| (name.as_str(), script)))
    }
}

/// What is done with sinks of any kind.
trait Played {
    fn add_to(&self, sinks: SinksBuilder) -> SinksBuilder;
    fn accepted(&self) -> Vec<Accepted>;
    fn belongs_to(&self, world: &Arc<State>);
}

impl<P: Clone + Send + Sync + 'static> Played for Kind<P> {
    fn add_to(&self, sinks: SinksBuilder) -> SinksBuilder {
        self.each().fold(sinks, |sinks, (name, script)| (self.add)(sinks, name, script.clone()))
    }

    fn accepted(&self) -> Vec<Accepted> {
        let accepted = |(name, script): (&str, &Script<P>)| {
            let recorded = script.recorded();
            let is_named = !self.named.is_empty();
            Accepted { name: name.to_owned(), is_named, count: Box::new(move || recorded.len()) }
        };
        self.each().map(accepted).collect()
    }

    fn belongs_to(&self, world: &Arc<State>) {
        self.each().for_each(|(_, script)| script.recorded().belongs_to(Arc::downgrade(world)));
    }
}

/// A sink, and how many payloads it accepted.
pub(crate) struct Accepted {
    pub(crate) name: String,
    /// Whether the test named it.
    pub(crate) is_named: bool,
    pub(crate) count: Box<dyn Fn() -> usize + Send + Sync>,
}

/// Sinks of every kind.
#[derive(Clone)]
pub(crate) struct Kinds {
    pub(crate) kafka: Kind<KafkaPayload>,
    pub(crate) files: Kind<FilePayload>,
    pub(crate) postgres: Kind<PostgresPayload>,
    pub(crate) mongo: Kind<MongoPayload>,
    pub(crate) redis: Kind<RedisPayload>,
    pub(crate) http: Kind<HttpPayload>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            kafka: Kind::new("results", SinksBuilder::kafka),
            files: Kind::new("files", SinksBuilder::filesystem),
            postgres: Kind::new("postgres", SinksBuilder::postgres),
            mongo: Kind::new("mongo", SinksBuilder::mongo),
            redis: Kind::new("redis", SinksBuilder::redis),
            http: Kind::new("http", SinksBuilder::http),
        }
    }
}

impl Kinds {
    fn all(&self) -> [&dyn Played; 6] {
        [&self.kafka, &self.files, &self.postgres, &self.mongo, &self.redis, &self.http]
    }

    pub(crate) fn add_to(&self, sinks: SinksBuilder) -> SinksBuilder {
        self.all().into_iter().fold(sinks, |sinks, kind| kind.add_to(sinks))
    }

    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        self.all().into_iter().flat_map(Played::accepted).collect()
    }

    /// What is waited for in vain shows `world`.
    pub(crate) fn belongs_to(&self, world: &Arc<State>) {
        self.all().into_iter().for_each(|kind| kind.belongs_to(world));
    }
}
