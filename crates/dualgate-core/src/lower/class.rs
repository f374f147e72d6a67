//! Whether an Ingress is ours.

use std::cmp::Reverse;

use serde::Serialize;

use crate::model::object::Ingress;
use crate::model::site::{Class, Reading, Site};
use crate::model::{Code, Finding, Object, Text};

use super::world::World;

/// Why an Ingress is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    /// It names the class.
    Named(Text),
    /// It names no class, and this one is the default: what the API server's admission would fill in.
    Default(Text),
    /// It names no class, and there is no IngressClass at all: a plain folder of manifests.
    NoClasses,
}

impl std::fmt::Display for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(class) => write!(f, "class `{class}`"),
            Self::Default(class) => write!(f, "default class `{class}`"),
            Self::NoClasses => f.write_str("no class named, and no IngressClass exists"),
        }
    }
}

pub(super) enum Verdict {
    Ours(Membership, Reading),
    /// Somebody else's: no route, no finding, no status.
    NotOurs,
    /// Nobody's, as far as can be seen.
    NoSuchClass(Finding),
}

pub(super) fn membership(site: &Site, world: &World, object: &Object, ingress: &Ingress) -> Verdict {
    if let Some(name) = &ingress.class {
        return match served(site, world, name) {
            Served::As(reading) => Verdict::Ours(Membership::Named(name.clone()), reading),
            Served::ByOthers => Verdict::NotOurs,
            Served::ByNobody => Verdict::NoSuchClass(no_such_class(site, world, object, name)),
        };
    }
    if world.classes().next().is_none() {
        return match site.classes.first() {
            Some(class) => Verdict::Ours(Membership::NoClasses, class.reading),
            None => Verdict::NotOurs,
        };
    }
    let Some(name) = default_class(world) else {
        let place = object.place("");
        let message = "it names no class, and no IngressClass is the default; it is served nowhere";
        return Verdict::NoSuchClass(
            Finding::new(Code::IngressUnknownClass, place, message)
                .help("set `spec.ingressClassName`, or annotate an IngressClass with `ingressclass.kubernetes.io/is-default-class: \"true\"`"),
        );
    };
    match served(site, world, name) {
        Served::As(reading) => Verdict::Ours(Membership::Default(name.into()), reading),
        Served::ByOthers | Served::ByNobody => Verdict::NotOurs,
    }
}

enum Served {
    As(Reading),
    ByOthers,
    ByNobody,
}

/// A class is ours by its controller. Without its object, it is ours if the site file names it.
fn served(site: &Site, world: &World, name: &str) -> Served {
    let named = |class: &&Class| class.name.as_deref() == Some(name);
    let Some(object) = world.class(name) else {
        return site.classes.iter().find(named).map_or(Served::ByNobody, |class| Served::As(class.reading));
    };
    let controlled = || site.classes.iter().filter(|class| *class.controller == *object.controller);
    let class = controlled().find(named).or_else(|| controlled().find(|class| class.name.is_none()));
    class.map_or(Served::ByOthers, |class| Served::As(class.reading))
}

/// As the API server's admission: the newest, then the first by name.
fn default_class(world: &World) -> Option<&str> {
    let defaults = world.classes().filter(|(_, class)| class.is_default);
    let first =
        defaults.min_by_key(|(object, _)| (Reverse(object.meta.created.seconds()), object.key.name.name.clone()));
    first.map(|(object, _)| &*object.key.name.name)
}

fn no_such_class(site: &Site, world: &World, object: &Object, name: &str) -> Finding {
    let ours = site.classes.iter().filter_map(|class| class.name.as_deref());
    let mut known: Vec<&str> = world.classes().map(|(object, _)| &*object.key.name.name).chain(ours).collect();
    known.sort_unstable();
    known.dedup();
    let place = object.place("spec.ingressClassName");
    let message = format!("there is no IngressClass `{name}`; the Ingress is served nowhere");
    Finding::new(Code::IngressUnknownClass, place, message).help(match known.as_slice() {
        [] => "name a class in the site file's `classes`".to_owned(),
        known => format!("the classes that are known are `{}`", known.join("`, `")),
    })
}
