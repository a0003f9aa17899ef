//! What concerns one payload of many: it is refused, all others land exactly once and in order.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_in_the_middle_of_a_batch_is_refused_alone() {
    let sinks = sink(&shared()).await;
    let (list, text) = (fresh("list"), fresh("text"));
    let mut payloads = pushes(&list, 100);
    payloads.insert(50, RedisPayload::rpush(text.clone(), ["1"])); // A list it is not.
    payloads.insert(70, RedisPayload::incrby(text.clone(), 1)); // Nor a number.
    payloads.insert(90, RedisPayload::rpush(text.clone(), ["1"]).max_len(3));
    payloads.insert(0, RedisPayload::set(text.clone(), "text"));
    let settled = sinks::deliver_all(&sinks, payloads).await;
    let failed: Vec<(usize, &str)> = settled
        .iter()
        .enumerate()
        .filter(|(_, settled)| **settled != Settled::Confirmed)
        .map(|(at, settled)| (at, &*refused(settled).error.class))
        .collect();
    assert_eq!(failed, [(51, "WRONGTYPE"), (71, "ERR"), (91, "WRONGTYPE")]);
    assert_eq!(Outside::of(&shared()).list(&list), numbers(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_fails_is_refused_alone_and_says_why() {
    let more = json!({"scripts": {
        "fail": "return redis.error_reply('MINE not today')",
        "crash": "return nothing.at.all",
    }});
    let sinks = sink_with(&shared(), &more).await;
    let key = fresh("list");
    let mut payloads = pushes(&key, 2);
    for script in ["fail", "crash", "absent"] {
        payloads.insert(1, RedisPayload::script(script, [key.clone()], ["1"]));
    }
    let settled = sinks::deliver_all(&sinks, payloads).await;
    let class = |at: usize| &*refused(&settled[at]).error.class;
    assert_eq!([class(1), class(2), class(3)], ["unknown_script", "ERR", "MINE"]);
    assert_eq!(Outside::of(&shared()).list(&key), numbers(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_larger_than_the_server_takes_is_refused_alone() {
    let server = OwnServer::start("redis");
    let mut outside = Outside::of(&url(&server));
    outside.tell(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    let sinks = sink(&url(&server)).await;
    let mut payloads = pushes("list", 10);
    payloads.insert(5, RedisPayload::set("large", vec![b'x'; (1 << 20) + 1]));
    payloads.insert(6, RedisPayload::set("fits", vec![b'x'; 1 << 20]));
    let settled = sinks::deliver_all(&sinks, payloads).await;
    assert_eq!(refused(&settled[5]).error.class, "too_large");
    let confirmed = settled.iter().filter(|settled| **settled == Settled::Confirmed).count();
    assert_eq!((settled.len(), confirmed), (12, 11));
    assert_eq!(outside.list("list"), numbers(10));
    assert_eq!(outside.ask::<usize>(&["STRLEN", "fits"]), 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_under_way_is_learnt() {
    let server = OwnServer::start("redis");
    let sinks = sink(&url(&server)).await;
    let mut outside = Outside::of(&url(&server));
    outside.tell(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    let mut payloads = pushes("list", 10);
    payloads.insert(5, RedisPayload::set("large", vec![b'x'; 2 << 20]));
    let settled = timeout(SOON, sinks::deliver_all(&sinks, payloads)).await.unwrap();
    assert_eq!(refused(&settled[5]).error.class, "too_large");
    assert_eq!(outside.list("list"), numbers(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_may_not_write_is_held_until_he_may() {
    let server = OwnServer::start("redis");
    let mut outside = Outside::of(&url(&server));
    outside.tell(&["ACL", "SETUSER", "eve", "on", ">hunter2", "~*", "&*", "+@all", "-rpush"]);
    let sinks = sink(&format!("redis://eve:hunter2@127.0.0.1:{}", server.port)).await;
    let delivering = delivering(&sinks, pushes("list", 10));
    holds(&sinks).await;
    outside.tell(&["ACL", "SETUSER", "eve", "+rpush"]);
    ends_well(delivering).await;
    assert_eq!(outside.list("list"), numbers(10));
}
