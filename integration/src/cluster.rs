//! Three brokers that form one cluster, to be stopped, killed and started while it is used.
//!
//! One cluster serves all tests of a binary, one after the other: whoever [takes](Cluster::take) it finds
//! every broker running and every copy complete, whatever the test before left behind. It is gone
//! with its data when the process ends, however that ends.

use std::{
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use crate::{
    broker::{script, two_free_ports},
    home::Home,
    kafka::Kafka,
    wait::{SOON, until},
};

/// The topic in which the brokers keep what groups commit; the leader of a group's partition of it is
/// the coordinator of the group.
const OFFSETS: &str = "__consumer_offsets";

/// Three Apache Kafka nodes, each broker and controller.
pub struct Cluster {
    home: Home,
    ports: [u16; 3],
}

/// One of the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(i32);

impl Node {
    /// All three.
    pub const ALL: [Self; 3] = [Self(1), Self(2), Self(3)];
}

impl Cluster {
    /// The cluster, whole, for one test at a time.
    pub fn take() -> MutexGuard<'static, Self> {
        static ONE: LazyLock<Mutex<Cluster>> = LazyLock::new(|| Mutex::new(Cluster::start()));
        // A test that failed while it had the cluster does not make the next one wrong.
        let cluster = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.heal();
        cluster
    }

    fn start() -> Self {
        let ports = [(); 3].map(|()| two_free_ports());
        Self { home: Home::of(&script()), ports }
    }

    /// How to reach it.
    #[must_use]
    pub fn kafka(&self) -> Kafka {
        Kafka { servers: Node::ALL.map(|node| self.address(node)).join(",") }
    }

    /// Where `node` listens.
    #[must_use]
    pub fn address(&self, node: Node) -> String {
        format!("127.0.0.1:{}", self.port(node))
    }

    /// Stops `node` in order: it gives away what it leads first.
    pub fn stop(&self, node: Node) {
        self.end("stop", node);
    }

    /// Kills `node`: the others find out by themselves.
    pub fn kill(&self, node: Node) {
        self.end("kill", node);
    }

    /// Starts what does not run, on the same data, and waits until every copy of every partition is
    /// complete again.
    pub fn heal(&self) {
        // Side by side: a majority must run before one of them serves.
        let starting = Node::ALL.map(|node| self.starting(node));
        for starting in starting {
            let output = starting.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "the cluster in {}: {error}",
                self.home.path().display()
            );
        }
        let observer = self.kafka().observer("none");
        until("every copy to be complete", SOON, || {
            let replicas = observer.replicas(None).map_err(|error| error.to_string())?;
            let behind = replicas.iter().filter(|one| one.leader < 0 || 0 < one.missing).count();
            if behind == 0 { Ok(()) } else { Err(format!("{behind} partitions are behind")) }
        });
    }

    /// The broker that leads each partition of `topic`, in their order.
    #[must_use]
    pub fn leaders(&self, topic: &str) -> Vec<Node> {
        let observer = self.kafka().observer("none");
        let mut found = until("the leaders of the topic", SOON, || {
            let found = observer.replicas(Some(topic)).map_err(|error| error.to_string())?;
            let led = !found.is_empty() && found.iter().all(|one| 0 <= one.leader);
            if led { Ok(found) } else { Err(format!("{found:?}")) }
        });
        found.sort_by_key(|one| one.partition);
        found.into_iter().map(|one| Node(one.leader)).collect()
    }

    /// The broker that coordinates `group`.
    #[must_use]
    pub fn coordinator(&self, group: &str) -> Node {
        let leaders = self.leaders(OFFSETS);
        leaders[partition_of(group, leaders.len())]
    }

    fn end(&self, how: &str, node: Node) {
        let output = Command::new(script()).args([how, &self.path(node)]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{how} {node:?}: {error}");
    }

    fn path(&self, node: Node) -> String {
        self.home.path().join(node.0.to_string()).to_str().unwrap().to_owned()
    }

    fn starting(&self, node: Node) -> Child {
        let voters = Node::ALL.map(|node| format!("{}@127.0.0.1:{}", node.0, self.port(node) + 1));
        Command::new(script())
            .args(["start", &self.path(node), &self.port(node).to_string()])
            .env("KAFKA_NODE_ID", node.0.to_string())
            .env("KAFKA_CLUSTER_ID", "drakkar-test-cluster-b")
            .env("KAFKA_VOTERS", voters.join(","))
            .env("KAFKA_HEAP", "256m")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn port(&self, node: Node) -> u16 {
        self.ports[usize::try_from(node.0 - 1).unwrap()]
    }
}

/// Which partition of [`OFFSETS`] a group's commits are in: by the hash that Java gives its name.
fn partition_of(group: &str, partitions: usize) -> usize {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The smallest integer has no absolute value; the brokers take 0.
    usize::try_from(hash.checked_abs().unwrap_or(0)).unwrap() % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_group_is_that_of_javas_hash() {
        // In Java they have the hashes 99162322, -2100397545 and -2147483648.
        assert_eq!(partition_of("hello", 50), 22);
        assert_eq!(partition_of("banana-group", 50), 45);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }
}
