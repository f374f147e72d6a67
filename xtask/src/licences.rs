//! What is linked, against `deny.toml`: licences, one version of each crate, sources.
//!
//! `deny.toml` is cargo-deny's file and says what is allowed; this reads the part of it that the project uses, so
//! that CI needs nothing installed. The crates come from `cargo tree`, which knows what is really built.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::breach::Breach;
use crate::workspace::Workspace;

const RULES: &str = "deny.toml";

/// What `deny.toml` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    targets: Vec<String>,
    licences: BTreeSet<String>,
    denied: Vec<String>,
    skipped: Vec<String>,
}

/// One crate that is built.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    /// Where it comes from; nothing for the workspace's own.
    source: Option<String>,
}

/// Checks every crate that any of the targets builds, but for tests.
pub fn check(workspace: &Workspace) -> Result<Vec<Breach>> {
    let rules = Rules::read(&workspace.read(RULES)?)?;
    let mut built = BTreeSet::new();
    for target in &rules.targets {
        let edges = ["--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
        let tree = ["tree", "--workspace", "--locked", "--all-features", "--target", target];
        let tree = workspace.cargo(&[&tree[..], &edges[..]].concat())?;
        built.extend(tree.lines().filter_map(name_and_version));
    }
    let metadata = workspace.cargo(&["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("read the output of cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let packages: Vec<Package> = packages.iter().map(Package::read).collect();
    let packages: Vec<Package> = packages
        .into_iter()
        .filter(|package| built.contains(&(package.name.clone(), package.version.clone())))
        .collect();
    println!("{} crates of {}", packages.len(), rules.targets.join(", "));
    breaches(&rules, &packages)
}

/// From a line such as `syn v3.0.9 (proc-macro) (*)`.
fn name_and_version(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once(" v")?;
    Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
}

impl Package {
    fn read(package: &Value) -> Self {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let source = package["source"].as_str().map(str::to_owned);
        Self { name: text("name"), version: text("version"), licence: text("license"), source }
    }

    /// Whether a line of `deny.toml`, `name` or `name@version`, means this crate.
    fn is(&self, specification: &str) -> bool {
        match specification.split_once('@') {
            Some((name, version)) => {
                let rest = self.version.strip_prefix(version);
                self.name == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
            None => self.name == specification,
        }
    }
}

fn breaches(rules: &Rules, packages: &[Package]) -> Result<Vec<Breach>> {
    let mut breaches = Vec::new();
    let mut breach = |rule, message: String, help: &str| breaches.push(Breach::new(rule, RULES, 0, message, help));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, licence, source } = package;
        if !is_allowed(licence, &rules.licences).with_context(|| format!("the licence of {name} {version}"))? {
            let help = "choose another crate; a licence that asks for more than its notice is a decision";
            breach("licence", format!("{name} {version} is under `{licence}`"), help);
        }
        if rules.denied.iter().any(|denied| package.is(denied)) {
            breach("banned", format!("{name} {version} is built"), "`cargo tree --invert` says who wants it");
        }
        // The canonical name of the registry, whichever mirror cargo asks.
        if source.as_ref().is_some_and(|source| !source.ends_with("/rust-lang/crates.io-index")) {
            let message = format!("{name} {version} does not come from the registry");
            breach("source", message, "depend on a published version");
        }
        if !rules.skipped.iter().any(|skipped| package.is(skipped)) {
            versions.entry(name).or_default().push(version);
        }
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let help = "`cargo tree --invert NAME@VERSION` says who wants it; what cannot be avoided stands in `skip`";
        breach("one-version", format!("{name} is built as {}", versions.join(" and ")), help);
    }
    for skipped in rules.skipped.iter().filter(|skipped| !packages.iter().any(|package| package.is(skipped))) {
        breach("one-version", format!("`{skipped}` is skipped but not built"), "take it out of `skip`");
    }
    Ok(breaches)
}

impl Rules {
    /// Reads the lists of `deny.toml`. Comments, sections, and lists of strings or of inline tables are known.
    fn read(text: &str) -> Result<Self> {
        let mut rules = Self::default();
        let (mut section, mut key) = ("", "");
        for line in text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim()) {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                (section, key) = (name, "");
                continue;
            }
            let values = match line.split_once(" = ") {
                Some((name, values)) if !line.starts_with('{') => {
                    key = name;
                    values
                }
                Some(_) | None => line,
            };
            match (section, key) {
                ("graph", "targets") => rules.targets.extend(quoted(values)),
                ("licenses", "allow") => rules.licences.extend(quoted(values)),
                ("bans", "deny") => rules.denied.extend(crates(values)),
                ("bans", "skip") => rules.skipped.extend(crates(values)),
                _ => {}
            }
        }
        if rules.targets.is_empty() || rules.licences.is_empty() {
            bail!("`{RULES}` names no targets or no licences");
        }
        Ok(rules)
    }
}

fn quoted(values: &str) -> Vec<String> {
    values.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the inline tables of a list call `crate`.
fn crates(tables: &str) -> Vec<String> {
    tables.split("crate = ").skip(1).filter_map(|table| quoted(table).into_iter().next()).collect()
}

/// Whether an SPDX expression can be met with the allowed licences alone. `/` is the old way to write `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut tokens = spaced.split_whitespace().peekable();
    let result = any(&mut tokens, allowed)?;
    match tokens.next() {
        None => Ok(result),
        Some(token) => bail!("`{expression}` is no SPDX expression: `{token}` is too much"),
    }
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let mut result = all(tokens, allowed)?;
    while tokens.next_if_eq(&"OR").is_some() {
        result |= all(tokens, allowed)?;
    }
    Ok(result)
}

fn all(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let mut result = one(tokens, allowed)?;
    while tokens.next_if_eq(&"AND").is_some() {
        result &= one(tokens, allowed)?;
    }
    Ok(result)
}

fn one(tokens: &mut Tokens<'_>, allowed: &BTreeSet<String>) -> Result<bool> {
    let token = tokens.next().context("a licence is missing")?;
    if token == "(" {
        let result = any(tokens, allowed)?;
        tokens.next_if_eq(&")").context("`)` is missing")?;
        return Ok(result);
    }
    let name = match tokens.next_if_eq(&"WITH") {
        Some(_) => format!("{token} WITH {}", tokens.next().context("an exception is missing")?),
        None => token.to_owned(),
    };
    Ok(allowed.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, licence: &str) -> Package {
        let source = Some("registry+https://example.org/rust-lang/crates.io-index".to_owned());
        Package { name: name.into(), version: version.into(), licence: licence.into(), source }
    }

    fn rules() -> Rules {
        let text = "\
[graph]
targets = [\"x86_64-unknown-linux-gnu\"] # one
[licenses]
allow = [
    # short
    \"MIT\",
    \"Apache-2.0 WITH LLVM-exception\",
]
[bans]
multiple-versions = \"deny\"
deny = [
    { crate = \"ring\", reason = \"`b` is \" },
]
skip = [{ crate = \"syn@2\", reason = \"old\" }]
[sources]
unknown-git = \"deny\"
";
        Rules::read(text).unwrap()
    }

    fn messages(packages: &[Package]) -> Vec<String> {
        breaches(&rules(), packages).unwrap().into_iter().map(|breach| breach.message).collect()
    }

    #[test]
    fn the_rules_are_read() {
        let expected = Rules {
            targets: vec!["x86_64-unknown-linux-gnu".into()],
            licences: ["MIT", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into(),
            denied: vec!["ring".into()],
            skipped: vec!["syn@2".into()],
        };
        assert_eq!(rules(), expected);
    }

    #[test]
    fn an_expression_is_met_or_not() {
        let allowed = &rules().licences;
        let met = |expression: &str| is_allowed(expression, allowed).unwrap();
        assert!(met("MIT") && met("GPL-3.0-only OR MIT") && met("Unlicense/MIT") && met("(MIT OR X) AND MIT"));
        assert!(met("Apache-2.0 WITH LLVM-exception OR Apache-2.0"));
        assert!(!met("Apache-2.0") && !met("MIT AND GPL-3.0-only") && !met("X AND MIT OR Y"));
        assert!(is_allowed("(MIT", allowed).is_err() && is_allowed("", allowed).is_err());
        assert!(is_allowed("MIT MIT", allowed).is_err());
    }

    #[test]
    fn what_is_built_must_be_allowed_once_and_from_the_registry() {
        let mut foreign = package("b", "1.0.0", "MIT");
        foreign.source = Some("git+https://example.org/b".into());
        let old = package("syn", "2.0.1", "MIT");
        let packages = [
            package("a", "1.0.0", "GPL-3.0-only"),
            foreign,
            package("c", "1.0.0", "MIT"),
            package("c", "2.0.0", "MIT"),
            package("ring", "0.17.0", "MIT"),
            old.clone(),
            package("syn", "3.0.0", "MIT"),
        ];
        let expected = [
            "a 1.0.0 is under `GPL-3.0-only`",
            "b 1.0.0 does not come from the registry",
            "ring 0.17.0 is built",
            "c is built as 1.0.0 and 2.0.0",
        ];
        assert_eq!(messages(&packages), expected);
        assert_eq!(messages(&[old]), Vec::<String>::new());
        assert_eq!(messages(&[]), ["`syn@2` is skipped but not built"]);
    }

    #[test]
    fn a_line_of_the_tree_names_a_crate_and_its_version() {
        let expected = Some(("syn".to_owned(), "3.0.9".to_owned()));
        assert_eq!(name_and_version("syn v3.0.9 (proc-macro) (*)"), expected);
        assert_eq!(name_and_version(""), None);
    }
}
