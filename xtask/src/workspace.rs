//! The workspace as cargo and the file system tell it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where the checkout lies, and what its crates depend on.
pub struct Workspace {
    /// The root of the checkout.
    pub root: PathBuf,
    /// The workspace's own crates, by name.
    pub crates: BTreeMap<String, Crate>,
    /// Where cargo builds.
    pub target: PathBuf,
}

/// One crate of the workspace.
#[derive(Debug, PartialEq)]
pub struct Crate {
    /// Its folder from the root, such as `crates/dualgate-core`.
    pub folder: String,
    /// What its manifest names, all kinds and targets.
    pub dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// Which table it stands in.
    pub kind: Kind,
}

/// The table of a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[dependencies]`
    Normal,
    /// `[build-dependencies]`
    Build,
    /// `[dev-dependencies]`
    Dev,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the manifest has no parent folder")?;
        let metadata = cargo(root, &["metadata", "--format-version", "1", "--no-deps"])?;
        let metadata: Value = serde_json::from_str(&metadata).context("read the output of cargo metadata")?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
        Ok(Self { root: root.to_owned(), crates: crates(root, &metadata)?, target: target.into() })
    }

    /// Every text file of the checkout, by its path from the root, in order. Build output is left out.
    pub fn text_files(&self) -> Result<Vec<(String, String)>> {
        let mut files = Vec::new();
        walk(&self.root, &self.root, &mut files)?;
        files.sort();
        Ok(files)
    }

    /// The text of one file.
    pub fn read(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.root.join(path)).with_context(|| format!("read `{path}`"))
    }

    /// Builds the program of a package with a profile, and says where it is.
    pub fn binary(&self, package: &str, profile: &str) -> Result<PathBuf> {
        self.cargo(&["build", "--quiet", "--locked", "--profile", profile, "--package", package])?;
        let folder = if profile == "dev" { "debug" } else { profile };
        Ok(self.target.join(folder).join(package))
    }

    /// The output of cargo, run in the root.
    pub fn cargo(&self, arguments: &[&str]) -> Result<String> {
        cargo(&self.root, arguments)
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(root).output().context("start cargo")?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo did not print UTF-8")
}

fn crates(root: &Path, metadata: &Value) -> Result<BTreeMap<String, Crate>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    packages.iter().map(|package| member(root, package)).collect()
}

fn member(root: &Path, package: &Value) -> Result<(String, Crate)> {
    let name = package["name"].as_str().context("a package without a name")?;
    let manifest = Path::new(package["manifest_path"].as_str().context("a package without a manifest")?);
    let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root).ok());
    let folder = folder.with_context(|| format!("`{name}` lies outside the workspace"))?;
    let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let dependencies = dependencies.iter().map(|dependency| {
        let kind = match dependency["kind"].as_str() {
            Some("dev") => Kind::Dev,
            Some("build") => Kind::Build,
            Some(_) | None => Kind::Normal,
        };
        Dependency { name: dependency["name"].as_str().unwrap_or_default().to_owned(), kind }
    });
    let member = Crate { folder: folder.to_string_lossy().into_owned(), dependencies: dependencies.collect() };
    Ok((name.to_owned(), member))
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if name != ".git" && name != "target" && name != "artifacts" {
                walk(root, &entry.path(), files)?;
            }
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            let path = entry.path();
            let path = path.strip_prefix(root).unwrap_or(&path);
            files.push((path.to_string_lossy().into_owned(), text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_with_the_kind_of_each_dependency() {
        let metadata = serde_json::json!({"packages": [{
            "name": "a", "manifest_path": "/w/crates/a/Cargo.toml",
            "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}, {"name": "d", "kind": "build"}],
        }]});
        let dependency = |name: &str, kind| Dependency { name: name.into(), kind };
        let expected = Crate {
            folder: "crates/a".into(),
            dependencies: vec![dependency("b", Kind::Normal), dependency("c", Kind::Dev), dependency("d", Kind::Build)],
        };
        assert_eq!(crates(Path::new("/w"), &metadata).unwrap(), BTreeMap::from([("a".to_owned(), expected)]));
    }
}
