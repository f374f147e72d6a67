//! Pods as networks behind their nodes' bridges, with an echo backend in each.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};

use dualgate_core::model::{ObjectName, ObjectSet};
use dualgate_host::namespace;
use ipnet::IpNet;

use super::Shared;
use crate::echo::{self, Backend};
use crate::topology::{Interface, POD_BRIDGE, default_route, first_host};
use crate::trial::chain;
use crate::workload::Pod;

/// A pod that runs.
#[derive(Debug)]
pub(super) struct Running {
    network: OwnedFd,
    /// What it listens on, for whom; another Service may want more.
    ports: BTreeSet<u16>,
    /// `None` once it was killed.
    backend: Option<Backend>,
}

impl Running {
    /// Ends it as SIGKILL does; its network stays until somebody hears of it.
    pub(super) fn kill(&mut self) {
        self.backend = None;
    }
}

impl Shared {
    /// Starts a pod that does not run, if its node is on.
    pub(super) fn run_pod<D>(
        &self,
        pod: &mut Pod,
        objects: &ObjectSet,
        running: &mut BTreeMap<ObjectName, Running>,
        dead: &BTreeMap<ObjectName, D>,
    ) -> Result<(), String> {
        let is_on = self.world.host(pod.node.as_str()).is_some();
        if dead.contains_key(&pod.name) || !is_on {
            return Ok(());
        }
        let ports = pod.listens(objects);
        let failed = |error: io::Error| error.to_string();
        if let Some(running) = running.get_mut(&pod.name) {
            if let Some(backend) = &running.backend {
                let more: BTreeSet<u16> = ports.difference(&running.ports).copied().collect();
                self.serve(backend, pod, &more, &running.network).map_err(failed)?;
                running.ports.extend(more);
            }
            return Ok(());
        }
        let network = self.plug_in(pod)?;
        let backend = Backend::new(pod.identity(objects));
        self.serve(&backend, pod, &ports, &network).map_err(failed)?;
        pod.alive = true;
        running.insert(pod.name.clone(), Running { network, ports, backend: Some(backend) });
        Ok(())
    }

    /// A network for a pod, behind its node's bridge.
    fn plug_in(&self, pod: &Pod) -> Result<OwnedFd, String> {
        let host = self.world.topology().hosts.iter().find(|host| host.name == pod.node.as_str());
        let cidrs = host.map(|host| host.pod_cidrs.as_slice()).unwrap_or_default();
        let cidr = |address: &IpAddr| cidrs.iter().find(|cidr| cidr.contains(address)).copied();
        let nets = pod.addresses.iter().filter_map(|address| IpNet::new(*address, cidr(address)?.prefix_len()).ok());
        let gateways = pod.addresses.iter().filter_map(|address| first_host(cidr(address)?));
        let eth0 = Interface {
            name: "eth0".to_owned(),
            mtu: 1500,
            addresses: nets.collect(),
            routes: gateways.map(default_route).collect(),
            ..Interface::default()
        };
        let network = namespace::network().map_err(|error| error.to_string())?;
        self.world.hang(pod.node.as_str(), POD_BRIDGE, &port_name(pod), network, &eth0).map_err(|error| chain(&error))
    }

    /// Lets a backend answer on these ports of its pod.
    fn serve(&self, backend: &Backend, pod: &Pod, ports: &BTreeSet<u16>, network: &OwnedFd) -> io::Result<()> {
        let any = |address: &IpAddr| match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let everywhere: Vec<IpAddr> = pod.addresses.iter().map(any).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let open = || -> io::Result<Vec<TcpListener>> {
            let all = ports.iter().flat_map(|port| everywhere.iter().map(|ip| SocketAddr::new(*ip, *port)));
            all.map(|address| echo::listen(address).map(TcpListener::from)).collect()
        };
        let listeners = namespace::in_network(network.as_fd(), open)?;
        let _context = self.runtime.enter();
        for listener in listeners {
            backend.serve(listener).map_err(|error| io::Error::other(chain(&error)))?;
        }
        Ok(())
    }
}

/// `veth` and a checksum of the pod's name, as container networks call their interfaces.
fn port_name(pod: &Pod) -> String {
    let name = pod.name.to_string();
    let sum = name.bytes().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("veth{sum:08x}")
}
