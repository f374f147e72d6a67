//! The kernel's nftables: rulesets go in as transactions, tables and counters come out.
//!
//! What a ruleset says is `dualgate_wire::nftables`; this is the netlink socket. Each answer is there when the request
//! has been sent, because the kernel does the work within that system call: nothing here waits for anything.
//!
//! **A table with an owner belongs to the socket that made it.** Whoever applies such a table keeps its [`Netfilter`]
//! for as long as the table is to be protected, and hands the descriptor on to whom the table is to pass. Two processes
//! that share the descriptor must take turns: each would take the other's answers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dualgate_wire::nftables::{
    Batch, Change, Dialect, Difference, Dumped, Family, Invalid, Listing, Observed, ObservedRule, ObservedTable,
    Ownership, Purpose, Reply, Table, decode, differences, replies, request,
};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, sendto, socket_with,
};

/// Why rules could not be read or changed. Nothing was changed, unless it is [`NetfilterError::Unanswered`].
#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    /// The kernel does not let this process change rules, or has no nftables.
    #[error("nftables of this host: {what}: {}", words(*errno))]
    Unavailable {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A value cannot be said.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The kernel refused one part, and so all of it.
    #[error("the kernel refused {subject}: {}", words(*errno))]
    Refused {
        /// The first part that it refused.
        subject: String,
        /// Its reason.
        errno: Errno,
    },
    /// More at once than a netlink socket takes.
    #[error("a change of {octets} octets is more than a netlink socket takes at once: make it several")]
    TooLarge {
        /// How much it is.
        octets: usize,
    },
    /// The answer is lost: another process that shares the socket may have taken it.
    #[error("the kernel's answer is lost: whether the rules are in force is to be looked up")]
    Unanswered,
    /// The rules kept changing while they were listed.
    #[error("the rules of this host kept changing while {0} were listed")]
    BrokenOff(&'static str),
}

/// A netlink socket for rules, and the owner of the owned tables that were made through it.
#[derive(Debug)]
pub struct Netfilter {
    socket: OwnedFd,
    dialect: Dialect,
}

/// With privilege enough for a set of 100,000 prefixes of each family.
const BUFFER: usize = 8 << 20;
/// Longer than any datagram of a listing.
const DATAGRAM: usize = 64 << 10;
const ATTEMPTS: usize = 5;

impl Netfilter {
    /// Opens a socket in the network namespace of the calling thread, and asks the kernel what it understands.
    ///
    /// # Errors
    ///
    /// If this process may not change rules there, or the kernel has no nftables.
    pub fn open() -> Result<Self, NetfilterError> {
        Self::adopt(open_socket()?)
    }

    /// The same, but speaks as to a kernel without owners: each table is shared.
    ///
    /// # Errors
    ///
    /// As [`Netfilter::open`].
    pub fn open_shared() -> Result<Self, NetfilterError> {
        Self { socket: open_socket()?, dialect: Dialect::Shared }.probed()
    }

    /// Goes on with a socket that another process opened, and so with the tables that it owns.
    ///
    /// # Errors
    ///
    /// As [`Netfilter::open`].
    pub fn adopt(socket: OwnedFd) -> Result<Self, NetfilterError> {
        let mut netfilter = Self { socket, dialect: Dialect::Owners };
        let mut probe = Table::new(Family::Inet, PROBE);
        probe.ownership = Ownership::OwnerPersist;
        if netfilter.check(&[Change::Replace(probe)]).is_ok() {
            return Ok(netfilter);
        }
        netfilter.dialect = Dialect::Shared;
        netfilter.probed()
    }

    /// Itself, if this process may change rules at all.
    fn probed(mut self) -> Result<Self, NetfilterError> {
        match self.check(&[Change::Replace(Table::new(Family::Inet, PROBE))]) {
            Ok(()) => Ok(self),
            Err(NetfilterError::Refused { errno, .. }) => {
                Err(NetfilterError::Unavailable { what: "change rules", errno })
            }
            Err(error) => Err(error),
        }
    }

    /// What the kernel understands. With [`Dialect::Shared`] each table is shared, whatever it asks for: it is to be
    /// watched, and restored when others have changed it.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The number by which the kernel knows this socket: the [`ObservedTable::owner`] of its tables.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn port(&self) -> Result<u32, NetfilterError> {
        let address = getsockname(&self.socket).and_then(SocketAddrNetlink::try_from);
        address
            .map(|address| address.pid())
            .map_err(|errno| NetfilterError::Unavailable { what: "name the socket", errno })
    }

    /// Carries the changes out, all of them or none.
    ///
    /// # Errors
    ///
    /// If a value cannot be said or the kernel refuses it: which one, and why.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), NetfilterError> {
        self.transact(changes, Purpose::Apply)
    }

    /// Asks the kernel whether it would carry the changes out, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Netfilter::apply`].
    pub fn check(&mut self, changes: &[Change]) -> Result<(), NetfilterError> {
        self.transact(changes, Purpose::Check)
    }

    /// All tables of the namespace.
    ///
    /// # Errors
    ///
    /// If the kernel does not list them.
    pub fn tables(&mut self) -> Result<Vec<ObservedTable>, NetfilterError> {
        self.list("tables", &Listing::Tables, |dumped| match dumped {
            Dumped::Table(table) => Some(table),
            _ => None,
        })
    }

    /// The rules of a table with their counters, those of one chain in their order. None if there is no such table.
    ///
    /// # Errors
    ///
    /// If the kernel does not list them.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<ObservedRule>, NetfilterError> {
        self.list("rules", &Listing::Rules(family, table.to_owned()), |dumped| match dumped {
            Dumped::Rule(rule) => Some(rule),
            _ => None,
        })
    }

    /// Whether a table has a chain of this name.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn has_chain(&mut self, family: Family, table: &str, chain: &str) -> Result<bool, NetfilterError> {
        let listing = Listing::Chain(family, table.to_owned(), chain.to_owned());
        let found = self.list("a chain", &listing, |dumped| matches!(dumped, Dumped::Chain(_)).then_some(()))?;
        Ok(!found.is_empty())
    }

    /// A table with all that is in it, if it is there.
    ///
    /// # Errors
    ///
    /// If the kernel does not list it.
    pub fn observe(&mut self, family: Family, name: &str) -> Result<Option<Observed>, NetfilterError> {
        let tables = self.tables()?;
        let Some(table) = tables.into_iter().find(|table| table.family == family && table.name == name) else {
            return Ok(None);
        };
        let chains = self.list("chains", &Listing::Chains(family), |dumped| match dumped {
            Dumped::Chain(chain) if chain.table == name => Some(chain),
            _ => None,
        })?;
        let rules = self.rules(family, name)?;
        let names = self.list("sets", &Listing::Sets(family, name.to_owned()), |dumped| match dumped {
            Dumped::Set(set) if set.table == name => Some(set),
            _ => None,
        })?;
        let mut sets = Vec::with_capacity(names.len());
        for set in names {
            let listing = Listing::Elements(family, name.to_owned(), set.name.clone());
            let elements = self.list("the elements of a set", &listing, |dumped| match dumped {
                Dumped::Elements(elements) => Some(elements),
                _ => None,
            })?;
            sets.push((set, elements.concat()));
        }
        Ok(Some(Observed { table, chains, rules, sets }))
    }

    /// How the kernel's table differs from this one; nothing if it is as this socket wrote it.
    ///
    /// # Errors
    ///
    /// If the kernel does not list it.
    pub fn differences(&mut self, wanted: &Table) -> Result<Vec<Difference>, NetfilterError> {
        let owner = match (self.dialect, wanted.ownership) {
            (Dialect::Owners, Ownership::Owner | Ownership::OwnerPersist) => Some(self.port()?),
            (Dialect::Owners, Ownership::Shared) | (Dialect::Shared, _) => None,
        };
        let observed = self.observe(wanted.family, &wanted.name)?;
        Ok(differences(wanted, observed.as_ref(), owner))
    }

    fn transact(&mut self, changes: &[Change], purpose: Purpose) -> Result<(), NetfilterError> {
        if changes.is_empty() {
            return Ok(());
        }
        let batch = Batch::encode(changes, self.dialect, purpose)?;
        match self.send(batch.bytes()) {
            Ok(()) => {}
            Err(Errno::MSGSIZE | Errno::NOBUFS) => {
                return Err(NetfilterError::TooLarge { octets: batch.bytes().len() });
            }
            Err(errno) => return Err(NetfilterError::Unavailable { what: "send rules", errno }),
        }
        let mut refused = None;
        let mut done = false;
        self.receive("rules", |datagram| {
            for reply in replies(datagram) {
                match reply {
                    Reply::Done => done = true,
                    Reply::Refused { sequence, errno } => refused = refused.or(Some((sequence, errno))),
                }
            }
            Some(())
        })?;
        match refused {
            Some((sequence, errno)) => Err(NetfilterError::Refused {
                subject: batch.subject(sequence).to_owned(),
                errno: Errno::from_raw_os_error(errno),
            }),
            None if done => Ok(()),
            None => Err(NetfilterError::Unanswered),
        }
    }

    fn list<T>(
        &mut self,
        what: &'static str,
        listing: &Listing,
        pick: impl Fn(Dumped) -> Option<T>,
    ) -> Result<Vec<T>, NetfilterError> {
        for _ in 0..ATTEMPTS {
            self.send(&request(listing, 1)).map_err(|errno| NetfilterError::Unavailable { what, errno })?;
            let mut listed = Vec::new();
            let mut end = End::Missing;
            self.receive(what, |datagram| {
                for dumped in decode(datagram) {
                    match dumped {
                        Dumped::Done if end == End::Missing => end = End::Complete,
                        Dumped::Interrupted => end = End::Interrupted,
                        Dumped::Refused { errno } => end = End::Refused(errno),
                        dumped => listed.extend(pick(dumped)),
                    }
                }
                (end == End::Missing || end == End::Interrupted).then_some(())
            })?;
            match end {
                End::Complete => return Ok(listed),
                End::Refused(errno) if Errno::from_raw_os_error(errno) == Errno::NOENT => return Ok(Vec::new()),
                End::Refused(errno) => {
                    return Err(NetfilterError::Unavailable { what, errno: Errno::from_raw_os_error(errno) });
                }
                End::Missing | End::Interrupted => {}
            }
        }
        Err(NetfilterError::BrokenOff(what))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        loop {
            match sendto(&self.socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Hands over each datagram that is there, until none is or the taker has enough.
    fn receive(&self, what: &'static str, mut take: impl FnMut(&[u8]) -> Option<()>) -> Result<(), NetfilterError> {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => {
                    if take(buffer.get(..length).unwrap_or_default()).is_none() {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                // More answers than the socket could keep: the first ones are there.
                Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(errno) => return Err(NetfilterError::Unavailable { what, errno }),
            }
        }
    }
}

impl AsFd for Netfilter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells that rules were changed, by whomever: where tables have no owners, they are looked after in this way.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Watches the network namespace of the calling thread. Its descriptor is readable when something has changed.
    ///
    /// # Errors
    ///
    /// If the kernel has no nftables, or this process may not listen.
    pub fn open() -> Result<Self, NetfilterError> {
        Ok(Self { socket: open_socket_for(1 << (GROUP_NFTABLES - 1))? })
    }

    /// Whether rules have changed since it was asked last. What exactly is to be seen in the tables.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn changed(&mut self) -> Result<bool, NetfilterError> {
        let mut buffer = vec![0; DATAGRAM];
        let mut changed = false;
        loop {
            match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                // More than the socket could keep is a change, too.
                Ok(_) | Err(Errno::NOBUFS) => changed = true,
                Err(Errno::AGAIN) => return Ok(changed),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(NetfilterError::Unavailable { what: "watch rules", errno }),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `NFNLGRP_NFTABLES`.
const GROUP_NFTABLES: u32 = 7;

fn open_socket() -> Result<OwnedFd, NetfilterError> {
    open_socket_for(0)
}

fn open_socket_for(groups: u32) -> Result<OwnedFd, NetfilterError> {
    let unavailable = |what| move |errno| NetfilterError::Unavailable { what, errno };
    let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, kind, Some(NETFILTER))
        .map_err(unavailable("open a netlink socket"))?;
    bind(&socket, &SocketAddrNetlink::new(0, groups)).map_err(unavailable("bind a netlink socket"))?;
    // These are wishes: without privilege the kernel gives what the host's limits allow.
    if set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
        let _ = set_socket_send_buffer_size(&socket, BUFFER);
    }
    if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        let _ = set_socket_recv_buffer_size(&socket, BUFFER);
    }
    Ok(socket)
}

/// Never made: the kernel is only asked whether it would.
const PROBE: &str = "dualgate_probe";

/// How a listing ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Missing,
    Interrupted,
    Complete,
    Refused(i32),
}

/// What the kernel's answers mean here.
fn words(errno: Errno) -> String {
    let meaning = match errno {
        Errno::PERM => {
            "not permitted: it needs CAP_NET_ADMIN in this network namespace, or the table has another owner"
        }
        Errno::ACCESS => "not permitted",
        Errno::OPNOTSUPP => "this kernel cannot do it in this place, or lacks the module for it",
        Errno::NOENT => "something that it names does not exist, or this kernel lacks the module for it",
        Errno::INVAL => "this kernel does not understand it",
        Errno::EXIST => "it exists already, as another one",
        Errno::LOOP => "its jumps lead in a circle",
        Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => "this kernel has no nftables",
        errno => return errno.to_string(),
    };
    format!("{meaning} ({errno})")
}
