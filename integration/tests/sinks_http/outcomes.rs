//! What becomes of a payload, by what the endpoint answers.

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_takes_none_of_its_neighbours_along() {
    let endpoint = Endpoint::start().await;
    let long = "no such field\n".repeat(100);
    endpoint.answer(move |request| {
        let is_bad = request.text().contains("13");
        if is_bad { Answer::Status(422, Vec::new(), long.clone()) } else { Answer::status(201) }
    });
    let sinks = sinks(&endpoint, "/", json!({})).await;
    let settled = deliver_all(&sinks, (0..50).map(numbered)).await;
    let refused = refused(&settled);
    assert_eq!(refused.len(), 1);
    let (at, of) = refused[0];
    assert_eq!((at, of.attempts, of.error.class.as_str()), (13, 1, "http_422"));
    let text = &of.error.message;
    assert!(text.starts_with("the endpoint answered 422 Unprocessable Entity: no such field no"));
    assert!(text.chars().count() < 300, "{text}");
    assert_eq!(numbers(&endpoint.seen()), once_each(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_joined_and_only_those_at_fault_are_refused() {
    let endpoint = Endpoint::start().await;
    let is_bad = |line: &str| line.contains(":13}") || line.contains(":77}");
    endpoint.answer(move |request| {
        let text = request.text();
        match () {
            () if 40 < text.lines().count() => Answer::status(413),
            () if text.lines().any(is_bad) => Answer::status(400),
            () => Answer::status(200),
        }
    });
    // One batch, which is full.
    let batch = json!({"in_flight": 1, "max_items": 100, "linger": "1m"});
    let more = json!({"encoding": "ndjson", "batch": batch});
    let sinks = sinks(&endpoint, "/{to}", more).await;
    let to = |number: usize| numbered(number).param("to", if number < 90 { "a" } else { "b" });
    let settled = deliver_all(&sinks, (0..100).map(to)).await;
    let refused: Vec<usize> = refused(&settled).into_iter().map(|(at, _)| at).collect();
    assert_eq!(refused, [13, 77]);
    let is_taken = |request: &Request| {
        request.text().lines().count() <= 40 && !request.text().lines().any(is_bad)
    };
    let taken: Vec<Request> = endpoint.seen().into_iter().filter(is_taken).collect();
    let mut expected = once_each(100);
    expected.retain(|number, _| ![13, 77].contains(number));
    assert_eq!(numbers(&taken), expected, "all others landed once");
    assert!(endpoint.seen().len() < 40, "{} requests", endpoint.seen().len());
    for request in endpoint.seen().iter().filter(|request| 1 < request.text().lines().count()) {
        assert_eq!(request.header("idempotency-key"), None, "no key stands for several payloads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_the_endpoint_cannot_take_now_are_all_held() {
    let endpoint = Endpoint::start().await;
    let asked = AtomicUsize::new(0);
    endpoint.answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::status(503),
        _ => Answer::status(200),
    });
    // One batch, which is full.
    let batch = json!({"in_flight": 1, "max_items": 100, "linger": "1m"});
    let sinks = sinks(&endpoint, "/", json!({"encoding": "ndjson", "batch": batch})).await;
    all_confirmed(&deliver_all(&sinks, (0..100).map(numbered)).await);
    assert_eq!(endpoint.seen().len(), 2);
    assert_eq!(endpoint.seen()[0].text(), endpoint.seen()[1].text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_trouble_does_not_keep_its_neighbours_from_theirs() {
    let endpoint = Endpoint::start().await;
    endpoint.answer(|request| Answer::status(if request.target == "/a" { 500 } else { 200 }));
    let more = json!({"encoding": "ndjson", "batch": {"in_flight": 1, "linger": "50ms"}});
    let sinks = sinks(&endpoint, "/{to}", more).await;
    let to = |number: usize| numbered(number).param("to", if number < 10 { "a" } else { "b" });
    let delivered = deliver_beside(&sinks, (0..20).map(to).collect());
    wait_for("the others to land", || endpoint.seen().iter().any(|request| request.target == "/b"));
    endpoint.answer(|_| Answer::status(200));
    all_confirmed(&delivered.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_everybody_is_sent_to_holds_and_loses_nothing() {
    let endpoint = Endpoint::start().await;
    let to_login = || Answer::Status(302, vec![("location", "/login".to_owned())], String::new());
    endpoint.answer(move |_| to_login());
    let sinks = sinks(&endpoint, "/in", json!({})).await;
    let delivered = deliver_beside(&sinks, (0..20).map(numbered).collect());
    wait_held(&sinks);
    endpoint.answer(|_| Answer::status(200));
    all_confirmed(&delivered.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_us_is_held_and_what_is_wrong_with_the_payload_is_refused() {
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/{at}", json!({})).await;
    for status in [401, 407, 408, 425, 429, 500, 502, 503, 504] {
        let asked = AtomicUsize::new(0);
        endpoint.answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Answer::status(status),
            _ => Answer::status(200),
        });
        let before = endpoint.seen().len();
        all_confirmed(&deliver_all(&sinks, [numbered(0).param("at", "x")]).await);
        assert_eq!(endpoint.seen().len() - before, 3, "{status}");
    }
    for status in [302, 400, 403, 404, 405, 409, 410, 413, 415, 422, 501] {
        endpoint.answer(move |_| Answer::status(status));
        let settled = deliver_all(&sinks, [numbered(0).param("at", "x")]).await;
        assert_eq!(refused(&settled)[0].1.error.class, format!("http_{status}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_that_the_endpoint_asks_for_is_kept() {
    let endpoint = Endpoint::start().await;
    let asked = AtomicUsize::new(0);
    endpoint.answer(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Status(429, vec![("retry-after", "1".to_owned())], String::new()),
        _ => Answer::status(200),
    });
    let sinks = sinks(&endpoint, "/", json!({})).await;
    let began = Instant::now();
    all_confirmed(&deliver_all(&sinks, [numbered(0)]).await);
    assert!(Duration::from_secs(1) <= began.elapsed(), "{:?}", began.elapsed());
    assert_eq!(endpoint.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_endpoint_wants_to_be_left_alone_no_request_is_sent() {
    for adaptive in [false, true] {
        let endpoint = Endpoint::start().await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let times = Arc::clone(&asked);
        endpoint.answer(move |_| {
            let mut times = times.lock().unwrap();
            times.push(Instant::now());
            let wait = vec![("retry-after", "2".to_owned())];
            match times.len() {
                1 => Answer::Status(429, wait, String::new()),
                // Under way while the first is answered.
                2..9 => Answer::After(Duration::from_millis(1_500), Box::new(Answer::status(200))),
                _ => Answer::status(200),
            }
        });
        let sinks = sinks(&endpoint, "/", json!({"adaptive_concurrency": adaptive})).await;
        all_confirmed(&deliver_all(&sinks, (0..50).map(numbered)).await);
        let times = asked.lock().unwrap();
        let early = times.iter().filter(|at| **at < times[0] + Duration::from_secs(2)).count();
        assert!(early <= 8, "{early} requests, of which at most 8 were under way");
        assert_eq!(times.len(), 51, "each once, and the first twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_others_of_its_endpoint_is_not_sent_while_that_wants_to_be_left_alone()
 {
    let endpoint = Endpoint::start().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    endpoint.answer(move |_| {
        let mut times = times.lock().unwrap();
        times.push(Instant::now());
        let wait = vec![("retry-after", "1".to_owned())];
        match times.len() {
            // Overloaded, without saying for how long: one request at a time from here on.
            1..9 => Answer::status(503),
            9 => Answer::Status(429, wait, String::new()),
            _ => Answer::status(200),
        }
    });
    let section = section(&endpoint, "/", json!({"adaptive_concurrency": true}));
    let sinks = connect(section).await.unwrap().sinks;
    all_confirmed(&deliver_all(&sinks, (0..20).map(numbered)).await);
    let times = asked.lock().unwrap();
    let until = times[8] + Duration::from_secs(1);
    let early = times[9..].iter().filter(|at| **at < until).count();
    assert!(early <= 3, "{early} requests, of which at most 3 were under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_address_has_no_place_for_makes_no_payload_guilty_of_it() {
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/in", json!({})).await;
    endpoint.answer(|_| Answer::status(404));
    let payloads = (0..20).map(|number| numbered(number).param("topic", "orders"));
    let delivered = deliver_beside(&sinks, payloads.collect());
    wait_held(&sinks);
    endpoint.answer(|_| Answer::status(200));
    all_confirmed(&delivered.await.unwrap());
}
