//! Statements of the configuration: where their `:parameters` are.
//!
//! A parameter is a colon and a name in plain SQL. Inside quotes, dollar quotes and comments there is
//! none, and `::` is a cast. A value never becomes part of the text.

use super::sql::LONGEST_NAME;

/// A statement that operators wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// What stands before, between and behind the parameters: one more than `holes`.
    texts: Vec<String>,
    /// Which parameter stands behind each text.
    holes: Vec<usize>,
    /// Its parameters, each once.
    params: Vec<String>,
}

impl Named {
    /// Finds the parameters of `sql`.
    pub(crate) fn parse(sql: &str) -> Result<Self, String> {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        if sql.is_empty() {
            return Err("is empty".to_owned());
        }
        let mut named = Self { texts: Vec::new(), holes: Vec::new(), params: Vec::new() };
        let (mut at, mut from) = (0, 0);
        while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some(length) = opaque(rest, &sql[..at])? {
                at += length;
            } else if rest.starts_with("::") || rest.starts_with(":=") {
                at += 2;
            } else if let Some(name) = rest.strip_prefix(':').map(name).filter(|of| !of.is_empty())
            {
                named.texts.push(sql[from..at].to_owned());
                let param = named.param(name)?;
                named.holes.push(param);
                at += 1 + name.len();
                from = at;
            } else if rest.starts_with(';') {
                return Err("holds more than one statement".to_owned());
            } else if is_positional(rest) {
                return Err("uses $1; name its parameters instead, as :name".to_owned());
            } else if name(rest).is_empty() {
                at += rest.chars().next().map_or(1, char::len_utf8);
            } else {
                at += word(rest);
            }
        }
        named.texts.push(sql[from..].to_owned());
        Ok(named)
    }

    fn param(&mut self, name: &str) -> Result<usize, String> {
        if let Some(known) = self.params.iter().position(|param| param == name) {
            return Ok(known);
        }
        if LONGEST_NAME < name.len() {
            return Err(format!("has a parameter of more than {LONGEST_NAME} bytes: {name}"));
        }
        self.params.push(name.to_owned());
        Ok(self.params.len() - 1)
    }

    /// The names of its parameters.
    pub(crate) fn params(&self) -> &[String] {
        &self.params
    }

    /// With `$1`, `$2`, ...: so that the server says which types it expects there.
    pub(super) fn numbered(&self) -> String {
        self.with(|param| format!("${}", param + 1))
    }

    /// With values from one parameter, a JSON object, each with the type that the server expects.
    pub(super) fn called(&self, types: &[String]) -> String {
        self.with(|param| {
            let (name, of) = (&self.params[param], &types[param]);
            format!(
                "CAST((SELECT p.\"{name}\" FROM json_to_record($1::text::json) AS p(\"{name}\" {of})) \
                 AS {of})"
            )
        })
    }

    fn with(&self, hole: impl Fn(usize) -> String) -> String {
        let mut sql = self.texts[0].clone();
        for (param, text) in self.holes.iter().zip(&self.texts[1..]) {
            sql.push_str(&hole(*param));
            sql.push_str(text);
        }
        sql
    }
}

/// The name that `text` begins with.
fn name(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// How long the key word or identifier is that `text` begins with.
fn word(text: &str) -> usize {
    text.find(|c| !is_word(c) && c != '$').unwrap_or(text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

fn is_positional(text: &str) -> bool {
    text.strip_prefix('$').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// How long what begins here is, if nothing in it means anything: quotes, comments. `before` tells
/// whether a quote has escapes.
fn opaque(text: &str, before: &str) -> Result<Option<usize>, String> {
    let end = |found: Option<usize>, what: &str| {
        found.map(Some).ok_or_else(|| format!("has {what} that does not end"))
    };
    if text.starts_with("--") {
        return Ok(Some(text.find('\n').unwrap_or(text.len())));
    }
    if text.starts_with("/*") {
        return end(comment(text), "a comment");
    }
    if text.starts_with('"') {
        return end(quote(text, '"', false), "a quoted name");
    }
    if text.starts_with('\'') {
        let before_e = before.strip_suffix(['e', 'E']);
        let inside = |c: char| is_word(c) || c == '$';
        let escapes = before_e.is_some_and(|before| !before.ends_with(inside));
        return end(quote(text, '\'', escapes), "a quoted text");
    }
    if let Some(rest) = text.strip_prefix('$')
        && !before.ends_with(is_word)
        && let tag = name(rest)
        && rest[tag.len()..].starts_with('$')
    {
        let tag = &text[..tag.len() + 2];
        let found = text[tag.len()..].find(tag).map(|at| at + 2 * tag.len());
        return end(found, "a dollar-quoted text");
    }
    Ok(None)
}

/// Where the quoted text ends that `text` begins with; a doubled quote does not end it.
fn quote(text: &str, mark: char, escapes: bool) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == mark {
            if chars.peek().is_some_and(|(_, next)| *next == mark) {
                chars.next();
            } else {
                return Some(at + c.len_utf8());
            }
        }
    }
    None
}

/// Where the comment ends that `text` begins with; comments nest.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = text.as_bytes();
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(sql: &str, numbered: &str, params: &[&str]) {
        let named = Named::parse(sql).unwrap();
        assert_eq!(named.numbered(), numbered);
        assert_eq!(named.params(), params);
    }

    #[test]
    fn a_parameter_is_a_colon_and_a_name_and_one_of_a_name_is_one_parameter() {
        finds(
            "UPDATE t SET a = :to, b = (:to) WHERE id=:id_2;",
            "UPDATE t SET a = $1, b = ($1) WHERE id=$2",
            &["to", "id_2"],
        );
        finds("SELECT f(:a,:b)", "SELECT f($1,$2)", &["a", "b"]);
        finds(":a", "$1", &["a"]);
        finds("SELECT 1", "SELECT 1", &[]);
    }

    #[test]
    fn casts_and_slices_are_not_parameters() {
        finds("SELECT :a::int, b::text", "SELECT $1::int, b::text", &["a"]);
        finds("SELECT a[1:2], f(x := :x)", "SELECT a[1:2], f(x := $1)", &["x"]);
    }

    #[test]
    fn what_is_quoted_or_a_comment_holds_no_parameter() {
        for opaque in [
            "':a'",
            "'it''s :a'",
            r"'\'",
            r"E'\':a'",
            "\":a\"",
            "\"a\"\":a\"",
            "-- :a\n",
            "/* :a /* :b */ :c */",
            "$$ :a $$",
            "$f$ :a $$ :b $f$",
            "$ä$ :a $ä$",
            "'ä:a'",
        ] {
            let sql = format!("SELECT {opaque} , :p");
            finds(&sql, &format!("SELECT {opaque} , $1"), &["p"]);
        }
        // A dollar inside a name quotes nothing; the quote behind a name that ends in e escapes nothing.
        finds("SELECT a$1 , :p", "SELECT a$1 , $1", &["p"]);
        finds("SELECT a$b$ , :p, x$b$", "SELECT a$b$ , $1, x$b$", &["p"]);
        finds(r"SELECT e'\'' , :p", r"SELECT e'\'' , $1", &["p"]);
        finds(r"SELECT date'\' , :p", r"SELECT date'\' , $1", &["p"]);
    }

    #[test]
    fn what_cannot_be_one_statement_is_refused() {
        for (sql, why) in [
            (" ; ", "is empty"),
            ("SELECT 1; DROP TABLE t", "more than one statement"),
            ("SELECT $1", "uses $1"),
            ("SELECT 'a", "a quoted text that does not end"),
            ("SELECT /* /* */", "a comment that does not end"),
            ("SELECT $a$ $$", "a dollar-quoted text that does not end"),
        ] {
            let error = Named::parse(sql).unwrap_err();
            assert!(error.contains(why), "{sql}: {error}");
        }
        assert!(Named::parse("SELECT ';' -- ;\n;").is_ok());
    }

    #[test]
    fn values_come_from_one_object_with_the_types_that_are_expected() {
        let named = Named::parse("SELECT :a").unwrap();
        assert_eq!(
            named.called(&["integer".to_owned()]),
            "SELECT CAST((SELECT p.\"a\" FROM json_to_record($1::text::json) AS p(\"a\" integer)) AS \
             integer)"
        );
    }
}
