//! Which crate may depend on which, and on what from outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::breach::Breach;
use crate::workspace::{Crate, Kind};

/// What a crate may use.
struct Arrows {
    name: &'static str,
    /// Crates of the workspace.
    inside: &'static [&'static str],
    outside: Outside,
}

/// Which crates from outside.
enum Outside {
    /// Any that `deny.toml` lets in.
    Any,
    /// These: the crate is pure, so nothing that does IO. Development dependencies are free.
    Only(&'static [&'static str]),
}

/// The direction of the arrows, from the pure to the composing.
const ARROWS: &[Arrows] = &[
    Arrows { name: "dualgate-wire", inside: &[], outside: Outside::Only(&["thiserror"]) },
    Arrows { name: "dualgate-http", inside: &[], outside: Outside::Only(&["httparse", "thiserror"]) },
    Arrows {
        name: "dualgate-core",
        inside: &["dualgate-wire"],
        outside: Outside::Only(&[
            "arcstr",
            "base64",
            "foldhash",
            "ipnet",
            "regex-lite",
            "saphyr-parser",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "x509-parser",
        ]),
    },
    Arrows {
        name: "dualgate-proxy",
        // Host and lab only for its tests: namespaces in which addresses come and go.
        inside: &["dualgate-core", "dualgate-host", "dualgate-http", "dualgate-lab", "dualgate-wire"],
        outside: Outside::Any,
    },
    Arrows { name: "dualgate-host", inside: &["dualgate-core", "dualgate-wire"], outside: Outside::Any },
    Arrows {
        name: "dualgate-tunnel",
        // The lab only for its tests: hosts to run engines on.
        inside: &["dualgate-core", "dualgate-host", "dualgate-lab", "dualgate-wire"],
        outside: Outside::Any,
    },
    Arrows { name: "dualgate-apiserver", inside: &[], outside: Outside::Any },
    Arrows { name: "dualgate-kube", inside: &["dualgate-apiserver", "dualgate-core"], outside: Outside::Any },
    Arrows {
        name: "dualgate-lab",
        inside: &["dualgate-apiserver", "dualgate-core", "dualgate-host", "dualgate-http", "dualgate-wire"],
        outside: Outside::Any,
    },
    Arrows {
        name: "dualgate",
        inside: &[
            "dualgate-apiserver",
            "dualgate-core",
            "dualgate-host",
            "dualgate-http",
            "dualgate-kube",
            "dualgate-lab",
            "dualgate-proxy",
            "dualgate-tunnel",
        ],
        outside: Outside::Any,
    },
    Arrows { name: "xtask", inside: &["dualgate-core"], outside: Outside::Any },
];

/// Compares every manifest with the arrows.
pub fn check(crates: &BTreeMap<String, Crate>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, member) in crates {
        let manifest = format!("{}/Cargo.toml", member.folder);
        let Some(arrows) = ARROWS.iter().find(|arrows| arrows.name == name) else {
            let help = "say in xtask/src/arch/arrows.rs what it may depend on, and draw it in ARCHITECTURE.md";
            breaches.push(Breach::new("arrows", &manifest, 0, format!("nobody knows the crate `{name}`"), help));
            continue;
        };
        for dependency in &member.dependencies {
            let target = dependency.name.as_str();
            let (allowed, help) = if crates.contains_key(target) {
                let help = "turn the arrow round: put what both need into the purer crate, or compose in `dualgate`";
                (arrows.inside.contains(&target), help)
            } else {
                let help = "a pure crate does no IO; if this one does none either, add it to xtask/src/arch/arrows.rs \
                            and say why in the commit";
                (arrows.outside.allows(target) || dependency.kind == Kind::Dev, help)
            };
            if !allowed {
                let message = format!("`{name}` must not depend on `{target}`");
                breaches.push(Breach::new("arrows", &manifest, 0, message, help));
            }
        }
    }
    breaches
}

/// What is in nobody's picture is not in the code.
pub fn in_the_picture(crates: &BTreeMap<String, Crate>, files: &[(String, String)]) -> Vec<Breach> {
    const PICTURE: &str = "ARCHITECTURE.md";
    let picture = files.iter().find(|(path, _)| path == PICTURE).map_or("", |(_, text)| text);
    let first_words = picture.lines().filter_map(|line| line.split_whitespace().next());
    let shown: BTreeSet<&str> = first_words.map(|word| word.trim_end_matches('/')).collect();
    let missing = crates.keys().filter(|name| !shown.contains(name.as_str()));
    missing
        .map(|name| {
            let message = format!("the picture does not show the crate `{name}`");
            Breach::new("picture", PICTURE, 0, message, "give it a line that begins with its name and says what it is")
        })
        .collect()
}

impl Outside {
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn workspace(manifests: &[(&str, &[(&str, Kind)])]) -> BTreeMap<String, Crate> {
        let member = |(name, dependencies): &(&str, &[(&str, Kind)])| {
            let dependencies = dependencies.iter().map(|(name, kind)| Dependency { name: (*name).into(), kind: *kind });
            ((*name).to_owned(), Crate { folder: format!("crates/{name}"), dependencies: dependencies.collect() })
        };
        manifests.iter().map(member).collect()
    }

    fn messages(breaches: Vec<Breach>) -> Vec<String> {
        breaches.into_iter().map(|breach| breach.message).collect()
    }

    #[test]
    fn the_allowed_direction_passes() {
        let crates = workspace(&[
            ("dualgate-core", &[("serde", Kind::Normal), ("dualgate-wire", Kind::Normal), ("tokio", Kind::Dev)]),
            ("dualgate-host", &[("dualgate-core", Kind::Normal), ("tokio", Kind::Normal)]),
            ("dualgate-wire", &[]),
        ]);
        assert_eq!(check(&crates), []);
    }

    #[test]
    fn a_pure_crate_gets_no_io() {
        let crates = workspace(&[("dualgate-http", &[("tokio", Kind::Normal), ("cc", Kind::Build)])]);
        let expected = ["`dualgate-http` must not depend on `tokio`", "`dualgate-http` must not depend on `cc`"];
        assert_eq!(messages(check(&crates)), expected);
    }

    #[test]
    fn no_arrow_points_back_even_in_tests() {
        let crates = workspace(&[
            ("dualgate-core", &[("dualgate-proxy", Kind::Dev)]),
            ("dualgate-host", &[("dualgate-proxy", Kind::Normal)]),
            ("dualgate-proxy", &[]),
        ]);
        let expected = [
            "`dualgate-core` must not depend on `dualgate-proxy`",
            "`dualgate-host` must not depend on `dualgate-proxy`",
        ];
        assert_eq!(messages(check(&crates)), expected);
    }

    #[test]
    fn a_crate_is_introduced_before_it_is_used() {
        let crates = workspace(&[("dualgate-util", &[])]);
        assert_eq!(messages(check(&crates)), ["nobody knows the crate `dualgate-util`"]);
    }

    #[test]
    fn the_picture_shows_every_crate() {
        let crates = workspace(&[("dualgate", &[]), ("dualgate-core", &[])]);
        let picture = [("ARCHITECTURE.md".to_owned(), "crates/\n  dualgate-core/  pure, for dualgate\n".to_owned())];
        assert_eq!(messages(in_the_picture(&crates, &picture)), ["the picture does not show the crate `dualgate`"]);
    }
}
