//! Redis: lists `open:<number>` and `closed:<number>`.

use drakkar_core::{Payload, RedisPayload};
use drakkar_integration::{OwnServer, SOON, until};
use redis::FromRedisValue;
use serde_json::{Value, json};

use super::{Mortal, PASSWORD, Rights, Site, Store, UNLUCKY, USER};

pub(crate) struct Redis(OwnServer);

impl Redis {
    pub(crate) fn start() -> Self {
        let site = Self(OwnServer::start("redis"));
        site.let_in();
        site.obstruct(UNLUCKY);
        site
    }

    fn let_in(&self) {
        self.tell(&["ACL", "SETUSER", USER, "on", "+@all", "~open:*"]);
        self.set_password(PASSWORD);
    }

    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let url = format!("redis://:drakkar-test@127.0.0.1:{}", self.0.port);
        let connected = || redis::Client::open(&*url)?.get_connection();
        let mut connection = until("a connection", SOON, connected);
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
    }

    fn tell(&self, words: &[&str]) {
        let _: redis::Value = self.ask(words);
    }

    fn numbers(&self, place: &str) -> Vec<u32> {
        let mut keys: Vec<String> = self.ask(&["KEYS", &format!("{place}:*")]);
        keys.retain(|key| self.ask::<String>(&["TYPE", key]) == "list");
        let mut found: Vec<u32> =
            keys.iter().flat_map(|key| self.ask::<Vec<u32>>(&["LRANGE", key, "0", "-1"])).collect();
        found.sort_unstable();
        found
    }
}

fn at(port: u16, password: &str) -> Value {
    let password = password.replace('/', "%2F");
    json!({"url": format!("redis://{USER}:{password}@127.0.0.1:{port}")})
}

fn push(place: &str, number: u32) -> Payload {
    let key = format!("{place}:{number}");
    RedisPayload::rpush(key, [number.to_string()]).sink("site").into()
}

impl Site for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn section(&self, password: &str) -> Value {
        at(self.0.port, password)
    }

    fn away(&self) -> Value {
        at(1, PASSWORD)
    }

    fn payload(&self, number: u32) -> Payload {
        push("open", number)
    }

    fn set_password(&self, password: &str) {
        self.tell(&["ACL", "SETUSER", USER, "resetpass", &format!(">{password}")]);
        self.tell(&["CLIENT", "KILL", "USER", USER]);
    }
}

impl Mortal for Redis {
    fn die(&self) {
        self.0.kill();
    }

    fn rise(&self) {
        self.0.restart();
        self.let_in();
    }

    fn kept(&self) -> Vec<u32> {
        self.written()
    }
}

impl Store for Redis {
    fn obstruct(&self, number: u32) {
        self.tell(&["SET", &format!("open:{number}"), "no list"]);
    }

    fn mend(&self, number: u32) {
        self.tell(&["DEL", &format!("open:{number}")]);
    }

    fn written(&self) -> Vec<u32> {
        self.numbers("open")
    }
}

impl Rights for Redis {
    fn closed(&self, number: u32) -> Payload {
        push("closed", number)
    }

    fn allow(&self) {
        self.tell(&["ACL", "SETUSER", USER, "~closed:*"]);
    }

    fn written_closed(&self) -> Vec<u32> {
        self.numbers("closed")
    }
}
