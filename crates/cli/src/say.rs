//! Words for people, on standard error.
//!
//! Whoever reads them may be gone: Ctrl-C ends a whole pipeline. That must not end what is under way, so
//! what cannot be said is not.

use std::io::{self, Write as _};

/// Says `line`.
pub(crate) fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok(); // Nobody is left to be told that nobody listens.
}

/// Draws `text` where a line was drawn before.
pub(crate) fn draw(text: &str) {
    write!(io::stderr(), "\r\x1b[K{text}").ok(); // As above.
}
