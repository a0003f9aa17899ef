//! What each command leaves in the server, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use drakkar::redis::aio::ConnectionManager;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_in_the_server_what_it_says() {
    let key = |name: &str| fresh(name);
    let [text, gone, sum, hash, head, tail, set, scores, stream] =
        ["text", "gone", "sum", "hash", "head", "tail", "set", "scores", "stream"].map(key);
    let sinks = sink(&shared()).await;
    let to = |key: &String| key.clone();
    delivered(
        &sinks,
        vec![
            RedisPayload::set(to(&text), "value"),
            RedisPayload::set(to(&text), "not now").nx(),
            RedisPayload::set(to(&gone), "not now").xx(),
            RedisPayload::set(to(&gone), "1"),
            RedisPayload::delete(to(&gone)),
            RedisPayload::incrby(to(&sum), 5),
            RedisPayload::incrby(to(&sum), -2),
            RedisPayload::hset(to(&hash), [("a", "1"), ("b", "2")]),
            RedisPayload::hset_json(to(&hash), &json!({"c": [3], "d": null})).unwrap(),
            RedisPayload::hdel(to(&hash), ["b"]),
            RedisPayload::lpush(to(&head), ["1", "2", "3"]).max_len(2),
            RedisPayload::rpush(to(&tail), ["1", "2", "3"]).max_len(2),
            RedisPayload::ltrim(to(&tail), 1, -1),
            RedisPayload::sadd(to(&set), ["a", "b"]),
            RedisPayload::srem(to(&set), ["a"]),
            RedisPayload::zadd(to(&scores), [(2.5, "b"), (f64::NEG_INFINITY, "a")]),
            RedisPayload::xadd(to(&stream), [("n", "1")]),
            RedisPayload::xadd_json(to(&stream), &json!({"n": 2})).unwrap(),
            RedisPayload::xadd(to(&stream), [("n", "3")]).max_len(2),
        ],
    )
    .await;
    let mut outside = Outside::of(&shared());
    assert_eq!(outside.ask::<String>(&["GET", &text]), "value");
    assert_eq!(outside.ask::<u32>(&["EXISTS", &gone]), 0);
    assert_eq!(outside.ask::<i64>(&["GET", &sum]), 3);
    let fields: BTreeMap<String, String> = outside.ask(&["HGETALL", &hash]);
    assert_eq!(fields, [("a", "1"), ("c", "[3]")].map(|(a, b)| (a.into(), b.into())).into());
    assert_eq!(outside.list(&head), ["3", "2"]);
    assert_eq!(outside.list(&tail), ["3"]);
    assert_eq!(outside.ask::<BTreeSet<String>>(&["SMEMBERS", &set]), ["b".to_owned()].into());
    let scores: Vec<String> = outside.ask(&["ZRANGE", &scores, "0", "-1", "WITHSCORES"]);
    assert_eq!(scores, ["a", "-inf", "b", "2.5"]);
    let entries: Vec<(String, Vec<String>)> = outside.ask(&["XRANGE", &stream, "-", "+"]);
    let fields: Vec<Vec<String>> = entries.into_iter().map(|(_, fields)| fields).collect();
    assert_eq!(fields, [["n", "2"], ["n", "3"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_are_bytes() {
    let sinks = sink(&shared()).await;
    let (key, value) = ([fresh("bytes").as_bytes(), b"\xff\0\r\n"].concat(), vec![0, 0xfe, 13, 10]);
    delivered(&sinks, vec![RedisPayload::set(key.clone(), value.clone())]).await;
    let found: Vec<u8> = redis::cmd("GET").arg(key).query(&mut Outside::of(&shared()).0).unwrap();
    assert_eq!(found, value);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_its_time_has_come() {
    let sinks = sink(&shared()).await;
    let [short, long, counted, told] = ["short", "long", "counted", "told"].map(fresh);
    let hour = Duration::from_hours(1);
    delivered(
        &sinks,
        vec![
            RedisPayload::set(short.clone(), "1").ttl(Duration::from_millis(50)),
            RedisPayload::set(long.clone(), "1").ttl(hour),
            RedisPayload::incrby(counted.clone(), 1).ttl(hour),
            RedisPayload::set(told.clone(), "1"),
            RedisPayload::expire(told.clone(), hour),
        ],
    )
    .await;
    let mut outside = Outside::of(&shared());
    for key in [&long, &counted, &told] {
        let left: i64 = outside.ask(&["PTTL", key]);
        assert!((3_500_000..=3_600_000).contains(&left), "{key}: {left}");
    }
    until("the end of a key", SOON, || match outside.ask::<u32>(&["EXISTS", &short]) {
        0 => Ok(()),
        _ => Err("it is still there"),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_stands_before_keys_also_those_of_scripts_and_not_before_channels() {
    let prefix = fresh("prefix");
    let script = "redis.call('SET', KEYS[1], ARGV[1]); redis.call('SET', KEYS[2], ARGV[1])";
    let more = json!({"key_prefix": format!("{prefix}:"), "scripts": {"both": script}});
    let sinks = sink_with(&shared(), &more).await;
    let channel = fresh("channel");
    let mut listener = Outside::of(&shared()).0;
    let mut listener = listener.as_pubsub();
    listener.subscribe(&channel).unwrap();
    delivered(
        &sinks,
        vec![
            RedisPayload::set("k", "1"),
            RedisPayload::script("both", ["a", "b"], ["2"]),
            RedisPayload::publish(channel.clone(), "news"),
        ],
    )
    .await;
    let mut outside = Outside::of(&shared());
    for (key, value) in [("k", "1"), ("a", "2"), ("b", "2")] {
        assert_eq!(outside.ask::<String>(&["GET", &format!("{prefix}:{key}")]), value);
    }
    listener.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(listener.get_message().unwrap().get_payload::<String>().unwrap(), "news");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_run_also_after_the_server_was_told_to_forget_it() {
    let more = json!({"scripts": {"bump": "return redis.call('INCRBY', KEYS[1], ARGV[1])"}});
    let sinks = sink_with(&shared(), &more).await;
    let key = fresh("bumped");
    let calls = |count| {
        (0..count).map(|_| RedisPayload::script("bump", [key.clone()], ["2"])).collect::<Vec<_>>()
    };
    let mut outside = Outside::of(&shared());
    delivered(&sinks, calls(10)).await;
    outside.tell(&["SCRIPT", "FLUSH"]);
    delivered(&sinks, calls(1)).await;
    outside.tell(&["SCRIPT", "FLUSH"]);
    delivered(&sinks, calls(10)).await;
    assert_eq!(outside.ask::<i64>(&["GET", &key]), 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_at_once_each_keep_the_order_of_their_key() {
    let sinks = sink(&shared()).await;
    let list = fresh("list");
    let tasks: Vec<JoinHandle<()>> = (0..1_000)
        .map(|task| {
            let (sinks, key) = (sinks.clone(), format!("{list}:{task}"));
            tokio::spawn(async move { delivered(&sinks, pushes(&key, 10)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut outside = Outside::of(&shared());
    for task in 0..1_000 {
        assert_eq!(outside.list(&format!("{list}:{task}")), numbers(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_writes_at_once_lose_nothing() {
    let sinks = sink_with(&shared(), &json!({"batch": {"in_flight": 4, "max_items": 7}})).await;
    let set = fresh("set");
    let add = |number: u32| RedisPayload::sadd(set.clone(), [number.to_string()]);
    delivered(&sinks, (0..1_000).map(add).collect()).await;
    assert_eq!(Outside::of(&shared()).ask::<u32>(&["SCARD", &set]), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handler_is_given_a_connection_of_its_own() {
    let connected = sinks::connect(config(&shared(), &json!({}))).await.unwrap();
    let mut handle = connected.ready.sink::<ConnectionManager>("r").expect("a connection").clone();
    let key = fresh("handle");
    delivered(&connected.sinks, vec![RedisPayload::set(key.clone(), "1")]).await;
    let found: String = redis::cmd("GET").arg(&key).query_async(&mut handle).await.unwrap();
    assert_eq!(found, "1");
}
