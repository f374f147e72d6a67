//! The annotations that dualgate reads on Ingresses and Services.
//!
//! Keys of Traefik's are read without regard to case, as Traefik does. What cannot be read costs that
//! annotation alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use crate::model::object::Service;
use crate::model::{Code, EntryPointName, Family, Finding, GateName, Object, Place, Severity};
use crate::plan::proxy::Scheme;

/// The gates at which an Ingress is served: `internal`, `external` or `internal,external`.
pub const GATES: &str = "dualgate.dev/gates";

/// The servers of a Service, for those without EndpointSlices: servers separated by `,`, the addresses of
/// one server joined by `+`, as in `10.0.0.5:3000+[fd00::5]:3000`. Without a port, the Service's target port.
pub const ENDPOINTS: &str = "dualgate.dev/endpoints";

/// Traefik's entry points of an Ingress.
pub const ENTRY_POINTS: &str = "traefik.ingress.kubernetes.io/router.entrypoints";

/// The addresses of a Service of type LoadBalancer, at most one of each family: ours, and what others call it. The
/// first that is there counts; `spec.loadBalancerIP` is the last.
pub const ADDRESSES: [&str; 5] = [
    "dualgate.dev/addresses",
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
    "kube-vip.io/loadbalancerIPs",
    "lbipam.cilium.io/ips",
];

/// The pool that a Service's addresses come from.
pub const POOL: [&str; 3] =
    ["dualgate.dev/address-pool", "metallb.io/address-pool", "metallb.universe.tf/address-pool"];

/// Services with one value of it may have one address, if their ports differ.
pub const SHARING: [&str; 4] = [
    "dualgate.dev/allow-shared-ip",
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
    "lbipam.cilium.io/sharing-key",
];

/// What to do about an annotation that has no effect.
pub const IGNORED_HELP: &str =
    "what it asks for does not happen; check whether the application may be served without it";

const TRAEFIK: &str = "traefik.ingress.kubernetes.io/";
const OURS: &str = "dualgate.dev/";
const METALLB: &str = "metallb.io/";
const METALLB_BEFORE: &str = "metallb.universe.tf/";

/// Ours on a Service.
const OF_SERVICE: [&str; 4] = [ENDPOINTS, ADDRESSES[0], POOL[0], SHARING[0]];

/// What the annotations of an Ingress say.
#[derive(Debug, Default)]
pub(super) struct OfIngress {
    pub gates: Option<Vec<GateName>>,
    /// The key as written, and the names.
    pub entry_points: Option<(String, Vec<EntryPointName>)>,
    /// Absent for 0, which is the default.
    pub priority: Option<i64>,
    pub path_matcher: Option<PathMatcher>,
    /// The key that asks for TLS.
    pub tls: Option<String>,
    /// Whether it asks for middlewares, none of which runs here.
    pub middlewares: Middlewares,
}

/// Whether an Ingress asks for middlewares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Middlewares {
    #[default]
    None,
    /// One of them may be what guards the application.
    Missing,
}

/// `router.pathmatcher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathMatcher {
    Path,
    PathPrefix,
    PathRegexp,
}

impl FromStr for PathMatcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Path" => Ok(Self::Path),
            "PathPrefix" => Ok(Self::PathPrefix),
            "PathRegexp" => Ok(Self::PathRegexp),
            other => Err(format!("`{other}` is not `Path`, `PathPrefix` or `PathRegexp`")),
        }
    }
}

impl OfIngress {
    pub fn read(object: &Object, findings: &mut Vec<Finding>) -> Self {
        let mut read = Self::default();
        let mut tls = None;
        let mut tls_option = None;
        for (key, value) in object.meta.annotations.iter() {
            let mut reader = Reader { object, key, value, findings };
            match Word::of(key) {
                Word::Ours("gates") => read.gates = reader.list(),
                Word::Ours(_) => reader.unknown(&[GATES]),
                Word::Traefik(word) => match word.as_str() {
                    "router.entrypoints" => {
                        read.entry_points = reader.names().map(|names| (key.to_owned(), names));
                    }
                    "router.priority" => read.priority = reader.parse::<i64>().filter(|priority| *priority != 0),
                    "router.pathmatcher" => read.path_matcher = reader.parse(),
                    "router.tls" => tls = reader.bool(),
                    "router.middlewares" => {
                        reader.without_middlewares();
                        read.middlewares = Middlewares::Missing;
                    }
                    word => {
                        if word.starts_with("router.tls.") {
                            tls_option = Some(key.to_owned());
                        }
                        reader.ignored();
                    }
                },
                Word::Foreign => {}
            }
        }
        read.tls = match tls {
            Some(true) => Some(format!("{TRAEFIK}router.tls")),
            Some(false) => None,
            // As in Traefik, an option of TLS asks for TLS.
            None => tls_option,
        };
        read
    }
}

/// What the annotations of a Service say, apart from its endpoints.
#[derive(Debug, Default)]
pub(super) struct OfService {
    pub scheme: Option<Scheme>,
    pub pass_host: Option<bool>,
    /// As written.
    pub endpoints: Option<String>,
}

impl OfService {
    pub fn read(object: &Object, findings: &mut Vec<Finding>) -> Self {
        let mut read = Self::default();
        for (key, value) in object.meta.annotations.iter() {
            let mut reader = Reader { object, key, value, findings };
            match Word::of(key) {
                Word::Ours("endpoints") => read.endpoints = Some(value.to_owned()),
                Word::Ours(_) => reader.unknown_of_service(),
                Word::Traefik(word) => match word.as_str() {
                    "service.serversscheme" => read.scheme = reader.scheme(),
                    "service.passhostheader" => read.pass_host = reader.bool(),
                    _ => reader.ignored(),
                },
                Word::Foreign => {}
            }
        }
        read
    }
}

/// What a Service of type LoadBalancer asks for.
#[derive(Debug, Default)]
pub(crate) struct OfLoadBalancer<'a> {
    /// At most one address of each family.
    pub addresses: Option<Asked<Vec<IpAddr>>>,
    /// The name of a pool.
    pub pool: Option<Asked<&'a str>>,
    /// With whom it may share an address.
    pub sharing: Option<Asked<&'a str>>,
}

/// What is asked for, and by which field.
#[derive(Debug)]
pub(crate) struct Asked<T> {
    pub value: T,
    pub field: String,
}

impl<'a> OfLoadBalancer<'a> {
    pub fn read(object: &'a Object, service: &Service, findings: &mut Vec<Finding>) -> Self {
        for (key, value) in object.meta.annotations.iter() {
            let mut reader = Reader { object, key, value, findings };
            match Word::of(key) {
                Word::Ours(_) => reader.unknown_of_service(),
                Word::Traefik(_) | Word::Foreign => reader.renamed(),
            }
        }
        let mut addresses = every(object, &ADDRESSES, findings, |reader| reader.addresses());
        if let Some(address) = service.load_balancer_ip() {
            addresses.push(Asked { value: vec![address], field: "spec.loadBalancerIP".to_owned() });
        }
        let pools = every(object, &POOL, findings, |reader| reader.text());
        let keys = every(object, &SHARING, findings, |reader| reader.text());
        Self {
            addresses: first(object, addresses, findings, |a, b| {
                a.iter().collect::<BTreeSet<_>>() == b.iter().collect()
            }),
            pool: first(object, pools, findings, |a, b| a == b),
            sharing: first(object, keys, findings, |a, b| a == b),
        }
    }
}

/// What each of the keys says, in their order.
fn every<'a, T>(
    object: &'a Object,
    keys: &[&'a str],
    findings: &mut Vec<Finding>,
    read: impl Fn(&mut Reader<'a, '_>) -> Option<T>,
) -> Vec<Asked<T>> {
    let annotations = keys.iter().filter_map(|key| Some((*key, object.meta.annotations.get(key)?)));
    let asked = annotations.filter_map(|(key, value)| {
        let value = read(&mut Reader { object, key, value, findings })?;
        Some(Asked { value, field: format!("metadata.annotations[{key}]") })
    });
    asked.collect()
}

/// The first one counts; those that say something else are told.
fn first<T>(
    object: &Object,
    asked: Vec<Asked<T>>,
    findings: &mut Vec<Finding>,
    same: impl Fn(&T, &T) -> bool,
) -> Option<Asked<T>> {
    let mut asked = asked.into_iter();
    let first = asked.next()?;
    for other in asked.filter(|other| !same(&other.value, &first.value)) {
        let message = format!("it asks for something else than `{}`, which counts", first.field);
        let finding = Finding::new(Code::AddressRequest, object.place(other.field), message);
        findings.push(finding.help("leave one of them out"));
    }
    Some(first)
}

/// Whose an annotation is, and its name without the prefix.
enum Word<'a> {
    Ours(&'a str),
    /// In lower case.
    Traefik(String),
    Foreign,
}

impl<'a> Word<'a> {
    fn of(key: &'a str) -> Self {
        if let Some(word) = key.strip_prefix(OURS) {
            return Self::Ours(word);
        }
        let lower = key.to_ascii_lowercase();
        lower.strip_prefix(TRAEFIK).map_or(Self::Foreign, |word| Self::Traefik(word.to_owned()))
    }
}

struct Reader<'a, 'f> {
    object: &'a Object,
    key: &'a str,
    value: &'a str,
    findings: &'f mut Vec<Finding>,
}

impl<'a> Reader<'a, '_> {
    fn text(&mut self) -> Option<&'a str> {
        let text = self.value.trim();
        if text.is_empty() {
            self.invalid("it is empty; it counts as absent");
            return None;
        }
        Some(text)
    }
}

impl Reader<'_, '_> {
    fn place(&self) -> Place {
        place(self.object, self.key)
    }

    fn invalid(&mut self, why: impl Into<String>) {
        self.findings.push(Finding::new(Code::AnnotationInvalid, self.place(), why));
    }

    fn ignored(&mut self) {
        let message = format!("dualgate does not act on `{}`", self.key);
        self.findings.push(Finding::new(Code::AnnotationIgnored, self.place(), message).help(IGNORED_HELP));
    }

    /// Worse than ignored: what guards the application may be missing.
    fn without_middlewares(&mut self) {
        let message = format!("no middleware runs: dualgate does not act on `{}`", self.key);
        let finding = Finding::new(Code::AnnotationIgnored, self.place(), message);
        let help = "one of them may be what guards the application, so it stays at home; if it may be public without, \
                    say so with `dualgate.dev/gates: internal,external`";
        self.findings.push(Finding { severity: Severity::Error, ..finding.help(help) });
    }

    fn unknown_of_service(&mut self) {
        if !OF_SERVICE.contains(&self.key) {
            self.unknown(&OF_SERVICE);
        }
    }

    /// The prefix that MetalLB had before.
    fn renamed(&mut self) {
        let Some(word) = self.key.strip_prefix(METALLB_BEFORE) else { return };
        if [ADDRESSES.as_slice(), &POOL, &SHARING].iter().any(|keys| keys.contains(&self.key)) {
            let message = format!("`{}` is the old name of `{METALLB}{word}`; it counts all the same", self.key);
            self.findings.push(Finding::new(Code::AnnotationRenamed, self.place(), message));
        }
    }

    fn addresses(&mut self) -> Option<Vec<IpAddr>> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for word in self.value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let Ok(address) = word.parse::<IpAddr>() else {
                self.invalid(format!("`{word}` is not an IP address; nothing is asked for"));
                return None;
            };
            if let Some(other) = addresses.iter().find(|other| Family::of(**other) == Family::of(address)) {
                self.invalid(format!("`{other}` and `{address}` are of one family; nothing is asked for"));
                return None;
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            self.invalid("it is empty; it counts as absent");
            return None;
        }
        Some(addresses)
    }

    fn unknown(&mut self, known: &[&str]) {
        let message = format!("`{}` is not an annotation that dualgate knows here", self.key);
        let help = format!("known here: `{}`", known.join("`, `"));
        self.findings.push(Finding::new(Code::AnnotationInvalid, self.place(), message).help(help));
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Option<T> {
        self.value.trim().parse().map_err(|error: T::Err| self.invalid(format!("`{}`: {error}", self.value))).ok()
    }

    fn bool(&mut self) -> Option<bool> {
        match self.value.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Some(true),
            "false" | "f" | "0" => Some(false),
            _ => {
                self.invalid(format!("`{}` is neither `true` nor `false`", self.value));
                None
            }
        }
    }

    fn scheme(&mut self) -> Option<Scheme> {
        match self.value.trim() {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            "h2c" => Some(Scheme::H2c),
            other => {
                self.invalid(format!("`{other}` is not `http`, `https` or `h2c`"));
                None
            }
        }
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.value.split(',').map(str::trim).filter(|word| !word.is_empty())
    }

    fn list<T: FromStr<Err = String>>(&mut self) -> Option<Vec<T>> {
        let read: Result<Vec<T>, String> = self.words().map(str::parse).collect();
        match read {
            Ok(list) if list.is_empty() => {
                self.invalid("it is empty; it counts as absent");
                None
            }
            Ok(list) => Some(list),
            Err(error) => {
                self.invalid(error);
                None
            }
        }
    }

    /// An empty list counts as absent, as in Traefik.
    fn names(&self) -> Option<Vec<EntryPointName>> {
        let names: Vec<_> = self.words().map(EntryPointName::new).collect();
        (!names.is_empty()).then_some(names)
    }
}

/// The place of an annotation.
pub(super) fn place(object: &Object, key: &str) -> Place {
    object.place(format!("metadata.annotations[{key}]"))
}
