//! Findings: what a user got wrong, in one catalogue.
//!
//! The same text appears on the command line, in Kubernetes Events, on the dashboard and, as its code, in
//! metrics. A finding never stops anything: whoever reports it goes on with what is left.

use std::fmt;

use serde::{Serialize, Serializer};

use super::names::ObjectKey;
use super::text::Text;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something asked for does not work.
    Error,
    /// It works, but probably not as meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// Where in which file, which object, which field. Any part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// File path as the user gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Text>,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The Kubernetes object.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display")]
    pub object: Option<ObjectKey>,
    /// The field, such as `spec.rules[0].http.paths[1].path`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn display<S: Serializer>(key: &Option<ObjectKey>, serializer: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => serializer.collect_str(key),
        None => serializer.serialize_none(),
    }
}

impl Place {
    /// An object as a whole.
    pub fn object(key: &ObjectKey) -> Self {
        Self { object: Some(key.clone()), ..Self::default() }
    }

    /// A field of an object.
    pub fn field(key: &ObjectKey, field: impl Into<String>) -> Self {
        Self { object: Some(key.clone()), field: field.into(), ..Self::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
                if let Some(column) = self.column {
                    write!(f, ":{column}")?;
                }
            }
            separator = ": ";
        }
        if let Some(object) = &self.object {
            write!(f, "{separator}{object}")?;
            separator = " ";
        }
        if !self.field.is_empty() {
            write!(f, "{separator}{}", self.field)?;
        }
        Ok(())
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which kind of mistake.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub at: Place,
    /// What is wrong, with the values.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl Finding {
    /// With the severity that the catalogue gives this code.
    pub fn new(code: Code, at: Place, message: impl Into<String>) -> Self {
        Self { code, severity: code.severity(), at, message: message.into(), help: String::new() }
    }

    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[{}]: {}", self.at, self.severity, self.code, self.message)
    }
}

macro_rules! catalogue {
    ($($(#[doc = $doc:literal])+ $variant:ident = $id:literal $severity:ident;)+) => {
        /// The catalogue of mistakes. The identifier is stable; texts may improve.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable identifier, such as `ingress-unknown-service`.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id),+ }
            }

            /// How bad it is unless the place says otherwise.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),+ }
            }

            /// What it means, for the catalogue's page.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

catalogue! {
    /// The text is not YAML or JSON.
    Syntax = "syntax" Error;
    /// A file of the source cannot be read.
    Unreadable = "unreadable" Error;
    /// The site file has a key that dualgate does not know.
    SiteUnknownKey = "site-unknown-key" Error;
    /// The site file lacks something that is needed.
    SiteMissing = "site-missing" Error;
    /// A value of the site file is not of the form that is needed.
    SiteValue = "site-value" Error;
    /// The same key or name appears twice.
    SiteDuplicate = "site-duplicate" Error;
    /// Two pools, or a pool and an address in use, overlap.
    SiteOverlap = "site-overlap" Error;
    /// An address lies outside the network that it must be in.
    SiteOutside = "site-outside" Error;
    /// One IP family is missing where both are needed.
    SiteFamily = "site-family" Warning;
    /// Roles, gates and the parts that need them do not fit together.
    SiteRole = "site-role" Error;
    /// Two listeners want the same address and port.
    SitePort = "site-port" Error;
    /// Something that is allowed but known to fail in practice.
    SiteTrap = "site-trap" Warning;
    /// An object is not valid Kubernetes, as its API server would say.
    ObjectInvalid = "object-invalid" Error;
    /// A field of an object that Kubernetes does not know, or that is written twice.
    ObjectField = "object-field" Warning;
    /// The same object is written in two places; the first is kept.
    ObjectDuplicate = "object-duplicate" Error;
    /// An Ingress or Service has an annotation that cannot be read; it counts as absent.
    AnnotationInvalid = "annotation-invalid" Error;
    /// An annotation that Traefik knows and dualgate does not act on.
    AnnotationIgnored = "annotation-ignored" Warning;
    /// An annotation has another name by now; the old one counts all the same.
    AnnotationRenamed = "annotation-renamed" Note;
    /// No pool that a Service of type LoadBalancer may use has a free address.
    AddressPoolExhausted = "address-pool-exhausted" Error;
    /// A Service asks for a pool that the site file does not have.
    AddressPoolUnknown = "address-pool-unknown" Error;
    /// No pool is for a Service, or it asks for one that is for others.
    AddressPoolRefused = "address-pool-refused" Error;
    /// A Service asks for an address that somebody else has.
    AddressTaken = "address-taken" Error;
    /// A Service asks for an address that no pool hands out.
    AddressOutsidePools = "address-outside-pools" Error;
    /// A Service cannot have an address of a family that it needs, or asks for one of a family that it does not have.
    AddressFamily = "address-family" Error;
    /// A Service asks for its addresses in two ways that differ.
    AddressRequest = "address-request" Error;
    /// An Ingress names a class that does not exist.
    IngressUnknownClass = "ingress-unknown-class" Warning;
    /// An Ingress names a Service that does not exist.
    IngressUnknownService = "ingress-unknown-service" Error;
    /// An Ingress names a port that its Service does not have.
    IngressUnknownPort = "ingress-unknown-port" Error;
    /// A backend has no endpoint that is ready; requests get 503.
    IngressNoEndpoints = "ingress-no-endpoints" Warning;
    /// An Ingress names a Secret that does not exist; the default certificate is served.
    IngressUnknownSecret = "ingress-unknown-secret" Error;
    /// A Secret is no usable certificate and key.
    SecretInvalid = "secret-invalid" Error;
    /// A certificate does not cover a host that it is named for.
    CertificateMismatch = "certificate-mismatch" Warning;
    /// A certificate has expired, or is not valid yet.
    CertificateExpired = "certificate-expired" Error;
    /// Two Ingresses claim the same host and path; the older one wins.
    IngressOverlap = "ingress-overlap" Warning;
    /// An Ingress has a backend of a kind that cannot be served.
    IngressResourceBackend = "ingress-resource-backend" Error;
    /// An Ingress names an entry point that no gate has.
    IngressUnknownEntryPoint = "ingress-unknown-entry-point" Error;
    /// An annotation makes an Ingress answer only over TLS; plain HTTP gets 404.
    IngressTlsOnly = "ingress-tls-only" Warning;
    /// An annotation makes an Ingress public that the exposure policy would keep at home.
    IngressExposed = "ingress-exposed" Note;
    /// An Ingress would be routed differently by Traefik.
    IngressReading = "ingress-reading" Note;
    /// A Service has endpoints that cannot be used.
    ServiceEndpoints = "service-endpoints" Error;
    /// A LoadBalancer Service has no endpoint that is ready; nobody answers for its addresses.
    ServiceNoEndpoints = "service-no-endpoints" Warning;
    /// A port of a LoadBalancer Service is not forwarded.
    ServicePort = "service-port" Error;
    /// Two ends of the tunnel claim the same addresses; the first one keeps them.
    TunnelOverlap = "tunnel-overlap" Error;
    /// A network behind the tunnel holds the edge's public address, which the tunnel itself needs; it is left out.
    TunnelLoop = "tunnel-loop" Error;
    /// Nobody says which pod networks a home node has, so that the edge cannot reach its pods.
    TunnelPods = "tunnel-pods" Warning;
    /// The tunnel's interface, or a peer of it, cannot be made: a key is missing, or the system refuses.
    TunnelFailed = "tunnel-failed" Error;
    /// A peer of the tunnel was heard before and is silent.
    TunnelAway = "tunnel-away" Warning;
    /// The path to a peer of the tunnel takes only smaller packets than the site file says.
    TunnelMtu = "tunnel-mtu" Warning;
    /// An end of the tunnel has no public key in the site file: it cannot be a peer yet.
    TunnelKey = "tunnel-key" Note;
    /// The site file has no firewall for an edge.
    FirewallOff = "firewall-off" Note;
    /// The firewall opens to the Internet what only this site should reach.
    FirewallOpen = "firewall-open" Warning;
    /// An opening of the firewall has no effect.
    FirewallUseless = "firewall-useless" Warning;
    /// A change of the firewall would shut somebody out: it waits for a confirmation, or has not got it and is undone.
    FirewallUnconfirmed = "firewall-unconfirmed" Error;
    /// The firewall could not be made as planned.
    FirewallFailed = "firewall-failed" Error;
    /// An object asks for a name that lies in no zone of the site file.
    DnsNoZone = "dns-no-zone" Note;
    /// A record of the site file would tell the Internet an address that only home can reach; it is left out there.
    DnsPrivateAddress = "dns-private-address" Error;
    /// A record of the site file stands beside another one that it excludes, or where it can have no effect.
    DnsRecord = "dns-record" Error;
    /// A record that is wanted at a provider is there already, and is not dualgate's: it is left as it is.
    DnsForeign = "dns-foreign" Warning;
    /// The records of a zone could not be written to its provider.
    DnsPublish = "dns-publish" Error;
    /// Home nodes have no key to hear each other with, so nobody holds a virtual IP.
    VirtualIpsKey = "virtual-ips-key" Error;
    /// Something of the system that virtual IPs need cannot be had.
    VirtualIpsFailed = "virtual-ips-failed" Error;
    /// A node does not hear a majority of the home nodes, and so holds no virtual IP.
    VirtualIpsAlone = "virtual-ips-alone" Error;
    /// Somebody else on the LAN answers for a virtual IP.
    VirtualIpsConflict = "virtual-ips-conflict" Error;
    /// This node reads other objects or pools than the one that assigns addresses.
    VirtualIpsDiffer = "virtual-ips-differ" Warning;
    /// kube-proxy answers ARP for the addresses of all Services, at every node.
    VirtualIpsStrictArp = "virtual-ips-strict-arp" Error;
    /// A Service has the addresses of nodes, so that its ports are taken there before a gate could have them.
    ServiceTakesPorts = "service-takes-ports" Warning;
    /// Another controller sets back what is written to an object's status or labels.
    StatusContested = "status-contested" Warning;
    /// The API server refuses what is to be written.
    ClusterWrite = "cluster-write" Error;
    /// The API server does not allow what is needed, or does not have it.
    ClusterForbidden = "cluster-forbidden" Error;
    /// A node is no part of the K3s cluster, as the site file has it, or no server is there to join.
    K3sRole = "k3s-role" Error;
    /// A node, the pods and the Services of a cluster differ in their IP families: K3s refuses to start.
    K3sFamily = "k3s-family" Error;
    /// The cluster has one IP family, which nobody can change once it exists.
    K3sSingleFamily = "k3s-single-family" Warning;
    /// A label or taint that K3s does not take: an agent with it ends at once.
    K3sLabel = "k3s-label" Error;
    /// Who may have which token of K3s.
    K3sToken = "k3s-token" Note;
    /// What all servers must have alike, or nobody can change once the cluster exists.
    K3sEqual = "k3s-equal" Note;
    /// A number of servers that stands no more failures than one server less.
    K3sQuorum = "k3s-quorum" Warning;
    /// Nobody says which interface Flannel is to use.
    K3sInterface = "k3s-interface" Warning;
    /// A node that routes IPv6 loses its own default route, unless it is told to keep it.
    K3sRouterAdvertisement = "k3s-router-advertisement" Note;
    /// The networks that nodes get from the pods' are not of the usual size.
    K3sNodeMask = "k3s-node-mask" Note;
    /// Packets of pods through the tunnel are smaller than elsewhere.
    K3sMtu = "k3s-mtu" Note;
    /// K3s and something of the site want the same port.
    K3sPort = "k3s-port" Error;
    /// An edge is a part of the cluster, which it need not be.
    K3sEdge = "k3s-edge" Note;
    /// The program of an edge's bundle needs more than the bundle holds.
    BundleProgram = "bundle-program" Warning;
    /// A listener cannot be opened.
    ListenerFailed = "listener-failed" Error;
    /// Home nodes tell an edge different things; the most senior one's word counts.
    HomeDiffers = "home-differs" Warning;
    /// The Kubernetes API does not answer; what it said last is served.
    ClusterAway = "cluster-away" Warning;
    /// What runs is older than what the source says: the last good state is served.
    Stale = "stale" Warning;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_like_a_compilers() {
        let key = ObjectKey { kind: "Ingress".into(), name: super::super::ObjectName::new("apps", "grafana") };
        let mut place = Place::field(&key, "spec.rules[0].host");
        place.file = Some("apps.yaml".into());
        (place.line, place.column) = (Some(7), Some(3));
        let finding = Finding::new(Code::ObjectInvalid, place, "`a b` is not a host name");
        assert_eq!(
            finding.to_string(),
            "apps.yaml:7:3: Ingress apps/grafana spec.rules[0].host: error[object-invalid]: `a b` is not a host name"
        );
    }

    #[test]
    fn every_code_has_an_identifier_of_its_own() {
        let mut ids: Vec<_> = Code::ALL.iter().map(|code| code.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Code::ALL.len());
    }
}
