//! What may enter the dependency tree, as far as it can be known without the network: `deny.toml`
//! says it, `cargo deny check` knows more (advisories, for one).

use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use crate::workspace::{metadata, read};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
    /// Who may use it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

fn deny() -> Deny {
    toml::from_str(&read("deny.toml")).unwrap()
}

#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let allowed: Vec<Licensee> =
        deny().licenses.allow.iter().map(|name| Licensee::parse(name).unwrap()).collect();
    let covered = |wanted: &LicenseReq| allowed.iter().any(|licence| licence.satisfies(wanted));
    for package in metadata().packages {
        let (name, version) = (&package.name, &package.version);
        let stated =
            package.license.unwrap_or_else(|| panic!("{name} {version} states no licence"));
        let terms = Expression::parse_mode(&stated, ParseMode::LAX).unwrap();
        assert!(terms.evaluate(covered), "{name} {version}: {stated}");
    }
}

#[test]
fn every_dependency_comes_from_crates_io_or_this_repository() {
    for package in metadata().packages {
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        let from = package.source.as_deref().unwrap_or(registry);
        assert_eq!(from, registry, "{} {}", package.name, package.version);
    }
}

#[test]
fn what_deny_toml_bans_is_not_there_and_each_ban_has_a_reason() {
    let packages = metadata().packages;
    for Ban { name, reason, wrappers } in deny().bans.deny {
        assert!(!reason.is_empty(), "{name}");
        if wrappers.is_empty() {
            let is_there = packages.iter().any(|package| package.name == name);
            assert!(!is_there, "{name} is banned: {reason}");
            continue; // A feature that is off may name it.
        }
        for package in packages.iter().filter(|package| !wrappers.contains(&package.name)) {
            let mut lasting = package.dependencies.iter().filter(|used| used.kind.is_none());
            let uses = lasting.any(|used| used.name == name);
            assert!(!uses, "{} uses {name}, which is banned: {reason}", package.name);
        }
    }
}
