//! What an answer of the server, or its silence, means for the payloads of a statement.
//!
//! By the SQLSTATE, never by the text. A payload is refused only where its values or its shape are at
//! fault. A table that does not exist may be created and rights may be granted: these are held, as is
//! everything that is not known to be a payload's fault.

use drakkar_core::SinkError;
use sqlx::postgres::PgDatabaseError;

const UNDEFINED_TABLE: &str = "42P01";
const INVALID_SCHEMA: &str = "3F000";
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What became of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It is committed.
    Done,
    /// Nothing of it is written, and it will never be: a payload in it is at fault.
    AtFault(SinkError),
    /// Nothing of it is written; the same may succeed in smaller pieces, or later.
    TooSlow(SinkError),
    /// It may succeed later; whether it was written is not known where the connection was lost.
    Later(SinkError),
}

/// What `error` means.
pub(super) fn said(error: &sqlx::Error) -> Said {
    use sqlx::Error as E;
    match error {
        E::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => {
                let from = From { routine: error.routine(), file: error.file() };
                of_server(error.code(), error.message(), &from)
            }
            None => Said::Later(SinkError::new("database", error.message())),
        },
        E::PoolTimedOut => Said::Later(SinkError::new(
            "no_connection",
            "no connection in time; the server does not answer, or pool_max is too small",
        )),
        E::Io(error) => Said::Later(SinkError::new("connection", error.to_string())),
        // Too large for the protocol.
        E::Encode(error) => Said::AtFault(SinkError::new("encode", error.to_string())),
        error => Said::Later(SinkError::new("connection", error.to_string())),
    }
}

/// Whether it is something that operators will create or grant.
pub(super) fn is_about_a_table(class: &str) -> bool {
    [UNDEFINED_TABLE, INVALID_SCHEMA, INSUFFICIENT_PRIVILEGE].contains(&class)
}

/// Where in the server an error was raised, for codes that mean several things.
#[derive(Debug, Default)]
struct From<'a> {
    routine: Option<&'a str>,
    file: Option<&'a str>,
}

impl From<'_> {
    /// The whole server has come to an end of something: of transaction numbers, of a file.
    fn is_exhausted(&self) -> bool {
        let ends =
            ["GetNewTransactionId", "GetNewMultiXactId", "mdextend", "ExtendBufferedRelShared"];
        self.routine.is_some_and(|routine| ends.contains(&routine))
    }

    /// PostGIS has no code of its own for a value that is no geometry.
    fn is_postgis(&self) -> bool {
        let files = ["lwgeom", "gserialized", "geography"];
        self.file.is_some_and(|file| files.iter().any(|of| file.starts_with(of)))
    }
}

/// What the code of an error means. The detail is left out: it shows the row.
fn of_server(code: &str, message: &str, from: &From<'_>) -> Said {
    let error = |advice: &str| SinkError::new(code, format!("{message}{advice}"));
    match code {
        UNDEFINED_TABLE | INVALID_SCHEMA => Said::Later(error("; create it")),
        INSUFFICIENT_PRIVILEGE => Said::Later(error("; grant this user the right")),
        // query_canceled
        "57014" => Said::TooSlow(error("")),
        // A table was changed under a prepared statement.
        "0A000" if from.routine == Some("RevalidateCachedQuery") => Said::Later(error("")),
        "54000" if from.is_exhausted() => Said::Later(error("")),
        // A sequence is used up.
        "2200H" => Said::Later(error("")),
        // Somebody between us and the server gives our session to others.
        "42P05" => Said::Later(error("; connect to the server itself, or pool by session")),
        "XX000" if from.is_postgis() => Said::AtFault(error("")),
        _ if is_fault_of_a_payload(code) => Said::AtFault(error("")),
        _ => Said::Later(error("")),
    }
}

fn is_fault_of_a_payload(code: &str) -> bool {
    let Some(class) = code.get(..2) else { return false };
    // Only what somebody wrote into a trigger or a function raises what the server does not define: that
    // refuses this row, whatever it is called.
    !OF_THE_SERVER.contains(&class) || OF_A_PAYLOAD.contains(&class)
}

/// Classes of errors that a payload can be at fault for.
const OF_A_PAYLOAD: [&str; 13] = [
    "0A", // feature not supported
    "20", // a function has no branch for a value
    "21", // a key twice in one statement
    "22", // a value that its type cannot hold
    "23", // a constraint is violated
    "27", // a trigger is in the way
    "2F", // a function does what it must not
    "38", // a function in another language refuses
    "39", // such a function was called in a wrong way
    "42", // no such column, no such type, no such function
    "44", // a view's check is violated
    "54", // a limit of the server is exceeded
    "P0", // a trigger or function refuses
];

/// Classes that PostgreSQL defines, in any version up to 18.
const OF_THE_SERVER: [&str; 44] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22",
    "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40",
    "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_at_fault_only_for_its_values_and_its_shape() {
        for code in [
            "20000", "22001", "22P02", "23505", "23514", "2F004", "38000", "38001", "39000",
            "42703", "42804", "54000", "P0001", "45000", "MY001", "99999",
        ] {
            let said = of_server(code, "no", &From::default());
            assert_eq!(said, Said::AtFault(SinkError::new(code, "no")), "{code}");
        }
        for code in [
            "08006", "25006", "28P01", "3D000", "40001", "40P01", "53100", "53300", "55P03",
            "57P01", "57P03", "58030", "XX000", "42P01", "42501", "3F000", "0Z002", "72000",
            "2200H", "42P05", "",
        ] {
            let said = of_server(code, "no", &From::default());
            assert!(matches!(&said, Said::Later(error) if error.class == code), "{said:?}");
        }
        assert!(matches!(of_server("57014", "", &From::default()), Said::TooSlow(_)));
    }

    #[test]
    fn a_server_that_has_come_to_an_end_is_waited_for_and_a_shape_that_is_none_is_refused() {
        let from = From { routine: Some("GetNewTransactionId"), file: Some("varsup.c") };
        assert!(matches!(of_server("54000", "wraparound", &from), Said::Later(_)));
        let from = From { routine: Some("pg_parser_errhint"), file: Some("lwgeom_pg.c") };
        assert!(matches!(of_server("XX000", "invalid geometry", &from), Said::AtFault(_)));
    }

    #[test]
    fn a_table_that_was_changed_meanwhile_is_not_the_payloads_fault() {
        let said = |routine| of_server("0A000", "cached plan", &From { routine, file: None });
        assert!(matches!(said(Some("RevalidateCachedQuery")), Said::Later(_)));
        assert!(matches!(said(None), Said::AtFault(_)));
    }
}
