//! What this host needs so that packets to virtual IPs go on here, whoever holds them at the moment.
//!
//! ```text
//! local      routes `local ADDRESS dev lo`: listeners take packets, also on nodes that only stand by
//! silent     table `arp dualgate`: the kernel says nothing of these addresses on the LAN; the announcer does
//! relays     tables `ip dualgate`, `ip6 dualgate`: flows that are open at the former owner go on there; flows that were
//!            here before and are over are forgotten first, as others may have their ends by now
//! tunnelled  the same tables: who reaches an edge through this node speaks in its name
//! ```
//!
//! [`Kernel`] looks ([`Kernel::observe`]), [`diff`] says what is to be changed (pure, in the order in which it is to be
//! done), [`Kernel::apply`] does it. Nothing is remembered in between: tables carry digests of their rules, routes the
//! number of who made them, so that a successor sees what is left of a predecessor.
//!
//! **Silence before routes.** The kernel answers ARP for each local route, on every node. So addresses become silent before
//! their route comes, and are silent until it is gone. The tables outlive this process, as the routes do, and nobody else
//! can remove them (kernels before 6.9: the next round restores them).
//!
//! It acts on the network that its thread was in when it was opened, and is to be used from there.

mod flows;
mod relay;
mod settings;
mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use dualgate_wire::nftables::{
    Change as RuleChange, Dialect, Family, Observed as ObservedTable, Ownership, Table, differences,
};

pub(super) use settings::read as setting;

use crate::netfilter::{Netfilter, NetfilterError};
use crate::network::{LocalRoute, Network, NetworkError};

/// The name of its tables, in the families `arp`, `ip` and `ip6`.
pub const TABLE: &str = "dualgate";
/// The comment by which they are known.
pub const MARK: &str = "dualgate made this table for its virtual IPs and undoes changes of others";
/// Who made its routes, `RTPROT_*`: a number that nobody else uses (`/etc/iproute2/rt_protos`).
pub const PROTOCOL: u8 = 217;
/// The families of its tables.
const FAMILIES: [Family; 3] = [Family::Arp, Family::Ip, Family::Ip6];

/// How packets to virtual IPs go on at this node. The default does nothing, and undoes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataPath {
    /// Packets to these are this host's.
    pub local: BTreeSet<IpAddr>,
    /// The kernel speaks neither for these nor from them on the LAN.
    pub silent: BTreeSet<Ipv4Addr>,
    /// Of each interface of the LAN this node's own address, from which it asks for neighbours in place of a silent one.
    pub own: BTreeMap<String, Ipv4Addr>,
    /// Of an address that came here by a planned move, the former owner's own address in the LAN, of the same family:
    /// there its open flows go on. A node that is told that the address is back at its former owner takes the relay away,
    /// as otherwise the two would send packets that neither knows to and fro, until their hop limit ends that.
    pub relays: BTreeMap<IpAddr, IpAddr>,
    /// Edges that the LAN reaches through this node.
    pub tunnelled: Vec<Tunnelled>,
}

/// An edge's private address, which the LAN reaches through this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tunnelled {
    /// The edge's address. The route to it is the tunnel's business.
    pub address: IpAddr,
    /// The tunnel's interface.
    pub interface: String,
    /// This node's own address, of the same family: in its name others speak with the edge.
    pub source: IpAddr,
}

/// Why packets do not go on as planned. All else was done.
#[derive(Debug, thiserror::Error)]
pub enum DataPathError {
    /// The kernel's rules.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    /// The kernel's routes.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Somebody else's table.
    #[error(
        "the table `{family} {TABLE}` of this host was not made by dualgate, which leaves it alone: give it another name, \
         or remove it (`nft delete table {family} {TABLE}`)"
    )]
    Foreign {
        /// The table's family.
        family: Family,
    },
    /// Another process of ours holds it.
    #[error(
        "the table `{family} {TABLE}` belongs to another running process (netlink port {port}), perhaps a `dualgate run` \
         that is about to end"
    )]
    Taken {
        /// The table's family.
        family: Family,
        /// The owner's netlink port: often its process's number.
        port: u32,
    },
    /// The address is this host's already.
    #[error(
        "the virtual IP {address} is an address of this host already (`{interface}`): remove it there, as another node may \
         hold it (`ip address`, `ip route show table local`)"
    )]
    Occupied {
        /// The address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// Two addresses that must be of one family.
    #[error("{address} and {other} are not of one family, so packets to the first cannot go on by the second")]
    Families {
        /// Where packets go.
        address: IpAddr,
        /// By whom.
        other: IpAddr,
    },
    /// The host is no router.
    #[error("this host does not forward packets, so the LAN cannot reach an edge through it: set `{setting} = 1`")]
    NotForwarding {
        /// The setting.
        setting: String,
    },
    /// Connection tracking only knows flows that it has seen begin.
    #[error(
        "flows that are open when an address moves are reset, as connection tracking is strict: set `{setting} = 1`"
    )]
    StrictTracking {
        /// The setting.
        setting: String,
    },
    /// A setting that cannot be looked at.
    #[error("read the setting `{setting}`")]
    Setting {
        /// The setting.
        setting: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the kernel has, as far as it concerns virtual IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Addresses that are local by routes of ours.
    pub local: BTreeSet<IpAddr>,
    /// Tables of ours.
    tables: BTreeMap<Family, ObservedTable>,
    /// The socket that should own them.
    owner: Option<u32>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This table is so.
    Table(Table),
    /// The table of this family is not there.
    NoTable(Family),
    /// Flows to these that are over are not known any more. Who had one may begin another one at another node with the same
    /// ends, whose packets would not be told from the former's.
    Forget(BTreeSet<IpAddr>),
    /// Packets to this address are this host's.
    Route(IpAddr),
    /// They no longer are.
    NoRoute(IpAddr),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(f, "write the table `{} {TABLE}`", table.family),
            Self::NoTable(family) => write!(f, "remove the table `{family} {TABLE}`"),
            Self::Forget(addresses) => {
                let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "forget flows to {} that are over", shown.join(", "))
            }
            Self::Route(address) => write!(f, "take packets to {address}"),
            Self::NoRoute(address) => write!(f, "no longer take packets to {address}"),
        }
    }
}

/// What is to be done, in this order. Pure.
#[must_use]
pub fn diff(observed: &Observed, desired: &DataPath) -> Vec<Change> {
    let coming = desired.local.difference(&observed.local).copied();
    let leaving: Vec<IpAddr> = observed.local.difference(&desired.local).copied().collect();
    let silence = silence::table(&desired.silent, &desired.own);
    let mut changes = Vec::new();
    let mut afterwards = observed.step(Family::Arp, silence.clone());
    if afterwards.is_some() {
        let mut meanwhile = desired.silent.clone();
        meanwhile.extend(leaving.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }));
        let first = silence::table(&meanwhile, &desired.own);
        afterwards = afterwards.filter(|_| first != silence);
        changes.extend(observed.step(Family::Arp, first));
    }
    for family in [Family::Ip, Family::Ip6] {
        let Some(change) = observed.step(family, relay::table(family, desired)) else { continue };
        let is_of_family = |address: &IpAddr| address.is_ipv4() == (family == Family::Ip);
        let relayed: BTreeSet<IpAddr> = desired.relays.keys().copied().filter(is_of_family).collect();
        changes.push(change);
        changes.extend((!relayed.is_empty()).then_some(Change::Forget(relayed)));
    }
    changes.extend(leaving.into_iter().map(Change::NoRoute));
    changes.extend(coming.map(Change::Route));
    changes.extend(afterwards);
    changes
}

impl Observed {
    /// What makes the table of this family so.
    fn step(&self, family: Family, wanted: Option<Table>) -> Option<Change> {
        match (wanted, self.tables.get(&family)) {
            (None, None) => None,
            (None, Some(_)) => Some(Change::NoTable(family)),
            (Some(table), observed) => {
                (!differences(&table, observed, self.owner).is_empty()).then_some(Change::Table(table))
            }
        }
    }
}

/// The table of this family without anything in it.
fn table(family: Family) -> Table {
    let mut table = Table::new(family, TABLE);
    table.ownership = Ownership::OwnerPersist;
    table.comment = Some(MARK.to_owned());
    table
}

/// The data path in the kernel.
#[derive(Debug)]
pub struct Kernel {
    netfilter: Netfilter,
    network: Network,
}

impl Kernel {
    /// Opens the network of the calling thread.
    ///
    /// # Errors
    ///
    /// If this process may not change rules there, or the kernel has no nftables.
    pub fn open() -> Result<Self, DataPathError> {
        Ok(Self { netfilter: Netfilter::open()?, network: Network::open()? })
    }

    /// The same as on a kernel without owners.
    ///
    /// # Errors
    ///
    /// As [`Kernel::open`].
    pub fn open_shared() -> Result<Self, DataPathError> {
        Ok(Self { netfilter: Netfilter::open_shared()?, network: Network::open()? })
    }

    /// What is there.
    ///
    /// # Errors
    ///
    /// If the kernel does not say, or a table of this name is somebody else's.
    pub fn observe(&mut self) -> Result<Observed, DataPathError> {
        let owner = match self.netfilter.dialect() {
            Dialect::Owners => Some(self.netfilter.port()?),
            Dialect::Shared => None,
        };
        let mut tables = BTreeMap::new();
        for family in FAMILIES {
            if let Some(table) = self.netfilter.observe(family, TABLE)? {
                belongs_to(&table, owner)?;
                tables.insert(family, table);
            }
        }
        let routes = self.network.local_routes()?;
        let local = routes.iter().filter(|route| route.protocol == PROTOCOL).map(|route| route.address).collect();
        Ok(Observed { local, tables, owner })
    }

    /// Does it, and looks whether anything else of this host is in the way: also where there is nothing to do.
    ///
    /// # Errors
    ///
    /// The first thing that could not be done, or is in the way. What does not depend on it was done nevertheless.
    pub fn apply(&mut self, desired: &DataPath, changes: &[Change]) -> Result<(), DataPathError> {
        families(desired)?;
        let mut outcome = settings::settings(desired);
        // Looked at once: there may be a thousand.
        let comes = changes.iter().any(|change| matches!(change, Change::Route(_)));
        let routes = if comes { self.network.local_routes()? } else { Vec::new() };
        let there: BTreeMap<IpAddr, &LocalRoute> = routes.iter().map(|route| (route.address, route)).collect();
        for change in changes {
            let done = self.step(change, &there);
            // Without silence no route may come; with the route still there the silence may not go.
            let ends_here = match change {
                Change::Table(table) => table.family == Family::Arp,
                Change::NoTable(family) => *family == Family::Arp,
                Change::NoRoute(_) => true,
                Change::Route(_) | Change::Forget(_) => false,
            };
            if ends_here {
                done?;
            } else {
                outcome = outcome.and(done);
            }
        }
        outcome.and_then(|()| self.alone(desired))
    }

    /// Whether these addresses are this host's by our doing alone.
    fn alone(&mut self, desired: &DataPath) -> Result<(), DataPathError> {
        let routes = if desired.local.is_empty() { Vec::new() } else { self.network.local_routes()? };
        let mut others = routes.into_iter().filter(|route| route.protocol != PROTOCOL);
        match others.find(|route| desired.local.contains(&route.address)) {
            Some(LocalRoute { address, interface, .. }) => Err(DataPathError::Occupied { address, interface }),
            None => Ok(()),
        }
    }

    /// Looks, and does what is to be done; what that was.
    ///
    /// # Errors
    ///
    /// As [`Kernel::observe`] and [`Kernel::apply`].
    pub fn converge(&mut self, desired: &DataPath) -> Result<Vec<Change>, DataPathError> {
        let changes = diff(&self.observe()?, desired);
        self.apply(desired, &changes)?;
        Ok(changes)
    }

    fn step(&mut self, change: &Change, there: &BTreeMap<IpAddr, &LocalRoute>) -> Result<(), DataPathError> {
        match change {
            Change::Table(table) => Ok(self.netfilter.apply(&[RuleChange::Replace(table.clone())])?),
            Change::NoTable(family) => {
                Ok(self.netfilter.apply(&[RuleChange::Delete { family: *family, name: TABLE.to_owned() }])?)
            }
            Change::Forget(addresses) => {
                // Few flows are concerned, and none that is open: a kernel that cannot do it keeps no address from going on.
                if let Err(error) = flows::forget_ended(addresses) {
                    tracing::debug!(%error, "connection tracking keeps flows that are over");
                }
                Ok(())
            }
            Change::Route(address) => self.take(*address, there.get(address).copied()),
            Change::NoRoute(address) => Ok(self.network.remove_local_route(*address, PROTOCOL)?),
        }
    }

    /// An address that is this host's by another's doing is left as it is.
    fn take(&mut self, address: IpAddr, there: Option<&LocalRoute>) -> Result<(), DataPathError> {
        match there {
            Some(there) if there.protocol == PROTOCOL => Ok(()),
            Some(there) => Err(DataPathError::Occupied { address, interface: there.interface.clone() }),
            None => Ok(self.network.add_local_route(address, PROTOCOL)?),
        }
    }
}

/// Whether the table is ours to change: marked, and nobody else's.
fn belongs_to(observed: &ObservedTable, own: Option<u32>) -> Result<(), DataPathError> {
    let family = observed.table.family;
    if observed.table.comment.as_deref() != Some(MARK) {
        return Err(DataPathError::Foreign { family });
    }
    match observed.table.owner {
        Some(port) if Some(port) != own => Err(DataPathError::Taken { family, port }),
        Some(_) | None => Ok(()),
    }
}

fn families(path: &DataPath) -> Result<(), DataPathError> {
    let relays = path.relays.iter().map(|(address, former)| (*address, *former));
    let mut pairs = relays.chain(path.tunnelled.iter().map(|edge| (edge.address, edge.source)));
    match pairs.find(|(address, other)| address.is_ipv4() != other.is_ipv4()) {
        Some((address, other)) => Err(DataPathError::Families { address, other }),
        None => Ok(()),
    }
}
