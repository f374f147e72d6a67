//! Kubernetes objects, as far as dualgate reads them.
//!
//! The words are Kubernetes' own; `parse::object` makes these values from JSON, whatever the source was.
//! Defaults that the API server fills in are filled in; what it would refuse is not here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::Family;
use super::created::Created;
use super::finding::{Finding, Place};
use super::names::{HostPattern, ObjectKey, ObjectName};
pub use super::origin::Origin;
use super::secret::{Digest, Secret};
use super::text::Text;
use super::texts::Texts;
use super::uid::Uid;

/// Everything that a source knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct ObjectSet {
    /// The objects, sorted by key, each key once.
    pub objects: Vec<Arc<Object>>,
    /// What was wrong with what the source read.
    pub findings: Vec<Finding>,
}

impl ObjectSet {
    /// The objects of a kind, as keys call it.
    pub fn of_kind(&self, kind: &str) -> &[Arc<Object>] {
        let start = self.objects.partition_point(|object| *object.key.kind < *kind);
        let end = start + self.objects[start..].partition_point(|object| *object.key.kind == *kind);
        &self.objects[start..end]
    }

    /// The objects of a kind in a namespace.
    pub fn of_namespace(&self, kind: &str, namespace: &str) -> &[Arc<Object>] {
        let of_kind = self.of_kind(kind);
        let start = of_kind.partition_point(|object| *object.key.name.namespace < *namespace);
        let end = start + of_kind[start..].partition_point(|object| *object.key.name.namespace == *namespace);
        &of_kind[start..end]
    }

    /// The object of this kind, namespace and name.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        let of_namespace = self.of_namespace(kind, namespace);
        let at = of_namespace.binary_search_by(|object| (*object.key.name.name).cmp(name)).ok()?;
        of_namespace.get(at)
    }
}

/// One object: who it is, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// The metadata that matters.
    pub meta: Meta,
    /// What it says.
    pub body: Body,
    /// Where it was written, when it came from a file.
    pub origin: Option<Box<Origin>>,
    /// Whose the fields are that we may write.
    pub managed: Managed,
    /// What a dump shows, where it cannot be made from the rest: `parse::object::dump` knows.
    pub written: Option<Text>,
}

impl Object {
    /// The place of a field, such as `spec.rules[0].host`; empty for the object as a whole.
    pub fn place(&self, field: impl Into<String>) -> Place {
        Origin::place(self.origin.as_deref(), Some(&self.key), field.into())
    }
}

/// `metadata`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// `metadata.labels`.
    pub labels: Texts,
    /// `metadata.annotations`.
    pub annotations: Texts,
    /// `metadata.creationTimestamp`.
    pub created: Created,
    /// `metadata.uid`; absent in most files.
    pub uid: Uid,
}

/// The field manager that everything is applied with.
pub const FIELD_MANAGER: &str = "dualgate";

/// Whose the fields are that we may write, from `metadata.managedFields`; empty for what no API server handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    /// Whether something of its `status` was applied by us.
    pub is_status_ours: bool,
    /// Whether `status.loadBalancer` was applied by us, perhaps with the same value as by another one.
    pub is_load_balancer_ours: bool,
    /// The field manager that wrote `status.loadBalancer`, where it is another one.
    pub load_balancer: Option<Text>,
    /// The labels that were applied by us: of Nodes, and of few of them.
    pub labels: Option<Box<BTreeSet<Text>>>,
}

/// What an object says, by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// networking.k8s.io/v1 Ingress.
    Ingress(Box<Ingress>),
    /// networking.k8s.io/v1 IngressClass.
    IngressClass(Box<IngressClass>),
    /// v1 Service.
    Service(Box<Service>),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// v1 Secret.
    Secret(Box<SecretBody>),
    /// v1 ConfigMap.
    ConfigMap(Box<BTreeMap<String, String>>),
    /// v1 Namespace.
    Namespace,
    /// v1 Node.
    Node(Box<NodeBody>),
    /// A kind that does not matter here.
    Other,
}

/// `Ingress.spec`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ingress {
    /// `ingressClassName`, else the annotation `kubernetes.io/ingress.class`.
    pub class: Option<Text>,
    /// `defaultBackend`.
    pub default_backend: Option<IngressBackend>,
    /// `tls`.
    pub tls: Box<[IngressTls]>,
    /// `rules`.
    pub rules: Box<[IngressRule]>,
    /// `status.loadBalancer.ingress`.
    pub published: Box<[Published]>,
}

impl Ingress {
    /// Whether only its status tells it from another one.
    pub fn has_spec_of(&self, other: &Self) -> bool {
        let Self { class, default_backend, tls, rules, published: _ } = self;
        let of_other = (&other.class, &other.default_backend, &other.tls, &other.rules);
        (class, default_backend, tls, rules) == of_other
    }
}

/// `status.loadBalancer.ingress[]` of an Ingress or a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// `ip`.
    Ip(IpAddr),
    /// `hostname`.
    Hostname(Text),
}

/// `Ingress.spec.rules[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressRule {
    /// Its index in `rules` as they were written, so that a rule that was left out moves no other.
    pub index: u16,
    /// `host`.
    pub host: HostPattern,
    /// `http.paths`; `None` when `http` is absent.
    pub paths: Option<Box<[IngressPath]>>,
}

/// `Ingress.spec.rules[].http.paths[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressPath {
    /// Its index in `paths` as they were written.
    pub index: u16,
    /// `path`; may be empty only for `ImplementationSpecific`.
    pub path: Text,
    /// `pathType`.
    pub path_type: PathType,
    /// `backend`.
    pub backend: IngressBackend,
}

/// `pathType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathType {
    /// Byte for byte.
    Exact,
    /// Element by element.
    Prefix,
    /// Ours to define.
    ImplementationSpecific,
}

/// `IngressBackend`.
#[derive(Clone, Debug, PartialEq)]
pub enum IngressBackend {
    /// `service`.
    Service {
        /// `service.name`, in the Ingress's namespace.
        name: Text,
        /// `service.port`.
        port: PortRef,
    },
    /// `resource`: nobody serves these.
    Resource {
        /// `kind/name`, for messages.
        what: Text,
    },
}

impl fmt::Display for IngressBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { name, port } => write!(f, "{name}:{port}"),
            Self::Resource { what } => f.write_str(what),
        }
    }
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRef {
    /// `number`.
    Number(u16),
    /// `name`.
    Name(Text),
}

impl std::fmt::Display for PortRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// `Ingress.spec.tls[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressTls {
    /// Its index in `tls` as it was written.
    pub index: u16,
    /// `hosts`; empty means the hosts of this Ingress's rules.
    pub hosts: Box<[HostPattern]>,
    /// `secretName`, in the Ingress's namespace.
    pub secret: Option<Text>,
}

/// `IngressClass`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressClass {
    /// `spec.controller`.
    pub controller: Text,
    /// The annotation `ingressclass.kubernetes.io/is-default-class`.
    pub is_default: bool,
}

/// `Service.spec`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `type`.
    pub kind: ServiceType,
    /// `selector`.
    pub selector: Texts,
    /// `ports`.
    pub ports: Box<[ServicePort]>,
    /// `clusterIPs`; empty for headless Services and in most files.
    pub cluster_ips: Box<[IpAddr]>,
    /// `externalName`.
    pub external_name: Option<Text>,
    /// `ipFamilyPolicy`; the API server's default is one family.
    pub family_policy: FamilyPolicy,
    /// `ipFamilies`, in order; else the families of `clusterIPs`; empty in most files.
    pub families: Box<[Family]>,
    /// What is said of the load balancer; few Services say something.
    pub load_balancer: Option<Box<LoadBalancer>>,
    /// `externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `sessionAffinity: ClientIP`, and for how long.
    pub client_affinity: Option<Duration>,
    /// `status.loadBalancer.ingress`.
    pub published: Box<[Published]>,
    /// The condition [`ADDRESS_ASSIGNED`] of `status.conditions`.
    pub address_assigned: Option<Box<Condition>>,
}

/// What `Service.spec` says of the load balancer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancer {
    /// `loadBalancerClass`.
    pub class: Option<Text>,
    /// `loadBalancerIP`: deprecated in Kubernetes, and much used.
    pub ip: Option<IpAddr>,
    /// `loadBalancerSourceRanges`; empty is from everywhere.
    pub source_ranges: Box<[ipnet::IpNet]>,
}

impl Service {
    /// `loadBalancerClass`.
    pub fn load_balancer_class(&self) -> Option<&Text> {
        self.load_balancer.as_ref()?.class.as_ref()
    }

    /// `loadBalancerIP`.
    pub fn load_balancer_ip(&self) -> Option<IpAddr> {
        self.load_balancer.as_ref()?.ip
    }

    /// `loadBalancerSourceRanges`; empty is from everywhere.
    pub fn source_ranges(&self) -> &[ipnet::IpNet] {
        self.load_balancer.as_ref().map_or(&[], |load_balancer| &load_balancer.source_ranges)
    }

    /// The addresses of its status.
    pub fn published_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.published.iter().filter_map(|published| match published {
            Published::Ip(address) => Some(*address),
            Published::Hostname(_) => None,
        })
    }
}

/// The type of the condition that says whether a Service has its addresses, and why not.
pub const ADDRESS_ASSIGNED: &str = "dualgate.dev/AddressAssigned";

/// `status.conditions[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether `status` is `True`.
    pub is_true: bool,
    /// `reason`, for programs.
    pub reason: Text,
    /// `message`, for people.
    pub message: Text,
    /// `lastTransitionTime`, as it is written; empty before it is.
    pub since: Text,
}

/// `Service.spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Both where they can be had.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

/// `Service.spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any node hands on to any pod.
    #[default]
    Cluster,
    /// A node hands on to its own pods only.
    Local,
}

/// `Service.spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// An address within the cluster.
    #[default]
    ClusterIp,
    /// A port on every node.
    NodePort,
    /// An address from a pool.
    LoadBalancer,
    /// A name elsewhere.
    ExternalName,
}

/// `Service.spec.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`; empty when there is only one port.
    pub name: Text,
    /// `port`.
    pub port: u16,
    /// `targetPort`, else `port`.
    pub target: PortRef,
    /// `protocol`.
    pub protocol: Protocol,
    /// `appProtocol`.
    pub app_protocol: Option<Text>,
}

/// `protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// `EndpointSlice`.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// The Service, from the label `kubernetes.io/service-name`.
    pub service: Option<Text>,
    /// `addressType`.
    pub address_type: AddressType,
    /// `endpoints`.
    pub endpoints: Box<[Endpoint]>,
    /// `ports`.
    pub ports: Box<[EndpointPort]>,
}

/// `EndpointSlice.addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
    /// `FQDN`: deprecated in Kubernetes and not used here.
    Fqdn,
}

/// `EndpointSlice.endpoints[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The first of `addresses` that is an IP address of the slice's family; nobody uses the others.
    pub address: IpAddr,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `conditions.serving`; absent means as `ready`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `targetRef`: the pod, what makes two addresses one server.
    pub target: Option<ObjectName>,
    /// `nodeName`.
    pub node: Option<Text>,
}

/// `EndpointSlice.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// `name`, the Service port's name.
    pub name: Text,
    /// `port`; `None` means all ports.
    pub port: Option<u16>,
    /// `protocol`.
    pub protocol: Protocol,
}

/// `Secret`.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretBody {
    /// `type`.
    pub kind: Text,
    /// `data` decoded and `stringData`; a value that is known only by its digest is absent here.
    pub data: BTreeMap<String, Secret>,
    /// The digest of every value.
    pub digests: BTreeMap<String, Digest>,
}

/// `Node`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeBody {
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<ipnet::IpNet>,
    /// `status.addresses` of the types InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// The condition `Ready`.
    pub ready: Option<bool>,
    /// The condition `NetworkUnavailable`.
    pub network_unavailable: bool,
}
