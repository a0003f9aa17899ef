//! Documents, to `FerretDB`, which speaks TLS as MongoDB does.

use drakkar::{MongoPayload, mongodb::Client};
use mongodb::bson::{Document, doc};

use super::*;

const PASSWORD: &str = "drakkar-test-secret";

#[tokio::test(flavor = "multi_thread")]
async fn documents_go_encrypted_to_a_server_that_is_trusted_and_to_no_other() {
    let certificates = Certificates::new();
    let server = OwnServer::encrypted("mongo", certificates.path());
    let uri = |host: &str, options: &[(&str, &str)]| {
        let files = options.iter().map(|(key, file)| format!("{key}={}", certificates.name(file)));
        let mut options: Vec<String> = files.collect();
        if !options.is_empty() {
            options.push("tls=true".to_owned());
        }
        options.push("serverSelectionTimeoutMS=1500".to_owned());
        let address = format!("drakkar:{PASSWORD}@{host}:{}", server.port);
        format!("mongodb://{address}/?{}", options.join("&"))
    };
    let sink = |uri: &str| json!({"uri": uri, "database": "encrypted"});
    let shown = ("tlsCertificateKeyFile", "client.both");
    let trusting = [("tlsCAFile", "ca.pem"), shown];

    let there = uri("localhost", &trusting);
    let connected = connected("mongo", &sink(&there)).await;
    let document = |n: u32| MongoPayload::insert("c", &json!({ "n": n })).unwrap();
    delivered(&connected.sinks, (0..100).map(document).collect()).await;
    let patient = there.replace("=1500", "=60000");
    let outside = Client::with_uri_str(&patient).await.unwrap();
    let found = outside.database("encrypted").collection::<Document>("c");
    assert_eq!(found.count_documents(doc! {}).await.unwrap(), 100);

    let refused = async |uri: String, one_of: &[&str]| {
        refused("mongo", &sink(&uri), PASSWORD, one_of).await;
    };
    let stranger = [("tlsCAFile", "stranger.pem"), shown];
    refused(uri("localhost", &stranger), &["certificate"]).await;
    refused(uri("127.0.0.1", &trusting), &["certificate", "hostname"]).await;
    refused(uri("localhost", &[]), &["server selection", "connection", "no answer"]).await;
    let nameless = uri("localhost", &trusting[..1]);
    refused(nameless, &["certificate", "connection", "no answer"]).await;
}
