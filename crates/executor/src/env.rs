//! The environment of a process: what the worker has and may pass on, then `executor.env`, then the
//! task's own variables.
//!
//! The first two are computed once, when the pool starts. Values are never logged.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::{CStr, CString, NulError, OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use drakkar_core::Task;
use glob::{MatchOptions, Pattern, PatternError};

use crate::ExecutorConfig;

/// What is not inherited unless the configuration says otherwise.
pub(crate) const DENIED: [&str; 9] = [
    "DK_*",
    "DRAKKAR_*",
    "*PASSWORD*",
    "*PASSWD*",
    "*SECRET*",
    "*TOKEN*",
    "*_KEY",
    "*_DSN",
    "*CREDENTIAL*",
];

const NAMES: MatchOptions = MatchOptions {
    case_sensitive: false,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

/// A pattern for names of variables.
pub(crate) fn pattern(text: &str) -> Result<Pattern, PatternError> {
    Pattern::new(text)
}

/// Variables of every process.
pub(crate) struct Environment {
    base: BTreeMap<OsString, OsString>,
    /// The same in the same order, as the system wants it; none where it could not take them.
    block: Result<Vec<CString>, NulError>,
}

/// All variables of one process, as the system wants them.
pub(crate) type Block<'a> = Vec<Cow<'a, CStr>>;

impl Environment {
    /// What of `parent` may be inherited, and `executor.env` over it.
    pub(crate) fn new(
        config: &ExecutorConfig,
        parent: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, PatternError> {
        let denied: Vec<Pattern> =
            config.env_inherit_deny.iter().map(|text| pattern(text)).collect::<Result<_, _>>()?;
        let is_denied = |name: &OsStr| {
            let name = name.to_string_lossy();
            denied.iter().any(|pattern| pattern.matches_with(&name, NAMES))
        };
        let mut base = BTreeMap::new();
        if config.env_inherit_parent {
            base.extend(parent.filter(|(name, _)| !is_denied(name)));
        }
        base.extend(config.env.iter().map(|(name, value)| (name.into(), value.into())));
        let block = base.iter().map(|(name, value)| variable(name, value)).collect();
        Ok(Self { base, block })
    }

    /// The value a process of `task` sees under `name`.
    pub(crate) fn get<'a>(&'a self, task: &'a Task, name: &str) -> Option<&'a OsString> {
        let name = OsStr::new(name);
        task.env_vars().get(name).or_else(|| self.base.get(name))
    }

    /// What every process sees that does not set it itself.
    pub(crate) fn inherited(&self) -> &BTreeMap<OsString, OsString> {
        &self.base
    }

    /// Everything a process sees that has `own` variables; a later one of the same name wins.
    pub(crate) fn block<'a>(
        &self,
        own: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
    ) -> Result<Block<'_>, NulError> {
        let own: BTreeMap<&OsStr, &OsStr> = own.collect();
        let block = self.block.as_ref().map_err(Clone::clone)?;
        let inherited = self.base.keys().zip(block);
        let inherited = inherited.filter(|(name, _)| !own.contains_key(name.as_os_str()));
        let inherited = inherited.map(|(_, variable)| Ok(Cow::Borrowed(variable.as_c_str())));
        let own = own.iter().map(|(name, value)| variable(name, value).map(Cow::Owned));
        inherited.chain(own).collect()
    }
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, NulError> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config: &ExecutorConfig, task: &Task, expected: &[(&str, &str)]) {
        let parent = [
            ("PATH", "/bin"),
            ("LANG", "C"),
            ("aws_Secret_access", "x"),
            ("API_KEY", "x"),
            ("KEYBOARD", "de"),
            ("PG_DSN", "x"),
            ("MYSQL_PASSWD", "x"),
            ("DRAKKAR_KAFKA__BROKERS", "x"),
            ("dk_old", "x"),
        ];
        let parent = parent.map(|(name, value)| (name.into(), value.into()));
        let environment = Environment::new(config, parent.into_iter()).unwrap();
        let own = task.env_vars().iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        let block = environment.block(own).unwrap();
        let mut seen: Vec<(&str, &str)> =
            block.iter().map(|one| one.to_str().unwrap().split_once('=').unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }

    #[test]
    fn secrets_are_not_inherited() {
        let inherited = [("KEYBOARD", "de"), ("LANG", "C"), ("PATH", "/bin")];
        check(&ExecutorConfig::default(), &Task::new(), &inherited);
    }

    #[test]
    fn the_task_wins_over_the_configuration_and_that_over_the_parent() {
        let mut config = ExecutorConfig {
            env_inherit_deny: vec!["?*_*".to_owned(), "[KX]*".to_owned()],
            ..ExecutorConfig::default()
        };
        config.env.insert("LANG".to_owned(), "de".to_owned());
        config.env.insert("API_KEY".to_owned(), "asked for".to_owned());
        let task = Task::new().env("LANG", "fr");
        check(&config, &task, &[("API_KEY", "asked for"), ("LANG", "fr"), ("PATH", "/bin")]);
    }

    #[test]
    fn nothing_is_inherited_where_that_is_switched_off() {
        let config = ExecutorConfig { env_inherit_parent: false, ..ExecutorConfig::default() };
        check(&config, &Task::new().env("A", "1"), &[("A", "1")]);
    }
}
