//! An endpoint that is away, slow, breaks off or has more to say than anybody wants: nothing is lost.

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_down_at_the_start_is_waited_for_and_named_without_secrets() {
    let endpoint = Endpoint::down();
    let url = format!("http://me:{SECRET}@127.0.0.1:{}/{SECRET}?k={SECRET}", endpoint.port);
    let config = section(&endpoint, "/", json!({ "url": url }));
    let refused = connect_within(config.clone(), Duration::from_secs(3)).await;
    let Err(error) = refused else { panic!("it is down") };
    let text = error.to_string();
    assert!(text.starts_with("sinks.http.hook: http://127.0.0.1:"), "{text}");
    assert!(text.contains("refused") && text.contains("check its `url`"), "{text}");
    assert!(!format!("{text} {error:?}").contains(SECRET), "{text}");

    let (late, ()) = tokio::join!(connect(config), endpoint.restart());
    let sinks = late.unwrap().sinks;
    all_confirmed(&deliver_all(&sinks, [numbered(0)]).await);
    assert_eq!(endpoint.seen().len(), 1, "the start sends no request");
    assert!(endpoint.seen()[0].header("authorization").unwrap().starts_with("Basic "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_start_before_its_endpoint() {
    let endpoint = Endpoint::down();
    let sinks = sinks(&endpoint, "/", json!({"check_on_start": false})).await;
    let delivered = deliver_beside(&sinks, vec![numbered(0)]);
    wait_held(&sinks);
    endpoint.restart().await;
    all_confirmed(&delivered.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_goes_away_while_nothing_is_for_it_is_noticed_and_sent_nothing() {
    let endpoint = Endpoint::start().await;
    let unasked = sinks(&endpoint, "/", json!({"check_on_start": false})).await;
    let asked = sinks(&endpoint, "/", json!({})).await;
    endpoint.stop().await;
    wait_held(&asked);
    assert!(unasked.held().is_empty(), "it was told not to ask");
    endpoint.restart().await;
    wait_for("the endpoint to be noticed again", || asked.held().is_empty());
    assert!(endpoint.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_goes_and_comes_under_load_costs_nothing() {
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/", json!({})).await;
    // So many are answered; it goes with the next ones under way.
    let [asked, answers] = [0, 50].map(|count| Arc::new(AtomicUsize::new(count)));
    let (counted, most) = (Arc::clone(&asked), Arc::clone(&answers));
    endpoint.answer(move |_| {
        let is_answered = counted.fetch_add(1, Ordering::SeqCst) < most.load(Ordering::SeqCst);
        if is_answered { Answer::status(200) } else { Answer::Hang }
    });
    let delivered = deliver_beside(&sinks, (0..400).map(numbered).collect());
    for next in [150, usize::MAX] {
        wait_for("a request under way", || {
            answers.load(Ordering::SeqCst) < asked.load(Ordering::SeqCst)
        });
        endpoint.stop().await;
        wait_held(&sinks);
        answers.store(next, Ordering::SeqCst);
        endpoint.restart().await;
    }
    all_confirmed(&delivered.await.unwrap());
    let keys: BTreeSet<String> = endpoint
        .seen()
        .iter()
        .map(|request| {
            let key = request.header("idempotency-key").unwrap().to_owned();
            assert_eq!(request.text(), json!({"n": key[4..].parse::<u64>().unwrap()}).to_string());
            key
        })
        .collect();
    assert_eq!(keys.len(), 400);
    assert!(endpoint.seen().len() <= 400 + 2 * 8, "only what was under way was sent again");
    assert!(sinks.held().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_answered_in_time_is_held_and_sent_again_under_the_same_key() {
    let endpoint = Endpoint::start().await;
    let asked = AtomicUsize::new(0);
    endpoint.answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Hang,
        1 => Answer::After(Duration::from_mins(1), Box::new(Answer::status(200))),
        _ => Answer::status(200),
    });
    let sinks = sinks(&endpoint, "/", json!({"timeout_seconds": 1})).await;
    let delivered = deliver_beside(&sinks, vec![numbered(7)]);
    wait_held(&sinks);
    all_confirmed(&delivered.await.unwrap());
    let seen = endpoint.seen();
    assert!(3 <= seen.len(), "{seen:?}"); // On a slow machine an answer may come late.
    assert!(seen.iter().all(|request| request.header("idempotency-key") == Some("key-7")));
    wait_for("the requests that were given up to be gone", || endpoint.under_way() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_before_in_or_after_the_request_costs_nothing() {
    let endpoint = Endpoint::start().await;
    let asked = AtomicUsize::new(0);
    endpoint.answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => Answer::Close,
        1 => Answer::Half,
        _ => Answer::status(200),
    });
    endpoint.cut(5);
    let sinks = sinks(&endpoint, "/", json!({})).await;
    let long = "x".repeat(1 << 20);
    let payload = |number: usize| HttpPayload::new(&json!({"n": number, "long": long})).unwrap();
    all_confirmed(&deliver_all(&sinks, (0..10).map(payload)).await);
    assert_eq!(numbers(&endpoint.seen()).len(), 10);
    assert_eq!(endpoint.seen().len(), 30, "each was cut once, said half once, and taken once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_land_once_each_over_few_connections() {
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/", json!({})).await;
    all_confirmed(&deliver_by_tasks(&sinks, (0..1_000).map(numbered)).await);
    assert_eq!(numbers(&endpoint.seen()), once_each(1_000));
    assert!(endpoint.most_under_way() <= 8);
    assert!(endpoint.connections() <= 1 + 3 * 8, "{} connections", endpoint.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_endless_answer_only_a_bounded_part_is_read() {
    const HUGE: usize = 100 << 20;
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/", json!({"max_response_bytes": 10_000})).await;
    endpoint.answer(|_| Answer::Huge(200, HUGE));
    all_confirmed(&deliver_all(&sinks, [numbered(0)]).await);
    endpoint.answer(|_| Answer::Huge(400, HUGE));
    let settled = deliver_all(&sinks, [numbered(1)]).await;
    assert_eq!(refused(&settled)[0].1.error.class, "http_400");
    wait_for("the connections to be dropped", || endpoint.under_way() == 0);
    assert!(endpoint.sent() < HUGE / 4, "{} bytes were sent", endpoint.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn adaptive_concurrency_settles_at_what_an_overloaded_endpoint_bears() {
    const BEARS: usize = 6;
    let endpoint = Arc::new(Endpoint::start().await);
    let load = Arc::downgrade(&endpoint);
    endpoint.answer(move |_| {
        let under_way = load.upgrade().map_or(0, |endpoint| endpoint.under_way());
        if under_way <= BEARS {
            Answer::After(Duration::from_millis(5), Box::new(Answer::status(200)))
        } else {
            Answer::status(503)
        }
    });
    let batch = json!({"in_flight": 64});
    let steady = sinks(&endpoint, "/", json!({ "batch": batch })).await;
    all_confirmed(&deliver_all(&steady, (0..600).map(numbered)).await);
    let without = endpoint.seen().len() - 600;
    let more = json!({ "batch": batch, "adaptive_concurrency": true });
    let adaptive = sinks(&endpoint, "/", more).await;
    all_confirmed(&deliver_all(&adaptive, (0..300).map(numbered)).await);
    endpoint.forget_most();
    let before = endpoint.seen().len();
    all_confirmed(&deliver_all(&adaptive, (0..600).map(numbered)).await);
    let most = endpoint.most_under_way();
    assert!(most <= 2 * BEARS, "{most} at once");
    let refused = endpoint.seen().len() - before - 600;
    assert!(refused < 200 && refused < without, "{refused} refused, {without} without it");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_while_a_hook_that_used_the_client_blocks_its_thread() {
    let endpoint = Endpoint::start().await;
    // Whoever is kept waiting waits for longer than the test.
    let config = section(&endpoint, "/", json!({"timeout_seconds": "1h", "idle_timeout": "1h"}));
    let connected = connect(config).await.unwrap();
    let client = connected.ready.sink::<reqwest::Client>("hook").unwrap().clone();
    let url = endpoint.url("/");
    let release = blocked_after(async move {
        let asked = client.post(url).body(r#"{"n": 0}"#).send().await.unwrap();
        asked.bytes().await.unwrap();
    })
    .await;
    let sent = deliver_all(&connected.sinks, (1..20).map(numbered));
    all_confirmed(&tokio::time::timeout(SOON, sent).await.unwrap());
    assert_eq!(numbers(&endpoint.seen()), once_each(20));
    drop(release);
}
