//! A line that loses large packets without a word, as behind DS-Lite with a filter that drops ICMP.

use std::sync::Arc;

use dualgate_core::model::Family;
use dualgate_host::namespace::Namespace;
use dualgate_host::netfilter::{Netfilter, NetfilterError};
use dualgate_host::network::{Network, NetworkError};
use dualgate_wire::nftables::{
    self, Action, Chain, ChainType, Change, Fragment, Hook, HookPoint, Icmp6Type, IcmpType, Match, Policy, Rule,
    Select, Table,
};

use crate::lab::Lab;
use crate::topology::Route;

/// Why the line is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NarrowError {
    /// There is no such host, or it is switched off.
    #[error("`{0}` is not there")]
    Absent(&'static str),
    /// Its routes are as they were.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Its filter is as it was.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
}

impl Lab {
    /// The carrier forwards nothing larger over a family, in either direction; `None` undoes it. Nobody hears of it: its
    /// errors are dropped, and of what it cuts into parts, the parts.
    pub fn narrow_line(&self, family: Family, octets: Option<u32>) -> Result<(), NarrowError> {
        let carrier = self.at("carrier")?;
        let hosts = self.topology().hosts.iter().filter(|host| host.name == "carrier");
        for interface in hosts.flat_map(|host| host.interfaces.clone()) {
            let routes = interface.routes.iter().filter(|route| Family::of(route.to.addr()) == family);
            let routes: Vec<Route> = routes.map(|route| Route { mtu: octets.or(route.mtu), ..route.clone() }).collect();
            carrier.run(move || {
                let mut network = Network::open()?;
                routes.iter().try_for_each(|route| network.add_route(&interface.name, route))
            })?;
        }
        let drop = |test| Rule::new(vec![test], Action::Drop);
        // Packet too big (RFC 4443 3.2); unreachable, for the need to cut (RFC 1191 4).
        let errors = [Match::Icmp6(Select::one(Icmp6Type(2))), Match::Icmp(Select::one(IcmpType(3)))];
        filter(&carrier, HookPoint::Output, 0, errors.map(drop).into())?;
        for next in ["router", "internet"] {
            let host = self.at(next)?;
            // Before the parts are put together.
            filter(&host, HookPoint::Prerouting, -450, vec![drop(Match::Fragment(Fragment::IpFollowing))])?;
        }
        Ok(())
    }

    fn at(&self, host: &'static str) -> Result<Arc<Namespace>, NarrowError> {
        self.host(host).ok_or(NarrowError::Absent(host))
    }
}

fn filter(host: &Namespace, at: HookPoint, priority: i32, rules: Vec<Rule>) -> Result<(), NetfilterError> {
    let mut table = Table::new(nftables::Family::Inet, "narrow");
    let hook = Hook { kind: ChainType::Filter, at, priority, policy: Policy::Accept };
    table.chains.push(Chain::base("narrow", hook, rules));
    host.run(move || Netfilter::open()?.apply(&[Change::Replace(table)]))
}
