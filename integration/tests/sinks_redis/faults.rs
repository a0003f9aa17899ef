//! Servers that are away, slow, full or no primary: what is meant for them is held, nothing is
//! refused, and everything goes on by itself.

use super::{relay::Relay, *};

/// Sets of `count` keys, so that doing it twice shows nowhere.
fn sets(count: u32) -> Vec<RedisPayload> {
    (0..count).map(|number| RedisPayload::set(format!("key:{number}"), "1")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_down_under_load_costs_no_payload() {
    let server = OwnServer::start("redis");
    let sinks = sink_with(&url(&server), &json!({"batch": {"max_items": 10}})).await;
    let delivering = delivering(&sinks, sets(5_000));
    let mut outside = Outside::of(&url(&server));
    until("the first writes", SOON, || match outside.ask::<u32>(&["DBSIZE"]) {
        0 => Err("none yet"),
        _ => Ok(()),
    });
    server.kill();
    // On a slow machine the others may have landed by now.
    let last = super::delivering(&sinks, vec![RedisPayload::set("last", "1")]);
    holds(&sinks).await;
    server.restart();
    ends_well(delivering).await;
    ends_well(last).await;
    assert_eq!(Outside::of(&url(&server)).ask::<u32>(&["DBSIZE"]), 5_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again_cost_no_payload_and_no_order() {
    let server = OwnServer::start("redis");
    let batch = json!({"batch": {"max_items": 50, "linger": "10s"}}); // Each of them is full.
    let sinks = sink_with(&url(&server), &batch).await;
    let delivering = delivering(&sinks, pushes("list", 5_000));
    let mut outside = Outside::of(&url(&server));
    let (mut cut, mut there) = (0, 0);
    while !delivering.is_finished() {
        let now = outside.ask::<u32>(&["LLEN", "list"]);
        // Whenever something has come about: a machine may be slow, and a test must end.
        if there < now {
            there = now;
            // All but the one that asks.
            cut += outside.ask::<u32>(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ends_well(delivering).await;
    assert!(0 < cut, "nothing was cut");
    // What was applied and not answered is there twice, and then it is the whole batch.
    let found: Vec<u32> = outside.ask(&["LRANGE", "list", "0", "-1"]);
    let mut batches: Vec<&[u32]> = found.chunks(50).collect();
    batches.dedup();
    assert_eq!(batches.concat(), (0..5_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_is_waited_for() {
    let server = OwnServer::start("redis");
    let sinks = hasty(&url(&server), &json!({})).await;
    server.signal("STOP");
    let delivering = delivering(&sinks, sets(1_000));
    holds(&sinks).await; // It was given up once by now.
    server.signal("CONT");
    ends_well(delivering).await;
    assert_eq!(Outside::of(&url(&server)).ask::<u32>(&["DBSIZE"]), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_does_not_undo_what_was_written_since() {
    let server = OwnServer::start("redis");
    let way = Relay::to(server.port).await;
    let address = format!("redis://:{PASSWORD}@127.0.0.1:{}", way.port);
    let sinks = hasty(&address, &json!({})).await;
    way.hold_back_the_first();
    // It is sent, is not answered in time, and is sent again on another connection.
    delivered(&sinks, vec![RedisPayload::set("key", "early")]).await;
    delivered(&sinks, vec![RedisPayload::set("key", "last")]).await;
    way.let_it_go().await;
    assert_eq!(Outside::of(&url(&server)).ask::<String>(&["GET", "key"]), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_undoes_nothing_either_where_other_connections_wait_for_work() {
    let server = OwnServer::start("redis");
    let way = Relay::to(server.port).await;
    let at_once = json!({"batch": {"in_flight": 4, "max_items": 1}});
    let address = format!("redis://:{PASSWORD}@127.0.0.1:{}", way.port);
    let sinks = hasty(&address, &at_once).await;
    way.hold_back_the_first();
    let [one, two] = ["one", "two"].map(|key| RedisPayload::set(key, "early"));
    // One of them is kept back. The other opens a second connection, which is idle by the time the first
    // is sent again, and whenever what is newer is written.
    delivered(&sinks, vec![one, two]).await;
    delivered(&sinks, vec![RedisPayload::set("one", "last")]).await;
    delivered(&sinks, vec![RedisPayload::set("two", "last")]).await;
    way.let_it_go().await;
    let found: Vec<String> = Outside::of(&url(&server)).ask(&["MGET", "one", "two"]);
    assert_eq!(found, ["last", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_holds_what_it_cannot_take_and_order_survives() {
    let server = OwnServer::start("redis");
    let sinks = sink(&url(&server)).await;
    let mut outside = Outside::of(&url(&server));
    outside.tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    outside.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    let delivering = delivering(&sinks, pushes("list", 1_000));
    holds(&sinks).await;
    outside.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    ends_well(delivering).await;
    assert_eq!(outside.list("list"), numbers(1_000), "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_server_could_not_take_is_not_written_over_what_came_after_it() {
    let server = OwnServer::start("redis");
    let batch = json!({"batch": {"max_items": 3, "linger": "10s"}}); // It is one.
    let sinks = sink_with(&url(&server), &batch).await;
    let mut outside = Outside::of(&url(&server));
    outside.tell(&["SET", "large", &"x".repeat(30 << 20)]);
    outside.tell(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    outside.tell(&["CONFIG", "SET", "maxmemory", "15mb"]);
    let payloads = vec![
        RedisPayload::set("key", "first"), // There is no room for it,
        RedisPayload::delete("large"),     // with this there is,
        RedisPayload::set("key", "last"),  // so that this could be written before the first.
    ];
    let delivering = delivering(&sinks, payloads);
    holds(&sinks).await;
    outside.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    ends_well(delivering).await;
    assert_eq!(outside.ask::<String>(&["GET", "key"]), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_a_replica_for_a_while_holds_writes() {
    let server = OwnServer::start("redis");
    let sinks = sink(&url(&server)).await;
    let mut outside = Outside::of(&url(&server));
    let nobody = OwnServer::down("redis").port.to_string();
    outside.tell(&["REPLICAOF", "127.0.0.1", &nobody]);
    let delivering = delivering(&sinks, pushes("list", 100));
    holds(&sinks).await;
    outside.tell(&["REPLICAOF", "NO", "ONE"]);
    ends_well(delivering).await;
    assert_eq!(outside.list("list"), numbers(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_known_before_there_is_one() {
    let server = OwnServer::start("redis");
    let sinks = sink(&url(&server)).await;
    let mut outside = Outside::of(&url(&server));
    let nobody = OwnServer::down("redis").port.to_string();
    outside.tell(&["REPLICAOF", "127.0.0.1", &nobody]);
    holds(&sinks).await;
    outside.tell(&["REPLICAOF", "NO", "ONE"]);
    until("the sink to be there again", SOON, || {
        if sinks.held().is_empty() { Ok(()) } else { Err("it is not") }
    });
    assert_eq!(outside.ask::<i64>(&["DBSIZE"]), 0, "asking left nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_demoted_is_left_for_the_one_that_its_name_leads_to_now() {
    let [old, new] = [(), ()].map(|()| OwnServer::start("redis"));
    let way = Relay::to(old.port).await;
    let sinks = sink(&format!("redis://:{PASSWORD}@127.0.0.1:{}", way.port)).await;
    delivered(&sinks, pushes("before", 1)).await;
    way.leads_to(new.port);
    // It keeps its clients.
    Outside::of(&url(&old)).tell(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]);
    ends_well(delivering(&sinks, pushes("list", 100))).await;
    assert_eq!(Outside::of(&url(&new)).list("list"), numbers(100), "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_under_way_holds_writes_until_it_is_changed_back() {
    let server = OwnServer::start("redis");
    let sinks = sink(&url(&server)).await;
    let mut outside = Outside::of(&url(&server));
    outside.tell(&["CONFIG", "SET", "requirepass", "other"]);
    outside.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
    let delivering = delivering(&sinks, pushes("list", 100));
    holds(&sinks).await;
    outside.tell(&["CONFIG", "SET", "requirepass", PASSWORD]);
    ends_well(delivering).await;
    assert_eq!(outside.list("list"), numbers(100));
}
