//! An endpoint that wants a token, and repeats what it was sent in all it says, as JSON.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use drakkar_core::{HttpPayload, Payload};
use drakkar_integration::http::{Answer, Endpoint, Request};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Mortal, PASSWORD, Site, Store, UNLUCKY, USER};

pub(crate) struct Http {
    endpoint: Endpoint,
    proxied: bool,
    memory: Arc<Mutex<Memory>>,
    runtime: Runtime,
}

/// What the endpoint goes by, and what it took.
struct Memory {
    token: String,
    refused: BTreeSet<u32>,
    taken: Vec<u32>,
}

impl Memory {
    fn answer(&mut self, request: &Request) -> Answer {
        if request.header("x-token") != Some(&*self.token) {
            return Answer::Status(401, Vec::new(), repeated(request));
        }
        let number = request.text().parse().unwrap();
        if self.refused.contains(&number) {
            return Answer::Status(400, Vec::new(), repeated(request));
        }
        self.taken.push(number);
        Answer::status(200)
    }
}

impl Http {
    pub(crate) fn start() -> Self {
        Self::asked(false)
    }

    /// Asked through a proxy, which it is itself.
    pub(crate) fn proxied() -> Self {
        Self::asked(true)
    }

    fn asked(proxied: bool) -> Self {
        let runtime = Runtime::new().unwrap();
        let endpoint = runtime.block_on(Endpoint::start());
        let (token, refused) = (PASSWORD.to_owned(), BTreeSet::from([UNLUCKY]));
        let memory = Arc::new(Mutex::new(Memory { token, refused, taken: Vec::new() }));
        let asked = Arc::clone(&memory);
        endpoint.answer(move |request| asked.lock().unwrap().answer(request));
        Self { endpoint, proxied, memory, runtime }
    }

    fn at(&self, port: u16, token: &str) -> Value {
        let path = "/hooks/hunter2-0815-of-sixteen?key=hunter2%2F0815";
        let user = format!("{USER}:hunter2%2F0815");
        let mut section = json!({
            "url": format!("http://{user}@127.0.0.1:{port}{path}"),
            // JSON writes what is in the second in another way.
            "headers": {"X-Token": token, "X-Signed": r#"Token token="hunter2/0815""#},
        });
        if self.proxied {
            section["url"] = json!(format!("http://{user}@127.0.0.1:{}{path}", self.endpoint.port));
            section["proxy"] = json!(format!("http://{user}@127.0.0.1:{port}"));
        }
        section
    }
}

/// What an endpoint may say of a request that it does not like.
fn repeated(request: &Request) -> String {
    let secret = |(name, value): &(String, String)| match name.as_str() {
        "authorization" | "proxy-authorization" | "x-signed" | "x-token" => Some(value.clone()),
        _ => None,
    };
    let headers: Vec<String> = request.headers.iter().filter_map(secret).collect();
    let plain = format!("{} {}", headers.join(" "), request.target);
    json!({ "error": plain }).to_string().replace('/', r"\/")
}

impl Site for Http {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn section(&self, password: &str) -> Value {
        self.at(self.endpoint.port, password)
    }

    fn away(&self) -> Value {
        self.at(1, PASSWORD)
    }

    fn payload(&self, number: u32) -> Payload {
        HttpPayload::new(&number).unwrap().sink("site").into()
    }

    fn set_password(&self, password: &str) {
        password.clone_into(&mut self.memory.lock().unwrap().token);
    }
}

impl Mortal for Http {
    fn die(&self) {
        self.runtime.block_on(self.endpoint.stop());
    }

    fn rise(&self) {
        self.runtime.block_on(self.endpoint.restart());
    }

    fn kept(&self) -> Vec<u32> {
        self.written()
    }
}

impl Store for Http {
    fn obstruct(&self, number: u32) {
        self.memory.lock().unwrap().refused.insert(number);
    }

    fn mend(&self, number: u32) {
        self.memory.lock().unwrap().refused.remove(&number);
    }

    fn written(&self) -> Vec<u32> {
        let mut taken = self.memory.lock().unwrap().taken.clone();
        taken.sort_unstable();
        taken
    }
}
