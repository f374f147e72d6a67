//! `cargo xtask build-cost`: what each dependency costs of a cold build with tests.
//!
//! The build runs in a folder of its own with one job, so that the time of a unit is what it computes. Shares are of
//! the sum of all units, the workspace's own included.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

const FOLDER: &str = "build-cost";
/// How many packages are listed alone.
const HEAVIEST: usize = 12;

/// A package as `name version`.
type Id = String;

/// What was built: how long each package took, and who needs whom.
#[derive(Debug, Default, PartialEq)]
struct Build {
    seconds: BTreeMap<Id, f64>,
    needs: BTreeMap<Id, BTreeSet<Id>>,
    /// The crates of the workspace.
    own: BTreeSet<Id>,
}

/// One dependency that a crate of the workspace names.
#[derive(Debug, PartialEq)]
struct Cost {
    id: Id,
    /// Its own share of the build.
    alone: f64,
    /// Its share with everything that nobody else needs.
    with_its_own: f64,
    /// How many packages those are, itself included.
    packages: usize,
}

/// Builds everything once, and prints the costs.
pub fn run(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty `{}`", folder.display()))?;
    }
    let folder_text = folder.to_str().context("the target folder is not UTF-8")?;
    eprintln!("building everything with its tests, one job at a time");
    let test = ["test", "--workspace", "--no-run", "--locked", "--timings", "--jobs", "1", "--target-dir", folder_text];
    workspace.cargo(&test)?;
    let report = folder.join("cargo-timings/cargo-timing.html");
    let report = std::fs::read_to_string(&report).with_context(|| format!("read `{}`", report.display()))?;
    let metadata = workspace.cargo(&["metadata", "--format-version", "1", "--locked"])?;
    let metadata = serde_json::from_str(&metadata).context("read the output of cargo metadata")?;
    let build = Build::read(&report, &metadata)?;
    print!("{}", table(&build));
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove `{}`", folder.display()))
}

impl Build {
    fn read(report: &str, metadata: &Value) -> Result<Self> {
        let mut build = Self::default();
        for unit in units(report)?.as_array().context("the report's units are no list")? {
            let text = |key: &str| unit[key].as_str().unwrap_or_default();
            let seconds = unit["duration"].as_f64().context("a unit without a duration")?;
            *build.seconds.entry(format!("{} {}", text("name"), text("version"))).or_default() += seconds;
        }
        let ids: BTreeMap<&str, Id> = list(metadata, "packages")
            .filter_map(|package| {
                let text = |key: &str| package[key].as_str();
                Some((text("id")?, format!("{} {}", text("name")?, text("version")?)))
            })
            .collect();
        let members = list(metadata, "workspace_members").filter_map(|id| ids.get(id.as_str()?));
        build.own = members.cloned().collect();
        for node in list(&metadata["resolve"], "nodes") {
            let Some(id) = node["id"].as_str().and_then(|id| ids.get(id)) else { continue };
            let needs = list(node, "deps").filter_map(|dependency| ids.get(dependency["pkg"].as_str()?));
            let needs = needs.filter(|id| build.seconds.contains_key(*id)).cloned().collect();
            build.needs.insert(id.clone(), needs);
        }
        Ok(build)
    }

    fn costs(&self) -> Vec<Cost> {
        let all = self.reachable(None);
        let total = self.sum(&all);
        let named: BTreeSet<&Id> = self.own.iter().flat_map(|own| &self.needs[own]).collect();
        let mut costs: Vec<Cost> = named
            .into_iter()
            .filter(|id| !self.own.contains(*id))
            .map(|id| {
                let gone: BTreeSet<&Id> = all.difference(&self.reachable(Some(id))).copied().collect();
                let alone = self.seconds.get(id).copied().unwrap_or_default();
                Cost {
                    id: id.clone(),
                    alone: alone / total,
                    with_its_own: self.sum(&gone) / total,
                    packages: gone.len(),
                }
            })
            .collect();
        costs.sort_by(|a, b| b.with_its_own.total_cmp(&a.with_its_own));
        costs
    }

    /// The packages from outside that cost most alone, whoever needs them.
    fn heaviest(&self) -> Vec<(&Id, f64)> {
        let foreign = self.seconds.iter().filter(|(id, _)| !self.own.contains(*id));
        let mut packages: Vec<(&Id, f64)> = foreign.map(|(id, seconds)| (id, *seconds)).collect();
        packages.sort_by(|a, b| b.1.total_cmp(&a.1));
        packages.truncate(HEAVIEST);
        packages
    }

    fn needed_by(&self, id: &Id) -> Vec<&str> {
        let needs = self.needs.iter().filter(|(user, needs)| needs.contains(id) && self.is_built(user));
        needs.filter_map(|(user, _)| user.split(' ').next()).collect()
    }

    fn is_built(&self, id: &Id) -> bool {
        self.own.contains(id) || self.seconds.contains_key(id)
    }

    /// What the workspace needs if it did without one package.
    fn reachable(&self, without: Option<&Id>) -> BTreeSet<&Id> {
        let mut reached: BTreeSet<&Id> = self.own.iter().collect();
        let mut next: Vec<&Id> = reached.iter().copied().collect();
        while let Some(id) = next.pop() {
            let needs = self.needs.get(id).into_iter().flatten();
            next.extend(needs.filter(|need| Some(*need) != without && reached.insert(need)));
        }
        reached
    }

    fn sum(&self, ids: &BTreeSet<&Id>) -> f64 {
        ids.iter().filter_map(|id| self.seconds.get(*id)).sum()
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// The report is a page; its units are a JSON list in a script.
fn units(report: &str) -> Result<Value> {
    const START: &str = "const UNIT_DATA = ";
    let start = report.find(START).context("the timing report has no units")? + START.len();
    let mut values = serde_json::Deserializer::from_str(&report[start..]).into_iter();
    match values.next() {
        Some(units) => units.context("read the units of the timing report"),
        None => bail!("the timing report has no units"),
    }
}

fn table(build: &Build) -> String {
    let own: BTreeSet<&Id> = build.own.iter().collect();
    let total = build.sum(&build.reachable(None));
    let mut text = format!(
        "{} packages, {total:.0} s with one job; the workspace's own crates {:.1} %\n\n{:<28} {:>7} {:>14} {:>9}\n",
        build.seconds.len(),
        100.0 * build.sum(&own) / total,
        "dependency",
        "alone",
        "with its own",
        "packages"
    );
    for Cost { id, alone, with_its_own, packages } in build.costs() {
        text += &format!("{id:<28} {:>5.1} % {:>12.1} % {packages:>9}\n", 100.0 * alone, 100.0 * with_its_own);
    }
    text += &format!("\n{:<28} {:>7}  needed by\n", "package", "alone");
    for (id, seconds) in build.heaviest() {
        text += &format!("{id:<28} {:>5.1} %  {}\n", 100.0 * seconds / total, build.needed_by(id).join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `app` needs `tls` and `log`; only `tls` needs `crypto`, both need `bits`.
    fn build() -> Build {
        let unit = |name: &str, duration: f64| json!({"name": name, "version": "1.0.0", "duration": duration});
        let units = json!([
            unit("app", 1.0),
            unit("tls", 2.0),
            unit("crypto", 5.0),
            unit("log", 1.0),
            unit("bits", 0.5),
            unit("bits", 0.5)
        ]);
        let report = format!("<script>\nconst UNIT_DATA = {units:#};\nconst OTHER = [];");
        let package = |name: &str| json!({"id": name, "name": name, "version": "1.0.0"});
        let node = |name: &str, needs: &[&str]| json!({"id": name, "deps": needs.iter().map(|need| json!({"pkg": need})).collect::<Vec<_>>()});
        let metadata = json!({
            "packages": (["app", "tls", "crypto", "log", "bits", "windows"].map(package)),
            "workspace_members": ["app"],
            "resolve": {"nodes": [
                node("app", &["tls", "log"]), node("tls", &["crypto", "bits", "windows"]), node("log", &["bits"]),
                node("crypto", &[]), node("bits", &[]), node("windows", &[]),
            ]},
        });
        Build::read(&report, &metadata).unwrap()
    }

    #[test]
    fn a_dependency_costs_what_only_it_brings() {
        let cost = |id: &str, alone, with_its_own, packages| Cost { id: id.into(), alone, with_its_own, packages };
        assert_eq!(build().costs(), [cost("tls 1.0.0", 0.2, 0.7, 2), cost("log 1.0.0", 0.1, 0.1, 1)]);
    }

    #[test]
    fn the_table_is_for_a_person() {
        let text = table(&build());
        assert!(text.starts_with("5 packages, 10 s with one job; the workspace's own crates 10.0 %"), "{text}");
        assert!(text.contains("tls 1.0.0                     20.0 %         70.0 %         2\n"), "{text}");
        assert!(text.contains("bits 1.0.0                    10.0 %  log, tls\n"), "{text}");
    }

    #[test]
    fn a_page_without_units_is_an_error() {
        assert!(units("<html>").is_err() && units("const UNIT_DATA = ").is_err());
    }
}
