//! A request.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::Error};

use super::{PayloadError, json, wire};

/// One request to the endpoint of an HTTP sink.
///
/// Where it goes is the sink's `url`; a payload fills in the placeholders of it and adds a query, it
/// never names another host.
///
/// ```
/// use drakkar_core::HttpPayload;
///
/// let payload = HttpPayload::new(&serde_json::json!({"status": "done"}))?
///     .method("PATCH")
///     .param("order", "A 1") // url: https://shop/orders/{order}
///     .query("notify", "yes")
///     .header("x-origin", "search");
/// # Ok::<(), drakkar_core::PayloadError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpPayload {
    /// Which `sinks.http` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// Method instead of the one the sink is configured with.
    pub method: Option<String>,
    /// Values for the placeholders in the url of the sink, by name.
    pub params: BTreeMap<String, String>,
    /// What is added to the query of the url.
    pub query: Vec<(String, String)>,
    /// Headers, over those of the sink.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: HttpBody,
    /// What tells the endpoint that it has this request already. The pipeline fills in one made from
    /// the coordinates of the message, if there is none.
    pub idempotency_key: Option<String>,
}

/// What a request carries.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HttpBody {
    /// Nothing.
    #[default]
    Empty,
    /// A value, as JSON; the sink's `encoding` says how it is sent.
    Value(#[serde(with = "wire")] Bytes),
    /// JSON, whatever the sink's `encoding`.
    Json(#[serde(with = "wire")] Bytes),
    /// Fields of a form (`application/x-www-form-urlencoded`).
    Form(Vec<(String, String)>),
    /// Parts (`multipart/form-data`).
    Multipart(Vec<HttpPart>),
    /// Bytes as they are.
    Raw {
        /// Their media type.
        content_type: String,
        /// The bytes.
        #[serde(with = "wire")]
        bytes: Bytes,
    },
}

/// One part of a `multipart/form-data` body.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpPart {
    /// Name of the field.
    pub name: String,
    /// Name of the file, if it is one.
    pub file_name: Option<String>,
    /// Media type, if it is said.
    pub content_type: Option<String>,
    /// What it holds.
    #[serde(with = "wire")]
    pub bytes: Bytes,
}

impl HttpPart {
    /// A field of text.
    #[must_use]
    pub fn text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), bytes: text.into().into(), ..Self::default() }
    }

    /// A file.
    #[must_use]
    pub fn file(
        name: impl Into<String>,
        file_name: impl Into<String>,
        bytes: impl Into<Bytes>,
    ) -> Self {
        let file_name = Some(file_name.into());
        Self { name: name.into(), file_name, bytes: bytes.into(), ..Self::default() }
    }

    /// Says the media type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

impl HttpBody {
    /// The members of the JSON object `json`, as the fields of a form, by name: text as it is, null as
    /// empty text, one field per element of an array, anything else as JSON.
    ///
    /// # Errors
    ///
    /// When `json` is not an object.
    pub fn fields(json: &[u8]) -> Result<Vec<(String, String)>, PayloadError> {
        let serde_json::Value::Object(members) = serde_json::from_slice(json)? else {
            return Err(serde_json::Error::custom("only an object has fields for a form").into());
        };
        let mut fields = Vec::new();
        for (name, value) in members {
            match value {
                serde_json::Value::Array(elements) => {
                    fields.extend(elements.into_iter().map(|one| (name.clone(), field(one))));
                }
                one => fields.push((name, field(one))),
            }
        }
        // A feature of serde_json that some other crate turns on would change the order.
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(fields)
    }

    fn size(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Value(bytes) | Self::Json(bytes) | Self::Raw { bytes, .. } => bytes.len(),
            Self::Form(fields) => size(fields),
            Self::Multipart(parts) => parts.iter().map(|p| p.name.len() + p.bytes.len()).sum(),
        }
    }
}

fn field(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn size<'a>(pairs: impl IntoIterator<Item = &'a (String, String)>) -> usize {
    pairs.into_iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl HttpPayload {
    /// A request that carries `value` in the `encoding` of the sink: JSON unless configured.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn new(value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::with(HttpBody::Value(json::bytes(value)?)))
    }

    /// A request that carries `value` as JSON, whatever the `encoding` of the sink.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn json(value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::with(HttpBody::Json(json::bytes(value)?)))
    }

    /// A request that carries the members of `value` as a form; see [`HttpBody::fields`].
    ///
    /// # Errors
    ///
    /// When `value` does not serialise as an object.
    pub fn form(value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::with(HttpBody::Form(HttpBody::fields(&json::bytes(value)?)?)))
    }

    /// A request that carries `parts`.
    #[must_use]
    pub fn multipart(parts: impl IntoIterator<Item = HttpPart>) -> Self {
        Self::with(HttpBody::Multipart(parts.into_iter().collect()))
    }

    /// A request that carries these bytes.
    #[must_use]
    pub fn raw(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self::with(HttpBody::Raw { content_type: content_type.into(), bytes: bytes.into() })
    }

    /// A request without a body.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    fn with(body: HttpBody) -> Self {
        Self { body, ..Self::default() }
    }

    /// Sets the method (`PUT`).
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Fills in the placeholder `{name}` of the sink's url; the value is percent-encoded.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Adds `name=value` to the query; both are percent-encoded.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds a header; those of that name that the sink is configured with are not sent. Headers that
    /// are about the connection (`Host`, `Content-Length`) are refused.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets what tells the endpoint that it has this request already.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Bytes of body, headers and what is filled in.
    #[must_use]
    pub fn size(&self) -> usize {
        let params: usize = self.params.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.size() + size(&self.headers) + size(&self.query) + params
    }
}

/// Shows the values of headers and query as little as the body: all of them may be secrets.
impl fmt::Debug for HttpPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("HttpPayload")
            .field("sink", &self.sink)
            .field("method", &self.method)
            .field("params", &self.params)
            .field("query", &names(&self.query))
            .field("headers", &names(&self.headers))
            .field("body", &self.body)
            .field("idempotency_key", &self.idempotency_key)
            .finish()
    }
}

impl fmt::Debug for HttpBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Empty => "Empty",
            Self::Value(_) => "Value",
            Self::Json(_) => "Json",
            Self::Form(_) => "Form",
            Self::Multipart(_) => "Multipart",
            Self::Raw { .. } => "Raw",
        };
        write!(f, "{kind}({} bytes)", self.size())
    }
}

impl fmt::Debug for HttpPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpPart({:?}, {} bytes)", self.name, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_comes_back_from_json_as_it_was() {
        let part = HttpPart::file("f", "a.bin", &b"\xff\x00"[..]).content_type("image/png");
        for payload in [
            HttpPayload::new(&json!({"a": 1})).unwrap().method("PUT").param("id", "1"),
            HttpPayload::raw(&b"\xff\xfe"[..], "application/x-thing").header("x", "1"),
            HttpPayload::multipart([part]).query("q", "1").idempotency_key("k"),
            HttpPayload::form(&json!({"a": [1, 2]})).unwrap().sink("hook"),
            HttpPayload::empty(),
        ] {
            let written = serde_json::to_string(&payload).unwrap();
            assert_eq!(serde_json::from_str::<HttpPayload>(&written).unwrap(), payload);
        }
    }

    #[test]
    fn an_object_becomes_the_fields_of_a_form() {
        let json =
            br#"{"text": "a b", "many": [1, "x"], "none": null, "flag": true, "deep": {"a": 1}}"#;
        let fields = HttpBody::fields(json).unwrap();
        let shown: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            [r#"deep={"a":1}"#, "flag=true", "many=1", "many=x", "none=", "text=a b"]
        );
        assert!(HttpBody::fields(b"[1]").is_err());
    }

    #[test]
    fn debug_output_shows_no_header_no_query_and_no_body() {
        let shown = format!(
            "{:?} {:?}",
            HttpPayload::raw("hunter2", "text/plain")
                .header("authorization", "hunter2")
                .query("token", "hunter2"),
            HttpPayload::multipart([HttpPart::text("password", "hunter2")])
        );
        assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
    }
}
