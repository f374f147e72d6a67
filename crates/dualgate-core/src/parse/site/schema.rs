//! Every key of the site file, declared once.
//!
//! Each section takes its keys with name, default and meaning; the type of the value says what may be
//! written. All keys are taken before the first `?`, so that every mistake is reported and every key is on
//! the reference page.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use dualgate_wire::dns::{Name, Rdata, RecordType};

use super::fields::{Fields, Read, Section, Sink, read_section};
use super::scalars::{
    ApiVersion, DnsAddress, FilePath, HttpsUrl, InterfaceName, Kind, LabelKey, LabelValue, Namespace, Number, Port,
    ProviderName, Size, Timeout,
};
use crate::model::site::{
    AccessLog, AccessLogFormat, Admin, Alias, Allow, CONTROLLER, Certificates, Challenge, Class, Cluster, Dns,
    EntryPoint, EntryProtocol, Exposure, Firewall, ForwardZone, Gate, HomeEnd, Lan, Node, Pool, Provider,
    ProxySettings, Publish, Reading, RecordView, Reservation, Router, RouterKind, Site, TraefikAnnotation, Tunnel,
    Underscores, Uplink, Zone, ZoneRecord,
};
use crate::model::{Code, EntryPointName, GateName, Host, PublicKey, PublicKeys};
use crate::parse::yaml::{self, Value};

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The whole file.
pub(super) struct Document(pub(super) Site);

impl Section for Document {
    const DOC: &'static str = "One YAML file describes the whole site: home, edge and what lies between. It is read strictly: an unknown \
        key or a value of another form is an error, told with its place and a suggestion. `dualgate check` reads the \
        file and acts on nothing. Plain scalars mean what they mean in Kubernetes manifests (YAML 1.1: `yes` and `on` \
        are booleans). An IPv6 address with a port needs quotes: `'[::1]:9180'`. `certificates` is read \
        and checked; no part acts on it yet.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let version = f.required::<ApiVersion>("apiVersion", "The form of this file.");
        let kind = f.required::<Kind>("kind", "What this file is.");
        let name = f.or("name", "home".to_owned(), "What people call the site.");
        let cluster = f.section("cluster", "The Kubernetes cluster's networks.");
        let lan = f.section("lan", "The home network.");
        let nodes = f.required("nodes", "The machines.");
        let pools = f.list("pools", "Addresses for Services of type LoadBalancer.");
        let gates = f.required("gates", "The gates that exist: `internal`, `external` or both.");
        let exposure = f.section("exposure", "Which objects are served at which gate.");
        let classes =
            f.optional("ingressClasses", "every class of dualgate's controller", "The Ingress classes to serve.");
        let aliases = f.list("aliases", "Home names that stand for public names.");
        let proxy = f.section("proxy", "How the gates speak HTTP.");
        let admin = f.section("admin", "The listener for health, metrics and dumps.");
        let tunnel = f.optional("tunnel", "no tunnel", "WireGuard between home and edge. `{}` is all defaults.");
        let dns = f.optional("dns", "no DNS", "Names at home and outside (split horizon).");
        let certificates = f.optional("certificates", "only Secrets", "Where certificates come from.");
        let firewall = f.optional("firewall", "no firewall", "What may reach the edge. `{}` is all defaults.");
        version.and(kind)?;
        Some(Self(Site {
            name,
            cluster: cluster?,
            lan: lan?,
            nodes: nodes?,
            pools,
            gates: gates?,
            exposure: exposure?,
            classes: classes.unwrap_or_else(|| vec![own_class()]),
            aliases,
            proxy: proxy?,
            admin: admin?,
            tunnel,
            dns,
            certificates,
            firewall,
        }))
    }
}

fn own_class() -> Class {
    Class { name: None, controller: CONTROLLER.to_owned(), reading: Reading::Specification, is_default: false }
}

impl Section for Cluster {
    const DOC: &'static str = "The networks of the Kubernetes cluster, as K3s was given them.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let local: Host = "cluster.local".parse().ok()?;
        Some(Self {
            pod_cidrs: f.list("podCIDRs", "Pod networks, one of each family (`cluster-cidr` of K3s)."),
            service_cidrs: f.list("serviceCIDRs", "Service networks, one of each family (`service-cidr` of K3s)."),
            domain: f.or("domain", local, "The suffix of Service names.").to_string(),
        })
    }
}

impl Section for Lan {
    const DOC: &'static str = "The home network.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            subnets: f.list("subnets", "Its subnets, of both families. Virtual IPs lie inside."),
            router: f.optional("router", "unknown", "The home router."),
            dhcp: f.list("dhcp", "What the router's DHCP server hands out; pools and gates must stay out of it."),
        })
    }
}

impl Section for Router {
    const DOC: &'static str = "The home router. dualgate never changes it; it knows what a person has to set there.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            kind: f.or("kind", RouterKind::Other, "Its make."),
            addresses: f.list("addresses", "Its addresses in the LAN."),
            uplink: f.or("uplink", Uplink::DualStack, "How it reaches the Internet."),
            public_keys: public_keys(f),
        })
    }
}

fn public_keys(f: &mut Fields<'_>) -> PublicKeys {
    let doc =
        "Its WireGuard public keys (`dualgate keys show-public`): one, and the next one behind it while it changes.";
    let keys: Vec<PublicKey> = f.list("publicKeys", doc);
    match *keys.as_slice() {
        [] => PublicKeys::Unknown,
        [current] => PublicKeys::Current(current),
        [current, next] => PublicKeys::Rotating { current, next },
        [current, next, ..] => {
            f.mistake(Code::SiteValue, "publicKeys", "more than two keys", "leave the one in use, and the next one");
            PublicKeys::Rotating { current, next }
        }
    }
}

impl Section for Node {
    const DOC: &'static str = "One machine: a home server, the edge, or a laptop that is all of it.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required("name", "Its name; the Kubernetes node's, if it is one.");
        let roles = f.list("roles", "What it does.");
        let addresses = f.required(
            "addresses",
            "Its addresses in the LAN, or in the tunnel for an edge; the first of each family is used.",
        );
        let public_addresses = f.list("publicAddresses", "Its addresses on the Internet.");
        let interface: Option<InterfaceName> = f.optional(
            "interface",
            "K3s takes that of the default route",
            "Its interface in the LAN, for `flannel-iface` of K3s (`dualgate render k3s`).",
        );
        let pod_cidrs = f.list("podCIDRs", "Its own pod networks, where no cluster says so.");
        let public_keys = public_keys(f);
        Some(Self {
            name: name?,
            addresses: addresses?,
            public_addresses,
            interface: interface.map(|interface| interface.0),
            roles,
            pod_cidrs,
            public_keys,
        })
    }
}

impl Section for Pool {
    const DOC: &'static str = "Addresses for Services of type LoadBalancer. A Service keeps what it has as long as that is \
        valid, and otherwise gets the lowest free address of the first pool that is for it. What a gate, a node, the \
        router or its DHCP server has, and what lies outside of `lan.subnets`, is never handed out.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        type Priority = Number<0, { u32::MAX }>;
        let name = f.required("name", "Its name, for the annotation that asks for it (`dualgate.dev/address-pool`).");
        let ranges = f.required("addresses", "The addresses, of both families.");
        let auto_assign = f.or("autoAssign", true, "Whether Services that name no pool may use it.");
        let avoid_buggy_ips =
            f.or("avoidBuggyIPs", false, "Whether IPv4 addresses that end in .0 or .255 are left out.");
        let priority: Option<Priority> =
            f.optional("priority", "the last", "Of several pools the lowest number is first.");
        let namespaces: Vec<Namespace> = f.list(
            "namespaces",
            "The namespaces whose Services may use it. Where neither they nor `namespaceLabels` are given, all may.",
        );
        let namespace_labels = f.optional(
            "namespaceLabels",
            "none",
            "Further namespaces, by their labels: those that have all of these. A namespace without a manifest has its name \
             as `kubernetes.io/metadata.name`, as each one has, and no other label.",
        );
        let service_labels =
            f.optional("serviceLabels", "every Service", "The labels that a Service must have to use it, all of them.");
        let reserved = f.list("reserved", "Addresses that are kept, for a Service or from all.");
        let nodes =
            f.optional("nodes", "every node with the role `virtual-ips`", "The nodes that may announce its addresses.");
        let preferred_nodes =
            f.list("preferredNodes", "The nodes that announce its addresses as long as they can, best first.");
        Some(Self {
            name: name?,
            ranges: ranges?,
            auto_assign,
            avoid_buggy_ips,
            priority: priority.map(Priority::as_u32),
            namespaces: namespaces.into_iter().map(|namespace| namespace.0).collect(),
            namespace_labels: plain(namespace_labels),
            service_labels: plain(service_labels),
            reserved,
            nodes: nodes.unwrap_or_default(),
            preferred_nodes,
        })
    }
}

/// Labels as text.
fn plain(labels: Option<BTreeMap<LabelKey, LabelValue>>) -> BTreeMap<String, String> {
    labels.into_iter().flatten().map(|(key, value)| (key.0, value.0)).collect()
}

impl Section for Reservation {
    const DOC: &'static str = "Addresses of the pool that nobody else gets, whether the Service exists or not.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let ranges = f.required("addresses", "The addresses. A Service takes the lowest free one of each family.");
        let service = f.optional("service", "nobody gets them", "The Service that they are kept for.");
        Some(Self { ranges: ranges?, service })
    }
}

impl Section for Gate {
    const DOC: &'static str =
        "One gate. The internal one serves the LAN on the home nodes, the external one the Internet on the edge.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let of_node = "the node's own (`publicAddresses` at the external gate)";
        Some(Self {
            addresses: f
                .optional("addresses", of_node, "Its virtual IPs, which move between the nodes that serve it.")
                .unwrap_or_default(),
            entry_points: f.or(
                "entryPoints",
                default_entry_points(),
                "Its entry points; the names are those of Traefik's annotation.",
            ),
        })
    }
}

fn default_entry_points() -> BTreeMap<EntryPointName, EntryPoint> {
    [("web", 80), ("websecure", 443)].map(|(name, port)| (EntryPointName::new(name), entry_point(name, port))).into()
}

/// An entry point of which only name and port are said.
fn entry_point(name: &str, port: u16) -> EntryPoint {
    let secure = name == "websecure" || matches!(port, 443 | 8443);
    let protocol = if secure { EntryProtocol::Https } else { EntryProtocol::Http };
    EntryPoint { port, protocol, trusted: Vec::new(), proxy_protocol: Vec::new() }
}

/// A port alone (`web: 80`), or a mapping.
impl Read for EntryPoint {
    fn form() -> String {
        "port or mapping".to_owned()
    }

    fn example() -> &'static str {
        "`8080`, `{port: 8080, protocol: http}`"
    }

    fn read(node: &yaml::Node, path: &str, sink: &mut Sink) -> Option<Self> {
        match &node.value {
            Value::Integer(_) => {
                let name = path.rsplit('.').next().unwrap_or_default();
                Some(entry_point(name, Port::read(node, path, sink)?.as_u16()))
            }
            Value::Mapping(_) => read_section::<LongEntryPoint>(node, path, sink).map(|long| long.0),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::String(_) | Value::Sequence(_) => {
                sink.wrong_kind::<Self>(node, path);
                None
            }
        }
    }

    fn show(&self) -> String {
        self.port.to_string()
    }

    fn describe(path: &str, sink: &mut Sink) {
        LongEntryPoint::describe(path, sink);
    }
}

struct LongEntryPoint(EntryPoint);

impl Section for LongEntryPoint {
    const DOC: &'static str = "One entry point. `web: 8080` is short for `web: {port: 8080}`.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let port = f.required::<Port>("port", "Its TCP port.");
        let protocol = f.optional(
            "protocol",
            "`https` for `websecure` and ports 443 and 8443, else `http`",
            "What is spoken there.",
        );
        let trusted = f.list("trustedProxies", "Peers whose `X-Forwarded-*` and `Forwarded` are believed.");
        let proxy_protocol = f.list("proxyProtocol", "Peers that must send a PROXY protocol header (version 1 or 2).");
        let short = entry_point(f.own_name(), port?.as_u16());
        Some(Self(EntryPoint { protocol: protocol.unwrap_or(short.protocol), trusted, proxy_protocol, ..short }))
    }
}

impl Section for Exposure {
    const DOC: &'static str =
        "Which objects are served at which gate. Nothing becomes public unless it says so, or unless this says so.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            default: f.or("default", vec![GateName::Internal], "The gates of an Ingress that does not say."),
            traefik_annotation: f.or(
                "traefikAnnotation",
                TraefikAnnotation::Honour,
                "Whether `router.entrypoints` puts an Ingress at every gate that has one of the named entry points (`honour`), or \
                 only selects among the entry points of its gates (`ignore`).",
            ),
        })
    }
}

impl Section for Class {
    const DOC: &'static str = "An Ingress class that dualgate serves.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            name: f.optional(
                "name",
                "every class of the controller",
                "The name of the IngressClass, also in the annotation `kubernetes.io/ingress.class`.",
            ),
            controller: f.or("controller", CONTROLLER.to_owned(), "`spec.controller` of the IngressClass."),
            reading: f.or(
                "compat",
                Reading::Specification,
                "How its Ingresses are read: as Ingress v1 specifies, or as Traefik v3 does.",
            ),
            is_default: f.or(
                "default",
                false,
                "Whether `dualgate install` makes it the class of Ingresses that name none. A cluster has one such class: it is \
                 also for those of Traefik once Traefik is off.",
            ),
        })
    }
}

impl Section for Alias {
    const DOC: &'static str = "A home name for a public name: routes of the one also serve the other. Give `of` for one name, or `domain` for every \
        name below it.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let of: Option<Host> = f.optional("of", "-", "The name in the Ingress.");
        let domain: Option<Host> = f.optional("domain", "-", "The domain of the names in the Ingresses.");
        let home: Option<Host> = f.required("home", "The name, or the domain, at home.");
        match (of, domain) {
            (Some(of), None) => Some(Self::Name { of, home: home? }),
            (None, Some(of)) => Some(Self::Domain { of, home: home? }),
            (Some(_), Some(_)) => {
                f.mistake(Code::SiteValue, "domain", "an alias has either `of` or `domain`", "make two aliases of it");
                None
            }
            (None, None) => {
                f.mistake(Code::SiteMissing, "", "an alias needs `of` or `domain`", "say which public name is meant");
                None
            }
        }
    }
}

impl Section for ProxySettings {
    const DOC: &'static str = "How the gates speak HTTP: time-outs and limits of every entry point.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        type Head = Size<1024, { 1 << 20 }>;
        type Body = Size<0, { 1 << 40 }>;
        type FieldCount = Number<1, 256>;
        type Connections = Number<1, 4_000_000>;
        let d = Self::default();
        let octets = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let body = f.optional::<Body>("maxBodySize", "no limit", "The largest body of a request.");
        Some(Self {
            head_timeout: timeout(f, "headTimeout", d.head_timeout, "From the first octet of a request's head to its last; also for a TLS handshake."),
            body_idle_timeout: timeout(f, "bodyIdleTimeout", d.body_idle_timeout, "Without an octet of a body, in either direction."),
            keep_alive_timeout: timeout(f, "keepAliveTimeout", d.keep_alive_timeout, "Between two requests on a connection."),
            connect_timeout: timeout(f, "connectTimeout", d.connect_timeout, "To open a connection to a server."),
            response_timeout: timeout(f, "responseTimeout", d.response_timeout, "From the end of the request to the head of the response."),
            tunnel_idle_timeout: timeout(f, "upgradeIdleTimeout", d.tunnel_idle_timeout, "Without an octet on an upgraded connection (WebSocket)."),
            accept_grace: f.or("acceptGrace", d.accept_grace, "After SIGTERM, how long connections are still accepted."),
            drain_timeout: f.or("drainTimeout", d.drain_timeout, "After that, how long open requests may take."),
            max_head_bytes: f.or("maxHeadSize", Head::new(octets(d.max_head_bytes)), "The largest head of a request.").as_usize(),
            max_fields: f.or("maxFields", FieldCount::new(count(d.max_fields)), "The most fields in a head.").as_usize(),
            max_body_bytes: body.map(Size::as_u64),
            max_connections: f.or("maxConnections", Connections::new(count(d.max_connections)), "The most connections at a time over all entry points of a node.").as_usize(),
            underscores: f.or("underscores", Underscores::Reject, "What becomes of request fields whose name has an underscore: 400, left out, or handed on unless it is an alias of a forwarding field."),
            access_log: f.optional("accessLog", "none", "Where requests are written down."),
        })
    }
}

fn timeout(f: &mut Fields<'_>, name: &'static str, default: Duration, doc: &'static str) -> Duration {
    f.or(name, Timeout(default), doc).0
}

impl Section for AccessLog {
    const DOC: &'static str = "Where requests are written down. It holds clients' addresses and paths.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            path: f.or("path", "-".to_owned(), "A file, or `-` for standard output."),
            format: f.or("format", AccessLogFormat::Json, "One JSON object a line, or the Common Log Format."),
        })
    }
}

impl Section for Admin {
    const DOC: &'static str =
        "The listener for health, metrics and dumps. Whoever reaches it may read everything but secrets.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let loopback: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, 9180).into(), (Ipv6Addr::LOCALHOST, 9180).into()];
        Some(Self { listen: f.or("listen", loopback, "Where it listens.") })
    }
}

impl Section for Tunnel {
    const DOC: &'static str = "WireGuard between home and edge.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        type Mtu = Number<576, 9000>;
        Some(Self {
            port: f.or("port", Port::new(56_527), "The UDP port at the edge.").as_u16(),
            mtu: f
                .or(
                    "mtu",
                    Mtu::new(1392),
                    "Inner MTU in octets. 1392 fits every line with 1452 octets or more, also DS-Lite over PPPoE.",
                )
                .as_u16(),
            preshared_keys: f.or("presharedKeys", true, "Whether every pair of nodes has a preshared key as well."),
            keepalive: timeout(
                f,
                "keepalive",
                Duration::from_secs(25),
                "How often the side behind NAT speaks when nothing else does.",
            ),
            home_end: f.or(
                "homeEnd",
                HomeEnd::Nodes,
                "Who holds home's end: every home node for itself, or the router for all.",
            ),
        })
    }
}

impl Section for Dns {
    const DOC: &'static str =
        "Names at home and outside. At home a name of a zone leads to the internal gate, outside to the edge.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let addresses = "Where home nodes with the role `dns` answer, on port 53 unless said otherwise. Without any: at \
            the virtual IPs of the internal gate, else at the node's own addresses.";
        let addresses: Vec<DnsAddress> = f.list("addresses", addresses);
        let addresses = addresses.into_iter().map(|address| address.0).collect();
        let zones = f.list("zones", "The zones.");
        let forward = "Resolvers for every other name, at home, the best first. Without any, other names are refused. \
            `tls://ADDRESS#NAME` is DNS over TLS, `https://ADDRESS/PATH#NAME` DNS over HTTPS; their certificate is for NAME, \
            else for the address.";
        let forward = f.list("forward", forward);
        let authorities = "A file with the certificates of those who may certify resolvers, in PEM.";
        let forward_authorities = f.optional::<FilePath>("forwardAuthorities", "the system's", authorities);
        let forward_zones = f.list("forwardZones", "Other resolvers for some domains, at home.");
        let rebind = "Domains of others that may lead to private addresses; from everybody else such answers are left \
            out (DNS rebinding).";
        let rebind_allowed = f.list("rebindAllowed", rebind);
        let public = f.or(
            "public",
            false,
            "Whether the edge answers the Internet on port 53 (for `publish: edge` and the challenge `dns-01`).",
        );
        let providers: BTreeMap<ProviderName, Provider> = f.or(
            "providers",
            BTreeMap::new(),
            "Where the zones live that have `publish: provider:NAME`. Without an entry nobody writes there.",
        );
        let owner = "Under which name the records there are dualgate's. Another site that writes to the same zone needs \
            another one; with that of an external-dns (`--txt-owner-id`) its records are taken over.";
        let owner = f.optional::<LabelValue>("owner", "the site's name", owner).map(|owner| owner.0);
        let owner = owner.filter(|owner| !owner.is_empty());
        let providers = providers.into_iter().map(|(name, provider)| (name.0, provider)).collect();
        let forward_authorities = forward_authorities.map(|file| file.0.into());
        Some(Self {
            addresses,
            zones,
            forward,
            forward_authorities,
            forward_zones,
            rebind_allowed,
            public,
            providers,
            owner,
        })
    }
}

impl Section for ForwardZone {
    const DOC: &'static str = "Resolvers for a domain and everything below it.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required("name", "The domain.");
        let to = f.required("to", "The resolvers.");
        Some(Self { name: name?, to: to? })
    }
}

impl Section for Zone {
    const DOC: &'static str = "One zone: a domain and everything below it.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let name: Option<Host> = f.required("name", "Its name.");
        let publish = f.or("publish", Publish::HomeOnly, "Where its public view lives.");
        let ttl = timeout(f, "ttl", Duration::from_secs(60), "Time to live of the records that are made from objects.");
        let records: Vec<WrittenRecord> = f.list("records", "Records beyond those that follow from objects.");
        let name = name?;
        let mut within = Vec::new();
        for record in records {
            let written = record.name.clone();
            match record.within(&name) {
                Some(record) => within.push(record),
                None => {
                    let message = format!("`{written}` is no name of zone `{name}`");
                    let help = "write it relative to the zone, `@` for the zone itself";
                    f.mistake(Code::SiteValue, "records", message, help);
                }
            }
        }
        Some(Self { name, publish, ttl, records: within })
    }
}

/// A record whose name is not yet within its zone.
struct WrittenRecord {
    name: String,
    data: Rdata,
    ttl: Option<Duration>,
    view: RecordView,
}

impl WrittenRecord {
    fn within(self, zone: &Host) -> Option<ZoneRecord> {
        let name: Name = match self.name.as_str() {
            "@" => zone.as_str().parse().ok()?,
            relative if !relative.ends_with('.') => format!("{relative}.{zone}").parse().ok()?,
            _ => return None,
        };
        Some(ZoneRecord { name, data: self.data, ttl: self.ttl, view: self.view })
    }
}

impl Section for WrittenRecord {
    const DOC: &'static str = "A record. At a name with an A, AAAA or CNAME of the file, objects add no addresses.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required("name", "Its name, relative to the zone; `@` is the zone itself.");
        let rtype = f.required::<RecordType>(
            "type",
            "Its type, such as `TXT`; `TYPE` with a number for one without a name here.",
        );
        let value: Option<String> = f.required("value", "What it says, as a zone file has it; names are whole ones.");
        let ttl = f.optional::<Timeout>("ttl", "the zone's", "Its time to live.").map(|ttl| ttl.0);
        let view = f.or("view", RecordView::Both, "Who sees it: clients at home, the Internet, or both.");
        let (rtype, value) = (rtype?, value?);
        match Rdata::parse(rtype, &value) {
            Ok(data) => Some(Self { name: name?, data, ttl, view }),
            Err(why) => {
                f.mistake(Code::SiteValue, "value", format!("no {rtype} record: {why}"), "write what a zone file has");
                None
            }
        }
    }
}

impl Section for Certificates {
    const DOC: &'static str = "Where certificates come from that no Secret brings.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let directory = f.or("directory", HttpsUrl(LETS_ENCRYPT.to_owned()), "The ACME directory.");
        let email = f.optional("email", "none", "Contact for the account.");
        let challenges = vec![Challenge::TlsAlpn01, Challenge::Http01];
        let challenges = f.or("challenges", challenges, "The challenges to use, best first.");
        Some(Self { directory: directory.0, email, challenges })
    }
}

impl Section for Firewall {
    const DOC: &'static str =
        "What may reach the edge, beyond the entry points, the tunnel and DNS. A provider's own firewall lies outside.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            ssh_port: f.or("sshPort", Port::new(22), "The port of SSH; it stays open.").as_u16(),
            allow: f.list("allow", "Further open ports."),
        })
    }
}

impl Section for Allow {
    const DOC: &'static str = "A further open port.";

    fn read(f: &mut Fields<'_>) -> Option<Self> {
        let protocol = f.required("protocol", "TCP or UDP.");
        let port = f.required::<Port>("port", "The port.");
        let from = f.list("from", "From where; empty is from everywhere.");
        Some(Self { protocol: protocol?, port: port?.as_u16(), from })
    }
}
