//! The nodes of a Redis Cluster.
//!
//! Each of them is a server like any other, with the same care for late writes. What a batch holds for
//! one hash slot is a transaction of its own; those of one node are sent together. Nothing is sent twice
//! here unless a node said that it did not take it; a write without an answer is tried again by the lane,
//! after another look at who serves what. A node that does not answer holds what is meant for it, and
//! does not keep what others have answered from being heard.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drakkar_core::{Delivery, RedisPayload, SinkError};
use futures_util::future::join_all;
use redis::{Client, ConnectionInfo, ErrorKind, Pipeline, RedisError, Value};
use tokio::time::{Instant, timeout_at};

use super::{
    encode::Encoder,
    server::Server,
    slots::{Node, Slots, redirected, slot},
    transaction::Transaction,
    verdict,
};

/// A cluster, and the connections to its nodes.
pub(super) struct Cluster {
    /// The node that is configured, and how all of them are reached.
    entry: ConnectionInfo,
    first: Node,
    /// All that were ever met: one that comes back must not take what it was sent before.
    servers: Mutex<HashMap<Node, Arc<Server>>>,
    view: Mutex<View>,
    /// How long a write may take.
    limit: Duration,
}

/// Who serves what, as far as we know.
#[derive(Default)]
struct View {
    slots: Arc<Slots>,
    is_current: bool,
    /// How often somebody was asked.
    asked: usize,
}

/// Who did not answer, and why.
type Unanswered = (Node, RedisError);

impl Cluster {
    pub(super) fn new(entry: ConnectionInfo) -> Result<Self, RedisError> {
        let first = Node::of(entry.addr()).ok_or_else(|| {
            RedisError::from((ErrorKind::InvalidClientConfig, "a cluster has no socket file"))
        })?;
        Ok(Self {
            entry,
            first,
            servers: Mutex::default(),
            view: Mutex::default(),
            limit: Duration::from_secs(10),
        })
    }

    /// A write that waits so long is dropped, and what was answered by then with it.
    pub(super) fn answer_before(&mut self, limit: Duration) {
        self.limit = limit * 4 / 5;
    }

    /// Asks every primary, after a look at who they are.
    pub(super) async fn ask_all(&self, pipeline: &Pipeline) -> Result<(), Unanswered> {
        let until = Instant::now() + self.limit;
        let slots = self.look(until).await?;
        let Some(owners) = slots.owners() else {
            let text = "some hash slots have no node yet";
            return Err((self.first.clone(), RedisError::from((ErrorKind::Client, text))));
        };
        let asked = owners.into_iter().map(async |node| {
            let refused = |error| (node.clone(), error);
            for reply in self.send(node, pipeline, until).await.map_err(refused)? {
                reply.extract_error().map_err(refused)?;
            }
            Ok(())
        });
        join_all(asked).await.into_iter().collect()
    }

    /// What becomes of each payload of `batch`.
    pub(super) async fn deliver(
        &self,
        encoder: &Encoder,
        batch: &[RedisPayload],
    ) -> Vec<Option<Delivery>> {
        let until = Instant::now() + self.limit;
        let write = Write { cluster: self, encoder, batch, until };
        let outcomes = write.carry_out().await;
        if outcomes.iter().flatten().any(|outcome| matches!(outcome, Delivery::Transient(_))) {
            lock(&self.view).is_current = false;
        }
        outcomes
    }

    async fn slots(&self, until: Instant) -> Result<Arc<Slots>, Unanswered> {
        let known = {
            let view = lock(&self.view);
            view.is_current.then(|| Arc::clone(&view.slots))
        };
        match known {
            Some(slots) => Ok(slots),
            None => self.look(until).await,
        }
    }

    /// Asks one node after the other who serves what, beginning with another one each time: one that
    /// is cut off from the rest does not know better.
    async fn look(&self, until: Instant) -> Result<Arc<Slots>, Unanswered> {
        let (mut nodes, turn) = {
            let mut view = lock(&self.view);
            view.asked += 1;
            (view.slots.nodes().to_vec(), view.asked)
        };
        let count = nodes.len().max(1);
        nodes.rotate_left(turn % count);
        nodes.push(self.first.clone());
        let mut said = Err((self.first.clone(), late()));
        for node in nodes {
            let within = until.min(Instant::now() + self.limit / 8);
            said = self.ask_slots(&node, within).await.map_err(|error| (node, error));
            if said.is_ok() {
                break;
            }
        }
        let slots = Arc::new(said?);
        let mut view = lock(&self.view);
        view.slots = Arc::clone(&slots);
        view.is_current = true;
        Ok(slots)
    }

    async fn ask_slots(&self, node: &Node, until: Instant) -> Result<Slots, RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let mut replies = self.send(node, &pipeline, until).await?;
        let said = replies.pop().unwrap_or_default().extract_error()?;
        Slots::read(&said, node)
            .ok_or_else(|| RedisError::from((ErrorKind::Parse, "no answer to CLUSTER SLOTS")))
    }

    async fn send(
        &self,
        node: &Node,
        pipeline: &Pipeline,
        until: Instant,
    ) -> Result<Vec<Value>, RedisError> {
        let server = self.server(node)?;
        // Others have to be asked after one that does not answer.
        let within = until.min(Instant::now() + self.limit / 2);
        if within <= Instant::now() {
            return Err(late());
        }
        timeout_at(within, server.send(pipeline)).await.unwrap_or_else(|_| Err(late()))
    }

    fn server(&self, node: &Node) -> Result<Arc<Server>, RedisError> {
        let mut servers = lock(&self.servers);
        if let Some(server) = servers.get(node) {
            return Ok(Arc::clone(server));
        }
        let address = node.address(self.entry.addr());
        let server = Arc::new(Server::new(Client::open(self.entry.clone().set_addr(address))?));
        servers.insert(node.clone(), Arc::clone(&server));
        Ok(server)
    }
}

/// How often the payloads of a slot are sent to a node that the last one named.
const ROUNDS: usize = 3;

/// A batch on its way.
struct Write<'a> {
    cluster: &'a Cluster,
    encoder: &'a Encoder,
    batch: &'a [RedisPayload],
    until: Instant,
}

/// Payloads of one slot, by their place in the batch.
type Group = Vec<usize>;

impl Write<'_> {
    async fn carry_out(&self) -> Vec<Option<Delivery>> {
        let mut outcomes = vec![None; self.batch.len()];
        let mut left: Group = (0..self.batch.len()).collect();
        for _ in 0..ROUNDS {
            let slots = match self.cluster.slots(self.until).await {
                Ok(slots) => slots,
                Err((node, error)) => {
                    let error = verdict::unanswered(&node.to_string(), &error);
                    hold(&mut outcomes, &left, &error);
                    break;
                }
            };
            let mut by_node: BTreeMap<&Node, Vec<Group>> = BTreeMap::new();
            for (slot, group) in self.by_slot(&left) {
                match slots.owner(slot) {
                    Some(node) => by_node.entry(node).or_default().push(group),
                    None => hold(&mut outcomes, &group, &unserved(slot)),
                }
            }
            let sent = by_node.iter().map(|(node, groups)| self.exchange(node, groups, false));
            for (index, outcome) in join_all(sent).await.into_iter().flatten() {
                outcomes[index] = Some(outcome);
            }
            left.clear();
            for (node, groups) in by_node {
                for group in groups {
                    left.extend(self.redirect(node, &group, &mut outcomes).await);
                }
            }
            if left.is_empty() {
                break;
            }
            lock(&self.cluster.view).is_current = false;
        }
        outcomes
    }

    fn key(&self, index: usize) -> Vec<u8> {
        self.encoder.routed_by(&self.batch[index])
    }

    fn by_slot(&self, left: &[usize]) -> BTreeMap<u16, Group> {
        let mut groups: BTreeMap<u16, Group> = BTreeMap::new();
        for &index in left {
            groups.entry(slot(&self.key(index))).or_default().push(index);
        }
        groups
    }

    /// Sends one transaction for each of `groups`, together. A node that is to be given the slot takes
    /// it only when it is told that another node sends us (`asking`).
    async fn exchange(
        &self,
        node: &Node,
        groups: &[Group],
        asking: bool,
    ) -> Vec<(usize, Delivery)> {
        let mut outcomes = Vec::new();
        let server = match self.cluster.server(node) {
            Ok(server) => server,
            Err(error) => return held(groups, &verdict::unanswered(&node.to_string(), &error)),
        };
        let mut pipeline = redis::pipe();
        let mut answers = Vec::with_capacity(groups.len());
        if asking {
            pipeline.cmd("ASKING");
        }
        for group in groups {
            let mut transaction = Transaction::default();
            for &index in group {
                let payload = &self.batch[index];
                let said = transaction.add(self.encoder, index, payload, server.max_bulk());
                outcomes.extend(said.map(|outcome| (index, outcome)));
            }
            if !transaction.is_empty() {
                answers.push(transaction.write(&mut pipeline));
            }
        }
        if answers.is_empty() {
            return outcomes;
        }
        match self.cluster.send(node, &pipeline, self.until).await {
            Ok(replies) => {
                outcomes.extend(answers.into_iter().flat_map(|answers| answers.read(&replies)));
            }
            Err(error) => {
                let error = verdict::unanswered(&node.to_string(), &error);
                outcomes.extend(answers.into_iter().flat_map(|answers| answers.none(&error)));
            }
        }
        outcomes
    }

    /// Does what the node said of a slot that is not its own, or will not be for long. Answers with
    /// what is to be sent to the new owner.
    async fn redirect(
        &self,
        node: &Node,
        group: &[usize],
        outcomes: &mut [Option<Delivery>],
    ) -> Group {
        let passing = |at: usize| outcomes[at].as_ref().and_then(transient);
        let held: Group = group.iter().copied().filter(|&at| passing(at).is_some()).collect();
        let is_said =
            |class: &str| held.iter().filter_map(|&at| passing(at)).any(|e| e.class == class);
        if is_said("MOVED") {
            return held;
        }
        if is_said("ASK") {
            self.step(node, &held, outcomes).await;
        }
        Group::new()
    }

    /// Carries out payloads of a slot that is on its way from `node` to another one: some keys are
    /// here, some there, and no transaction spans both. Their order is kept by one key after the other.
    async fn step(&self, node: &Node, group: &[usize], outcomes: &mut [Option<Delivery>]) {
        let mut stopped: Option<SinkError> = None;
        for same in group.chunk_by(|&one, &other| self.key(one) == self.key(other)) {
            if let Some(error) = &stopped {
                hold(outcomes, same, error);
                continue;
            }
            let groups = [same.to_vec()];
            let mut said = self.exchange(node, &groups, false).await;
            let errors = said.iter().filter_map(|(_, outcome)| transient(outcome));
            let mut asks = errors.filter(|error| error.class == "ASK");
            if let Some(there) = asks.find_map(|error| redirected(error, node)) {
                said = self.exchange(&there, &groups, true).await;
            }
            for (index, outcome) in said {
                stopped = stopped.or_else(|| transient(&outcome).cloned());
                outcomes[index] = Some(outcome);
            }
        }
    }
}

fn held(groups: &[Group], error: &SinkError) -> Vec<(usize, Delivery)> {
    let indices = groups.iter().flatten();
    indices.map(|&index| (index, Delivery::Transient(error.clone()))).collect()
}

fn hold(outcomes: &mut [Option<Delivery>], group: &[usize], error: &SinkError) {
    for &index in group {
        outcomes[index] = Some(Delivery::Transient(error.clone()));
    }
}

fn transient(outcome: &Delivery) -> Option<&SinkError> {
    if let Delivery::Transient(error) = outcome { Some(error) } else { None }
}

fn unserved(slot: u16) -> SinkError {
    SinkError::new("CLUSTERDOWN", format!("no node serves hash slot {slot}"))
}

fn late() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
