//! Openings: what is let in, from whom, and why.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ways::Purpose;
use crate::model::EntryPointName;
use crate::model::object::Protocol;

/// A port that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// For whom.
    pub from: Source,
    /// Of which addresses, sorted; empty is every address of this node.
    pub to: Vec<IpAddr>,
    /// Why.
    pub why: Why,
}

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Everybody.
    Everywhere,
    /// These networks; private ones that are home's come by the tunnel only.
    Networks(Vec<IpNet>),
    /// These networks, by the tunnel.
    Tunnel(Vec<IpNet>),
}

/// What an opening is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// `firewall.sshPort`.
    Ssh,
    /// An entry point of the external gate.
    EntryPoint(EntryPointName),
    /// WireGuard.
    Tunnel,
    /// Public DNS.
    Dns,
    /// Leases of addresses: this host is the client.
    Dhcp,
    /// What nodes tell each other.
    Exchange,
    /// The kubelet, asked by the cluster.
    Kubelet,
    /// Flannel's VXLAN.
    Flannel,
    /// The API server of Kubernetes.
    ApiServer,
    /// The servers' etcd.
    Etcd,
    /// `firewall.allow` at this index.
    Allow(usize),
    /// What was open to people before a change that nobody has confirmed.
    Former(Purpose),
    /// Pods behind public routes.
    PublicRoutes,
}

impl Opening {
    pub(super) fn here(protocol: Protocol, port: u16, from: Source, why: Why) -> Self {
        Self { protocol, port, from, to: Vec::new(), why }
    }

    /// Which port it is, and for whom.
    pub(super) fn write_way(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, from, to, why: _ } = self;
        write!(f, "{} {port}", word(*protocol))?;
        list(f, " of ", to)?;
        match from {
            Source::Everywhere => f.write_str(" for everybody"),
            Source::Networks(nets) => list(f, " for ", nets.iter().map(Brief)),
            Source::Tunnel(nets) => list(f, " by the tunnel for ", nets.iter().map(Brief)),
        }
    }

    /// The name of its rules: their comment, and a label of their metrics.
    pub(super) fn name(&self) -> String {
        match &self.why {
            Why::Ssh => "ssh".to_owned(),
            Why::EntryPoint(name) => format!("entry-point-{name}"),
            Why::Tunnel => "tunnel".to_owned(),
            Why::Dns => "dns".to_owned(),
            Why::Dhcp => "dhcp".to_owned(),
            Why::Exchange => "exchange".to_owned(),
            Why::Kubelet => "kubelet".to_owned(),
            Why::Flannel => "flannel".to_owned(),
            Why::ApiServer => "api-server".to_owned(),
            Why::Etcd => "etcd".to_owned(),
            Why::Allow(index) => format!("allow-{index}"),
            Why::Former(_) => format!("former-{}", self.port),
            Why::PublicRoutes => format!("pods-{}", self.port),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh => f.write_str("SSH"),
            Self::EntryPoint(name) => write!(f, "entry point {name} of the external gate"),
            Self::Tunnel => f.write_str("the tunnel"),
            Self::Dns => f.write_str("public DNS"),
            Self::Dhcp => f.write_str("DHCP, as its client"),
            Self::Exchange => f.write_str("the exchange between nodes"),
            Self::Kubelet => f.write_str("the kubelet"),
            Self::Flannel => f.write_str("Flannel's VXLAN"),
            Self::ApiServer => f.write_str("the API server"),
            Self::Etcd => f.write_str("etcd"),
            Self::Allow(index) => write!(f, "firewall.allow[{index}]"),
            Self::Former(Purpose::Ssh) => f.write_str("SSH as before, until a change is confirmed"),
            Self::Former(Purpose::Allowed) => f.write_str("as before, until a change is confirmed"),
            Self::PublicRoutes => f.write_str("pods behind public routes"),
        }
    }
}

/// `open tcp 443 for everybody: entry point websecure of the external gate`
impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("open ")?;
        self.write_way(f)?;
        write!(f, ": {}", self.why)
    }
}

fn list(f: &mut fmt::Formatter<'_>, before: &str, values: impl IntoIterator<Item = impl fmt::Display>) -> fmt::Result {
    let mut separator = before;
    for value in values {
        write!(f, "{separator}{value}")?;
        separator = ", ";
    }
    Ok(())
}

/// A network, which may be one address.
struct Brief<'a>(&'a IpNet);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(net) = self;
        if net.prefix_len() == net.max_prefix_len() { net.addr().fmt(f) } else { net.fmt(f) }
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
