//! Whom the sink talks to, and what it tells nobody else: redirects, metadata services, proxies, secrets.

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_hold_everything_and_are_shown_nowhere() {
    let endpoint = Endpoint::start().await;
    endpoint.answer(|request| match request.header("authorization") {
        Some("Bearer right") => Answer::status(200),
        // Endpoints do repeat what they were sent.
        other => Answer::Status(401, Vec::new(), format!("not {other:?}")),
    });
    let wrong = json!({
        "headers": {"Authorization": format!("Bearer {SECRET}")},
    });
    let mut config = section(&endpoint, &format!("/{SECRET}?key={SECRET}"), wrong);
    let held = connect(config.clone()).await.unwrap().sinks;
    let delivered = deliver_beside(&held, (0..20).map(numbered).collect());
    wait_held(&held);
    assert!(!delivered.is_finished());
    delivered.abort();

    config["give_up_after"] = json!("20ms"); // So that the error is seen.
    let given_up = connect(config.clone()).await.unwrap().sinks;
    let settled = deliver_all(&given_up, [numbered(0).header("x-token", SECRET)]).await;
    let shown = format!("{settled:?}");
    assert!(shown.contains("http_401") && shown.contains("***"), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");

    config["http"]["hook"]["headers"]["Authorization"] = json!("Bearer right");
    let sinks = connect(config).await.unwrap().sinks;
    all_confirmed(&deliver_all(&sinks, [numbered(0)]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_of_a_broken_connection_names_the_url() {
    let endpoint = Endpoint::start().await;
    endpoint.answer(|_| Answer::Close);
    let url = format!("http://me:{SECRET}@127.0.0.1:{}/{SECRET}?k={SECRET}", endpoint.port);
    let mut config = section(&endpoint, "/", json!({ "url": url }));
    config["give_up_after"] = json!("1ms");
    let sinks = connect(config.clone()).await.unwrap().sinks;
    let closed = deliver_all(&sinks, [numbered(0)]).await;
    endpoint.answer(|_| Answer::Hang);
    config["http"]["hook"]["timeout_seconds"] = json!("500ms");
    let hasty = connect(config.clone()).await.unwrap().sinks;
    let hung = deliver_all(&hasty, [numbered(0)]).await;
    endpoint.stop().await;
    // One that has no connection which it does not know to be broken yet.
    config["http"]["hook"]["check_on_start"] = json!(false);
    let late = connect(config).await.unwrap().sinks;
    let refused_to_connect = deliver_all(&late, [numbered(0)]).await;
    for (settled, class) in
        [(closed, "connection"), (hung, "timeout"), (refused_to_connect, "connect")]
    {
        let error = &refused(&settled)[0].1.error;
        assert_eq!(error.class, class, "{error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_only_where_allowed_on_the_same_host_and_with_its_body() {
    let (endpoint, other) = (Endpoint::start().await, Endpoint::start().await);
    let to_other = other.url("/stolen");
    let behaviour = move |request: &Request| {
        let to = |status, url: &str| {
            Answer::Status(status, vec![("location", url.to_owned())], String::new())
        };
        match request.target.as_str() {
            "/moved" => to(307, "/here"),
            "/lost" => to(302, "/here"),
            "/away" => to(307, &to_other),
            "/metadata" => to(307, "http://169.254.169.254/latest"),
            "/round" => to(308, "/round"),
            _ => Answer::status(200),
        }
    };
    endpoint.answer(behaviour);
    let off = sinks(&endpoint, "/{at}", json!({})).await;
    let on =
        sinks(&endpoint, "/{at}", json!({"max_redirects": 3, "headers": {"x-api-key": "k"}})).await;
    let at = |at: &str| [numbered(1).param("at", at)];
    assert_eq!(refused(&deliver_all(&off, at("moved")).await)[0].1.error.class, "http_307");
    all_confirmed(&deliver_all(&on, at("moved")).await);
    let last = endpoint.seen().pop().unwrap();
    assert_eq!((last.target.as_str(), last.text()), ("/here", json!({"n": 1}).to_string()));
    assert_eq!(last.header("idempotency-key"), Some("key-1"));
    for (path, class) in [
        ("lost", "http_302"),
        ("away", "http_307"),
        ("metadata", "http_307"),
        ("round", "http_308"),
    ] {
        let settled = deliver_all(&on, at(path)).await;
        assert_eq!(refused(&settled)[0].1.error.class, class, "{path}");
    }
    assert_eq!(other.connections(), 0, "the headers of one host are not shown to another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_is_refused_before_anything_is_sent() {
    for host in ["169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166", "metadata.google.internal"]
    {
        let config = json!({"http": {"hook": {"url": format!("http://{host}/latest")}}});
        let Err(error) = connect(config).await else { panic!("{host}") };
        let text = error.to_string();
        assert!(text.starts_with("sinks.http.hook.url:") && text.contains("metadata"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_proxy_the_proxy_is_asked() {
    let (proxy, endpoint) = (Endpoint::start().await, Endpoint::start().await);
    let through = format!("http://me:{SECRET}@127.0.0.1:{}", proxy.port);
    let sinks = sinks(&endpoint, "/in", json!({ "proxy": through })).await;
    all_confirmed(&deliver_all(&sinks, [numbered(0)]).await);
    assert_eq!(endpoint.connections(), 0);
    assert_eq!(proxy.seen()[0].target, endpoint.url("/in"));
    assert!(proxy.seen()[0].header("proxy-authorization").is_some());
}
