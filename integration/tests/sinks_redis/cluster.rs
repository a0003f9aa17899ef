//! Several nodes: where payloads go, and what happens when it changes.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool},
};

use drakkar::redis::cluster::{ClusterClient, ClusterConnection};
use drakkar_integration::home::Home;

use super::*;

/// A cluster on loopback, of three primaries; gone when dropped.
struct Nodes {
    home: Home,
    ports: Vec<u16>,
}

impl Nodes {
    fn three() -> Self {
        Self::start(3)
    }

    fn with_replicas() -> Self {
        Self::start(6)
    }

    fn start(count: usize) -> Self {
        let ports = (0..count).map(|_| OwnServer::down("redis").port).collect();
        let nodes = Self { home: Home::of(&script()), ports };
        let ports: Vec<String> = nodes.ports.iter().map(ToString::to_string).collect();
        let mut words = vec!["cluster", nodes.home.path().to_str().unwrap()];
        words.extend(ports.iter().map(String::as_str));
        run(&words);
        nodes
    }

    fn node(&self, number: usize) -> String {
        self.home.path().join(number.to_string()).to_str().unwrap().to_owned()
    }

    fn url(&self, number: usize) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}", self.ports[number - 1])
    }

    fn kill(&self, number: usize) {
        run(&["kill", &self.node(number)]);
    }

    fn restart(&self, number: usize) {
        run(&["start", &self.node(number), &self.ports[number - 1].to_string()]);
    }

    fn signal(&self, number: usize, name: &str) {
        let pid = std::fs::read_to_string(format!("{}/pid", self.node(number))).unwrap();
        drakkar_integration::proc::signal(pid.trim().parse().unwrap(), name);
    }

    /// What one of them says.
    fn outside(&self, number: usize) -> Outside {
        Outside::of(&self.url(number))
    }

    /// What they say together, to somebody who has not seen them before.
    fn together(&self) -> ClusterConnection {
        let urls = (1..=self.ports.len()).map(|number| self.url(number));
        let client = ClusterClient::new(urls).unwrap();
        until("a connection", SOON, || client.get_connection())
    }

    /// The lists of these keys.
    fn lists(&self, keys: impl Iterator<Item = String>) -> BTreeMap<String, Vec<String>> {
        let mut connection = self.together();
        keys.map(|key| {
            let found = redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query(&mut connection);
            (key, found.unwrap())
        })
        .collect()
    }

    /// A sink that waits for a while before it gives a connection up, on a machine that is busy.
    async fn sink(&self, more: &Value) -> drakkar_sinks::Connected {
        let mut section = json!({"cluster": true});
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut config = config(&self.url(1), &section);
        config["delivery_timeout_seconds"] = json!(15);
        sinks::connect(config).await.unwrap()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/server")
}

fn run(arguments: &[&str]) {
    let output = Command::new(script()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Pushes to a hundred lists, each of which gets these numbers.
fn to_all(numbers: Range<u32>) -> Vec<RedisPayload> {
    let push = |n: u32, key: u32| RedisPayload::rpush(format!("list:{key}"), [n.to_string()]);
    numbers.flat_map(|n| (0..100).map(move |key| push(n, key))).collect()
}

#[track_caller]
fn each_once_in_order(nodes: &Nodes, count: u32) {
    for (key, list) in nodes.lists((0..100).map(|key| format!("list:{key}"))) {
        assert_eq!(list, numbers(count), "{key}");
    }
}

/// Waits until a node has something of what is being delivered.
fn wait_for_writes(nodes: &Nodes, number: usize) {
    let mut outside = nodes.outside(number);
    until("the first writes", SOON, || match outside.ask::<u32>(&["DBSIZE"]) {
        0 => Err("none yet"),
        _ => Ok(()),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_every_payload_finds_its_node_once() {
    let nodes = Nodes::three();
    let script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    let connected = nodes.sink(&json!({"key_prefix": "p:", "scripts": {"bump": script}})).await;
    let client = connected.ready.sink::<ClusterClient>("r").expect("a client").clone();
    let sinks = connected.sinks;

    let mut payloads: Vec<RedisPayload> =
        (0..100).flat_map(|key| pushes(&format!("list:{key}"), 10)).collect();
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

    for (key, list) in nodes.lists((0..100).map(|key| format!("p:list:{key}"))) {
        assert_eq!(list, numbers(10), "{key}");
    }
    let mut handle = client.get_async_connection().await.unwrap();
    for key in 0..100 {
        let sum: i64 =
            redis::cmd("GET").arg(format!("p:sum:{key}")).query_async(&mut handle).await.unwrap();
        assert_eq!(sum, 2, "sum:{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_node_of_a_cluster_stops_the_start() {
    let server = OwnServer::start("redis");
    let config = config(&url(&server), &json!({"cluster": true}));
    let said = sinks::connect(config).await.err().expect("it is refused").to_string();
    assert!(
        said.contains("sinks.redis.r: ") && said.contains("cluster support disabled"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_under_load_is_replaced_and_costs_no_payload() {
    let nodes = Nodes::with_replicas();
    let sinks = nodes.sink(&json!({"batch": {"max_items": 200}})).await.sinks;
    let delivering = delivering(&sinks, to_all(0..100));
    wait_for_writes(&nodes, 1);

    // Redis itself confirms a write before a replica has it. What this test shows is ours: so nothing
    // is confirmed any more when the primary dies that its replica does not have.
    let mut primary = nodes.outside(1);
    primary.tell(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    until("the replica to have it all", SOON, || {
        let said: String = primary.ask(&["INFO", "replication"]);
        let field = |name: &str| {
            let at = said.find(name)? + name.len();
            said[at..].split([',', '\r']).next().map(str::to_owned)
        };
        let (has, had) = (field("master_repl_offset:"), field(",offset="));
        if has.is_some() && has == had { Ok(()) } else { Err(said) }
    });
    nodes.kill(1);
    // On a slow machine the others may have landed by now.
    let last = super::delivering(&sinks, to_all(100..101));
    holds(&sinks).await;
    ends_well(delivering).await;
    ends_well(last).await;
    each_once_in_order(&nodes, 101);

    // The one that was away comes back as a replica, and the sink is not misled by it.
    nodes.restart(1);
    delivered(&sinks, vec![RedisPayload::set("last", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_under_load_are_followed_each_payload_once_and_in_order() {
    let nodes = Nodes::three();
    let sinks = nodes.sink(&json!({"batch": {"max_items": 200}})).await.sinks;
    let moving = Arc::new(AtomicBool::new(true));
    let load = tokio::spawn({
        let moving = Arc::clone(&moving);
        async move {
            let mut count = 0;
            while moving.load(Ordering::SeqCst) {
                delivered(&sinks, to_all(count..count + 20)).await;
                count += 20;
            }
            count
        }
    });
    wait_for_writes(&nodes, 1);
    let dir = nodes.home.path().to_str().unwrap();
    run(&["reshard", dir, "1", "2", "500"]);
    run(&["reshard", dir, "2", "3", "500"]);
    moving.store(false, Ordering::SeqCst);
    let count = timeout(SOON, load).await.expect("it goes on").unwrap();
    each_once_in_order(&nodes, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_half_moved_is_written_on_both_sides() {
    let nodes = Nodes::three();
    let script = "for _, key in ipairs(KEYS) do redis.call('RPUSH', key, ARGV[1]) end";
    let sinks = nodes.sink(&json!({"scripts": {"both": script}})).await.sinks;
    let key = |number: u32| format!("{{tag}}:{number}");
    let push = |number: u32, what: &str| {
        RedisPayload::rpush(key(number), [what.to_owned()]).ttl(Duration::from_hours(1))
    };
    delivered(&sinks, (0..20).map(|number| push(number, "before")).collect()).await;

    let slot = nodes.outside(1).ask::<u32>(&["CLUSTER", "KEYSLOT", "tag"]).to_string();
    let has = |&number: &usize| {
        nodes.outside(number).ask::<u32>(&["CLUSTER", "COUNTKEYSINSLOT", &slot]) == 20
    };
    let from = (1..=3).find(has).expect("somebody has them");
    let to = from % 3 + 1;
    let (mut source, mut target) = (nodes.outside(from), nodes.outside(to));
    let source_id: String = source.ask(&["CLUSTER", "MYID"]);
    let target_id: String = target.ask(&["CLUSTER", "MYID"]);
    target.tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
    source.tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
    let port = nodes.ports[to - 1].to_string();
    let mut migrate = |keys: std::ops::Range<u32>| {
        for number in keys {
            let key = key(number);
            source.tell(&["MIGRATE", "127.0.0.1", &port, &key, "0", "60000", "AUTH", PASSWORD]);
        }
    };
    migrate(0..10);

    // Keys that are here, there, and new.
    delivered(&sinks, (0..30).flat_map(|n| [push(n, "1"), push(n, "2"), push(n, "3")]).collect())
        .await;
    // A script that needs both sides waits, and what comes after it in its order.
    let both = RedisPayload::script("both", [key(0), key(10)], ["both"]);
    let waiting = delivering(&sinks, vec![both, push(0, "after"), push(10, "after")]);
    holds(&sinks).await;
    migrate(10..20);
    target.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
    source.tell(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
    ends_well(waiting).await;

    for (name, list) in nodes.lists((0..30).map(key)) {
        let mut wanted = if list.first().is_some_and(|first| first == "before") {
            vec!["before", "1", "2", "3"]
        } else {
            vec!["1", "2", "3"]
        };
        if [key(0), key(10)].contains(&name) {
            wanted.extend(["both", "after"]);
        }
        assert_eq!(list, wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_does_not_make_others_repeat_what_they_have_done() {
    let nodes = Nodes::three();
    for number in 1..=3 {
        // They serve what they have, also while others are away.
        nodes.outside(number).tell(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    // All of it is one batch.
    let batch = json!({"batch": {"max_items": 100, "linger": "30s"}});
    let sinks = nodes.sink(&batch).await.sinks;
    delivered(&sinks, to_all(0..1)).await;
    let still: Vec<String> = nodes.outside(2).ask(&["KEYS", "*"]);
    let is_still = |payload: &RedisPayload| {
        let key = payload.command.key().map(|key| String::from_utf8_lossy(key).into_owned());
        still.contains(&key.unwrap_or_default())
    };
    let (for_it, for_others): (Vec<_>, Vec<_>) = to_all(1..2).into_iter().partition(is_still);
    assert!(!for_it.is_empty() && !for_others.is_empty());

    nodes.signal(2, "STOP");
    let waiting = delivering(&sinks, for_it);
    let others = delivering(&sinks, for_others);
    ends_well(others).await;
    assert!(!waiting.is_finished());
    nodes.signal(2, "CONT");
    ends_well(waiting).await;
    for (key, list) in nodes.lists((0..100).map(|key| format!("list:{key}"))) {
        let most = if still.contains(&key) { usize::MAX } else { 2 };
        assert!((2..=most).contains(&list.len()), "{key}: {list:?}");
    }
}
