//! A site as a network: hosts, links between them, addresses, routes. Plain values; the world makes them so.

use std::net::IpAddr;

use dualgate_core::model::NodeName;
use ipnet::IpNet;

pub use dualgate_host::network::Route;

pub use self::build::{TopologyError, build};
pub use self::cidr::{members, pod_cidrs};
pub(crate) use self::plan::{default_route, first_host};
pub use crate::report::{HostKind, StandIn};

mod build;
mod cidr;
mod plan;

/// A network of hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    /// In the order of the picture: the Internet's first, home's last.
    pub hosts: Vec<Host>,
    /// Cables.
    pub links: Vec<Link>,
    /// What stands in for parts that are not built.
    pub stand_ins: Vec<StandIn>,
}

impl Topology {
    /// Nodes that would see the manifests ask the lab's Kubernetes API.
    pub fn ask_kubernetes(&mut self) {
        for host in self.hosts.iter_mut().filter(|host| host.objects == Objects::Manifests) {
            host.objects = Objects::Kubernetes;
        }
        self.stand_ins.push(StandIn {
            part: "kubernetes".to_owned(),
            instead: "an API in memory at the first server; of its controllers and kubelets what workloads, Services and Nodes need".to_owned(),
        });
    }
}

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its name, and its host name.
    pub name: String,
    /// What it is for.
    pub kind: HostKind,
    /// The node of the site that runs on it.
    pub node: Option<NodeName>,
    /// Its interfaces but `lo`.
    pub interfaces: Vec<Interface>,
    /// Settings below /proc/sys, such as `net/ipv4/ip_forward`.
    pub settings: Vec<(String, String)>,
    /// What it lets through and translates.
    pub filter: Filter,
    /// Its resolvers, for /etc/resolv.conf.
    pub resolvers: Vec<IpAddr>,
    /// The networks of its pods, behind the bridge [`POD_BRIDGE`].
    pub pod_cidrs: Vec<IpNet>,
    /// Where its node gets the objects from.
    pub objects: Objects,
}

/// Where a node gets the objects from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Objects {
    /// It sees the manifests.
    #[default]
    Manifests,
    /// It asks the lab's Kubernetes API.
    Kubernetes,
    /// Home tells it what is public; it sees nothing else.
    Told,
}

/// The bridge that pods hang on, as K3s calls it.
pub const POD_BRIDGE: &str = "cni0";

/// An interface with all that hangs on it: it is put in place as a whole, at first and after every repair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address; `None` lets the kernel choose.
    pub mac: Option<[u8; 6]>,
    /// What it is.
    pub kind: InterfaceKind,
    /// In octets.
    pub mtu: u32,
    /// Its addresses with their prefix.
    pub addresses: Vec<IpNet>,
    /// Routes through it.
    pub routes: Vec<Route>,
}

/// What an interface is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum InterfaceKind {
    /// The end of a link.
    #[default]
    Cable,
    /// The end of a link, plugged into a bridge of this host.
    Port {
        /// The bridge's name.
        bridge: String,
    },
    /// A bridge.
    Bridge,
}

/// A cable between two interfaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Both ends: host and interface. Cutting the link is done at the second end, so that the first one sees its cable
    /// pulled and keeps its settings.
    pub ends: [(String, String); 2],
}

/// What a host lets through and translates.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Filter {
    /// Everything.
    #[default]
    Open,
    /// A router's: only answers come in from outside, for each family that is shut; IPv4 is translated on its way out.
    Router {
        /// The interface that leads outside.
        outside: String,
        /// Whether IPv4 going out takes this host's address.
        masquerade: bool,
    },
}
