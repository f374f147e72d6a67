//! Which site a lab is built from: the one that was named, the one in this folder, else the home example, which is part
//! of the program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use dualgate_core::model::finding::Severity;
use dualgate_core::model::site::Site;
use dualgate_core::parse;

use crate::cli::lab::{Lab, Manifests};
use crate::inputs::read_site;
use crate::output;

/// Where a site file is looked for.
const HERE: &str = "site.yaml";
/// What people are told of the built-in site.
const EXAMPLE: &str = "the built-in home example";
const EXAMPLE_SITE: &str = include_str!("../../../../../examples/home/site.yaml");
const EXAMPLE_MANIFESTS: &[(&str, &str)] = &[
    ("grafana.yaml", include_str!("../../../../../examples/home/manifests/grafana.yaml")),
    ("ingress-class.yaml", include_str!("../../../../../examples/home/manifests/ingress-class.yaml")),
    ("paperless-ngx.yaml", include_str!("../../../../../examples/home/manifests/paperless-ngx.yaml")),
    ("whoami.yaml", include_str!("../../../../../examples/home/manifests/whoami.yaml")),
];

/// Where a lab's site comes from.
#[derive(Debug, PartialEq)]
pub enum Choice {
    /// Files of the user.
    Files {
        /// The site file.
        site: PathBuf,
        /// The folder of manifests; `None` are those of the example.
        manifests: Option<PathBuf>,
    },
    /// The program itself; another folder of manifests may be named.
    Example {
        /// The folder of manifests.
        manifests: Option<PathBuf>,
    },
}

/// The files of a lab.
#[derive(Debug)]
pub struct Files {
    /// The site file.
    pub site: PathBuf,
    /// The folder of manifests.
    pub manifests: PathBuf,
    /// What people are told where it comes from.
    pub origin: String,
}

impl Choice {
    /// What the arguments mean here.
    pub fn of(args: &Lab) -> Self {
        let site = args.site.clone().or_else(|| Path::new(HERE).exists().then(|| HERE.into()));
        let manifests = match &args.source {
            Some(Manifests::Folder(folder)) => Some(folder.clone()),
            Some(Manifests::Example) => None,
            None => site.as_ref().map(|site| site.with_file_name("manifests")),
        };
        match site {
            Some(site) => Self::Files { site, manifests },
            None => Self::Example { manifests },
        }
    }

    /// The lab has a `/run` of its own: files below the machine's are not there.
    pub fn be_visible(&self) -> anyhow::Result<()> {
        let (site, manifests) = match self {
            Self::Files { site, manifests } => (Some(site), manifests.as_ref()),
            Self::Example { manifests } => (None, manifests.as_ref()),
        };
        for path in site.into_iter().chain(manifests) {
            let hidden = fs::canonicalize(path).is_ok_and(|path| path.starts_with("/run"));
            if hidden {
                bail!("`{}` lies below /run, which the lab hides: copy it elsewhere", path.display());
            }
        }
        Ok(())
    }

    /// Reads the site, so that its mistakes are told before anything is built.
    pub fn site(&self) -> anyhow::Result<Site> {
        let (site, findings) = match self {
            Self::Files { site, manifests } => {
                let read = read_site(site)?;
                if let Some(manifests) = manifests {
                    fs::read_dir(manifests).with_context(|| {
                        let folder = manifests.display();
                        format!("open the folder of manifests `{folder}` (name it with --source folder:DIR)")
                    })?;
                }
                read
            }
            Self::Example { .. } => parse::site::site(EXAMPLE, EXAMPLE_SITE),
        };
        let Some(site) = site else {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
            let errors: Vec<String> = errors.map(|finding| format!("\n  {finding}")).collect();
            bail!("the site file cannot be used (see `dualgate check`):{}", errors.concat());
        };
        Ok(site)
    }

    /// The files; what is part of the program is written into `directory`.
    pub fn files(self, directory: &Path) -> io::Result<Files> {
        let folder = directory.join("example");
        let (site, origin, manifests) = match self {
            Self::Files { site, manifests } => {
                let origin = output::one_line(&site.display().to_string()).into_owned();
                (fs::canonicalize(site)?, origin, manifests)
            }
            Self::Example { manifests } => {
                let site = folder.join(HERE);
                fs::create_dir_all(&folder)?;
                fs::write(&site, EXAMPLE_SITE)?;
                (site, EXAMPLE.to_owned(), manifests)
            }
        };
        let own = || {
            let own = folder.join("manifests");
            fs::create_dir_all(&own)?;
            EXAMPLE_MANIFESTS.iter().try_for_each(|(name, text)| fs::write(own.join(name), text))?;
            Ok(own)
        };
        let manifests = manifests.map_or_else(own, fs::canonicalize)?;
        Ok(Files { site, manifests, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_example_is_the_whole_example() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/home/manifests");
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        assert_eq!(names, EXAMPLE_MANIFESTS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let example = Choice::Example { manifests: None };
        assert_eq!(example.site().unwrap().name, "home");
    }
}
