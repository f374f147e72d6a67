//! Debian's kernel: its package, taken apart and never installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The smallest one that Debian has for x86; it depends on the one of the newest release.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel and its modules.
pub struct Kernel {
    /// Such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The file to be started.
    pub image: PathBuf,
    /// Where each module lies, by its name with `_`.
    modules: BTreeMap<String, PathBuf>,
}

impl Kernel {
    /// The one in this folder; where there is none, apt brings it.
    pub fn find(folder: &Path) -> Result<Self> {
        let tree = folder.join("kernel");
        if !tree.exists() {
            fetch(folder, &tree)?;
        }
        Self::read(&tree)
            .with_context(|| format!("read the kernel in `{}` (remove it to have another)", tree.display()))
    }

    fn read(tree: &Path) -> Result<Self> {
        let boot = tree.join("boot");
        let entries = std::fs::read_dir(&boot)?.collect::<std::io::Result<Vec<_>>>()?;
        let names = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
        let release = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned())).max();
        let release = release.context("no `boot/vmlinuz-*`")?;
        let mut modules = BTreeMap::new();
        collect(&tree.join("lib/modules").join(&release).join("kernel"), &mut modules)?;
        Ok(Self { image: boot.join(format!("vmlinuz-{release}")), release, modules })
    }

    /// These modules and all that they depend on, each after those.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in wanted {
            match name.strip_suffix('*') {
                None => self.order(name, &mut order)?,
                Some(first) => {
                    let mut names = self.modules.keys().filter(|name| name.starts_with(first));
                    names.try_for_each(|name| self.order(name, &mut order))?;
                }
            }
        }
        Ok(order.iter().map(|name| self.modules[name].clone()).collect())
    }

    fn order(&self, name: &str, order: &mut Vec<String>) -> Result<()> {
        let name = name.replace('-', "_");
        if order.contains(&name) {
            return Ok(());
        }
        let path = self.modules.get(&name).with_context(|| format!("{} has no module `{name}`", self.release))?;
        let content = std::fs::read(path).with_context(|| format!("read `{}`", path.display()))?;
        for other in dependencies(&content) {
            self.order(&other, order)?;
        }
        order.push(name);
        Ok(())
    }
}

/// What a module says that it depends on, in its section `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let words = module.split(|octet| *octet == 0);
    let names = words.filter_map(|word| word.strip_prefix(b"depends=")).next().unwrap_or_default();
    String::from_utf8_lossy(names).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The modules below a folder.
fn collect(folder: &Path, modules: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read `{}`", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, modules)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
            modules.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

/// Fetches the package, and takes it apart.
fn fetch(folder: &Path, tree: &Path) -> Result<()> {
    let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned);
    let package =
        package.with_context(|| format!("apt knows no `{PACKAGE}`: this is for Debian, after `apt-get update`"))?;
    let part = folder.join("kernel.part");
    if part.exists() {
        std::fs::remove_dir_all(&part).with_context(|| format!("remove `{}`", part.display()))?;
    }
    std::fs::create_dir(&part).with_context(|| format!("make `{}`", part.display()))?;
    output(Command::new("apt-get").args(["-qq", "download", &package]).current_dir(&part))?;
    let archives = std::fs::read_dir(&part)?.collect::<std::io::Result<Vec<_>>>()?;
    let [archive] = &archives[..] else { bail!("apt-get downloaded {} files instead of one", archives.len()) };
    output(Command::new("dpkg-deb").arg("--extract").arg(archive.path()).arg(&part))?;
    std::fs::remove_file(archive.path()).context("remove the package")?;
    std::fs::rename(&part, tree).with_context(|| format!("rename `{}`", part.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=llc,stp\0name=bridge\0"), ["llc", "stp"]);
        assert_eq!(dependencies(b"\x7fELF\0depends=\0name=tun\0"), [""; 0]);
    }
}
