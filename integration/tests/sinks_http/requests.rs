//! What is sent: every encoding, url, method, query and headers.

use drakkar_core::Payload;

use crate::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_arrives_byte_for_byte() {
    let endpoint = Endpoint::start().await;
    let value = json!({"text": "a b&c", "many": [1, 2], "none": null});
    let url_encoded = "many=1&many=2&none=&text=a+b%26c";
    for (encoding, of, body) in [
        ("json", "application/json", value.to_string()),
        ("form", "application/x-www-form-urlencoded", url_encoded.to_owned()),
        ("ndjson", "application/x-ndjson", format!("{value}\n")),
    ] {
        let sinks = sinks(&endpoint, "/in", json!({"encoding": encoding})).await;
        all_confirmed(&deliver_all(&sinks, [HttpPayload::new(&value).unwrap()]).await);
        let last = endpoint.seen().pop().unwrap();
        assert_eq!(shown(&last), (of.to_owned(), body), "{encoding}");
        assert_eq!((last.method.as_str(), last.target.as_str()), ("POST", "/in"));
    }
    let sinks = sinks(&endpoint, "/in", json!({"encoding": "form"})).await;
    for (payload, of, body) in [
        (HttpPayload::json(&value).unwrap(), "application/json", value.to_string().into_bytes()),
        (
            HttpPayload::form(&value).unwrap(),
            "application/x-www-form-urlencoded",
            url_encoded.into(),
        ),
        (HttpPayload::raw(&b"\xff\x00"[..], "image/x-it"), "image/x-it", b"\xff\x00".to_vec()),
        (HttpPayload::empty(), "", Vec::new()),
    ] {
        all_confirmed(&deliver_all(&sinks, [payload]).await);
        let last = endpoint.seen().pop().unwrap();
        assert_eq!((shown(&last).0, last.body), (of.to_owned(), body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_one_address_are_sent_in_their_order_past_those_for_others() {
    let endpoint = Endpoint::start().await;
    let batch = json!({"in_flight": 1, "max_items": 7, "linger": "1s"});
    let more = json!({"encoding": "ndjson", "batch": batch});
    let sinks = sinks(&endpoint, "/{table}", more).await;
    let lines = [
        ("a", "index", 0),
        ("a", "index", 1),
        ("a", "delete", 2),
        ("b", "index", 3),
        ("a", "index", 4),
        ("b", "index", 5),
        ("a", "index", 6),
    ];
    let lines = lines.map(|(table, op, number)| {
        let line = HttpPayload::new(&json!({ "n": number })).unwrap();
        line.param("table", table).header("x-op", op)
    });
    all_confirmed(&deliver_all(&sinks, lines).await);
    let seen: Vec<(String, Vec<u64>)> = endpoint
        .seen()
        .iter()
        .map(|request| {
            let op = request.header("x-op").unwrap();
            let lines = numbers(std::slice::from_ref(request)).into_keys().collect();
            (format!("{} {op}", request.target), lines)
        })
        .collect();
    let expected = [
        ("/a index", vec![0, 1]),
        ("/a delete", vec![2]),
        ("/b index", vec![3, 5]),
        ("/a index", vec![4, 6]),
    ];
    assert_eq!(seen, expected.map(|(request, lines)| (request.to_owned(), lines)));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_arrive_byte_for_byte() {
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/", json!({"encoding": "multipart"})).await;
    let file = HttpPart::file("f", "a.bin", &b"\xff\x00"[..]).content_type("image/x-it");
    let parts = HttpPayload::multipart([HttpPart::text("t", "é"), file]);
    all_confirmed(&deliver_all(&sinks, [parts]).await);
    all_confirmed(&deliver_all(&sinks, [HttpPayload::new(&json!({"a": "b"})).unwrap()]).await);
    let expected: [Vec<u8>; 2] = [
        [
            b"--B\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\n\xc3\xa9\r\n".as_slice(),
            b"--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n",
            b"Content-Type: image/x-it\r\n\r\n\xff\x00\r\n--B--\r\n",
        ]
        .concat(),
        b"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--B--\r\n".to_vec(),
    ];
    for (request, expected) in endpoint.seen().iter().zip(expected) {
        let (of, _) = shown(request);
        let boundary = of.strip_prefix("multipart/form-data; boundary=").unwrap();
        let mut body = expected;
        while let Some(at) = body.windows(5).position(|w| w == b"--B\r\n" || w == b"--B--") {
            body.splice(at + 2..at + 3, boundary.bytes());
        }
        assert_eq!(String::from_utf8_lossy(&request.body), String::from_utf8_lossy(&body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn url_method_query_and_headers_are_the_payloads_where_the_configuration_lets_them() {
    let endpoint = Endpoint::start().await;
    let more = json!({"headers": {"x-a": "sink", "x-b": "sink"}, "idempotency_prefix": "w:"});
    let sinks = sinks(&endpoint, "/orders/{id}?by={who}", more).await;
    let payload = HttpPayload::empty()
        .method("PATCH")
        .param("id", "a/../b")
        .param("who", "é")
        .query("x", "1&2")
        .header("X-A", "payload")
        .idempotency_key("k");
    all_confirmed(&deliver_all(&sinks, [payload.clone()]).await);
    let seen = endpoint.seen();
    assert_eq!(seen[0].method, "PATCH");
    assert_eq!(seen[0].target, "/orders/a%2F..%2Fb?by=%C3%A9&x=1%262");
    assert_eq!((seen[0].header("x-a"), seen[0].header("x-b")), (Some("payload"), Some("sink")));
    assert_eq!(seen[0].header("idempotency-key"), Some("w:k"));
    assert_eq!(seen[0].header("authorization"), None);

    for (wrong, reason) in [
        (HttpPayload::empty().param("id", "1"), "no value for {who}"),
        (payload.clone().param("id", ".."), "segment"),
        (payload.clone().header("Host", "evil"), "header Host is about the connection"),
        (payload.clone().header("Transfer-Encoding", "chunked"), "about the connection"),
        (payload.clone().header("x-c", "a\r\nx-d: b"), "header x-c"),
        (payload.clone().method("GET / HTTP/1.1"), "is not a method"),
    ] {
        let settled = deliver_all(&sinks, [wrong]).await;
        let refused = refused(&settled)[0].1;
        assert_eq!(refused.error.class, "request");
        assert!(refused.error.message.contains(reason), "{reason}: {}", refused.error.message);
    }
    assert_eq!(endpoint.seen().len(), 1, "nothing was sent of what cannot be a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_stands_before_the_keys_of_handlers_as_before_those_of_coordinates() {
    let endpoint = Endpoint::start().await;
    let sinks = sinks(&endpoint, "/", json!({"idempotency_prefix": "billing:"})).await;
    for payload in [HttpPayload::empty().idempotency_key("order-7"), HttpPayload::empty()] {
        let mut payload = Payload::from(payload);
        payload.identify(1, || "orders:0:4711:0".to_owned());
        let Payload::Http(payload) = payload else { unreachable!("it was one") };
        all_confirmed(&deliver_all(&sinks, [payload]).await);
    }
    let seen = endpoint.seen();
    let keys: Vec<_> = seen.iter().filter_map(|one| one.header("idempotency-key")).collect();
    assert_eq!(keys, ["billing:order-7", "billing:orders:0:4711:0:1"]);
}
