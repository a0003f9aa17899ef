//! Requests → an HTTP endpoint.
//!
//! One request per payload, or one per batch of lines. The endpoint's status is the outcome; where it
//! refuses a batch as a whole, the batch is cut in halves until the payload at fault is alone.
//! Requests are never sent twice here: what is transient is the lane's to try again.

use std::time::Duration;

use drakkar_core::{Delivery, HttpPayload, Ready, Sink, SinkError, SinkName};
use reqwest::{Client, Response, StatusCode};
use tokio::time::Instant;

use crate::{
    BatchConfig, HttpSinkConfig,
    connect::{Connect, ConnectError},
    lane::{Pause, Shape},
};
use address::Address;
use batch::{Batch, Group};
use client::Door;
use limit::{Limit, Pass, Sign};
use request::{Prepared, Writer};
use secrets::Excerpt;
use verdict::{Class, Statuses};

mod address; // the url, and what payloads fill in
mod guard; // hosts that are never asked
mod client; // connections, redirects, proxy, certificates
mod request; // payload -> request
mod secrets; // what an answer may repeat of it
mod verdict; // answer -> outcome
mod limit; // how many requests at once
mod batch; // what is sent next, and what waits
#[cfg(all(test, feature = "ssl"))]
mod tls_tests;

/// Bytes of an answer that are looked at for the words of an error.
const LOOKED_AT: usize = 4 << 10;

/// Requests → an HTTP endpoint.
pub struct HttpSink {
    client: Client,
    /// The handler's own. A connection is driven by the threads of whoever opened it: those of the handler may
    /// be blocked.
    handle: Client,
    writer: Writer,
    statuses: Statuses,
    limit: Option<Limit>,
    /// For requests that wait here, behind the lane.
    pause: Pause,
    /// `None` where nobody wants to know whether it is open.
    door: Option<Door>,
    timeout: Duration,
    max_response: usize,
}

/// Checks what needs the client's own idea of urls and headers.
pub(crate) fn validate(config: &HttpSinkConfig, at: &str, wrong: &mut Vec<String>) {
    if config.url.is_empty() {
        return; // Said already.
    }
    let address = match Address::parse(config.url.expose(), config.allow_metadata_addresses) {
        Ok(address) => address,
        Err(reason) => return wrong.push(format!("{at}.url: {reason}")),
    };
    if cfg!(not(feature = "ssl")) && address.base().scheme() == "https" {
        wrong.push(format!(
            "{at}.url: https is not compiled in; build with the cargo feature `ssl`"
        ));
    }
    let both = address.credentials().is_some() && request::says_who(config);
    if both {
        wrong.push(format!("{at}.headers: has an Authorization, and {at}.url a user; keep one"));
    }
    let writer = Writer::new(config, address).map(drop);
    let proxy = client::proxy_url(&config.proxy).map(drop);
    wrong.extend(
        [writer, proxy].into_iter().filter_map(Result::err).map(|key| format!("{at}{key}")),
    );
}

impl Connect for HttpSink {
    type Config = HttpSinkConfig;

    async fn connect(
        at: String,
        config: &HttpSinkConfig,
        within: Duration,
    ) -> Result<Self, ConnectError> {
        let invalid = |reason| ConnectError::Invalid(vec![format!("{at}{reason}")]);
        let address = Address::parse(config.url.expose(), config.allow_metadata_addresses)
            .map_err(|reason| invalid(format!(".url: {reason}")))?;
        let [client, handle] = [client::build(config), client::build(config)];
        let (client, handle) = (client.map_err(invalid)?, handle.map_err(invalid)?);
        let writer = Writer::new(config, address.clone()).map_err(invalid)?;
        let door = config.check_on_start.then(|| Door::of(&address, config));
        if let Some(door) = &door {
            client::reach(at, &address, door, within).await?;
        }
        let most = config.batch.shape(Shape::HTTP).batches;
        Ok(Self {
            client,
            handle,
            writer,
            statuses: Statuses::of(config),
            limit: config.adaptive_concurrency.then(|| Limit::new(most)),
            pause: Pause::default(),
            door,
            timeout: config.timeout_seconds,
            max_response: config.max_response_bytes,
        })
    }

    fn batch(config: &HttpSinkConfig, _: &BatchConfig) -> BatchConfig {
        config.joined()
    }

    fn offer(&self, sink: SinkName, ready: &mut Ready) {
        ready.offer(sink, self.handle.clone());
    }
}

impl Sink for HttpSink {
    type Payload = HttpPayload;

    async fn deliver(&self, batch: &[HttpPayload]) -> Vec<Delivery> {
        let prepared: Vec<_> = batch.iter().map(|payload| self.writer.prepare(payload)).collect();
        let outcomes = prepared.iter().map(|of| Delivery::Permanent(unprepared(of))).collect();
        let mut batch = Batch::new(groups(&prepared), outcomes, Instant::now() + self.timeout);
        while let Some(group) = batch.next(Instant::now()) {
            let outcome = self.send(&parts(&prepared, &group)).await;
            batch.answered(&group, &outcome);
        }
        batch.into_outcomes()
    }

    async fn probe(&self) -> Result<(), SinkError> {
        match &self.door {
            Some(door) => door.is_open().await,
            None => Ok(()),
        }
    }
}

impl HttpSink {
    /// Sends one request and reads its answer.
    async fn send(&self, parts: &[&Prepared]) -> Delivery {
        let request = match request::build(&self.client, parts) {
            Ok(request) => request,
            Err(error) => return Delivery::Permanent(error),
        };
        let pass = match &self.limit {
            Some(limit) => Some(limit.pass().await),
            None => None,
        };
        if let Some(asked) = self.pause.now() {
            return Delivery::Transient(asked.unsent());
        }
        let sent = request.send().await;
        let (outcome, status) = match sent {
            Ok(response) => {
                let status = response.status();
                (self.read(response, parts).await, Some(status))
            }
            Err(error) => (verdict::of_error(&error, self.timeout), None),
        };
        if let Some(pass) = pass {
            let sign = sign(&pass, status, &outcome);
            pass.ended(sign);
        }
        if let Delivery::Transient(error) = &outcome {
            self.pause.heard(error);
        }
        outcome
    }

    /// Reads an answer up to the bound. A success that breaks off is none: who said it may have died
    /// before it was done.
    async fn read(&self, mut response: Response, parts: &[&Prepared]) -> Delivery {
        let [first, ..] = parts else { return Delivery::Confirmed };
        let status = response.status();
        let class = self.statuses.class(status, first.is_addressed);
        let headers = response.headers().clone();
        let (mut read, mut excerpt) = (0, Vec::new());
        while read <= self.max_response {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    read += chunk.len();
                    let room = LOOKED_AT.saturating_sub(excerpt.len()).min(chunk.len());
                    excerpt.extend_from_slice(&chunk[..room]);
                }
                Err(error) if class == Class::Confirmed => {
                    return verdict::of_error(&error, self.timeout);
                }
                Ok(None) | Err(_) => break,
            }
        }
        let excerpt = Excerpt { bytes: &excerpt, is_cut: LOOKED_AT <= excerpt.len() };
        verdict::of_answer(class, status, &headers, &excerpt, &first.secrets)
    }
}

/// What a request tells of the load of the endpoint.
fn sign(pass: &Pass<'_>, status: Option<StatusCode>, outcome: &Delivery) -> Sign {
    match (status, outcome) {
        (Some(status), _) if verdict::is_overload(status) => Sign::Overloaded,
        (_, Delivery::Transient(error)) if error.class == "timeout" => Sign::Overloaded,
        (Some(_), _) => Sign::Answered(pass.elapsed()),
        (None, _) => Sign::Nothing,
    }
}

/// Why a payload became no request; overwritten where it did.
fn unprepared(of: &Result<Prepared, SinkError>) -> SinkError {
    let unsent = || SinkError::new("request", "it was not sent");
    of.as_ref().err().cloned().unwrap_or_else(unsent)
}

/// Which payloads make up one request each. What is for one address keeps its order.
fn groups(prepared: &[Result<Prepared, SinkError>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, of) in prepared.iter().enumerate() {
        let Ok(of) = of else { continue };
        let last = groups.iter_mut().rfind(|group| group.url == of.url);
        let joins = |last: &&mut Group| {
            prepared[last.places[0]].as_ref().is_ok_and(|first| first.joins(of))
        };
        match last.filter(joins) {
            Some(group) => group.places.push(at),
            None => groups.push(Group { url: of.url.clone(), places: vec![at] }),
        }
    }
    groups
}

fn parts<'a>(prepared: &'a [Result<Prepared, SinkError>], group: &Group) -> Vec<&'a Prepared> {
    group.places.iter().filter_map(|&at| prepared[at].as_ref().ok()).collect()
}
