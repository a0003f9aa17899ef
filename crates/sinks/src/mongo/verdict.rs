//! What MongoDB's codes mean for a payload: wait, or give it up.
//!
//! A command or one write is refused where the code is known to be about data, or is one of the numbers
//! without a name that the server's assertions have. All else is about the server: one in a state that
//! nobody thought of costs time, and no payload.

use drakkar_core::SinkError;
use mongodb::{
    bson::{Bson, Document, RawDocument, Utf8Lossy},
    error::{Error, ErrorKind},
};

/// Why a command as a whole came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server is away, or cannot write now. What the command did is not known.
    Away(SinkError),
    /// Something in the command can never be written.
    Refused(SinkError),
}

/// Codes of data that will be refused however often it is sent.
const DATA: [i32; 44] = [
    2, 9, 14, 15, 20, 22, 26, 28, 34, 40, 52, 53, 54, 55, 56, 57, 61, 66, 72, 73, 111, 115, 116,
    121, 139, 159, 166, 168, 171, 201, 207, 238, 241, 257, 271, 357, 378, 388, 10_003, 10_334,
    11_000, 17_280, 40_413, 40_415,
];

/// From here on a number has a name by way of exception.
const NAMELESS: i32 = 10_000;

/// Those exceptions that are about a state: elections, shutdowns, shards that move, a full disk. And Cosmos
/// DB's 16500, too many requests.
const PASSING: [i32; 18] = [
    10_058, 10_107, 11_600, 11_601, 11_602, 12_586, 12_587, 13_297, 13_388, 13_435, 13_436, 14_031,
    16_500, 46_841, 50_915, 56_846, 91_331, 10_045_600,
];

/// The code of a key that exists.
pub(super) const DUPLICATE_KEY: i32 = 11_000;

/// Whether one write that was answered with `code` may succeed later. A write, unlike a command, is
/// answered without a name.
pub(super) fn passes(code: i32) -> bool {
    if code < NAMELESS { !DATA.contains(&code) } else { PASSING.contains(&code) }
}

/// An error of the server, by a name that stays.
pub(super) fn error(code: i32, message: &str) -> SinkError {
    let class = match code {
        2 => "BadValue".to_owned(),
        9 => "FailedToParse".to_owned(),
        14 => "TypeMismatch".to_owned(),
        64 => "WriteConcernFailed".to_owned(),
        66 => "ImmutableField".to_owned(),
        112 => "WriteConflict".to_owned(),
        121 => "DocumentValidationFailure".to_owned(),
        371 => "UserWritesBlocked".to_owned(),
        10_107 => "NotWritablePrimary".to_owned(),
        10_334 => "BSONObjectTooLarge".to_owned(),
        DUPLICATE_KEY => "DuplicateKey".to_owned(),
        other => format!("Code{other}"),
    };
    SinkError::new(class, message)
}

/// What the server answered, also where the driver cannot read it: that the reply is there means that
/// the command was carried out, and sending it again would do it twice.
pub(super) fn answer(answered: Result<Document, Error>) -> Result<Document, Failure> {
    answered.or_else(|failed| match (&*failed.kind, failed.server_response()) {
        (ErrorKind::Bson(_), Some(reply)) => lossy(reply),
        _ => Err(failed.into()),
    })
}

/// A reply whose texts are no UTF-8: servers cut long ones, in the middle of a character as well.
fn lossy(reply: &RawDocument) -> Result<Document, Failure> {
    let Utf8Lossy(reply) = Utf8Lossy::<Document>::try_from(reply).map_err(|why| invalid(&why))?;
    match reply.get("ok") {
        Some(Bson::Int32(1) | Bson::Int64(1) | Bson::Double(1.0)) => Ok(reply),
        _ => Err(invalid(&"it does not say that it is ok")),
    }
}

fn invalid(why: &dyn std::fmt::Display) -> Failure {
    Failure::Away(SinkError::new("InvalidResponse", format!("the reply cannot be read: {why}")))
}

impl From<Error> for Failure {
    fn from(failed: Error) -> Self {
        match &*failed.kind {
            ErrorKind::Command(command) => {
                let name = &command.code_name;
                let about_data = (DATA.contains(&command.code) || name.starts_with("Location"))
                    && !is_about_concern(&command.message);
                let mut error = error(command.code, &command.message);
                if !name.is_empty() {
                    error.class.clone_from(name);
                }
                error.retry_after = command.base_backoff;
                if about_data && failed.labels().is_empty() {
                    Self::Refused(error)
                } else {
                    Self::Away(error)
                }
            }
            ErrorKind::InvalidArgument { .. } => {
                Self::Refused(SinkError::new("invalid_command", failed.kind.to_string()))
            }
            // A command is BSON before the driver has it: it is the reply that is not.
            ErrorKind::Bson(why) => invalid(why),
            kind => Self::Away(SinkError::new(class(kind), kind.to_string())),
        }
    }
}

/// Whether it is the write concern that a server cannot meet. It has no code of its own: only the words
/// tell it from a value that is bad.
fn is_about_concern(message: &str) -> bool {
    ["cannot use 'j' option", "cannot use 'w'", "cannot use non-majority 'w'"]
        .iter()
        .any(|begins| message.starts_with(begins))
}

/// The driver's own errors, by name.
fn class(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Authentication { .. } => "Authentication",
        ErrorKind::DnsResolve { .. } => "DnsResolve",
        ErrorKind::Io(_) => "Io",
        ErrorKind::ConnectionPoolCleared { .. } => "ConnectionPoolCleared",
        ErrorKind::ServerSelection { .. } => "ServerSelection",
        ErrorKind::InvalidResponse { .. } => "InvalidResponse",
        ErrorKind::IncompatibleServer { .. } => "IncompatibleServer",
        ErrorKind::Shutdown => "Shutdown",
        _ => "Driver",
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{RawDocumentBuf, doc};

    use super::{super::stand_in, *};

    /// A command that was answered with this.
    fn answered(code: i32, name: &str) -> Failure {
        let answer = doc! {"code": code, "codeName": name, "errmsg": "because"};
        let command = mongodb::bson::deserialize_from_document(answer).unwrap();
        Failure::from(Error::from(ErrorKind::Command(command)))
    }

    #[test]
    fn a_command_is_refused_for_its_data_only() {
        for (code, name) in [
            (2, "BadValue"),
            (73, "InvalidNamespace"),
            (10_334, "BSONObjectTooLarge"),
            (40_324, "Location40324"),
        ] {
            assert!(matches!(answered(code, name), Failure::Refused(error) if error.class == name));
        }
        for (code, name) in [
            (10_107, "NotWritablePrimary"),
            (189, "PrimarySteppedDown"),
            (11_600, "InterruptedAtShutdown"),
            (13, "Unauthorized"),
            (14_031, "OutOfDiskSpace"),
            (262, "ExceededTimeLimit"),
            (987_654, "NobodyThoughtOfThis"),
        ] {
            assert!(matches!(answered(code, name), Failure::Away(error) if error.class == name));
        }
    }

    #[test]
    fn one_write_is_refused_for_its_data_only() {
        let states = [1, 13, 50, 82, 91, 112, 189, 262, 371, 449, 10_107, 14_031, 16_500];
        assert_eq!(states.map(passes), [true; 13]);
        let nobody_thought_of_this = 9_876;
        assert!(passes(nobody_thought_of_this));
        // Two arrays for one index; a geometry that is none, which has no name.
        let data = [DUPLICATE_KEY, 2, 9, 66, 121, 171, 16_755, 5_786_000];
        assert_eq!(data.map(passes), [false; 8]);
    }

    /// `reply` with a character of `x?` cut in two, as a server cuts long error texts.
    fn cut(reply: &Document) -> RawDocumentBuf {
        let mut bytes = RawDocumentBuf::try_from(reply).unwrap().into_bytes();
        let at = bytes.windows(2).position(|pair| pair == b"x?").unwrap();
        bytes[at + 1] = 0xc3;
        let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
        assert!(Document::try_from(&*raw).is_err(), "the driver cannot read it");
        raw
    }

    #[test]
    fn a_reply_with_a_text_cut_in_two_is_read() {
        for ok in [Bson::Int32(1), Bson::Int64(1), Bson::Double(1.0)] {
            let errors =
                |text| doc! {"writeErrors": [{"code": 1, "errmsg": text}], "ok": ok.clone()};
            assert_eq!(lossy(&cut(&errors("x?"))).unwrap(), errors("x\u{fffd}"));
        }
    }

    #[tokio::test]
    async fn the_driver_hands_over_a_reply_that_it_cannot_read() {
        let reply = cut(&doc! {"ok": 1, "note": "x?"}).into_bytes();
        let server = stand_in::start(&stand_in::standalone(), "ping", reply);
        let uri = format!("mongodb://{server}/?directConnection=true");
        let client = mongodb::Client::with_uri_str(uri).await.unwrap();
        let ping = RawDocumentBuf::try_from(&doc! {"ping": 1}).unwrap();
        let answered = client.database("d").run_raw_command(ping).await;
        assert!(answered.is_err(), "the driver reads it by itself");
        assert_eq!(answer(answered).unwrap(), doc! {"ok": 1, "note": "x\u{fffd}"});
    }

    #[test]
    fn a_reply_that_cannot_be_read_says_nothing_about_the_command() {
        let error = Document::try_from(&*cut(&doc! {"a": "x?"})).unwrap_err();
        for failure in [
            Failure::from(Error::from(ErrorKind::Bson(error))),
            lossy(&cut(&doc! {"ok": 0, "errmsg": "x?"})).unwrap_err(),
        ] {
            assert!(matches!(failure, Failure::Away(error) if error.class == "InvalidResponse"));
        }
    }

    #[test]
    fn no_code_means_both() {
        assert!(DATA.into_iter().all(|code| !passes(code)));
        assert!(PASSING.into_iter().all(|code| NAMELESS <= code));
    }
}
