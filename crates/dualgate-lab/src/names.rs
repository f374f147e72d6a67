//! The router's own resolver: what the provider's says, which knows who answers for the site's public zones.
//!
//! It is the lab's part of the Internet: dualgate at home asks it, as it asks any resolver. Zones that the edge answers for
//! are asked for there, through the carrier; one more name, [`ELSEWHERE`], stands for all names of others.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dualgate_core::model::site::{Publish, Role, Site};
use dualgate_core::plan::dns::{DnsPlan, Origin, RecordSet, ResolverPlan, Upstream, View, Zone};
use dualgate_host::dns::Dns;
use dualgate_host::namespace::Namespace;
use dualgate_wire::dns::{Name, Rdata, RecordType};
use ipnet::IpNet;

/// A name of somebody else.
pub const ELSEWHERE: &str = "www.example.net";
/// What it leads to.
pub const THERE: [&str; 2] = ["198.51.100.80", "2001:db8:80::80"];
/// A name of somebody else that stands for one of the site's.
pub const BACK: &str = "back.example.net";
const PORT: u16 = 53;

/// A resolver that runs in the router. Dropped, it is silent.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// Where it runs; a router that was off is another one.
    pub at: Arc<Namespace>,
    _dns: Dns,
}

impl Resolver {
    /// Starts it at the router's addresses.
    pub fn start(router: Arc<Namespace>, addresses: &[IpAddr], site: &Site) -> io::Result<Self> {
        let plan = plan(addresses, site);
        let dns = router.run(move || {
            let mut dns = Dns::new(1);
            dns.plan(plan);
            dns.converge();
            match dns.findings() {
                [] => Ok(dns),
                [finding, ..] => Err(io::Error::other(finding.message.clone())),
            }
        })?;
        Ok(Self { at: router, _dns: dns })
    }
}

fn plan(addresses: &[IpAddr], site: &Site) -> DnsPlan {
    let edges = site.nodes.iter().filter(|node| node.is_edge() && node.has(Role::Dns));
    let servers =
        edges.flat_map(|node| &node.public_addresses).map(|address| Upstream::plain(SocketAddr::new(*address, PORT)));
    let servers: Vec<Arc<Upstream>> = servers.collect();
    let zones = site.dns.iter().flat_map(|dns| &dns.zones).filter(|zone| zone.publish == Publish::Edge);
    let per_zone = zones.filter_map(|zone| Some((zone.name.as_str().parse().ok()?, servers.clone()))).collect();
    let everybody: Vec<IpNet> = ["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse().ok()).collect();
    let resolver = ResolverPlan { per_zone, clients: everybody, ..ResolverPlan::default() };
    DnsPlan {
        listen: addresses.iter().map(|address| SocketAddr::new(*address, PORT)).collect(),
        view: View::Home,
        zones: elsewhere(site).into_iter().map(Arc::new).collect(),
        resolver: Some(resolver),
    }
}

/// The zone of others.
fn elsewhere(site: &Site) -> Option<Zone> {
    let www: Name = ELSEWHERE.parse().ok()?;
    let name = www.parent()?;
    let set = |rtype, data: Rdata| RecordSet { rtype, ttl: 60, data: [data].into(), origin: Origin::Zone };
    let soa = set(
        RecordType::SOA,
        Rdata::Soa {
            server: www.clone(),
            mailbox: www.clone(),
            serial: 1,
            refresh: 3600,
            retry: 600,
            expire: 86_400,
            minimum: 60,
        },
    );
    let [v4, v6] = THERE;
    let addresses =
        vec![set(RecordType::A, Rdata::A(v4.parse().ok()?)), set(RecordType::AAAA, Rdata::Aaaa(v6.parse().ok()?))];
    let mut sets: BTreeMap<Name, Arc<[RecordSet]>> =
        [(name.clone(), [soa.clone()].into()), (www, addresses.into())].into();
    let public = site.dns.iter().flat_map(|dns| &dns.zones).find(|zone| zone.publish == Publish::Edge);
    if let Some(target) = public.and_then(|zone| format!("whoami.{}", zone.name).parse().ok()) {
        sets.insert(BACK.parse().ok()?, [set(RecordType::CNAME, Rdata::Cname(target))].into());
    }
    Some(Zone { name, is_whole: true, soa, sets })
}
