//! Commands.

use drakkar::{
    RedisPayload,
    redis::{self, aio::ConnectionManager, cluster::ClusterClient},
};
use drakkar_integration::home::Home;

use super::*;

const PASSWORD: &str = "drakkar-test";

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_encrypted_to_a_server_that_is_trusted_and_to_no_other() {
    let certificates = Certificates::new();
    let server = OwnServer::encrypted("redis", certificates.path());
    let sink = |scheme: &str, host: &str, tls: &Value| json!({"url": format!("{scheme}://:{PASSWORD}@{host}:{}", server.port), "tls": tls});
    let trusting = certificates.tls("ca.pem");

    let connected = connected("redis", &sink("rediss", "localhost", &trusting)).await;
    let push = |n: u32| RedisPayload::rpush("list", [n.to_string()]);
    delivered(&connected.sinks, (0..100).map(push).collect()).await;
    let mut handle = connected.ready.sink::<ConnectionManager>("main").expect("one").clone();
    let count: u32 = redis::cmd("LLEN").arg("list").query_async(&mut handle).await.unwrap();
    assert_eq!(count, 100);

    let refused = async |sink, one_of: &[&str]| {
        refused("redis", &sink, PASSWORD, one_of).await;
    };
    let stranger = certificates.tls("stranger.pem");
    refused(sink("rediss", "localhost", &stranger), &["certificate"]).await;
    refused(sink("rediss", "127.0.0.1", &trusting), &["certificate"]).await;
    // It says nothing to who does not speak TLS.
    refused(sink("redis", "localhost", &json!({})), &["no answer within"]).await;
    let nameless = json!({"ca_location": trusting["ca_location"]});
    refused(sink("rediss", "localhost", &nameless), &["certificate", "no answer within"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_or_holds_no_certificate_is_named_with_its_key() {
    for (file, reason) in
        [("/nowhere/ca.pem", "tls.ca_location: /nowhere/ca.pem"), ("/dev/null", "tls: ")]
    {
        let sink = json!({"url": "rediss://:hunter2@localhost:1", "tls": {"ca_location": file}});
        refused("redis", &sink, "hunter2", &[reason]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_encrypted_to_each_node_of_a_cluster_and_no_client_is_offered_that_could_not() {
    let certificates = Certificates::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/server");
    let home = Home::of(&script);
    let ports: Vec<String> = (0..3).map(|_| OwnServer::down("redis").port.to_string()).collect();
    let mut run = Command::new(&script);
    run.arg("cluster").arg(home.path()).arg(certificates.path()).args(&ports);
    let made = run.output().unwrap();
    assert!(made.status.success(), "{made:?}");

    let tls = certificates.tls("ca.pem");
    let node = |port: &str, cluster: bool| json!({"url": format!("rediss://:{PASSWORD}@localhost:{port}"), "cluster": cluster, "tls": tls});
    let cluster = connected("redis", &node(&ports[0], true)).await;
    let set = |n: u32| RedisPayload::set(format!("key:{n}"), "x");
    delivered(&cluster.sinks, (0..100).map(set).collect()).await;
    assert!(cluster.ready.sink::<ClusterClient>("main").is_none());
    let mut keys = Vec::new();
    for port in &ports {
        let alone = connected("redis", &node(port, false)).await;
        let mut handle = alone.ready.sink::<ConnectionManager>("main").expect("one").clone();
        keys.push(redis::cmd("DBSIZE").query_async::<u32>(&mut handle).await.unwrap());
    }
    assert_eq!(keys.iter().sum::<u32>(), 100);
    assert!(keys.iter().all(|&keys| 0 < keys), "each has some: {keys:?}");
}
