//! What the data plane of one node has to serve.
//!
//! A node gets what its gates serve and nothing else: the edge never learns of a route, a backend, a name or a
//! key that is not public.

mod backends;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::lower::{self, EntryPoints, Lowered, LoweredIngress, SiteCertificate};
use crate::model::changes::changes;
use crate::model::site::{EntryProtocol, Gate, Node, ProxySettings, Role};
use crate::model::snapshot::{Generation, Snapshot};
use crate::model::{Digest, EntryPointName, GateName, HostPattern, NodeName, ObjectName, Secret, Sockets, Text};
use crate::route::{Action, BackendIndex, EntryPointIndex, EntryPointSet, Route, Table};

use super::forward::{self, Forward};

pub use backends::{Backends, PAGE, Page};

/// What the data plane of one node has to serve. The empty plan serves nothing.
#[derive(Clone, Debug, Default)]
pub struct ProxyPlan {
    /// The snapshot that it was made from.
    pub generation: Generation,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Which route serves a request.
    pub table: Arc<Table>,
    /// What routes point to, by `BackendIndex`.
    pub backends: Backends,
    /// What TLS entry points show.
    pub certificates: Arc<[Arc<Certificate>]>,
    /// What is handed on to the pods of Services, unread.
    pub forwards: Vec<Forward>,
    /// Time-outs and limits.
    pub settings: ProxySettings,
    /// Addresses that no server may have, whatever its name turns out to mean: this node's admin listener.
    pub forbidden: Arc<[SocketAddr]>,
}

/// One socket to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Which (gate, entry point) pair this is; both families of a pair share it.
    pub index: EntryPointIndex,
    /// The gate.
    pub gate: GateName,
    /// The entry point.
    pub entry_point: EntryPointName,
    /// Address and port.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: EntryProtocol,
    /// Whether the address may be absent from the host when the socket is bound (virtual IPs).
    pub address_may_be_absent: bool,
    /// Peers whose forwarding fields are believed.
    pub trusted: Vec<IpNet>,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
}

/// What identifies a backend: its state (balancer, health, connections) survives plans under this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    /// The Service.
    pub service: ObjectName,
    /// Its port, as a number.
    pub port: u16,
}

impl std::fmt::Display for BackendId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// One port of a Service with its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Which it is.
    pub id: BackendId,
    /// What its servers speak.
    pub scheme: Scheme,
    /// Whether servers see the client's `Host`; otherwise their own address.
    pub pass_host: bool,
    /// The servers that are ready, in a stable order.
    pub servers: Box<[Server]>,
}

/// What the servers of a backend speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS; the certificate is not verified, as the pods' are self-signed.
    Https,
    /// HTTP/2 with prior knowledge.
    H2c,
}

/// One pod, or one machine: one server, however many addresses it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What identifies it within its backend: the pod's name, else its addresses.
    pub id: Text,
    /// Where it is.
    pub at: ServerAddress,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// At an address of each of its families.
    Sockets(Sockets),
    /// At whatever addresses a name has (ExternalName).
    Name {
        /// The name.
        host: Text,
        /// The port.
        port: u16,
    },
}

/// One certificate and where it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The Secret.
    pub secret: ObjectName,
    /// The names for which it is shown.
    pub hosts: Vec<HostPattern>,
    /// Where.
    pub entry_points: EntryPointSet,
    /// The digest of chain and key: what identifies it.
    pub digest: Digest,
    /// The chain, PEM.
    pub chain: Arc<[u8]>,
    /// The key, PEM.
    pub key: Secret,
    /// `notAfter` of the first certificate, in seconds since 1970.
    pub not_after: i64,
}

/// The plan of one node. A node that the site does not know, or that serves no gate, gets the empty plan.
pub fn proxy(snapshot: &Snapshot, node: &NodeName) -> ProxyPlan {
    select(snapshot, &lower::snapshot(snapshot), node)
}

/// The plan of one node, from the snapshot and what it was lowered to.
pub fn select(snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> ProxyPlan {
    Memo::default().select(snapshot, lowered, node)
}

/// What the plan before was made from: what did not change since is part of the next plan too.
#[derive(Debug, Default)]
pub struct Memo {
    /// The entry points of this node.
    here: EntryPointSet,
    ingresses: Vec<Arc<LoweredIngress>>,
    table: Arc<Table>,
    /// By number, how many routes lead to a backend.
    used: Vec<u32>,
    backends: Backends,
    site_certificates: Vec<Arc<SiteCertificate>>,
    /// By Secret, those of now.
    narrowed: BTreeMap<ObjectName, Vec<Arc<Certificate>>>,
    certificates: Arc<[Arc<Certificate>]>,
}

impl Memo {
    /// The plan of one node, from the snapshot and what it was lowered to.
    pub fn select(&mut self, snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> ProxyPlan {
        let mut plan = ProxyPlan {
            generation: snapshot.generation,
            settings: snapshot.site.proxy.clone(),
            forbidden: snapshot.site.admin.listen.as_slice().into(),
            ..ProxyPlan::default()
        };
        let Some(node) = snapshot.site.node(node) else {
            *self = Self::default();
            return plan;
        };
        for (name, gate) in &snapshot.site.gates {
            if node.has(Role::of_gate(*name)) {
                plan.listeners.extend(listeners(*name, gate, node, &lowered.entry_points));
            }
        }
        let here = lowered.entry_points.those(|pair| node.has(Role::of_gate(pair.gate)));
        if here != self.here {
            *self = Self { here, ..Self::default() };
        }
        self.narrow_routes(lowered);
        self.narrow_certificates(lowered);
        plan.table = self.table.clone();
        plan.backends = self.backends.clone();
        plan.certificates = self.certificates.clone();
        plan.forwards = forward::select(lowered, node);
        plan
    }

    /// The routes that are served here, and the backends that they point to.
    fn narrow_routes(&mut self, lowered: &Lowered) {
        let here = self.here;
        let mut changes = changes(&self.ingresses, &lowered.ingresses, |ingress| &ingress.key().name);
        let is_other = !changes.is_empty();
        changes.retain(|(old, new)| !old.zip(*new).is_some_and(|(old, new)| old.has_routes_of(new)));
        let is_here = |route: &&Arc<Route>| route.entry_points.intersects(here);
        let gone = || changes.iter().filter_map(|(old, _)| *old).flat_map(|old| &old.routes).filter(is_here);
        let come = || changes.iter().filter_map(|(_, new)| *new).flat_map(|new| &new.routes).filter(is_here);
        if gone().next().is_some() || come().next().is_some() {
            let narrowed = come().map(|route| narrow_route(route, here));
            self.table = Arc::new(self.table.with(gone().map(|route| &**route), narrowed));
        }
        let (gone, come): (Vec<usize>, Vec<usize>) =
            (gone().filter_map(used).collect(), come().filter_map(used).collect());
        for index in come {
            if self.used.len() <= index {
                self.used.resize(index + 1, 0);
            }
            self.used[index] += 1;
        }
        gone.into_iter().for_each(|index| self.used[index] -= 1);
        let is_used = |index: BackendIndex| self.used.get(index.0 as usize).is_some_and(|routes| *routes > 0);
        self.backends = lowered.backends().narrowed(&self.backends, is_used);
        if is_other {
            self.ingresses.clone_from(&lowered.ingresses);
        }
    }

    fn narrow_certificates(&mut self, lowered: &Lowered) {
        let changes = changes(&self.site_certificates, &lowered.certificates, |certificate| &certificate.secret);
        if changes.is_empty() {
            return;
        }
        for (old, new) in changes {
            old.iter().for_each(|gone| drop(self.narrowed.remove(&gone.secret)));
            let narrow = |certificate: &SiteCertificate| narrow_certificate(certificate, self.here);
            self.narrowed.extend(new.map(|come| (come.secret.clone(), narrow(come))));
        }
        self.certificates = self.narrowed.values().flatten().cloned().collect();
        self.site_certificates.clone_from(&lowered.certificates);
    }
}

/// Its backend's number.
fn used(route: &Arc<Route>) -> Option<usize> {
    match route.action {
        Action::Forward(index) => Some(index.0 as usize),
        Action::Unavailable(_) => None,
    }
}

/// A route as it is served here.
fn narrow_route(route: &Arc<Route>, here: EntryPointSet) -> Arc<Route> {
    let entry_points = route.entry_points.and(here);
    if entry_points == route.entry_points {
        return route.clone();
    }
    Arc::new(Route { entry_points, ..Route::clone(route) })
}

impl ProxyPlan {
    /// The certificate for a name (lower case, without trailing dot): of the host itself before that of a
    /// wildcard. `None` means the default certificate.
    pub fn certificate(&self, entry_point: EntryPointIndex, name: &str) -> Option<&Certificate> {
        let here = || self.certificates.iter().filter(|certificate| certificate.entry_points.contains(entry_point));
        let best = |certificate: &&Arc<Certificate>| {
            certificate.hosts.iter().filter(|host| **host != HostPattern::Any && host.matches(name)).min().cloned()
        };
        here()
            .filter_map(|certificate| Some((best(&certificate)?, certificate)))
            .min_by(|a, b| a.0.cmp(&b.0))
            .map(|(_, certificate)| &**certificate)
    }
}

/// The addresses at which a node serves a gate, and whether they may be absent from it.
pub fn addresses<'a>(name: GateName, gate: &'a Gate, node: &'a Node) -> (&'a [IpAddr], bool) {
    match (gate.addresses.as_slice(), name) {
        ([], GateName::Internal) => (&node.addresses, false),
        ([], GateName::External) => (&node.public_addresses, false),
        (virtual_ips, _) => (virtual_ips, true),
    }
}

fn listeners(name: GateName, gate: &Gate, node: &Node, entry_points: &EntryPoints) -> Vec<Listener> {
    let (addresses, address_may_be_absent) = addresses(name, gate, node);
    let pairs = entry_points.iter().filter(|pair| pair.gate == name);
    let every = pairs.flat_map(|pair| addresses.iter().map(move |address| (pair, *address)));
    every
        .map(|(pair, address)| Listener {
            index: pair.index,
            gate: name,
            entry_point: pair.name.clone(),
            address: SocketAddr::new(address, pair.point.port),
            protocol: pair.point.protocol,
            address_may_be_absent,
            trusted: pair.point.trusted.clone(),
            proxy_protocol: pair.point.proxy_protocol.clone(),
        })
        .collect()
}

/// One certificate for each set of entry points that some of its hosts share.
fn narrow_certificate(certificate: &SiteCertificate, here: EntryPointSet) -> Vec<Arc<Certificate>> {
    let mut hosts: BTreeMap<EntryPointSet, Vec<HostPattern>> = BTreeMap::new();
    for (host, set) in &certificate.hosts {
        hosts.entry(set.and(here)).or_default().push(host.clone());
    }
    let shown = hosts.into_iter().filter(|(entry_points, _)| !entry_points.is_empty());
    shown
        .map(|(entry_points, mut hosts)| {
            hosts.sort();
            Arc::new(Certificate {
                secret: certificate.secret.clone(),
                hosts,
                entry_points,
                digest: certificate.digest,
                chain: certificate.chain.clone(),
                key: certificate.key.clone(),
                not_after: certificate.not_after,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Families};
    use crate::model::Dual;

    const SITE_AND_TWO_APPLICATIONS: &str = "\
== services
public 80
private 80
shared 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: public, namespace: default, annotations: {dualgate.dev/gates: 'internal,external'}}
spec:
  rules:
  - host: public.example.org
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: public, port: {number: 80}}}}
      - {path: /shared, pathType: Prefix, backend: {service: {name: shared, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: private, namespace: default}
spec:
  rules:
  - host: private.example.org
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: private, port: {number: 80}}}}
      - {path: /shared, pathType: Prefix, backend: {service: {name: shared, port: {number: 80}}}}
";

    fn plan(text: &str, families: Families, node: &str) -> ProxyPlan {
        let snapshot = Case::parse("test", text).unwrap().snapshot(families).unwrap();
        proxy(&snapshot, &NodeName::new(node))
    }

    fn sockets(plan: &ProxyPlan) -> Vec<String> {
        let listener = |l: &Listener| format!("{} {} {} {}", l.gate, l.entry_point, l.address, l.address_may_be_absent);
        plan.listeners.iter().map(listener).collect()
    }

    #[test]
    fn the_edge_holds_only_what_is_public() {
        let plan = plan(SITE_AND_TWO_APPLICATIONS, Families::Both, "edge");
        let hosts: Vec<String> = plan.table.routes().map(|route| route.host.to_string()).collect();
        assert_eq!(hosts, ["public.example.org", "public.example.org"]);
        let mut backends: Vec<String> = plan.backends.iter().map(|backend| backend.id.to_string()).collect();
        backends.sort();
        assert_eq!(backends, ["default/public:80", "default/shared:80"]);
        let external: EntryPointSet = plan.listeners.iter().map(|listener| listener.index).collect();
        assert!(plan.table.routes().all(|route| route.entry_points.without(external).is_empty()));
        assert!(!format!("{plan:?}").contains("private"), "a trace of the private application");
    }

    #[test]
    fn the_edge_holds_no_key_and_no_name_of_a_certificate_that_is_not_public() {
        let both = EntryPointSet::default().with(EntryPointIndex(0)).with(EntryPointIndex(3));
        let inside = EntryPointSet::default().with(EntryPointIndex(0));
        let host = |name: &str| name.parse::<HostPattern>().unwrap();
        let certificate = SiteCertificate {
            secret: ObjectName::new("default", "tls"),
            hosts: vec![(host("public.example.org"), both), (host("private.example.org"), inside)],
            digest: Digest::of(b""),
            chain: Arc::new([]),
            key: Secret::new(*b"key"),
            not_before: 0,
            not_after: 1,
            names: Vec::new(),
        };
        let edge = EntryPointSet::default().with(EntryPointIndex(3));
        let found = narrow_certificate(&certificate, edge);
        assert_eq!(
            found.iter().map(|c| (&*c.hosts, c.entry_points)).collect::<Vec<_>>(),
            [(&[host("public.example.org")][..], edge)]
        );
        assert_eq!(narrow_certificate(&certificate, EntryPointSet::default().with(EntryPointIndex(2))), []);
        let home = narrow_certificate(&certificate, inside);
        assert_eq!(home.len(), 1, "one set of entry points is one certificate");
        assert_eq!(home[0].hosts, [host("private.example.org"), host("public.example.org")]);
    }

    #[test]
    fn home_listens_on_virtual_ips_that_may_be_elsewhere_and_the_edge_on_its_own() {
        let home = |families| sockets(&plan("", families, "home2"));
        assert_eq!(
            home(Families::V4),
            ["internal web 192.168.178.10:80 true", "internal websecure 192.168.178.10:443 true"]
        );
        assert_eq!(
            home(Families::V6),
            ["internal web [fda8:a1db:5685::10]:80 true", "internal websecure [fda8:a1db:5685::10]:443 true"]
        );
        assert_eq!(home(Families::Both).len(), 4);
        assert_eq!(
            sockets(&plan("", Families::Both, "edge")),
            [
                "external web 203.0.113.10:80 false",
                "external web [2001:db8:1::10]:80 false",
                "external websecure 203.0.113.10:443 false",
                "external websecure [2001:db8:1::10]:443 false",
            ]
        );
    }

    #[test]
    fn both_families_of_an_entry_point_share_its_number_and_nodes_agree_on_numbers() {
        let (home, edge) = (plan("", Families::Both, "home1"), plan("", Families::Both, "edge"));
        let numbers = |plan: &ProxyPlan| plan.listeners.iter().map(|listener| listener.index.0).collect::<Vec<_>>();
        assert_eq!((numbers(&home), numbers(&edge)), (vec![0, 0, 1, 1], vec![2, 2, 3, 3]));
    }

    #[test]
    fn an_unknown_node_and_a_node_without_gate_get_the_empty_plan() {
        for node in ["nobody", "server"] {
            let site = "== site\napiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: x\nnodes: [{name: server, roles: [server], addresses: [192.168.1.5]}]\ngates: {internal: {}}\n";
            let plan = plan(&format!("{site}{SITE_AND_TWO_APPLICATIONS}"), Families::V4, node);
            assert_eq!((plan.listeners.len(), plan.table.len(), plan.backends.len()), (0, 0, 0), "{node}");
        }
    }

    #[test]
    fn one_pod_is_one_server_with_an_address_of_each_family_that_there_is() {
        let at = |families| {
            let plan = plan(SITE_AND_TWO_APPLICATIONS, families, "edge");
            let mut backends = plan.backends.iter();
            backends.find(|backend| &*backend.id.service.name == "public").unwrap().servers.to_vec()
        };
        let server =
            |at: Dual<SocketAddr>| vec![Server { id: "public-1".into(), at: ServerAddress::Sockets(at.into()) }];
        let (v4, v6) = ("10.42.0.1:80".parse().unwrap(), "[fd01::1]:80".parse().unwrap());
        assert_eq!(at(Families::V4), server(Dual::V4(v4)));
        assert_eq!(at(Families::V6), server(Dual::V6(v6)));
        assert_eq!(at(Families::Both), server(Dual::Both { v4, v6 }));
    }

    #[test]
    fn what_servers_speak_comes_from_annotation_then_app_protocol_then_port() {
        for (annotation, port, expected) in [
            ("", "{port: 80}", Scheme::Http),
            ("", "{port: 443}", Scheme::Https),
            ("", "{name: https-web, port: 8443}", Scheme::Https),
            ("", "{name: https, port: 8443, appProtocol: http}", Scheme::Http),
            ("", "{port: 80, appProtocol: HTTPS}", Scheme::Https),
            ("", "{port: 80, appProtocol: kubernetes.io/h2c}", Scheme::H2c),
            ("", "{port: 80, appProtocol: kubernetes.io/ws}", Scheme::Http),
            ("h2c", "{port: 443, appProtocol: https}", Scheme::H2c),
            ("http", "{port: 443}", Scheme::Http),
        ] {
            let annotation = match annotation {
                "" => String::new(),
                scheme => format!(", annotations: {{traefik.ingress.kubernetes.io/service.serversscheme: {scheme}}}"),
            };
            let objects = format!(
                "== objects
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default{annotation}}}
spec: {{selector: {{a: b}}, ports: [{port}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: default}}
spec: {{defaultBackend: {{service: {{name: web, port: {{number: {}}}}}}}}}
",
                port.split(['{', ',', '}']).find_map(|part| part.trim().strip_prefix("port: ")).unwrap()
            );
            let plan = plan(&objects, Families::V4, "home1");
            assert_eq!(plan.backends.iter().next().unwrap().scheme, expected, "{annotation} {port}");
        }
    }
}
