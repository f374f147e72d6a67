//! What is measured: dualgate's nodes, or keepalived's in the same network.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualgate_core::model::NodeName;
use dualgate_host::namespace::Namespace;
use dualgate_host::virtual_ips::control::{Answer, Order, order};
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{self, Request, who_has};
use dualgate_lab::process::{Process, Processes, kill_all_in};
use dualgate_lab::topology::Topology;
use dualgate_lab::trial::chain;
use dualgate_lab::world::World;
use rustix::process::Signal;

pub const NODES: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];

/// What happens to the node that has the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Kill,
    Power,
    Cable,
    Move,
    Restart,
    TakeOver,
}

impl Fault {
    pub const ALL: [Self; 6] = [Self::Kill, Self::Power, Self::Cable, Self::Move, Self::Restart, Self::TakeOver];

    pub const fn words(self) -> &'static str {
        match self {
            Self::Kill => "the owner's process is killed (kill -9)",
            Self::Power => "the owner has no power",
            Self::Cable => "the owner's cable is pulled",
            Self::Move => "planned: vip move; keepalived: SIGTERM",
            Self::Restart => "planned: SIGTERM and start",
            Self::TakeOver => "planned: run --take-over",
        }
    }
}

pub type Failure = Box<dyn std::error::Error>;

/// Three nodes that share addresses.
pub trait Subject {
    fn name(&self) -> String;
    fn topology(&self) -> &Topology;
    fn host(&self, name: &str) -> Option<Arc<Namespace>>;
    fn does(&self, fault: Fault) -> bool;
    /// Lets it happen to this node, which has the addresses.
    fn hit(&self, fault: Fault, node: &str) -> Result<(), Failure>;
    /// Puts everything in place again.
    fn mend(&self, fault: Fault, node: &str) -> Result<(), Failure>;
    /// What is not in place.
    fn missing(&self) -> Vec<String>;
    /// Whether what happened last is over; where addresses move, that they have is seen on the wire.
    fn is_over(&self, fault: Fault, node: &str) -> bool;

    /// The stations that answer for an address, and the node of each.
    fn answering(&self, address: IpAddr) -> BTreeSet<String> {
        let Some(client) = self.host("lan-client") else { return BTreeSet::new() };
        let macs = who_has(&client, "eth0", address, Duration::from_millis(100)).unwrap_or_default();
        macs.iter().map(|mac| self.node_of(mac.0).unwrap_or_else(|| mac.to_string())).collect()
    }

    /// Whose interface it is.
    fn node_of(&self, mac: [u8; 6]) -> Option<String> {
        let is_its = |host: &&dualgate_lab::topology::Host| host.interfaces.iter().any(|i| i.mac == Some(mac));
        self.topology().hosts.iter().find(is_its).map(|host| host.name.clone())
    }
}

/// A lab.
pub struct Ours(pub Lab);

impl Ours {
    /// What a node's admin listener says.
    pub fn status(&self, node: &str) -> serde_json::Value {
        let Some(host) = self.0.host(node) else { return serde_json::Value::Null };
        let admin = "127.0.0.1:9180";
        let Ok(address) = admin.parse() else { return serde_json::Value::Null };
        let answer = probe::get(&host, &Request::new(address, admin).path("/status"), Duration::from_secs(1));
        answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
    }

    fn trouble_of(&self, node: &str) -> Option<String> {
        let state = self.0.nodes().state(node);
        if state.as_deref() != Some("ready") || self.0.nodes().is_succeeded(node) {
            return Some(format!("{node}: {}", state.unwrap_or_default()));
        }
        let status = self.status(node);
        let peers = status["virtual_ips"]["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let deaf = peers.len() != 2 || peers.iter().any(|peer| peer["alive"] != true);
        deaf.then(|| format!("{node} does not hear both others"))
    }
}

impl Subject for Ours {
    fn name(&self) -> String {
        "dualgate".to_owned()
    }

    fn topology(&self) -> &Topology {
        self.0.topology()
    }

    fn host(&self, name: &str) -> Option<Arc<Namespace>> {
        self.0.host(name)
    }

    fn does(&self, _: Fault) -> bool {
        true
    }

    fn hit(&self, fault: Fault, node: &str) -> Result<(), Failure> {
        match fault {
            Fault::Kill => self.0.nodes().signal(node, Signal::KILL),
            Fault::Power => drop(self.0.fail(node).map_err(|refusal| refusal.to_string())?),
            Fault::Cable => drop(self.0.cut(&format!("lan/{node}")).map_err(|refusal| refusal.to_string())?),
            Fault::Move => {
                let position = NODES.iter().position(|name| *name == node).unwrap_or_default();
                let to = NodeName::new(NODES[(position + 1) % NODES.len()]);
                let address = self.0.site().virtual_addresses(dualgate_core::model::GateName::Internal).next();
                let address = address.ok_or("the internal gate has no address")?;
                match order(&self.0.state_directory(node), &Order::Move { address, to })? {
                    Answer::Done(_) => {}
                    Answer::Refused(why) => return Err(why.into()),
                }
            }
            Fault::Restart => self.0.nodes().signal(node, Signal::TERM),
            Fault::TakeOver => self.0.nodes().succeed(node)?,
        }
        Ok(())
    }

    fn mend(&self, fault: Fault, node: &str) -> Result<(), Failure> {
        match fault {
            Fault::Power => drop(self.0.heal(node).map_err(|refusal| refusal.to_string())?),
            Fault::Cable => drop(self.0.heal(&format!("lan/{node}")).map_err(|refusal| refusal.to_string())?),
            // A process that ended is started again by the lab.
            Fault::Kill | Fault::Move | Fault::Restart | Fault::TakeOver => {}
        }
        Ok(())
    }

    fn missing(&self) -> Vec<String> {
        self.0.tend();
        NODES.iter().filter_map(|node| self.trouble_of(node)).collect()
    }

    fn is_over(&self, fault: Fault, node: &str) -> bool {
        self.0.tend();
        match fault {
            Fault::TakeOver => !self.0.nodes().is_succeeded(node) && self.trouble_of(node).is_none(),
            Fault::Kill | Fault::Power | Fault::Cable | Fault::Move | Fault::Restart => true,
        }
    }
}

/// keepalived on the home nodes of the same topology: VRRPv3, both families, no return of the former owner.
pub struct Keepalived {
    advert: &'static str,
    directory: PathBuf,
    world: World,
    processes: Processes,
    running: Mutex<BTreeMap<String, Process>>,
    addresses: Vec<String>,
}

impl Keepalived {
    pub fn start(
        topology: Topology,
        addresses: &[IpAddr],
        advert: &'static str,
        processes: Processes,
        directory: &Path,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory)?;
        let world = World::build(topology, directory).map_err(|error| chain(&error))?;
        let with_prefix = |address: &IpAddr| format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
        let keepalived = Self {
            advert,
            directory: directory.to_owned(),
            world,
            processes,
            running: Mutex::default(),
            addresses: addresses.iter().map(with_prefix).collect(),
        };
        NODES.iter().try_for_each(|node| keepalived.run(node))?;
        Ok(keepalived)
    }

    fn run(&self, node: &str) -> Result<(), Failure> {
        let host = self.world.host(node).ok_or("the host is off")?;
        let folder = self.world.run_directory(node);
        std::fs::write(folder.join("keepalived.conf"), self.configuration())?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--use-file=/run/keepalived.conf"]);
        command.args(["--pid=/run/keepalived.pid", "--vrrp_pid=/run/vrrp.pid", "--vrrp"]);
        let process = self.processes.spawn(&host, command, &self.directory.join(format!("{node}.log")))?;
        self.lock().insert(node.to_owned(), process);
        Ok(())
    }

    /// An instance for each family, as VRRPv3 has it, that change together.
    fn configuration(&self) -> String {
        let instance = |(number, address): (usize, &String)| {
            let link_local = if address.contains(':') { format!("fe80::da:{number}\n    ") } else { String::new() };
            format!(
                "vrrp_instance f{number} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {}\n  priority 100\n  \
                 advert_int {}\n  nopreempt\n  accept\n  virtual_ipaddress {{\n    {link_local}{address}\n  }}\n}}\n",
                51 + number,
                self.advert,
            )
        };
        let instances: String = self.addresses.iter().enumerate().map(instance).collect();
        format!(
            "global_defs {{\n  vrrp_version 3\n}}\nvrrp_sync_group both {{\n  group {{\n    f0\n    f1\n  }}\n}}\n{instances}"
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self, node: &str) -> io::Result<()> {
        // It and its children: a child that lives on says good-bye, which no crash does.
        self.world.host(node).map_or(Ok(()), |host| kill_all_in(host.network()))
    }
}

impl Subject for Keepalived {
    fn name(&self) -> String {
        format!("keepalived, {} s", self.advert)
    }

    fn topology(&self) -> &Topology {
        self.world.topology()
    }

    fn host(&self, name: &str) -> Option<Arc<Namespace>> {
        self.world.host(name)
    }

    fn does(&self, fault: Fault) -> bool {
        match fault {
            Fault::Kill | Fault::Power | Fault::Cable | Fault::Move => true,
            Fault::Restart | Fault::TakeOver => false,
        }
    }

    fn hit(&self, fault: Fault, node: &str) -> Result<(), Failure> {
        match fault {
            Fault::Kill => self.kill(node)?,
            Fault::Power => {
                let host = self.world.host(node).ok_or("the host is off")?;
                self.world.switch_off(node).map_err(|error| chain(&error))?;
                kill_all_in(host.network())?;
            }
            Fault::Cable => drop(self.world.cut(&format!("lan/{node}")).map_err(|error| chain(&error))?),
            Fault::Move => self.lock().get(node).ok_or("it does not run")?.signal(Signal::TERM),
            Fault::Restart | Fault::TakeOver => return Err("keepalived has no such thing".into()),
        }
        Ok(())
    }

    fn mend(&self, fault: Fault, node: &str) -> Result<(), Failure> {
        match fault {
            Fault::Power => drop(self.world.switch_on(node).map_err(|error| chain(&error))?),
            Fault::Cable => drop(self.world.mend(&format!("lan/{node}")).map_err(|error| chain(&error))?),
            Fault::Kill | Fault::Move | Fault::Restart | Fault::TakeOver => {}
        }
        if fault != Fault::Cable {
            let former = self.lock().remove(node);
            if let Some(former) = former {
                former.wait(Duration::from_secs(5));
            }
            self.run(node)?;
        }
        Ok(())
    }

    fn missing(&self) -> Vec<String> {
        let ended = |(node, process): (&String, &Process)| process.ended().map(|how| format!("{node}: {how}"));
        self.lock().iter().filter_map(ended).collect()
    }

    fn is_over(&self, _: Fault, _: &str) -> bool {
        true
    }
}
