//! What an edge may know: the public cut of the objects.
//!
//! An edge is told objects, and plans from them as every node does. The cut holds what its plan follows from and
//! nothing else: planning from the cut gives the plan that planning from everything gives, and nothing can be taken
//! out of the cut without a change of that plan.
//!
//! It is not cut out of what was written but written anew from what was lowered, in Kubernetes' words. So what
//! lowering did not look at, did not understand or did not use cannot slip through: no label, no selector, no
//! annotation of others, no rule that was left out, no endpoint that is not ready. And what changes behind all this
//! changes no cut.
//!
//! | object | is there | with |
//! |---|---|---|
//! | Ingress | it has a route or a certificate at the external gate | its age; where it is placed, as annotations; the rules that are served; `tls` as far as certificates are shown |
//! | IngressClass | an Ingress is read differently without it | its controller |
//! | Service | an Ingress names it | the ports that are used, what they speak, the name of an ExternalName |
//! | EndpointSlice | servers come from slices | port, address and pod of each server |
//! | Secret | its certificate is shown at the external gate | `tls.crt`, `tls.key` |
//! | Node | the tunnel's plan needs it | `podCIDRs` |
//! | Node | home does not hear this other edge, and names would lead there | that it is silent, as annotation |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::lower::{
    self, ENDPOINTS, ENTRY_POINTS, GATES, Lowered, LoweredIngress, Membership, SiteCertificate, Touched,
};
use crate::model::address::Family;
use crate::model::changes::changes;
use crate::model::object::{
    Body, Ingress, IngressBackend, IngressPath, IngressRule, Object, ObjectSet, PathType, PortRef, ServicePort,
    ServiceType,
};
use crate::model::site::Node;
use crate::model::{Digest, GateName, HostPattern, NodeName, ObjectName, Secret, Site, Snapshot};
use crate::parse::object::{Parsed, dump, dump_text, object_with};
use crate::parse::time;
use crate::plan::proxy::{Backend, Scheme, Server, ServerAddress};
use crate::plan::{dns, tunnel};
use crate::route::{Action, BackendIndex, EntryPointSet, PathPattern, Route, RoutePart};

const PRIORITY: &str = "traefik.ingress.kubernetes.io/router.priority";
const PATH_MATCHER: &str = "traefik.ingress.kubernetes.io/router.pathmatcher";
const SERVERS_SCHEME: &str = "traefik.ingress.kubernetes.io/service.serversscheme";
const PASS_HOST: &str = "traefik.ingress.kubernetes.io/service.passhostheader";
const CLASS: &str = "kubernetes.io/ingress.class";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How many endpoints the API server allows in one slice.
const MAX_ENDPOINTS: usize = 1000;

/// What an edge may know; nothing for a node that is none.
pub fn public(snapshot: &Snapshot, node: &NodeName) -> ObjectSet {
    select(snapshot, &lower::snapshot(snapshot), node)
}

/// The same, from the snapshot and what it was lowered to.
pub fn select(snapshot: &Snapshot, lowered: &Lowered, node: &NodeName) -> ObjectSet {
    if !snapshot.site.node(node).is_some_and(Node::is_edge) {
        return ObjectSet::default();
    }
    let cut = Cut::new(snapshot, lowered);
    let mut values = Vec::new();
    let mut classes = BTreeSet::new();
    for placed in &lowered.ingresses {
        if let Some(ingress) = cut.ingress(placed) {
            values.push(ingress);
            classes.extend(cut.class(placed));
        }
    }
    values.extend(classes.into_iter().map(|(name, controller)| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name}, "spec": {"controller": controller},
        })
    }));
    for (name, used) in cut.services() {
        values.extend(cut.service(name, &used));
    }
    let mut keys = BTreeMap::new();
    for certificate in lowered.certificates.iter().filter(|certificate| cut.shown.contains(&certificate.secret)) {
        let (chain, key) = (Secret::new(certificate.chain.clone()), certificate.key.clone());
        values.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": name_of(&certificate.secret),
            "data": {"tls.crt": {"sha256": chain.digest()}, "tls.key": {"sha256": key.digest()}},
        }));
        keys.extend([chain, key].map(|secret| (secret.digest(), secret)));
    }
    values.extend(nodes(snapshot, node));
    assemble(&values, &|digest| keys.get(digest).cloned())
}

/// What the cut before was written from. As long as nothing of it changes, the cut need not be written again.
#[derive(Debug, Default)]
pub struct Memo {
    site: Option<Arc<Site>>,
    objects: Arc<ObjectSet>,
    /// Those that are placed at the external gate.
    ingresses: Vec<Arc<LoweredIngress>>,
    certificates: Vec<Arc<SiteCertificate>>,
    silent_edges: Arc<BTreeSet<NodeName>>,
}

impl Memo {
    /// Whether the cut may be another one than for the snapshot before.
    pub fn may_differ(&mut self, snapshot: &Snapshot, lowered: &Lowered) -> bool {
        let external = lowered.entry_points.of_gate(GateName::External);
        let is_here = |ingress: &&Arc<LoweredIngress>| ingress.placement.entry_points.intersects(external);
        let ingresses: Vec<Arc<LoweredIngress>> = lowered.ingresses.iter().filter(is_here).cloned().collect();
        let changes = changes(&self.objects.objects, &snapshot.objects.objects, |object| &object.key);
        let touched = Touched::by(&changes);
        let is_named = |ingress: &Arc<LoweredIngress>| match &ingress.object.body {
            Body::Ingress(body) => touched.has_backend_of(&ingress.key().name.namespace, body),
            _ => false,
        };
        let is_of_all = |object: &Arc<Object>| matches!(object.body, Body::Node(_) | Body::IngressClass(_));
        let differs = self.site.as_ref().is_none_or(|site| !Arc::ptr_eq(site, &snapshot.site))
            || changes.iter().flat_map(|(old, new)| [*old, *new]).flatten().any(is_of_all)
            || !same(&self.ingresses, &ingresses)
            || !same(&self.certificates, &lowered.certificates)
            || self.silent_edges != snapshot.facts.silent_edges
            || ingresses.iter().any(is_named);
        *self = Self {
            site: Some(snapshot.site.clone()),
            objects: snapshot.objects.clone(),
            ingresses,
            certificates: lowered.certificates.clone(),
            silent_edges: snapshot.facts.silent_edges.clone(),
        };
        differs
    }
}

/// Whether two lists hold one and the same values.
fn same<T>(one: &[Arc<T>], other: &[Arc<T>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

/// The cut as a JSON list, with the values of its Secrets, so the text is one itself: it may go to the edge, and
/// nowhere else.
pub fn to_json(cut: &ObjectSet) -> Secret {
    let mut text = Vec::from(*b"[");
    for (index, object) in cut.objects.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        match &object.body {
            Body::Secret(secret) => {
                let mut value = dump(object);
                for (key, bytes) in &secret.data {
                    // Exposed into another secret.
                    value["data"][key.as_str()] = STANDARD.encode(bytes.expose()).into();
                }
                text.extend_from_slice(value.to_string().as_bytes());
            }
            Body::Ingress(_)
            | Body::IngressClass(_)
            | Body::Service(_)
            | Body::EndpointSlice(_)
            | Body::ConfigMap(_)
            | Body::Namespace
            | Body::Node(_)
            | Body::Other => text.extend_from_slice(dump_text(object).as_bytes()),
        }
    }
    text.extend_from_slice(b"\n]");
    Secret::new(text)
}

/// Reads the items of such a list. Kinds that no cut holds are left out, whoever sent them.
pub fn read(values: &[Value]) -> ObjectSet {
    let mut set = assemble(values, &|_| None);
    set.objects.retain(|object| match object.body {
        Body::Ingress(_)
        | Body::IngressClass(_)
        | Body::Service(_)
        | Body::EndpointSlice(_)
        | Body::Secret(_)
        | Body::Node(_) => true,
        Body::ConfigMap(_) | Body::Namespace | Body::Other => false,
    });
    set
}

fn assemble(values: &[Value], secrets: &dyn Fn(&Digest) -> Option<Secret>) -> ObjectSet {
    let mut set = ObjectSet::default();
    for value in values {
        let Parsed { objects, findings, .. } = object_with(value, None, secrets);
        set.objects.extend(objects.into_iter().map(Arc::new));
        set.findings.extend(findings);
    }
    set.objects.sort_by(|a, b| a.key.cmp(&b.key));
    set.objects.dedup_by(|a, b| a.key == b.key);
    set
}

/// Everything that the cut is written from.
struct Cut<'a> {
    snapshot: &'a Snapshot,
    lowered: &'a Lowered,
    /// The external gate.
    here: EntryPointSet,
    /// Those that are served here.
    routes: BTreeMap<(&'a ObjectName, RoutePart), &'a Route>,
    /// The Secrets whose certificates are shown here.
    shown: BTreeSet<&'a ObjectName>,
}

impl<'a> Cut<'a> {
    fn new(snapshot: &'a Snapshot, lowered: &'a Lowered) -> Self {
        let here = lowered.entry_points.of_gate(GateName::External);
        let routes = lowered.routes().filter(|route| route.entry_points.intersects(here));
        let certificates = lowered.certificates.iter();
        let shown = certificates.filter(|shown| shown.hosts.iter().any(|(_, set)| set.intersects(here)));
        Self {
            snapshot,
            lowered,
            here,
            routes: routes.map(|route| ((&route.origin.ingress, route.origin.part), &**route)).collect(),
            shown: shown.map(|certificate| &certificate.secret).collect(),
        }
    }

    fn object(&self, kind: &str, name: &ObjectName) -> Option<&'a Object> {
        Some(self.snapshot.objects.get(kind, &name.namespace, &name.name)?)
    }

    /// `None` for one without a route or a certificate here.
    fn ingress(&self, placed: &'a LoweredIngress) -> Option<Value> {
        let placement = placed.placement.entry_points.and(self.here);
        let object = &placed.object;
        let Body::Ingress(ingress) = &object.body else { return None };
        let name = &placed.key().name;
        let mut spec = Map::new();
        let mut rules = Vec::new();
        for rule in &ingress.rules {
            if let Some(value) = self.rule(name, rule) {
                // A rule that says nothing does nothing; it is there so that the others keep their numbers.
                rules.resize(usize::from(rule.index), json!({}));
                rules.push(value);
            }
        }
        if let (Some(backend), Some(route)) =
            (&ingress.default_backend, self.routes.get(&(name, RoutePart::DefaultBackend)))
        {
            spec.insert("defaultBackend".into(), self.backend(backend, route));
        }
        let tls: Vec<Value> = if placement.is_empty() { Vec::new() } else { self.tls(name, ingress) };
        if rules.is_empty() && !spec.contains_key("defaultBackend") {
            if tls.is_empty() {
                return None;
            }
            rules.push(json!({}));
        }
        for (field, list) in [("rules", rules), ("tls", tls)] {
            if !list.is_empty() {
                spec.insert(field.into(), list.into());
            }
        }
        let mut metadata = name_of(name);
        if let Some(created) = object.meta.created.seconds() {
            metadata.insert("creationTimestamp".into(), time::rfc3339(created).into());
        }
        let mut annotations = self.placement(placement);
        annotations.extend(self.reading(name, ingress));
        match &placed.membership {
            Membership::Named(class) if object.meta.annotations.get(CLASS) == Some(class) => {
                annotations.insert(CLASS.into(), class.as_str().into());
            }
            // As admission does, so that no other class needs to be known.
            Membership::Named(class) | Membership::Default(class) => {
                spec.insert("ingressClassName".into(), class.as_str().into());
            }
            Membership::NoClasses => {}
        }
        metadata.insert("annotations".into(), annotations.into());
        Some(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec,
        }))
    }

    /// What decided about gates and entry points may name others; what was decided does not.
    fn placement(&self, placement: EntryPointSet) -> Map<String, Value> {
        let mut annotations = Map::from_iter([(GATES.to_owned(), GateName::External.as_str().into())]);
        if placement != self.here {
            let names: Vec<&str> = self.lowered.entry_points.of_set(placement).map(|pair| pair.name.as_str()).collect();
            annotations.insert(ENTRY_POINTS.into(), names.join(",").into());
        }
        annotations
    }

    /// The annotations by which the rules are read.
    fn reading(&self, name: &ObjectName, ingress: &Ingress) -> Map<String, Value> {
        let mut annotations = Map::new();
        let mut routes = self.routes.range((name, RoutePart::Path { rule: 0, path: 0 })..);
        if let Some(((of, _), route)) = routes.next()
            && *of == name
            && let Some(priority) = route.priority
        {
            annotations.insert(PRIORITY.into(), priority.to_string().into());
        }
        for rule in &ingress.rules {
            let free = rule.paths.iter().flatten().filter(|path| path.path_type == PathType::ImplementationSpecific);
            for path in free {
                let route = self.routes.get(&(name, RoutePart::Path { rule: rule.index, path: path.index }));
                let matcher = match route.map(|route| &route.path) {
                    Some(PathPattern::Exact(_)) => "Path",
                    Some(PathPattern::Regex(_)) => "PathRegexp",
                    Some(PathPattern::Prefix { .. } | PathPattern::Characters(_) | PathPattern::Rest) | None => {
                        continue;
                    }
                };
                annotations.insert(PATH_MATCHER.into(), matcher.into());
            }
        }
        annotations
    }

    /// `None` for a rule without a route here.
    fn rule(&self, name: &ObjectName, rule: &IngressRule) -> Option<Value> {
        let path = |path: &IngressPath| {
            let route = self.routes.get(&(name, RoutePart::Path { rule: rule.index, path: path.index }))?;
            let path_type = match path.path_type {
                PathType::Exact => "Exact",
                PathType::Prefix => "Prefix",
                PathType::ImplementationSpecific => "ImplementationSpecific",
            };
            let mut value = json!({"pathType": path_type, "backend": self.backend(&path.backend, route)});
            if !path.path.is_empty() {
                value["path"] = path.path.as_str().into();
            }
            Some(value)
        };
        let paths: Vec<Value> = rule.paths.iter().flatten().filter_map(path).collect();
        let mut value = Map::new();
        if rule.host != HostPattern::Any {
            value.insert("host".into(), rule.host.to_string().into());
        }
        if !paths.is_empty() {
            value.insert("http".into(), json!({ "paths": paths }));
        } else if !self.routes.contains_key(&(name, RoutePart::Rule { rule: rule.index })) {
            return None;
        }
        Some(value.into())
    }

    fn backend(&self, backend: &IngressBackend, route: &Route) -> Value {
        match backend {
            IngressBackend::Service { name, port } => {
                let port = match (port, &route.action) {
                    (PortRef::Number(number), _) => json!({ "number": number }),
                    // Of two ports with one number, one is the backend, and it may have the other name.
                    (PortRef::Name(name), Action::Forward(index)) => match self.port(*index) {
                        Some(port) if port.name != *name => json!({ "number": port.port }),
                        Some(_) | None => json!({ "name": name }),
                    },
                    (PortRef::Name(name), Action::Unavailable(_)) => json!({ "name": name }),
                };
                json!({"service": {"name": name, "port": port}})
            }
            IngressBackend::Resource { what } => {
                let (kind, name) = what.split_once('/').unwrap_or((what, what));
                json!({"resource": {"kind": kind, "name": name}})
            }
        }
    }

    /// The sections whose certificate is shown. Their hosts are written out, as the rules may not all be here.
    fn tls(&self, name: &ObjectName, ingress: &Ingress) -> Vec<Value> {
        let of_rules = || ingress.rules.iter().map(|rule| &rule.host).filter(|host| **host != HostPattern::Any);
        let mut sections = Vec::new();
        for tls in &ingress.tls {
            let Some(secret) = &tls.secret else { continue };
            if !self.shown.contains(&ObjectName::new(name.namespace.clone(), secret.as_str())) {
                continue;
            }
            let hosts = if tls.hosts.is_empty() { of_rules().collect() } else { tls.hosts.iter().collect::<Vec<_>>() };
            let hosts: BTreeSet<String> = hosts.into_iter().map(ToString::to_string).collect();
            let mut section = json!({ "secretName": secret });
            if !hosts.is_empty() {
                section["hosts"] = hosts.into_iter().collect();
            }
            sections.push(section);
        }
        sections
    }

    /// Name and controller of an Ingress's class, if the site file alone reads the class differently.
    fn class(&self, placed: &LoweredIngress) -> Option<(&'a str, &'a str)> {
        let (Membership::Named(name) | Membership::Default(name)) = &placed.membership else { return None };
        let object = self.object("IngressClass", &ObjectName::new("", name.as_str()))?;
        let Body::IngressClass(class) = &object.body else { return None };
        let of_site = self.snapshot.site.classes.iter().find(|class| class.name.as_deref() == Some(&**name));
        let is_known = of_site.is_some_and(|class| class.reading == placed.reading);
        (!is_known).then_some((&*object.key.name.name, class.controller.as_str()))
    }

    /// The Services that routes here name, as far as they exist, with the backends that are used. One without any
    /// lacks the port that is named, and says so.
    fn services(&self) -> BTreeMap<&'a ObjectName, BTreeSet<BackendIndex>> {
        let mut services: BTreeMap<&ObjectName, BTreeSet<BackendIndex>> = BTreeMap::new();
        for route in self.routes.values() {
            match &route.action {
                Action::Forward(index) => {
                    let Some(backend) = self.lowered.backends().get(*index) else { continue };
                    let name = &backend.id.service;
                    services.entry(name).or_default().insert(*index);
                }
                Action::Unavailable(_) => {
                    let ingress = self.lowered.ingress(&route.origin.ingress);
                    // Else a resource, which is no object that is read.
                    if let Some(IngressBackend::Service { name, .. }) =
                        ingress.and_then(|it| it.backend(route.origin.part))
                        && let name = ObjectName::new(route.origin.ingress.namespace.clone(), name.clone())
                        && let Some(object) = self.object("Service", &name)
                    {
                        services.entry(&object.key.name).or_default();
                    }
                }
            }
        }
        services
    }

    /// The port that a backend was made from.
    fn port(&self, index: BackendIndex) -> Option<ServicePort> {
        let backend = self.lowered.backends().get(index)?;
        let Body::Service(service) = &self.object("Service", &backend.id.service)?.body else { return None };
        lower::find_port(service, &PortRef::Number(backend.id.port))
    }

    /// A Service and its EndpointSlices.
    fn service(&self, name: &ObjectName, used: &BTreeSet<BackendIndex>) -> Vec<Value> {
        let Some(object) = self.object("Service", name) else { return Vec::new() };
        let Body::Service(service) = &object.body else { return Vec::new() };
        let mut ports: Vec<(ServicePort, &Backend)> = used
            .iter()
            .filter_map(|index| Some((self.port(*index)?, &**self.lowered.backends().get(*index)?)))
            .collect();
        ports.sort_by_key(|(port, _)| port.port);
        let is_named = service.kind == ServiceType::ExternalName && !ports.is_empty();
        let endpoints = object.meta.annotations.get(ENDPOINTS);
        let is_written = |port: &ServicePort| endpoints.is_some_and(|text| lower::written_servers(text, port).is_ok());
        let mut annotations = Map::new();
        let endpoints_count = ports.iter().any(|(port, _)| is_written(port));
        if let Some(text) = endpoints.filter(|_| endpoints_count) {
            annotations.insert(ENDPOINTS.into(), text.into());
        }
        if ports.iter().any(|(_, backend)| !backend.pass_host) {
            annotations.insert(PASS_HOST.into(), "false".into());
        }
        let mut spec = Map::new();
        let mut values = Vec::new();
        if service.ports.is_empty() || ports.is_empty() {
            // Without ports in which to say what they speak.
            let others = ports.iter().find(|(port, backend)| backend.scheme != guessed(port));
            if let Some((_, backend)) = others {
                annotations.insert(SERVERS_SCHEME.into(), word(backend.scheme).into());
            }
        } else {
            let written = ports.iter().map(|(port, backend)| service_port(port, backend.scheme, endpoints_count));
            spec.insert("ports".into(), written.collect());
        }
        if is_named {
            spec.insert("type".into(), "ExternalName".into());
            spec.insert("externalName".into(), service.external_name.as_deref().into());
        } else if ports.is_empty() {
            // Only a headless Service may have no ports.
            spec.insert("clusterIP".into(), "None".into());
        }
        for (port, backend) in ports.iter().filter(|(port, _)| !is_named && !is_written(port)) {
            slices(name, &port.name, &backend.servers, &mut values);
        }
        let mut metadata = name_of(name);
        if !annotations.is_empty() {
            metadata.insert("annotations".into(), annotations.into());
        }
        values.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}));
        values
    }
}

fn name_of(name: &ObjectName) -> Map<String, Value> {
    Map::from_iter([
        ("name".to_owned(), Value::from(&*name.name)),
        ("namespace".to_owned(), Value::from(&*name.namespace)),
    ])
}

/// The target port decides only about servers in an annotation.
fn service_port(port: &ServicePort, scheme: Scheme, endpoints_count: bool) -> Value {
    let protocol = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::H2c => "kubernetes.io/h2c",
    };
    let mut value = json!({"port": port.port, "appProtocol": protocol});
    if !port.name.is_empty() {
        value["name"] = port.name.as_str().into();
    }
    match &port.target {
        PortRef::Number(number) if endpoints_count && *number != port.port => value["targetPort"] = (*number).into(),
        PortRef::Name(name) if endpoints_count => value["targetPort"] = name.as_str().into(),
        PortRef::Number(_) | PortRef::Name(_) => {}
    }
    value
}

/// What a port without any word of it is taken for, where no Service says what its ports are.
fn guessed(port: &ServicePort) -> Scheme {
    if port.port == 443 { Scheme::Https } else { Scheme::Http }
}

fn word(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
        Scheme::H2c => "h2c",
    }
}

/// The slices of one port: one for each family and number, as full as may be.
fn slices(service: &ObjectName, port: &str, servers: &[Server], values: &mut Vec<Value>) {
    let mut groups: BTreeMap<(Family, u16), Vec<Value>> = BTreeMap::new();
    for server in servers {
        let ServerAddress::Sockets(sockets) = &server.at else { continue };
        for socket in sockets.iter() {
            let endpoint = endpoint(socket.ip(), (*server.id != *socket.to_string()).then_some(&*server.id));
            groups.entry((Family::of(socket.ip()), socket.port())).or_default().push(endpoint);
        }
    }
    for ((family, number), endpoints) in groups {
        let address_type = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let mut of_slice = json!({ "port": number });
        if !port.is_empty() {
            of_slice["name"] = port.into();
        }
        for endpoints in endpoints.chunks(MAX_ENDPOINTS) {
            let mut metadata = name_of(service);
            metadata.insert("name".into(), format!("{}-{}", service.name, values.len() + 1).into());
            metadata.insert("labels".into(), json!({ SERVICE_NAME: *service.name }));
            values.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                "addressType": address_type, "ports": [of_slice], "endpoints": endpoints,
            }));
        }
    }
}

/// `targetRef` is what makes two addresses one server, and without it the address is.
fn endpoint(address: IpAddr, pod: Option<&str>) -> Value {
    match pod {
        Some(pod) => json!({"addresses": [address], "targetRef": {"name": pod}}),
        None => json!({"addresses": [address]}),
    }
}

/// The Nodes without which the plan of the tunnel or of names would be another.
fn nodes(snapshot: &Snapshot, node: &NodeName) -> Vec<Value> {
    let is_of_site =
        |object: &Object| snapshot.site.nodes.iter().any(|node| *object.key.name.name == *node.name.as_str());
    let objects = snapshot.objects.of_kind("Node").iter();
    let mut kept: Vec<Arc<Object>> = objects.filter(|object| is_of_site(object)).cloned().collect();
    let plan = |objects: Vec<Arc<Object>>| {
        let objects = Arc::new(ObjectSet { objects, findings: Vec::new() });
        tunnel::tunnel(&Snapshot { objects, ..snapshot.clone() }, node)
    };
    let whole = plan(kept.clone());
    let mut at = 0;
    while at < kept.len() {
        let mut without = kept.clone();
        without.remove(at);
        if plan(without.clone()) == whole {
            kept = without;
        } else {
            at += 1;
        }
    }
    let silent = snapshot.site.node(node).map(|node| dns::silent_for(snapshot, node)).unwrap_or_default();
    let mut values: BTreeMap<&str, Value> = BTreeMap::new();
    let bare = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    for object in &kept {
        let Body::Node(body) = &object.body else { continue };
        let nets: Vec<String> = body.pod_cidrs.iter().map(ToString::to_string).collect();
        let name = &*object.key.name.name;
        values.entry(name).or_insert_with(|| bare(name))["spec"] = json!({"podCIDRs": nets});
    }
    for edge in silent {
        let name = edge.as_str();
        values.entry(name).or_insert_with(|| bare(name))["metadata"]["annotations"] = json!({dns::SILENT: "true"});
    }
    values.into_values().collect()
}
