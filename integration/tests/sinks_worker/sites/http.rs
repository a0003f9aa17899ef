//! An endpoint that wants a token, and repeats what it was sent in all it says.

use std::sync::{Arc, Mutex};

use drakkar_core::{HttpPayload, Payload};
use drakkar_integration::http::{Answer, Endpoint, Request};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{PASSWORD, Site, UNLUCKY, USER};

pub(crate) struct Http {
    endpoint: Endpoint,
    proxied: bool,
    token: Arc<Mutex<String>>,
    _runtime: Runtime,
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
        let token = Arc::new(Mutex::new(PASSWORD.to_owned()));
        let right = Arc::clone(&token);
        endpoint.answer(move |request| {
            let is_right = request.header("x-token") == Some(&**right.lock().unwrap());
            let status = match request.text() {
                _ if !is_right => 401,
                body if body == UNLUCKY.to_string() => 400,
                _ => return Answer::status(200),
            };
            Answer::Status(status, Vec::new(), repeated(request))
        });
        Self { endpoint, proxied, token, _runtime: runtime }
    }

    fn at(&self, port: u16, token: &str) -> Value {
        let path = "/hooks/hunter2-0815-of-sixteen?key=hunter2%2F0815";
        let user = format!("{USER}:hunter2%2F0815");
        let mut section = json!({
            "url": format!("http://{user}@127.0.0.1:{port}{path}"),
            "headers": {"X-Token": token},
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
        "authorization" | "proxy-authorization" | "x-token" => Some(value.clone()),
        _ => None,
    };
    let headers: Vec<String> = request.headers.iter().filter_map(secret).collect();
    format!("{} {}", headers.join(" "), request.target)
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
        password.clone_into(&mut self.token.lock().unwrap());
    }
}
