//! Servers as their operators see them: a user who writes, and what is there afterwards.

mod http; // an endpoint that repeats what it was told
mod kafka; // a broker that asks for a password
mod mongo; // a database behind a gate
mod gate; // refuses what a server would refuse to a user without rights
mod postgres; // a database
mod files; // a directory
mod redis; // a store of keys

use drakkar_core::Payload;
use serde_json::Value;

pub(crate) use self::{
    files::Files, http::Http, kafka::Broker, mongo::Mongo, postgres::Postgres, redis::Redis,
};

/// Who writes.
pub(crate) const USER: &str = "eve";

/// Her password. Encoded for an address it looks different, but for its beginning.
pub(crate) const PASSWORD: &str = "hunter2/0815";

/// Numbers with this one cannot be written anywhere, until somebody mends that.
pub(crate) const UNLUCKY: u32 = 3;

/// A server of one kind.
pub(crate) trait Site {
    /// What the configuration calls the kind.
    fn kind(&self) -> &'static str;

    /// A section `sinks.<kind>.<name>` with this password.
    fn section(&self, password: &str) -> Value;

    /// The same section, where nobody answers.
    fn away(&self) -> Value;

    /// A number, for the sink `site`.
    fn payload(&self, number: u32) -> Payload;

    /// The user has this password from now on, and must say it again.
    fn set_password(&self, password: &str);
}

/// A server that goes away, and shows what it has.
pub(crate) trait Mortal: Site {
    /// It is killed, or what does for it.
    fn die(&self);

    /// It is there again, with all it had.
    fn rise(&self);

    /// The numbers that were written, in order; one that was written twice is there twice.
    fn kept(&self) -> Vec<u32>;
}

/// A server that refuses some numbers, and shows the others.
pub(crate) trait Store: Site {
    /// A number is refused from now on.
    fn obstruct(&self, number: u32);

    /// It is not refused any more.
    fn mend(&self, number: u32);

    /// The numbers that were written, in order.
    fn written(&self) -> Vec<u32>;
}

/// A server with a place that the user must not write to.
pub(crate) trait Rights: Store {
    /// A number for that place.
    fn closed(&self, number: u32) -> Payload;

    /// She may from now on.
    fn allow(&self);

    /// The numbers that were written to it.
    fn written_closed(&self) -> Vec<u32>;
}
