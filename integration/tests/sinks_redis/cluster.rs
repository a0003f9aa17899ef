//! Three nodes.

use std::{path::Path, process::Command};

use drakkar::redis::cluster_async::ClusterConnection;

use super::*;

/// A cluster on loopback; gone when dropped.
struct Nodes {
    dir: tempfile::TempDir,
    ports: [String; 3],
}

impl Nodes {
    fn start() -> Self {
        let ports = [(); 3].map(|()| OwnServer::down("redis").port.to_string());
        let nodes = Self { dir: tempfile::TempDir::new().unwrap(), ports };
        let [first, second, third] = &nodes.ports;
        Nodes::run(&["cluster", nodes.dir.path().to_str().unwrap(), first, second, third]);
        nodes
    }

    fn run(arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/server");
        let output = Command::new(script).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn node(&self, number: u8) -> String {
        self.dir.path().join(number.to_string()).to_str().unwrap().to_owned()
    }

    fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}", self.ports[0])
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for number in 1..=3 {
            Self::run(&["wipe", &self.node(number)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_every_payload_finds_its_node() {
    let nodes = Nodes::start();
    let script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    let more = json!({"cluster": true, "key_prefix": "p:", "scripts": {"bump": script}});
    let connected = sinks::connect(config(&nodes.url(), &more)).await.unwrap();
    let mut handle = connected.ready.sink::<ClusterConnection>("r").expect("a connection").clone();
    let sinks = connected.sinks;

    let per_key = |key: u32| pushes(&format!("list:{key}"), 10);
    let mut payloads: Vec<RedisPayload> = (0..100).flat_map(per_key).collect();
    payloads
        .extend((0..100).map(|key| RedisPayload::script("bump", [format!("sum:{key}")], ["2"])));
    payloads.push(RedisPayload::publish("channel", "message"));
    delivered(&sinks, payloads).await;

    let wrong = vec![
        RedisPayload::set("list:0", "1").nx(),
        RedisPayload::incrby("list:0", 1),
        RedisPayload::script("bump", ["sum:0", "sum:1"], ["1"]),
    ];
    let settled = sinks::deliver_all(&sinks, wrong).await;
    assert_eq!(settled[0], Settled::Confirmed);
    assert_eq!(refused(&settled[1]).error.class, "WRONGTYPE");
    assert_eq!(refused(&settled[2]).error.class, "CROSSSLOT");

    let sum: i64 = redis::cmd("GET").arg("p:sum:1").query_async(&mut handle).await.unwrap();
    assert!(2 <= sum && sum % 2 == 0, "{sum}");

    for key in 0..100 {
        {
            let mut ask = redis::cmd("LRANGE");
            ask.arg(format!("p:list:{key}")).arg(0).arg(-1);
            let found: Vec<String> = ask.query_async(&mut handle).await.unwrap();
            // The client sends again what it has no answer to: at least once, and in order.
            let mut seen = std::collections::HashSet::new();
            let first: Vec<String> = found.into_iter().filter(|n| seen.insert(n.clone())).collect();
            assert_eq!(first, numbers(10), "list:{key}");
        }
        let sum: i64 =
            redis::cmd("GET").arg(format!("p:sum:{key}")).query_async(&mut handle).await.unwrap();
        assert!(2 <= sum && sum % 2 == 0, "{sum}");
    }
}
