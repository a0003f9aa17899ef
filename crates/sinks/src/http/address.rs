//! Where requests go: the url of the configuration, with placeholders that payloads fill in.
//!
//! Scheme, host, port and user are fixed by the configuration: a payload reaches path and query only,
//! each value percent-encoded, and cannot climb out of the path it is put into.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;

use super::guard;

/// What a value of a payload may hold without being encoded: the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Shortest segment of a path that is taken for a key; shorter ones are words.
const LONG_SEGMENT: usize = 16;

/// Stands for a placeholder; no url holds it as it is.
const FILLED_IN: char = '\0';

/// The url of one sink.
#[derive(Clone)]
pub(crate) struct Address {
    /// Text and placeholders in turn.
    pieces: Vec<Piece>,
    /// Scheme, host and port; the rest is filled in.
    base: Url,
    user: String,
    password: String,
}

#[derive(Clone)]
enum Piece {
    Text(String),
    Placeholder(String),
}

impl Address {
    /// Reads `url`; the error does not repeat it, for it may hold secrets.
    pub(crate) fn parse(url: &str, allow_metadata: bool) -> Result<Self, String> {
        let after = url.find("://").map_or(0, |at| at + 3);
        let path = url[after..].find(['/', '?', '#']).map_or(url.len(), |at| after + at);
        let (origin, rest) = url.split_at(path);
        if origin.contains(['{', '}']) {
            return Err("a placeholder may stand in the path and the query only".to_owned());
        }
        let pieces = pieces(rest)?;
        let mut base = Url::parse(origin).map_err(|error| format!("is not a url: {error}"))?;
        guard::check(&base, allow_metadata)?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = decoded(base.username());
        let password = decoded(base.password().unwrap_or_default());
        // Only a url that has no host refuses; `check` has seen one.
        let cleared = base.set_username("").and_then(|()| base.set_password(None));
        cleared.map_err(|()| "has no host".to_owned())?;
        Ok(Self { pieces, base, user, password })
    }

    /// The url for one payload.
    pub(crate) fn fill(
        &self,
        params: &BTreeMap<String, String>,
        query: &[(String, String)],
    ) -> Result<Url, String> {
        let mut rest = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => rest.push_str(text),
                Piece::Placeholder(name) => rest.push_str(&value(name, params)?),
            }
        }
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(is_dots) {
            return Err("a value may not make a segment of the path `.` or `..`".to_owned());
        }
        let origin = self.base.as_str().trim_end_matches('/');
        let filled = Url::parse(&format!("{origin}{rest}"));
        let mut url = filled.map_err(|error| format!("the filled-in url is none: {error}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Whether payloads fill in a part of it.
    pub(crate) fn is_filled_in(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Placeholder(_)))
    }

    /// Scheme, host and port: what may be shown.
    pub(crate) fn shown(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// User name and password of the url, if it has them.
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        let has = !self.user.is_empty() || !self.password.is_empty();
        has.then_some((self.user.as_str(), self.password.as_str()))
    }

    /// The configured path, long segments of it, and the values of the query: keys are often put
    /// there. Each as it is written, and as an endpoint reads it.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Placeholder(_) => FILLED_IN.to_string(),
        };
        let rest: String = self.pieces.iter().map(text).collect();
        let rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let segments = path.split(['/', FILLED_IN]).filter(|one| LONG_SEGMENT <= one.len());
        let values = query.split('&').filter_map(|pair| pair.split_once('='));
        let values = values.flat_map(|(_, value)| value.split(FILLED_IN));
        let written = path.split(FILLED_IN).chain(segments).chain(values);
        let read = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let each = |text: &str| [text.to_owned(), read(text), read(&text.replace('+', " "))];
        written.flat_map(each).collect()
    }
}

fn pieces(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let named = after.split_once('}').filter(|(name, _)| is_name(name));
        let Some((name, after)) = named.filter(|_| !text.contains('}')) else {
            return Err("a placeholder is a name in braces: {order}".to_owned());
        };
        pieces.push(Piece::Text(text.to_owned()));
        pieces.push(Piece::Placeholder(name.to_owned()));
        rest = after;
    }
    if rest.contains('}') {
        return Err("a placeholder is a name in braces: {order}".to_owned());
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An empty value would make another address of it: `/orders/` for `/orders/{id}`.
fn value(name: &str, params: &BTreeMap<String, String>) -> Result<String, String> {
    match params.get(name).map(String::as_str) {
        None => Err(format!("the payload has no value for {{{name}}} of the url")),
        Some("") => Err(format!("the value for {{{name}}} of the url is empty")),
        Some(value) => Ok(utf8_percent_encode(value, RESERVED).to_string()),
    }
}

/// What a url reader takes for "here" or "one up", in any spelling.
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, params: &[(&str, &str)], filled: Result<&str, &str>) {
        let params = params.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let address = Address::parse(url, false).unwrap();
        match (address.fill(&params.collect(), &[]), filled) {
            (Ok(url), Ok(filled)) => assert_eq!(url.as_str(), filled),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, _) => panic!("{url}: {got:?}, expected {filled:?}"),
        }
    }

    #[test]
    fn placeholders_are_filled_in_percent_encoded() {
        let url = "https://h:8443/o/{id}/e?by={who}";
        let filled = "https://h:8443/o/a%2Fb%3Fc/e?by=x%26y%3D%C3%A9";
        check(url, &[("id", "a/b?c"), ("who", "x&y=é")], Ok(filled));
        check("http://h", &[], Ok("http://h/"));
        check("http://h?a=1", &[], Ok("http://h/?a=1"));
    }

    #[test]
    fn a_placeholder_without_a_value_is_named() {
        check("http://h/{id}", &[], Err("no value for {id}"));
        check("http://h/{id}", &[("id", "")], Err("{id} of the url is empty"));
    }

    #[test]
    fn a_value_cannot_climb_out_of_its_path() {
        for dots in [".", ".."] {
            check("http://h/a/{id}/b", &[("id", dots)], Err("segment"));
        }
        check("http://h/a/.{id}", &[("id", ".")], Err("segment"));
        check("http://h/a/{id}", &[("id", "%2e%2e")], Ok("http://h/a/%252e%252e"));
        check("http://h/a/{id}", &[("id", "../../x")], Ok("http://h/a/..%2F..%2Fx"));
        check("http://h/a/{id}", &[("id", "@evil.example/")], Ok("http://h/a/%40evil.example%2F"));
    }

    #[test]
    fn a_placeholder_that_would_choose_the_host_is_refused() {
        for url in ["http://{h}/a", "http://h:{p}/", "{url}", "http://{u}@h/", "http://h{x}/"] {
            assert!(Address::parse(url, false).is_err(), "{url}");
        }
        for url in ["http://h/{", "http://h/}", "http://h/{a b}", "http://h/{}", "http://h/a}b{c}"]
        {
            assert!(Address::parse(url, false).is_err(), "{url}");
        }
    }

    #[test]
    fn neither_user_nor_path_nor_query_is_shown() {
        let url = "https://me:hunter2@h:1/services/hunter2?key=hunter2&a={x}";
        let address = Address::parse(url, false).unwrap();
        assert_eq!(address.shown(), "https://h:1");
        assert_eq!(address.credentials(), Some(("me", "hunter2")));
        let Err(error) = Address::parse("http://me:hunter2@[h/", false) else { panic!() };
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn path_and_query_are_secret_as_they_are_written_and_as_they_are_read() {
        let secrets = |url| Address::parse(url, false).unwrap().secrets();
        let has = |url, secret: &str| secrets(url).iter().any(|one| one == secret);
        let hook = "https://h/services/T0/a%3Dhunter2-hunter2/in?k=a%2Fb+c&l=x{id}y#z";
        for secret in [
            "/services/T0/a%3Dhunter2-hunter2/in",
            "/services/T0/a=hunter2-hunter2/in",
            "a%3Dhunter2-hunter2",
            "a=hunter2-hunter2",
            "a%2Fb+c",
            "a/b+c",
            "a/b c",
            "x",
            "y",
        ] {
            assert!(has(hook, secret), "{secret}: {:?}", secrets(hook));
        }
        assert!(!has(hook, "services"), "a short segment is a word");
        assert!(has("https://h/hook/{id}/hunter2-hunter2-hunter2", "hunter2-hunter2-hunter2"));
    }
}
