//! The address of a database → the driver's options. Nothing that is said about it shows a password.

use std::{str::FromStr, time::Duration};

use drakkar_core::Secret;
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

/// What may stand behind the question mark, as the driver knows it; it would print the value of another.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// The driver's options for `dsn`; otherwise what is wrong with it, as a sentence after its key.
pub(crate) fn options(dsn: &Secret) -> Result<PgConnectOptions, String> {
    let dsn = dsn.expose();
    if dsn.is_empty() {
        return Err("is required; give postgres://user:password@host:port/database".to_owned());
    }
    if !["postgres://", "postgresql://"].iter().any(|scheme| dsn.starts_with(scheme)) {
        return Err("does not begin with postgres:// or postgresql://".to_owned());
    }
    let (address, parameters) = dsn.split_once('?').unwrap_or((dsn, ""));
    // The driver's own words may quote what it cannot read.
    let unreadable = "cannot be read; write special characters of user and password as %XX";
    PgConnectOptions::from_str(address).map_err(|_| unreadable.to_owned())?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !PARAMETERS.contains(&name) && name != "options" && !name.starts_with("options[") {
            return Err(format!("has a parameter that is not known{}", shown(name)));
        }
    }
    let options = PgConnectOptions::from_str(dsn)
        .map_err(|_| "has a parameter with a value that cannot be read".to_owned())?;
    let wants_tls = matches!(
        options.get_ssl_mode(),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
    );
    if wants_tls && cfg!(not(feature = "ssl")) {
        return Err(
            "asks for encryption (sslmode), which is not compiled in; build with the cargo feature \
             `ssl`"
                .to_owned(),
        );
    }
    // A password with a slash that is not encoded is taken apart: the rest of it is where the name should be.
    if options.get_database().is_some_and(|name| name.contains('@')) {
        return Err(unreadable.to_owned());
    }
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("drakkar"),
    };
    Ok(options.disable_statement_logging())
}

/// The name of a parameter, unless it may be part of a password.
fn shown(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || "_-".contains(c));
    if is_plain && !name.is_empty() { format!(": {name}") } else { String::new() }
}

/// Where `options` lead to, without secrets.
pub(super) fn server(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{}, database {database}", socket.display()),
        None => format!("{}:{}, database {database}", options.get_host(), options.get_port()),
    }
}

/// What a connection is told first: no statement may run for longer.
pub(super) fn limit(statement_timeout: Duration) -> String {
    format!("SET statement_timeout = {}", statement_timeout.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(dsn: &str, why: &str) {
        let error = options(&Secret::from(dsn)).unwrap_err();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_without_showing_it() {
        refused("", "is required");
        refused("mysql://u:hunter2@h/d", "does not begin with");
        refused("postgres://u:pa/hunter2@h/d", "cannot be read");
        refused("postgres://u:1/hunter2@h/d", "cannot be read");
        refused("postgres://u:1?hunter2@h/d", "has a parameter that is not known");
        refused("postgres://u:p@h/d?pasword=hunter2", "is not known: pasword");
        refused("postgres://u:p@h/d?sslmode=hunter2", "a value that cannot be read");
        #[cfg(not(feature = "ssl"))]
        refused("postgres://u:hunter2@h/d?sslmode=require", "the cargo feature `ssl`");
    }

    #[test]
    fn an_address_is_read_and_shown_without_its_secrets() {
        let dsn = Secret::from("postgresql://u:hunter2@h:6543/d?sslmode=prefer");
        let options = options(&dsn).unwrap();
        assert_eq!(server(&options), "h:6543, database d");
        assert_eq!(options.get_application_name(), Some("drakkar"));
    }
}
