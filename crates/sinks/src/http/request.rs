//! Payload → request.
//!
//! What cannot become a request is the payload's own fault and is said before anything is sent.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use drakkar_core::{HttpBody, HttpPart, HttpPayload, SinkError};
use reqwest::{
    Client, Method, RequestBuilder, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    multipart::{Form, Part},
};

use super::{address::Address, secrets::Secrets};
use crate::{HttpSinkConfig, config::HttpEncoding};

/// Headers that are about the connection or the length of the body: the client's business.
const NOT_OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the values of payloads' headers are usually secret by.
const SECRET: [&str; 6] = ["auth", "token", "key", "secret", "cookie", "password"];

/// How payloads of one sink become requests.
pub(super) struct Writer {
    address: Address,
    method: Method,
    encoding: HttpEncoding,
    headers: HeaderMap,
    idempotency: Option<HeaderName>,
    prefix: String,
    secrets: Secrets,
}

/// A payload as a request, or as a line of one.
pub(super) struct Prepared {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body,
    /// Whether the payload has a part in the address.
    pub is_addressed: bool,
    /// The header that says so, and the key.
    pub idempotency: Option<(HeaderName, HeaderValue)>,
    /// What the payload brings that must not be repeated.
    pub secrets: Secrets,
}

pub(super) enum Body {
    Empty,
    Bytes(&'static str, Bytes),
    Raw(HeaderValue, Bytes),
    Form(Vec<(String, String)>),
    Multipart(Vec<HttpPart>),
    /// A line; its request carries those of others as well.
    Line(Bytes),
}

/// A header that neither the configuration nor a payload may set, or none at all.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("header {name:?} is none");
    let parsed = HeaderName::try_from(name).map_err(|_| wrong())?;
    if NOT_OURS.contains(&parsed.as_str()) {
        return Err(format!("header {name} is about the connection and not free to choose"));
    }
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of header {name} holds what a header cannot hold"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

impl Writer {
    /// The error names the key below the section.
    pub(super) fn new(config: &HttpSinkConfig, address: Address) -> Result<Self, String> {
        let method = Method::try_from(config.method.as_str())
            .map_err(|_| ".method: is not a method; write it as GET".to_owned())?;
        let mut secrets = Secrets::default();
        address.secrets().iter().for_each(|value| secrets.add(value));
        let mut headers = HeaderMap::new();
        if let Some((user, password)) = address.credentials() {
            let both = STANDARD.encode(format!("{user}:{password}"));
            secrets.add(password);
            secrets.add(&both);
            let parsed = header("authorization", &format!("Basic {both}"));
            headers.extend([parsed.map_err(|reason| format!(".url: {reason}"))?]);
        }
        for (name, value) in &config.headers {
            let parsed = header(name, value.expose());
            let (parsed, value) = parsed.map_err(|reason| format!(".headers.{name}: {reason}"))?;
            if !matches!(parsed.as_str(), "accept" | "content-type" | "user-agent") {
                secrets.add(value.to_str().unwrap_or_default());
            }
            headers.insert(parsed, value);
        }
        let idempotency = match config.idempotency_header.as_str() {
            "" => None,
            name => {
                let parsed = header(name, "key");
                let at = |reason| format!(".idempotency_header: {reason}");
                Some(parsed.map_err(at)?.0)
            }
        };
        let prefix = config.idempotency_prefix.clone();
        let encoding = config.encoding;
        Ok(Self { address, method, encoding, headers, idempotency, prefix, secrets })
    }

    /// The error says what is wrong with the payload.
    pub(super) fn prepare(&self, payload: &HttpPayload) -> Result<Prepared, SinkError> {
        let wrong = |reason| SinkError::new("request", reason);
        let url = self.address.fill(&payload.params, &payload.query).map_err(wrong)?;
        let mut headers = self.headers.clone();
        let mut secrets = self.secrets.clone();
        payload.query.iter().for_each(|(_, value)| secrets.add(value));
        let sent = url.query().unwrap_or_default().rsplit('&').take(payload.query.len());
        sent.filter_map(|pair| pair.split_once('=')).for_each(|(_, value)| secrets.add(value));
        let mut own = HeaderMap::new();
        for (name, value) in &payload.headers {
            let (name, value) = header(name, value).map_err(wrong)?;
            if SECRET.iter().any(|part| name.as_str().contains(part)) {
                secrets.add(value.to_str().unwrap_or_default());
            }
            headers.remove(&name);
            own.append(name, value);
        }
        headers.extend(own);
        let body = self.body(&payload.body)?;
        if matches!(body, Body::Multipart(_)) {
            headers.remove(CONTENT_TYPE); // It names the boundary.
        }
        let method = match payload.method.as_deref() {
            None => self.method.clone(),
            Some(name) => {
                let parsed = Method::try_from(name);
                parsed.map_err(|_| wrong(format!("{name:?} is not a method")))?
            }
        };
        let idempotency = self.idempotency(payload)?;
        let is_addressed = self.address.is_filled_in() || !payload.query.is_empty();
        Ok(Prepared { method, url, headers, body, is_addressed, idempotency, secrets })
    }

    fn idempotency(
        &self,
        payload: &HttpPayload,
    ) -> Result<Option<(HeaderName, HeaderValue)>, SinkError> {
        let (Some(name), Some(key)) = (&self.idempotency, &payload.idempotency_key) else {
            return Ok(None);
        };
        let value = HeaderValue::try_from(format!("{}{key}", self.prefix));
        let wrong = |_| SinkError::new("request", "the idempotency key cannot be a header");
        Ok(Some((name.clone(), value.map_err(wrong)?)))
    }

    fn body(&self, body: &HttpBody) -> Result<Body, SinkError> {
        let fields = |json: &Bytes| {
            HttpBody::fields(json).map_err(|_| {
                SinkError::new("encoding", "only a value with fields can be sent as a form")
            })
        };
        let parts = |fields: Vec<(String, String)>| {
            fields.into_iter().map(|(name, value)| HttpPart::text(name, value)).collect()
        };
        Ok(match body {
            HttpBody::Empty => Body::Empty,
            HttpBody::Json(json) => Body::Bytes("application/json", json.clone()),
            HttpBody::Value(json) => match self.encoding {
                HttpEncoding::Json => Body::Bytes("application/json", json.clone()),
                HttpEncoding::Form => Body::Form(fields(json)?),
                HttpEncoding::Multipart => Body::Multipart(parts(fields(json)?)),
                HttpEncoding::Ndjson if json.contains(&b'\n') => {
                    return Err(SinkError::new("encoding", "the value is more than one line"));
                }
                HttpEncoding::Ndjson => Body::Line(json.clone()),
            },
            HttpBody::Form(fields) => Body::Form(fields.clone()),
            HttpBody::Multipart(parts) => Body::Multipart(parts.clone()),
            HttpBody::Raw { content_type, bytes } => {
                let parsed = HeaderValue::try_from(content_type.as_str());
                let wrong = |_| SinkError::new("request", "the content type is none");
                Body::Raw(parsed.map_err(wrong)?, bytes.clone())
            }
            other => {
                let text = format!("this sink cannot send {other:?}");
                return Err(SinkError::new("encoding", text));
            }
        })
    }
}

impl Prepared {
    /// Whether both are lines of one request.
    pub(super) fn joins(&self, other: &Self) -> bool {
        matches!((&self.body, &other.body), (Body::Line(_), Body::Line(_)))
            && self.method == other.method
            && self.url == other.url
            && self.headers == other.headers
    }
}

/// The request that carries `parts`: one payload, or the lines of several.
pub(super) fn build(client: &Client, parts: &[&Prepared]) -> Result<RequestBuilder, SinkError> {
    let [first, others @ ..] = parts else {
        return Err(SinkError::new("request", "there is nothing to send"));
    };
    let mut headers = first.headers.clone();
    // Lines that are joined differently another time must not pass for the same request.
    if let (Some((name, key)), []) = (&first.idempotency, others) {
        headers.insert(name.clone(), key.clone());
    }
    let request = client.request(first.method.clone(), first.url.clone());
    let typed = |mut headers: HeaderMap, of: HeaderValue| {
        headers.entry(CONTENT_TYPE).or_insert(of);
        headers
    };
    Ok(match &first.body {
        Body::Empty => request.headers(headers),
        Body::Bytes(of, bytes) => {
            request.headers(typed(headers, HeaderValue::from_static(of))).body(bytes.clone())
        }
        Body::Raw(of, bytes) => request.headers(typed(headers, of.clone())).body(bytes.clone()),
        Body::Form(fields) => request.headers(headers).form(fields),
        Body::Multipart(parts) => request.headers(headers).multipart(form(parts)?),
        Body::Line(_) => {
            let of = HeaderValue::from_static("application/x-ndjson");
            request.headers(typed(headers, of)).body(lines(parts))
        }
    })
}

fn lines(parts: &[&Prepared]) -> Bytes {
    let mut all = Vec::new();
    for part in parts {
        if let Body::Line(line) = &part.body {
            all.extend_from_slice(line);
            all.push(b'\n');
        }
    }
    all.into()
}

fn form(parts: &[HttpPart]) -> Result<Form, SinkError> {
    let mut form = Form::new();
    for HttpPart { name, file_name, content_type, bytes } in parts {
        let mut part = Part::stream_with_length(bytes.clone(), bytes.len() as u64);
        if let Some(file_name) = file_name {
            part = part.file_name(file_name.clone());
        }
        if let Some(of) = content_type {
            let wrong = |_| SinkError::new("request", format!("{of:?} is not a content type"));
            part = part.mime_str(of).map_err(wrong)?;
        }
        form = form.part(name.clone(), part);
    }
    Ok(form)
}

/// Whether the configuration itself says who asks.
pub(super) fn says_who(config: &HttpSinkConfig) -> bool {
    config.headers.keys().any(|name| name.eq_ignore_ascii_case(AUTHORIZATION.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{super::secrets::Excerpt, *};

    #[test]
    fn an_endpoint_that_repeats_path_or_query_is_not_quoted_with_them() {
        let url = "https://h/services/T0/hunter2-hunter2-hunter2?key=hunter2%2F2";
        let config = HttpSinkConfig { url: url.into(), ..HttpSinkConfig::default() };
        let writer = Writer::new(&config, Address::parse(url, false).unwrap()).unwrap();
        let prepared = writer.prepare(&HttpPayload::empty().query("q", "my hunter2&3")).unwrap();
        for echo in [
            "Cannot POST /services/T0/hunter2-hunter2-hunter2",
            "no hook hunter2-hunter2-hunter2",
            "not https://h/services/T0/hunter2-hunter2-hunter2?key=hunter2%2F2&q=my+hunter2%263",
            r#"bad query: key is "hunter2/2", q is "my hunter2&3""#,
        ] {
            let text = prepared.secrets.masked(&Excerpt { bytes: echo.as_bytes(), is_cut: false });
            assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
        }
    }
}
