//! The world makes a topology so: a namespace for each host, a veth pair for each link.
//!
//! A host that is switched off is gone, with everything that ran on it and the links that hung on it; switched on again it is
//! built from the topology as at first. There is one way to build, and repairs take it too.

mod filter;
mod mounts;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dualgate_host::namespace::{Namespace, NamespaceError};
use dualgate_host::netfilter::{Netfilter, NetfilterError};
use dualgate_host::network::{End, Network, NetworkError, Switch, Use};

use crate::report::LinkState;
use crate::topology::{Filter, Host, Interface, InterfaceKind, Link, Topology};

/// Why the world is not as the topology says.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A host cannot be made.
    #[error("make the host `{host}`")]
    Namespace {
        /// Which one.
        host: String,
        /// Why.
        #[source]
        source: NamespaceError,
    },
    /// Its network cannot be set up.
    #[error("set up the network of `{host}`")]
    Network {
        /// Which one.
        host: String,
        /// Why.
        #[source]
        source: NetworkError,
    },
    /// A kernel setting of it cannot be made.
    #[error("set {setting} on `{host}`{}", remedy(source))]
    Setting {
        /// Which host.
        host: String,
        /// Which setting.
        setting: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its packet filter cannot be made.
    #[error("set up the packet filter of `{host}`")]
    Filter {
        /// Which one.
        host: String,
        /// Why.
        #[source]
        source: NetfilterError,
    },
}

/// The hosts and links of a topology, made so.
#[derive(Debug)]
pub struct World {
    topology: Topology,
    /// Below it each host has its `run`.
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By the topology's numbering; `None` is off.
    hosts: Vec<Option<Running>>,
    cut: BTreeSet<String>,
}

#[derive(Debug)]
struct Running {
    namespace: Arc<Namespace>,
}

impl World {
    /// Builds everything. `directory` is empty, on a file system in memory.
    pub fn build(topology: Topology, directory: &Path) -> Result<Self, WorldError> {
        let hosts = topology.hosts.iter().map(|_| None).collect();
        let world = Self {
            topology,
            directory: directory.to_owned(),
            state: Mutex::new(State { hosts, cut: BTreeSet::new() }),
        };
        {
            let state = &mut *world.lock();
            for number in 0..world.topology.hosts.len() {
                state.hosts[number] = Some(world.start(number)?);
            }
            for link in &world.topology.links {
                world.lay(state, link)?;
            }
            for number in 0..world.topology.hosts.len() {
                world.set_up(state, number)?;
            }
        }
        Ok(world)
    }

    /// What it was built from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A host that is on.
    pub fn host(&self, name: &str) -> Option<Arc<Namespace>> {
        let number = self.number(name)?;
        Some(self.lock().hosts[number].as_ref()?.namespace.clone())
    }

    /// The directory that is `/run` on a host.
    pub fn run_directory(&self, host: &str) -> PathBuf {
        mounts::run_directory(&self.directory, host)
    }

    /// Switches a host off: its links are gone at once, and its namespace with the last process in it. Whether it was on.
    pub fn switch_off(&self, name: &str) -> Result<bool, WorldError> {
        let Some(number) = self.number(name) else { return Ok(false) };
        let Some(running) = self.lock().hosts[number].take() else { return Ok(false) };
        let interfaces: Vec<String> = self.topology.hosts[number].interfaces.iter().map(|i| i.name.clone()).collect();
        let remove = move || -> Result<(), NetworkError> {
            let mut network = Network::open()?;
            let present = network.interfaces()?;
            let present = present.iter().filter(|interface| interfaces.contains(&interface.name));
            present.into_iter().try_for_each(|interface| match network.remove(&interface.name) {
                // The other end of a cable may have taken it along.
                Err(error) if error.source.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            })
        };
        running.namespace.run(remove).map_err(network_of(name))?;
        Ok(true)
    }

    /// Switches a host on. Whether it was off.
    pub fn switch_on(&self, name: &str) -> Result<bool, WorldError> {
        let Some(number) = self.number(name) else { return Ok(false) };
        let state = &mut *self.lock();
        if state.hosts[number].is_some() {
            return Ok(false);
        }
        state.hosts[number] = Some(self.start(number)?);
        let links = self.topology.links.iter().filter(|link| link.ends.iter().any(|(host, _)| host == name));
        let links: Vec<&Link> = links.collect();
        for link in &links {
            self.lay(state, link)?;
        }
        self.set_up(state, number)?;
        for link in &links {
            let (host, interface) = if link.ends[0].0 == name { &link.ends[1] } else { &link.ends[0] };
            self.set_up_interface(state, host, interface)?;
        }
        Ok(true)
    }

    /// Cuts a link. Whether it carried anything before.
    pub fn cut(&self, name: &str) -> Result<bool, WorldError> {
        let Some(link) = self.topology.links.iter().find(|link| link.name == name) else { return Ok(false) };
        let state = &mut *self.lock();
        let fresh = state.cut.insert(name.to_owned());
        if fresh && self.is_laid(state, link) {
            self.pull(state, link)?;
        }
        Ok(fresh)
    }

    /// Mends a link that was cut. Whether it was cut.
    pub fn mend(&self, name: &str) -> Result<bool, WorldError> {
        let Some(link) = self.topology.links.iter().find(|link| link.name == name) else { return Ok(false) };
        let state = &mut *self.lock();
        let was_cut = state.cut.remove(name);
        if was_cut && self.is_laid(state, link) {
            for (host, interface) in &link.ends {
                self.set_up_interface(state, host, interface)?;
            }
        }
        Ok(was_cut)
    }

    /// Whether each link carries anything, in the topology's order.
    pub fn links(&self) -> Vec<LinkState> {
        let state = &*self.lock();
        let look = |link: &Link| match (self.is_laid(state, link), state.cut.contains(&link.name)) {
            (false, _) => LinkState::Off,
            (true, true) => LinkState::Cut,
            (true, false) => LinkState::Up,
        };
        self.topology.links.iter().map(look).collect()
    }

    /// Hangs a network on a bridge of a host: for a pod.
    pub fn hang(
        &self,
        host: &str,
        bridge: &str,
        port: &str,
        pod: OwnedFd,
        eth0: &Interface,
    ) -> Result<OwnedFd, WorldError> {
        let namespace = self.host(host).ok_or_else(|| off(host))?;
        let (name, bridge) = (port.to_owned(), bridge.to_owned());
        let (mtu, mac) = (eth0.mtu, eth0.mac);
        let plug = move || -> Result<OwnedFd, NetworkError> {
            let here = dualgate_host::namespace::current_network()?;
            let mut network = Network::open()?;
            let near = End { name: &name, mac: None, mtu, namespace: here.as_fd() };
            network.add_veth([&near, &End { name: "eth0", mac, mtu, namespace: pod.as_fd() }])?;
            network.plug(&name, &bridge)?;
            network.switch(&name, Switch::On)?;
            Ok(pod)
        };
        let pod = namespace.run(plug).map_err(network_of(host))?;
        let eth0 = eth0.clone();
        let set_up = || Ok(set_up_pod(&eth0));
        dualgate_host::namespace::in_network(pod.as_fd(), set_up)
            .unwrap_or_else(|error| Err(NetworkError::new("enter the pod's network", error)))
            .map_err(network_of(host))?;
        Ok(pod)
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.topology.hosts.iter().position(|host| host.name == name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty host with its settings and filter.
    fn start(&self, number: usize) -> Result<Running, WorldError> {
        let host = &self.topology.hosts[number];
        let mounts = mounts::prepare(&self.directory, host).map_err(failed_mounts(&host.name))?;
        let namespace = Namespace::new(&host.name, mounts);
        let namespace = namespace.map_err(|source| WorldError::Namespace { host: host.name.clone(), source })?;
        let settings = host.settings.clone();
        let set = move || {
            let mut settings = settings.into_iter();
            settings.find_map(|(path, value)| {
                let written = std::fs::write(format!("/proc/sys/{path}"), &value);
                written.err().filter(|error| !is_absent(error, &path)).map(|error| (path, error))
            })
        };
        if let Some((setting, source)) = namespace.run(set) {
            return Err(WorldError::Setting { host: host.name.clone(), setting, source });
        }
        if let Filter::Router { outside, masquerade } = &host.filter {
            let changes = filter::router(outside, *masquerade);
            let apply = move || Netfilter::open()?.apply(&changes);
            let applied = namespace.run(apply);
            applied.map_err(|source| WorldError::Filter { host: host.name.clone(), source })?;
        }
        Ok(Running { namespace: Arc::new(namespace) })
    }

    fn is_laid(&self, state: &State, link: &Link) -> bool {
        link.ends.iter().all(|(host, _)| self.number(host).is_some_and(|number| state.hosts[number].is_some()))
    }

    /// Lays the cable between two hosts that are on.
    fn lay(&self, state: &State, link: &Link) -> Result<(), WorldError> {
        if !self.is_laid(state, link) {
            return Ok(());
        }
        let [one, other] = link.ends.each_ref().map(|(host, interface)| {
            let number = self.number(host).unwrap_or_default();
            let plan = self.topology.hosts[number].interfaces.iter().find(|plan| plan.name == *interface);
            (state.hosts[number].as_ref(), plan)
        });
        let ((Some(one), Some(near)), (Some(other), Some(far))) = (one, other) else { return Ok(()) };
        let end = |interface: &Interface| (interface.name.clone(), interface.mac, interface.mtu);
        let (near, far) = (end(near), end(far));
        let peer = other.namespace.clone();
        let here = one.namespace.clone();
        let lay = move || -> Result<(), NetworkError> {
            let near = End { name: &near.0, mac: near.1, mtu: near.2, namespace: here.network() };
            let far = End { name: &far.0, mac: far.1, mtu: far.2, namespace: peer.network() };
            Network::open()?.add_veth([&near, &far])
        };
        one.namespace.run(lay).map_err(network_of(&link.ends[0].0))
    }

    /// Puts in place all that hangs on a host's interfaces.
    fn set_up(&self, state: &State, number: usize) -> Result<(), WorldError> {
        let host = &self.topology.hosts[number];
        let Some(running) = &state.hosts[number] else { return Ok(()) };
        // Bridges first: ports are plugged into them.
        let (bridges, others): (Vec<_>, Vec<_>) =
            host.interfaces.iter().cloned().partition(|interface| interface.kind == InterfaceKind::Bridge);
        let laid = |interface: &Interface| {
            let is_its = |link: &&Link| link.ends.contains(&(host.name.clone(), interface.name.clone()));
            self.topology.links.iter().find(is_its).is_none_or(|link| self.is_laid(state, link))
        };
        let others: Vec<Interface> = others.into_iter().filter(laid).collect();
        let job = move || -> Result<(), NetworkError> {
            let mut network = Network::open()?;
            network.switch("lo", Switch::On)?;
            for bridge in &bridges {
                network.add_bridge(&bridge.name, bridge.mac)?;
            }
            let all: Vec<&Interface> = bridges.iter().chain(&others).collect();
            all.iter().try_for_each(|interface| switch_on(&mut network, interface))?;
            all.iter().try_for_each(|interface| add_routes(&mut network, interface))
        };
        running.namespace.run(job).map_err(network_of(&host.name))?;
        self.pull_what_is_cut(state, host)
    }

    /// Whether an interface is there and not cut at this end.
    fn carries(&self, state: &State, host: &Host, interface: &Interface) -> bool {
        let end = (host.name.clone(), interface.name.clone());
        let link = self.topology.links.iter().find(|link| link.ends.contains(&end));
        link.is_none_or(|link| self.is_laid(state, link) && !(link.ends[1] == end && state.cut.contains(&link.name)))
    }

    /// A link that was cut stays cut when a host at its end comes back.
    fn pull_what_is_cut(&self, state: &State, host: &Host) -> Result<(), WorldError> {
        let of_host = |link: &&Link| link.ends.iter().any(|(end, _)| *end == host.name);
        let links = self.topology.links.iter().filter(of_host);
        let mut cut = links.filter(|link| state.cut.contains(&link.name) && self.is_laid(state, link));
        cut.try_for_each(|link| self.pull(state, link))
    }

    fn pull(&self, state: &State, link: &Link) -> Result<(), WorldError> {
        let (host, interface) = &link.ends[1];
        let running = self.number(host).and_then(|number| state.hosts[number].as_ref());
        let interface = interface.clone();
        let pull = move || Network::open()?.switch(&interface, Switch::Off);
        running.map_or(Ok(()), |running| running.namespace.run(pull)).map_err(network_of(host))
    }

    fn set_up_interface(&self, state: &State, host: &str, name: &str) -> Result<(), WorldError> {
        let Some(number) = self.number(host) else { return Ok(()) };
        let plan = self.topology.hosts[number].interfaces.iter().find(|interface| interface.name == name).cloned();
        let (Some(running), Some(plan)) = (&state.hosts[number], plan) else { return Ok(()) };
        let host_plan = &self.topology.hosts[number];
        let laid = host_plan.interfaces.iter().filter(|interface| self.carries(state, host_plan, interface));
        let all: Vec<Interface> = laid.cloned().collect();
        let job = move || -> Result<(), NetworkError> {
            let mut network = Network::open()?;
            switch_on(&mut network, &plan)?;
            // Routes through others may have gone with an address of this one, and two may want the same destination.
            all.iter().try_for_each(|interface| add_routes(&mut network, interface))
        };
        running.namespace.run(job).map_err(network_of(host))?;
        self.pull_what_is_cut(state, &self.topology.hosts[number])
    }
}

fn switch_on(network: &mut Network, interface: &Interface) -> Result<(), NetworkError> {
    if let InterfaceKind::Port { bridge } = &interface.kind {
        network.plug(&interface.name, bridge)?;
    }
    network.switch(&interface.name, Switch::On)?;
    let name = &interface.name;
    interface.addresses.iter().try_for_each(|address| network.add_address(name, *address, Use::Both))
}

fn add_routes(network: &mut Network, interface: &Interface) -> Result<(), NetworkError> {
    interface.routes.iter().try_for_each(|route| network.add_route(&interface.name, route))
}

fn set_up_pod(eth0: &Interface) -> Result<(), NetworkError> {
    for setting in ["net/ipv6/conf/default/accept_dad", "net/ipv6/conf/eth0/accept_dad"] {
        // Without IPv6 there is nothing to be set.
        let _ = std::fs::write(format!("/proc/sys/{setting}"), "0");
    }
    let mut network = Network::open()?;
    network.switch("lo", Switch::On)?;
    switch_on(&mut network, eth0)?;
    add_routes(&mut network, eth0)
}

/// Whether a setting cannot be had here: without IPv6 in the kernel its settings are not there.
fn is_absent(error: &io::Error, path: &str) -> bool {
    error.kind() == io::ErrorKind::NotFound && path.starts_with("net/ipv6")
}

/// What a person can do where /proc/sys cannot be written.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            " (in a container, start that with `--privileged`, or with `--security-opt systempaths=unconfined`)"
        }
        _ => "",
    }
}

fn network_of(host: &str) -> impl FnOnce(NetworkError) -> WorldError {
    let host = host.to_owned();
    move |source| WorldError::Network { host, source }
}

fn failed_mounts(host: &str) -> impl FnOnce(io::Error) -> WorldError {
    let host = host.to_owned();
    move |source| WorldError::Setting { host, setting: "the folder that becomes /run".to_owned(), source }
}

fn off(host: &str) -> WorldError {
    network_of(host)(NetworkError::new("hang a pod on it", io::Error::new(io::ErrorKind::NotConnected, "it is off")))
}
