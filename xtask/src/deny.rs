//! `cargo xtask deny`: the dependencies keep to deny.toml.
//!
//! `cargo deny` reads the same file, but compiling it takes longer than all our tests together; what it checks of
//! licences, sources and duplicates is short on top of `cargo metadata`. Known vulnerabilities are not checked here:
//! their list lives on a server, and the checks have to pass on a machine without one (`cargo deny check advisories`
//! does it).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::capture;
use crate::workspace::{Workspace, parse};

/// The source that `cargo metadata` names for crates.io.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks licences, sources and duplicate versions of everything that is built for our targets.
pub(crate) fn deny(workspace: &Workspace) -> Result<()> {
    let rules = fs_err::read_to_string(workspace.root.join("deny.toml"))?;
    let allowed = list(&rules, "licenses", "allow");
    let skipped = list(&rules, "bans", "skip");
    let arguments = ["metadata", "--locked", "--format-version=1", "--filter-platform", &workspace.triple];
    let metadata = parse("cargo metadata", &capture(&mut workspace.cargo(&arguments))?)?;
    let used: BTreeSet<&str> =
        array(&metadata["resolve"]["nodes"]).filter_map(|node| node["id"].as_str()).collect();
    let mut versions = BTreeMap::<&str, BTreeSet<&str>>::new();
    let mut faults = Vec::new();
    for package in array(&metadata["packages"])
        .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)))
    {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        versions.entry(name).or_default().insert(version);
        let license = text(&package["license"]);
        if !accepts(license, &allowed) {
            faults.push(format!("{name} {version}: licence `{license}` is not allowed"));
        }
        // Members of the workspace have no source.
        if package["source"].as_str().is_some_and(|source| source != CRATES_IO) {
            faults.push(format!("{name} {version}: comes from {}", text(&package["source"])));
        }
    }
    for (name, versions) in
        versions.iter().filter(|(name, versions)| versions.len() > 1 && !skipped.iter().any(|s| s == *name))
    {
        faults.push(format!(
            "{name}: {} versions ({})",
            versions.len(),
            versions.iter().copied().collect::<Vec<_>>().join(", ")
        ));
    }
    if !faults.is_empty() {
        return Err(Error::Check { check: "deny", faults });
    }
    eprintln!("deny: {} packages keep to deny.toml", versions.len());
    Ok(())
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The quoted words of the list `key` in the section `section`: all the TOML that deny.toml needs to be read as.
fn list(rules: &str, section: &str, key: &str) -> Vec<String> {
    let header = format!("[{section}]");
    let lines = rules.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let body: String =
        lines.skip_while(|line| *line != header).skip(1).take_while(|line| !line.starts_with('[')).collect();
    let after = body.split_once(&format!("{key} = [")).map_or("", |(_, after)| after);
    let inside = after.split_once(']').map_or("", |(inside, _)| inside);
    inside.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX licence expression can be met with the allowed licences. `/` is crates.io's old way to say OR.
fn accepts(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed) && rest.is_empty()
}

fn any_of(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = all_of(rest, allowed);
    while let [word, after @ ..] = *rest
        && *word == "OR"
    {
        *rest = after;
        met |= all_of(rest, allowed);
    }
    met
}

fn all_of(rest: &mut &[&str], allowed: &[String]) -> bool {
    let mut met = one(rest, allowed);
    while let [word, after @ ..] = *rest
        && *word == "AND"
    {
        *rest = after;
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &[String]) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let met = any_of(rest, allowed);
            let closed = rest.first() == Some(&")");
            *rest = rest.get(1..).unwrap_or_default();
            met && closed
        }
        [name, "WITH", exception, after @ ..] => {
            *rest = after;
            allowed.contains(&format!("{name} WITH {exception}"))
        }
        [name, after @ ..] => {
            *rest = after;
            allowed.iter().any(|licence| licence == name)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{accepts, list};

    #[test]
    fn licence_expressions_are_understood() {
        let allowed =
            ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        for good in ["MIT", "MIT/GPL-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND Unicode-3.0"] {
            assert!(accepts(good, &allowed), "{good}");
        }
        assert!(accepts("Apache-2.0 WITH LLVM-exception OR GPL-2.0", &allowed));
        for bad in [
            "",
            "GPL-2.0",
            "MIT AND GPL-2.0",
            "(MIT OR GPL-2.0) AND GPL-3.0",
            "MIT WITH x",
            "(MIT",
            "MIT MIT",
        ] {
            assert!(!accepts(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn lists_are_read_from_their_section() {
        let rules = "[other]\nallow = [\"GPL\"]\n[licenses]\n# why\nallow = [\n  \"MIT\", # note\n  \"ISC\",\n]\n[bans]\nskip = []\n";
        assert_eq!(list(rules, "licenses", "allow"), ["MIT", "ISC"]);
        assert!(list(rules, "bans", "skip").is_empty());
    }
}
