//! Who is let in at the start, and what is said to who is not.

use drakkar_sinks::ConnectError;

use super::*;

async fn refused(config: Value, within: Duration) -> String {
    match sinks::connect_within(config, within).await {
        Err(error @ ConnectError::Server { .. }) => format!("{error} {error:?}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it is let in"),
    }
}

fn with_password(server: &OwnServer, password: &str) -> Value {
    let url = format!("redis://{password}127.0.0.1:{}/0", server.port);
    config(&url, &json!({}))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_stop_the_start_at_once_and_are_not_repeated_in_what_is_said() {
    let server = OwnServer::start("redis");
    for (password, reason) in
        [(":hunter2@", "authentication failed"), ("eve:hunter2@", "authentication"), ("", "NOAUTH")]
    {
        let said =
            timeout(SOON / 2, refused(with_password(&server, password), SOON)).await.unwrap();
        assert!(said.contains("sinks.redis.r: 127.0.0.1:"), "{said}");
        assert!(said.to_lowercase().contains(&reason.to_lowercase()), "{password}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_there_is_not_stops_the_start() {
    let server = OwnServer::start("redis");
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/99", server.port);
    let said = refused(config(&url, &json!({})), SOON).await;
    assert!(said.contains("DB index is out of range"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_is_none_stops_the_start_and_is_named() {
    let more = json!({"scripts": {"broken": "return ("}});
    let said = refused(config(&shared(), &more), SOON).await;
    assert!(said.contains("script broken: ") && said.contains("user_script:1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_waited_for_at_the_start() {
    let server = OwnServer::down("redis");
    let connecting = sinks::connect(config(&url(&server), &json!({})));
    let (connected, ()) = tokio::join!(connecting, async { server.restart() });
    delivered(&connected.unwrap().sinks, pushes("list", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_down_or_never_answers_is_named_in_bounded_time() {
    let server = OwnServer::down("redis");
    let within = Duration::from_secs(2);
    let config = config(&url(&server), &json!({}));
    let down = timeout(SOON, refused(config.clone(), within)).await.unwrap();
    server.restart();
    server.signal("STOP");
    let silent = timeout(SOON, refused(config, within)).await.unwrap();
    server.signal("CONT");
    for said in [down, silent] {
        assert!(said.contains(&format!("127.0.0.1:{}", server.port)), "{said}");
        assert!(said.contains("no answer within 2s"), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}
