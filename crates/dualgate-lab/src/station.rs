//! One more machine in the LAN, for whoever wants to know what the nodes make of it: its kernel answers ARP and Neighbor
//! Discovery for its addresses, as that of any machine does, and an echo backend listens on them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};

use dualgate_host::namespace;
use ipnet::IpNet;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::echo::{self, Backend, Identity};
use crate::topology::Interface;
use crate::trial::chain;
use crate::world::World;

/// The switch of the LAN, and its bridge.
const LAN: (&str, &str) = ("lan", "br0");
const MTU: u32 = 1500;

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name: what its echo backend says, and the end of its cable. At most 11 characters.
    pub name: String,
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// Its addresses with their prefix.
    pub addresses: Vec<IpNet>,
    /// Where its echo backend listens on them.
    pub ports: Vec<u16>,
}

/// A machine that is on. Dropped, it has no power.
#[derive(Debug)]
pub struct Station {
    _backend: Backend,
    _stop: oneshot::Sender<()>,
    _network: OwnedFd,
}

impl Station {
    /// Switches a machine on.
    pub(crate) fn start(world: &World, machine: &Machine) -> io::Result<Self> {
        let eth0 = Interface {
            name: "eth0".to_owned(),
            mtu: MTU,
            mac: Some(machine.mac),
            addresses: machine.addresses.clone(),
            ..Interface::default()
        };
        let (switch, bridge) = LAN;
        let port = format!("lan-{}", machine.name);
        let network = world.hang(switch, bridge, &port, namespace::network()?, &eth0);
        let network = network.map_err(|error| io::Error::other(chain(&error)))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let backend = Backend::new(Identity {
            pod: machine.name.clone(),
            addresses: machine.addresses.iter().map(IpNet::addr).collect(),
            ..Identity::default()
        });
        let addresses = || machine.addresses.iter().map(IpNet::addr);
        let open = || -> io::Result<Vec<TcpListener>> {
            let sockets = machine.ports.iter().flat_map(|port| addresses().map(|ip| SocketAddr::new(ip, *port)));
            sockets.map(|address| echo::listen(address).map(TcpListener::from)).collect()
        };
        let listeners = namespace::in_network(network.as_fd(), open)?;
        {
            let _context = runtime.enter();
            for listener in listeners {
                backend.serve(listener).map_err(|error| io::Error::other(chain(&error)))?;
            }
        }
        let serve = move || runtime.block_on(stopped);
        std::thread::Builder::new().name(machine.name.clone()).spawn(serve)?;
        Ok(Self { _backend: backend, _stop: stop, _network: network })
    }
}
