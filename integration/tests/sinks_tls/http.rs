//! Requests, to the endpoint of the other tests with encryption before it.

use drakkar::HttpPayload;
use drakkar_integration::http::Endpoint;
use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_openssl::SslStream;

use super::*;

/// Decrypts, and passes on to `port`; who shows no certificate is sent away.
async fn encrypted(certificates: &Certificates, port: u16) -> u16 {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate_chain_file(certificates.file("server.pem")).unwrap();
    acceptor.set_private_key_file(certificates.file("server.key"), SslFiletype::PEM).unwrap();
    acceptor.set_ca_file(certificates.file("ca.pem")).unwrap();
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listens = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let ssl = Ssl::new(acceptor.context()).unwrap();
            tokio::spawn(async move {
                let mut near = SslStream::new(ssl, near).unwrap();
                if std::pin::Pin::new(&mut near).accept().await.is_ok() {
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    drop(copy_bidirectional(&mut near, &mut far).await);
                }
            });
        }
    });
    listens
}

/// What a sink said first when it could not write.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, SinkError)>>);

impl SinkObserver for Heard {
    fn refused(&self, sink: &SinkName, error: &SinkError, held: bool) {
        assert!(held, "{error}");
        self.0.lock().unwrap().push((sink.to_string(), error.clone()));
    }
}

/// What holds a request; the endpoint is asked nothing.
async fn held(sink: &Value) -> String {
    let heard = Arc::new(Heard::default());
    let observer: Arc<dyn SinkObserver> = heard.clone();
    let config = section("http", sink);
    let sinks = sinks::connect_observed(config, SOON, observer).await.unwrap().sinks;
    let delivering = tokio::spawn(async move {
        sinks::deliver_all(&sinks, [HttpPayload::new(&json!({})).unwrap()]).await
    });
    let look = || heard.0.lock().unwrap().first().cloned().ok_or("nothing is said");
    let (name, error) = tokio::task::block_in_place(|| until("a refusal", SOON, look));
    delivering.abort();
    assert!(name.contains("main"), "{name}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    error.to_string()
}

#[track_caller]
fn says(said: &str, one_of: &[&str]) {
    let lower = said.to_lowercase();
    assert!(one_of.iter().any(|words| lower.contains(words)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_encrypted_to_an_endpoint_that_is_trusted_and_to_no_other() {
    let certificates = Certificates::new();
    let endpoint = Endpoint::start().await;
    let port = encrypted(&certificates, endpoint.port).await;
    let sink = |scheme: &str, host: &str, tls: &Value| json!({"url": format!("{scheme}://eve:hunter2@{host}:{port}/in"), "tls": tls});
    let trusting = certificates.tls("ca.pem");

    let stranger = certificates.tls("stranger.pem");
    says(&held(&sink("https", "localhost", &stranger)).await, &["certificate"]);
    says(&held(&sink("https", "127.0.0.1", &trusting)).await, &["certificate"]);
    let nameless = json!({"ca_location": trusting["ca_location"]});
    says(&held(&sink("https", "localhost", &nameless)).await, &["certificate", "connection"]);
    says(&held(&sink("http", "localhost", &json!({}))).await, &["connection"]);
    assert_eq!(endpoint.seen(), []);

    let connected = connected("http", &sink("https", "localhost", &trusting)).await;
    let request = |n: u32| HttpPayload::new(&json!({ "n": n })).unwrap();
    delivered(&connected.sinks, (0..100).map(request).collect()).await;
    assert_eq!(endpoint.seen().len(), 100);
}

/// A proxy for `CONNECT` that lets in who knows the password, leads to `port`, and remembers what it was told.
async fn proxy(port: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listens = listener.local_addr().unwrap().port();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let heard = Arc::clone(&heard);
            tokio::spawn(async move {
                let mut near = BufReader::new(near);
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n")
                    && near.read_line(&mut request).await.unwrap() != 0
                {}
                if request.is_empty() {
                    return; // Somebody looks whether the port is open.
                }
                // "eve:hunter2"
                let is_known = request
                    .to_lowercase()
                    .contains("proxy-authorization: basic zxzlomh1bnrlcji=\r\n");
                heard.lock().unwrap().push(request);
                if !is_known {
                    let refusal = b"HTTP/1.1 407 -\r\ncontent-length: 0\r\n\r\n";
                    return drop(near.write_all(refusal).await);
                }
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                near.write_all(b"HTTP/1.1 200 -\r\n\r\n").await.unwrap();
                drop(copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    (listens, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_through_a_proxy_are_encrypted_as_far_as_the_endpoint_and_only_the_proxy_hears_its_password()
 {
    let certificates = Certificates::new();
    let endpoint = Endpoint::start().await;
    let port = encrypted(&certificates, endpoint.port).await;
    let (listens, told) = proxy(port).await;
    let url = format!("https://localhost:{port}/in/hidden");
    let sink = |password: &str, tls: &Value| {
        json!({
            "url": url, "tls": tls, "proxy": format!("http://eve:{password}@127.0.0.1:{listens}"),
        })
    };
    let trusting = certificates.tls("ca.pem");

    held(&sink("hunter2-wrong", &trusting)).await;
    held(&sink("hunter2", &certificates.tls("stranger.pem"))).await;
    assert_eq!(endpoint.seen(), []);

    let connected = connected("http", &sink("hunter2", &trusting)).await;
    let request = |n: u32| HttpPayload::new(&json!({ "n": n })).unwrap();
    delivered(&connected.sinks, (0..100).map(request).collect()).await;
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 100);
    assert!(seen.iter().all(|request| request.header("proxy-authorization").is_none()));
    let told = told.lock().unwrap();
    let line = format!("CONNECT localhost:{port} HTTP/1.1\r\n");
    assert!(
        told.iter().all(|head| head.starts_with(&line) && !head.contains("hidden")),
        "{told:?}"
    );
}
