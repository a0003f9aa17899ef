//! Records: a worker that reads by one encrypted listener and writes by another one, which wants to know
//! who it is.

use drakkar_integration::{Act, OwnBroker, World};

use super::*;

const PASSWORD: &str = "tell-nobody";

fn of(certificates: &Certificates, authority: &str) -> Value {
    json!({"protocol": "SSL", "ssl_ca_location": certificates.file(authority)})
}

fn known(certificates: &Certificates, password: &str) -> Value {
    json!({
        "protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": "drakkar",
        "sasl_password": password,
        "ssl_ca_location": certificates.file("ca.pem"),
        "ssl_certificate_location": certificates.file("client.pem"),
        "ssl_key_location": certificates.file("client.key"),
    })
}

#[test]
fn records_go_encrypted_from_a_cluster_that_is_trusted_and_to_one_that_knows_us() {
    let certificates = Certificates::new();
    let broker = OwnBroker::encrypted(certificates.path());
    let [trusting, knowing] = broker.encrypted_servers();
    let out =
        |security: Value| json!({"topic": "results", "brokers": knowing, "security": security});

    let world = World::on(broker.kafka(), 1);
    let mut sink = out(known(&certificates, PASSWORD));
    sink["topic"] = json!(world.results);
    let world = world
        .with("kafka.brokers", trusting.as_str())
        .with("kafka.security", of(&certificates, "ca.pem"))
        .with("sinks.kafka.results", sink);
    let mut worker = world.start();
    world.order_many("order", 100, Act::Echo);
    world.order([("bad", Act::Fail)]);
    world.drained();
    worker.stop();
    let books = world.books();
    books.balance();
    assert_eq!(world.delivered(), 100);
    assert!(!worker.log().contains(PASSWORD));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = |sink: &Value, one_of: &[&str]| {
        runtime.block_on(refused("kafka", sink, PASSWORD, one_of));
    };
    let mut stranger = known(&certificates, PASSWORD);
    stranger["ssl_ca_location"] = json!(certificates.file("stranger.pem"));
    refused(&out(stranger), &["certificate verify failed"]);
    refused(&out(known(&certificates, "hunter2")), &["authentication failed"]);
    let mut elsewhere = out(known(&certificates, PASSWORD));
    elsewhere["brokers"] = json!(knowing.replace("localhost", "127.0.0.1"));
    refused(&elsewhere, &["certificate"]);
    // The client hears nothing then but that the connection ends.
    let plain = json!({"topic": "results", "brokers": knowing});
    refused(&plain, &["check sinks.kafka.main.brokers and sinks.kafka.main.security"]);
    let mut nameless = known(&certificates, PASSWORD);
    nameless.as_object_mut().unwrap().remove("ssl_certificate_location");
    nameless.as_object_mut().unwrap().remove("ssl_key_location");
    refused(&out(nameless), &["certificate", "ssl"]);
}
