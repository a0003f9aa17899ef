//! What an endpoint may repeat of what it was sent, and must not be shown.
//!
//! It is looked for as it is and in the ways that answers write it: escaped as in JSON, as in HTML, or
//! percent-encoded, each character for itself. What is encoded otherwise (base64 of a token) is not found.

use drakkar_core::secret::MASK;

/// Most characters of an answer that are repeated in an error.
const SHOWN: usize = 200;
/// Shortest text that is taken for a secret: shorter ones stand in answers by chance.
const SHORTEST: usize = 4;

/// How an answer begins.
pub(super) struct Excerpt<'a> {
    pub bytes: &'a [u8],
    /// Whether it goes on.
    pub is_cut: bool,
}

/// Texts that must not be shown.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Adds `secret`, each word of it (`Bearer x` is secret as `x` as well), and the value of a word like
    /// `token="x"`.
    pub(super) fn add(&mut self, secret: &str) {
        let words = secret.split_whitespace();
        let values = words.clone().filter_map(|word| word.split_once('=')).map(|(_, value)| value);
        let values = values.map(|value| value.trim_matches(['"', ',', ';', '=']));
        let all = std::iter::once(secret).chain(words).chain(values);
        let long = all.filter(|word| SHORTEST <= word.len() && *word != "Bearer");
        self.0.extend(long.map(str::to_owned));
    }

    /// The beginning of an answer, on one line, with secrets masked.
    pub(super) fn masked(&self, excerpt: &Excerpt<'_>) -> String {
        let text = String::from_utf8_lossy(excerpt.bytes);
        let mut rest = &*text;
        if excerpt.is_cut {
            rest = rest.trim_end_matches(char::REPLACEMENT_CHARACTER); // Half a character.
        }
        let mut text = String::with_capacity(rest.len());
        let mut hidden = 0; // So much of what follows is part of a secret.
        while let Some(next) = rest.chars().next() {
            let longest = self.0.iter().map(|secret| length(rest, secret, excerpt.is_cut)).max();
            let longest = longest.unwrap_or_default();
            if 0 < longest && hidden == 0 {
                text.push_str(MASK);
            }
            hidden = hidden.max(longest);
            if hidden == 0 {
                text.push(next);
            }
            hidden = hidden.saturating_sub(next.len_utf8());
            rest = &rest[next.len_utf8()..];
        }
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

/// How much of the beginning of `text` is `secret`; all of it where it ends before `secret` does and `is_cut`.
fn length(text: &str, secret: &str, is_cut: bool) -> usize {
    let mut rest = text;
    // Backslashes are passed over wherever they stand: there are more of them with each layer.
    for wanted in secret.chars().filter(|&wanted| wanted != '\\') {
        let written = unescaped(rest);
        if is_cut && is_incomplete(written) {
            return text.len();
        }
        match after(written, wanted) {
            Some(after) => rest = after,
            None => return 0,
        }
    }
    text.len() - rest.len()
}

/// What follows backslashes.
fn unescaped(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix('\\').or_else(|| text.strip_prefix("%5C")) {
        text = rest;
    }
    text
}

/// Whether more is needed to know which character `text` begins with.
fn is_incomplete(text: &str) -> bool {
    match text.as_bytes() {
        [] | [b'%' | b'u'] | [b'%', _] => true,
        [b'u', digits @ ..] => digits.len() < 4 && digits.iter().all(u8::is_ascii_hexdigit),
        [b'&', name @ ..] => name.len() < 6 && !name.contains(&b';'),
        _ => false,
    }
}

/// What follows `wanted`, in whatever way `text` writes it.
fn after(text: &str, wanted: char) -> Option<&str> {
    let as_json = || {
        let (digits, rest) = text.strip_prefix('u')?.split_at_checked(4)?;
        (u32::from_str_radix(digits, 16) == Ok(u32::from(wanted))).then_some(rest)
    };
    let as_html = || {
        let (name, rest) = text.strip_prefix('&')?.split_once(';')?;
        (of_html(name) == Some(wanted)).then_some(rest)
    };
    let as_percent = || {
        let mut rest = text;
        for byte in wanted.encode_utf8(&mut [0; 4]).bytes() {
            let (digits, after) = rest.strip_prefix('%')?.split_at_checked(2)?;
            rest = after;
            (u8::from_str_radix(digits, 16) == Ok(byte)).then_some(())?;
        }
        Some(rest)
    };
    as_json().or_else(as_html).or_else(as_percent).or_else(|| text.strip_prefix(wanted))
}

fn of_html(name: &str) -> Option<char> {
    let number = || match name.strip_prefix("#x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => name.strip_prefix('#')?.parse().ok(),
    };
    match name {
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "lt" => Some('<'),
        "gt" => Some('>'),
        _ => char::from_u32(number()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secret: &str, bytes: &[u8], is_cut: bool) -> String {
        let mut secrets = Secrets::default();
        secrets.add(secret);
        secrets.masked(&Excerpt { bytes, is_cut })
    }

    #[test]
    fn what_the_endpoint_repeats_of_a_secret_is_masked_and_its_words_are_few() {
        let echo = b"you sent\n Authorization: Bearer hunter2-token, token hunter2-token\0";
        let shown = masked("Bearer hunter2-token", echo, false);
        assert_eq!(shown, "you sent Authorization: ***, token ***");
        assert_eq!(masked("", &[b'x'; 9_000], true).chars().count(), SHOWN + 1);
    }

    #[test]
    fn a_secret_is_found_in_whatever_way_an_answer_writes_its_characters() {
        let secret = r#"Token token="a/b+c&d\é<7>""#;
        for echo in [
            secret.to_owned(),
            r#"Token token=\"a/b+c&d\\é<7>\""#.to_owned(), // JSON
            r#"Token token=\"a\/b+c&d\\\u00e9<7>\""#.to_owned(), // PHP
            r#"Token token=\"a/b+c\u0026d\\é\u003c7\u003e\""#.to_owned(), // Go
            r"Token token=\u0022a/b\u002Bc\u0026d\\\u00E9\u003C7\u003E\u0022".to_owned(), // .NET
            r#"Token token=\\\"a/b+c&d\\\\é<7>\\\""#.to_owned(), // JSON in JSON
            r"Token token=&quot;a/b+c&amp;d\é&lt;7&gt;&#34;".to_owned(),
            r"Token token=&#x22;a/b+c&#38;d\é&lt;7&gt;&#x22;".to_owned(),
            "Token%20token=%22a%2Fb%2bc%26d%5C%C3%A9%3C7%3E%22".to_owned(),
        ] {
            let shown = masked(secret, format!("no: {echo} is none").as_bytes(), false);
            assert_eq!(shown, "no: *** is none", "{echo}");
            let word = echo.split_once("token=").unwrap().1;
            let shown = masked(secret, format!("no: token={word}").as_bytes(), false);
            assert_eq!(shown, "no: ***", "the word alone: {word}");
            let shown = masked(secret, format!("no: {word}").as_bytes(), false);
            assert!(!shown.contains('7'), "its value alone: {shown}");
        }
        assert_eq!(masked(secret, b"no: Tokens are 7", false), "no: ***s are 7");
    }

    #[test]
    fn of_a_secret_that_the_end_of_what_is_read_cuts_nothing_is_shown() {
        let secret = r#"hunter2"of-many-words"#;
        let whole = r#"no: hunter2\"of-many-words"#;
        for end in 5..=whole.len() {
            assert_eq!(masked(secret, &whole.as_bytes()[..end], true), "no: ***", "{end}");
        }
        assert_eq!(masked("é-hunter2", "no: é".as_bytes()[..5].as_ref(), true), "no:");
        assert_eq!(masked(secret, b"who is h", false), "who is h", "it does not go on");
    }

    #[test]
    fn where_secrets_overlap_nothing_of_either_is_shown() {
        let mut secrets = Secrets::default();
        secrets.add("abcdefgh");
        secrets.add("ghijklmnopq");
        let excerpt = Excerpt { bytes: b"no: abcdefghijklmnopq.", is_cut: false };
        assert_eq!(secrets.masked(&excerpt), "no: ***.");
    }
}
