//! Ways in for people: which of them a change shuts for somebody who is connected, and how they are kept open.
//!
//! A way in is SSH or what `firewall.allow` opens. The ports of the gates, of the tunnel and of the cluster are the plan's
//! own: they go when it has no use for them. A home node shuts nothing for people: its rules look only at what comes from
//! an edge, and an edge that was taken over must not be able to hold a door open.
//!
//! What a change opens is open at once; what it shuts for somebody is shut on trial. Until that is confirmed, the former
//! ways stay open beside the planned ones ([`FirewallPlan::keeping`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dualgate_wire::nftables::{Action, HookPoint, Policy, Rule};
use ipnet::IpNet;

use super::FirewallPlan;
use super::opening::{Opening, Source, Why};
use super::rules::{PerSource, open, open_original, port, starts};
use crate::model::object::Protocol;

/// How many connections are named to people.
const NAMED: usize = 3;

/// What a way in is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// SSH, which has a limit for each source.
    Ssh,
    /// What the site file opens besides, or what somebody used before there were rules.
    Allowed,
}

/// A port that people may come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// From where; empty is from everywhere.
    pub from: Vec<IpNet>,
    /// What it is for.
    pub purpose: Purpose,
}

/// The ways in that rules leave open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ways {
    /// The rules shut nothing for people, or there are none, or nobody knows what they were.
    All,
    /// These, in an order that the site file's does not matter for.
    These(Vec<Way>),
}

/// By which side of the host a connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// From home, by the tunnel.
    Tunnel,
    /// By any other interface.
    Outside,
}

/// A TCP connection that somebody opened to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// Who.
    pub remote: IpAddr,
    /// To which address and port of this host.
    pub local: SocketAddr,
    /// On which way.
    pub by: By,
}

impl FirewallPlan {
    /// What it leaves open to people.
    #[must_use]
    pub fn ways(&self) -> Ways {
        if !self.shuts() {
            return Ways::All;
        }
        let mut ways: Vec<Way> = self.openings.iter().filter_map(Way::of).collect();
        ways.sort_by_cached_key(|way| (way.port, way.to_string(), way.purpose));
        ways.dedup();
        Ways::These(ways)
    }

    /// Whether what nothing opens is shut: so it is at an edge.
    fn shuts(&self) -> bool {
        let chains = self.table.iter().flat_map(|table| &table.chains);
        let mut hooks = chains.filter_map(|chain| chain.hook.as_ref());
        hooks.any(|hook| hook.at == HookPoint::Input && hook.policy == Policy::Drop)
    }

    /// Which of these connections could be opened as things were, and could not under this plan.
    #[must_use]
    pub fn shut_out(&self, former: &Ways, connections: &[Connection]) -> Vec<Connection> {
        if !self.shuts() || *former == self.ways() {
            return Vec::new();
        }
        let is_own = |port: u16| self.openings.iter().any(|opening| opening.port == port && opening.is_own());
        let could = |connection: &Connection| match former {
            Ways::All => !is_own(connection.local.port()),
            Ways::These(ways) => ways.iter().any(|way| way.opening().lets_in(connection)),
        };
        let can = |connection: &Connection| self.openings.iter().any(|opening| opening.lets_in(connection));
        connections.iter().filter(|one| could(one) && !can(one)).copied().collect()
    }

    /// The former ways that this plan has not; where all were open, those that these connections came by.
    #[must_use]
    pub fn missing(&self, former: &Ways, shut_out: &[Connection]) -> Vec<Way> {
        match former {
            Ways::These(ways) => {
                let Ways::These(planned) = self.ways() else { return Vec::new() };
                ways.iter().filter(|way| !planned.contains(way)).cloned().collect()
            }
            Ways::All => {
                let mut ports: Vec<u16> = shut_out.iter().map(|connection| connection.local.port()).collect();
                ports.sort_unstable();
                ports.dedup();
                let way = |port| Way { protocol: Protocol::Tcp, port, from: Vec::new(), purpose: Purpose::Allowed };
                ports.into_iter().map(way).collect()
            }
        }
    }

    /// This plan with these ways open besides.
    #[must_use]
    pub fn keeping(&self, ways: &[Way]) -> Self {
        let kept: Vec<Opening> = ways.iter().map(Way::opening).collect();
        let mut plan = self.clone();
        for chain in plan.table.iter_mut().flat_map(|table| &mut table.chains) {
            let rules: Vec<Rule> = match chain.name.as_str() {
                "input" => kept.iter().flat_map(rules).collect(),
                "published" => kept.iter().flat_map(open_original).collect(),
                _ => continue,
            };
            let drops_the_rest = |rule: &Rule| rule.matches.is_empty() && rule.action == Some(Action::Drop);
            if let Some(end) = chain.rules.iter().rposition(drops_the_rest) {
                chain.rules.splice(end..end, rules);
            }
        }
        plan.openings.extend(kept);
        plan
    }
}

/// The rules of a way that is kept, with the limit that it has.
fn rules(opening: &Opening) -> Vec<Rule> {
    let is_ssh = opening.why == Why::Former(Purpose::Ssh);
    let limits = is_ssh.then(|| PerSource::ssh().rules(&[port(opening), vec![starts()]].concat()));
    limits.into_iter().flatten().chain(open(opening)).collect()
}

impl Way {
    fn of(opening: &Opening) -> Option<Self> {
        let purpose = match &opening.why {
            Why::Ssh => Purpose::Ssh,
            Why::Allow(_) => Purpose::Allowed,
            Why::Former(purpose) => *purpose,
            Why::EntryPoint(_)
            | Why::Tunnel
            | Why::Dns
            | Why::Dhcp
            | Why::Exchange
            | Why::Kubelet
            | Why::Flannel
            | Why::ApiServer
            | Why::Etcd
            | Why::PublicRoutes => return None,
        };
        let mut from = match &opening.from {
            Source::Everywhere => Vec::new(),
            Source::Networks(nets) | Source::Tunnel(nets) => nets.clone(),
        };
        from.sort();
        Some(Self { protocol: opening.protocol, port: opening.port, from, purpose })
    }

    fn opening(&self) -> Opening {
        let from = match self.from.as_slice() {
            [] => Source::Everywhere,
            nets => Source::Networks(nets.to_vec()),
        };
        Opening::here(self.protocol, self.port, from, Why::Former(self.purpose))
    }
}

impl Opening {
    fn lets_in(&self, connection: &Connection) -> bool {
        let Connection { remote, local, by } = connection;
        let comes_from = |nets: &[IpNet]| nets.iter().any(|net| net.contains(remote));
        let from = match &self.from {
            Source::Everywhere => true,
            Source::Networks(nets) => comes_from(nets),
            Source::Tunnel(nets) => *by == By::Tunnel && comes_from(nets),
        };
        let to = self.to.is_empty() || self.to.contains(&local.ip());
        (self.protocol, self.port) == (Protocol::Tcp, local.port()) && from && to
    }

    /// Whether dualgate itself answers there: whom it lets in is for the plan alone to say.
    const fn is_own(&self) -> bool {
        match self.why {
            Why::EntryPoint(_) | Why::Tunnel | Why::Exchange => true,
            Why::Ssh
            | Why::Dns
            | Why::Dhcp
            | Why::Kubelet
            | Why::Flannel
            | Why::ApiServer
            | Why::Etcd
            | Why::Allow(_)
            | Why::Former(_)
            | Why::PublicRoutes => false,
        }
    }
}

/// `tcp 22 for everybody`, `tcp 9000 for 192.0.2.0/24`
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.opening().write_way(f)
    }
}

/// `198.51.100.7, which is connected to port 22`
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, which is connected to port {}", self.remote, self.local.port())
    }
}

/// Who is shut out, in words: the first few, each once, and how many more there are.
#[must_use]
pub fn names(shut_out: &[Connection]) -> String {
    let mut named: Vec<String> = shut_out.iter().map(ToString::to_string).collect();
    named.sort();
    named.dedup();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::snapshot::{Facts, Generation};
    use crate::model::{NodeName, Snapshot};
    use crate::parse::site;
    use crate::plan::firewall::firewall;

    const SEED: &str = include_str!("../../../../../examples/home/site.yaml");
    const CLIENTS: [(&str, &str); 2] = [("198.51.100.7", "203.0.113.10"), ("2001:db8:7::7", "2001:db8:1::10")];
    const HOME: [(&str, &str); 2] =
        [("192.168.178.5", "192.168.178.201"), ("fda8:a1db:5685::5", "fda8:a1db:5685::201")];

    fn plan(node: &str, ssh: u16, allow: &str) -> FirewallPlan {
        let text = SEED.replace("sshPort: 22\n", &format!("sshPort: {ssh}\n"));
        let text = text.replace("  allow: []", &format!("  allow: [{allow}]"));
        let (site, findings) = site::site("site.yaml", &text);
        let site = Arc::new(site.unwrap_or_else(|| panic!("{findings:#?}")));
        let snapshot = Snapshot { generation: Generation(1), site, objects: Arc::default(), facts: Facts::default() };
        firewall(&snapshot, &NodeName::new(node))
    }

    fn edge(ssh: u16, allow: &str) -> FirewallPlan {
        plan("ionos", ssh, allow)
    }

    fn connection(ends: (&str, &str), port: u16, by: By) -> Connection {
        Connection { remote: ends.0.parse().unwrap(), local: (ends.1.parse::<IpAddr>().unwrap(), port).into(), by }
    }

    fn outside(port: u16) -> Vec<Connection> {
        CLIENTS.map(|ends| connection(ends, port, By::Outside)).into()
    }

    /// Whom the change from one to the other shuts out, and that nobody is once the former ways are kept.
    #[track_caller]
    fn shut(former: &Ways, coming: &FirewallPlan, connections: &[Connection]) -> Vec<Connection> {
        let shut = coming.shut_out(former, connections);
        let kept = coming.keeping(&coming.missing(former, &shut));
        assert_eq!(kept.shut_out(former, connections), [], "{kept}");
        shut
    }

    #[test]
    fn who_came_by_ssh_is_shut_out_by_another_port_over_both_families() {
        let former = edge(22, "").ways();
        assert_eq!(shut(&former, &edge(2222, ""), &outside(22)), outside(22));
        assert_eq!(shut(&former, &edge(22, ""), &outside(22)), []);
        // It is open on another account.
        assert_eq!(shut(&former, &edge(2222, "{protocol: tcp, port: 22}"), &outside(22)), []);
        assert_eq!(shut(&former, &edge(2222, "{protocol: udp, port: 22}"), &outside(22)), outside(22));
    }

    #[test]
    fn who_is_in_none_of_the_networks_is_shut_out() {
        let former = edge(22, "{protocol: tcp, port: 9000}").ways();
        let connections = [outside(9000), outside(22)].concat();
        let coming = |from: &str| edge(22, &format!("{{protocol: tcp, port: 9000, from: [{from}]}}"));
        assert_eq!(shut(&former, &coming("198.51.100.0/24, '2001:db8:7::/64'"), &connections), []);
        assert_eq!(shut(&former, &coming("198.51.100.0/24"), &connections), outside(9000)[1..]);
        assert_eq!(shut(&former, &coming("'2001:db8:7::/64'"), &connections), outside(9000)[..1]);
        assert_eq!(shut(&former, &coming("192.0.2.0/24"), &connections), outside(9000));
    }

    #[test]
    fn who_could_not_come_in_before_does_not_count() {
        let former = edge(22, "{protocol: tcp, port: 9000, from: [192.0.2.0/24]}").ways();
        assert_eq!(shut(&former, &edge(22, ""), &outside(9000)), []);
        assert_eq!(shut(&former, &edge(2222, ""), &outside(9001)), []);
    }

    #[test]
    fn what_is_open_by_the_tunnel_is_open_to_who_comes_by_it() {
        let former = edge(22, "{protocol: tcp, port: 10250}").ways();
        for ends in HOME {
            let (inside, outside) = (connection(ends, 10_250, By::Tunnel), connection(ends, 10_250, By::Outside));
            assert_eq!(shut(&former, &edge(22, ""), &[inside, outside]), [outside]);
            let ssh = connection(ends, 22, By::Tunnel);
            assert_eq!(shut(&former, &edge(2222, "{protocol: tcp, port: 10250}"), &[ssh]), [ssh]);
        }
        assert_eq!(shut(&former, &edge(22, ""), &outside(10_250)), outside(10_250));
    }

    #[test]
    fn ports_of_gates_tunnel_and_exchange_are_the_plans_own() {
        let connections: Vec<_> = [80, 443, 9181].into_iter().flat_map(outside).collect();
        assert_eq!(shut(&Ways::All, &edge(22, ""), &connections), []);
        assert_eq!(shut(&edge(22, "").ways(), &edge(2222, ""), &connections), []);
    }

    #[test]
    fn the_first_rules_shut_out_whoever_came_by_a_port_that_nothing_opens() {
        let connections = [outside(22), outside(2222)].concat();
        assert_eq!(shut(&Ways::All, &edge(22, ""), &connections), outside(2222));
        let kept = edge(22, "").missing(&Ways::All, &outside(2222));
        assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp 2222 for everybody"]);
    }

    #[test]
    fn a_home_node_and_a_site_without_a_firewall_shut_nobody_out() {
        for coming in [plan("k3s-node1", 22, ""), FirewallPlan::default()] {
            assert_eq!(coming.ways(), Ways::All);
            assert_eq!(coming.shut_out(&edge(22, "").ways(), &outside(22)), []);
            assert_eq!(coming.missing(&edge(22, "").ways(), &[]), []);
        }
    }

    #[test]
    fn what_is_kept_has_its_rules_before_everything_else_is_dropped() {
        let former = edge(22, "{protocol: tcp, port: 9000, from: [192.0.2.0/24]}").ways();
        let coming = edge(2222, "");
        let kept = coming.keeping(&coming.missing(&former, &[]));
        let chain = |plan: &FirewallPlan, name: &str| -> Vec<String> {
            let chains = &plan.table.as_ref().unwrap().chains;
            let chain = chains.iter().find(|chain| chain.name == name).unwrap();
            chain.rules.iter().map(ToString::to_string).collect()
        };
        for (name, more) in [("input", 4), ("published", 2)] {
            let (before, after) = (chain(&coming, name), chain(&kept, name));
            let at = before.len() - 1;
            assert_eq!(after[..at], before[..at]);
            assert_eq!(after[at + more..], before[at..]);
            let added = after[at..at + more].join("\n");
            assert!(added.contains("former-22") && added.contains("former-9000"), "{added}");
            assert_eq!(name == "input", added.contains("ssh-limit"), "{added}");
        }
        let openings: Vec<String> = kept.openings.iter().map(ToString::to_string).collect();
        assert!(
            openings.contains(&"open tcp 22 for everybody: SSH as before, until a change is confirmed".to_owned()),
            "{openings:#?}"
        );
        // Kept once more, it is still what it was.
        assert_eq!(coming.missing(&kept.ways(), &[]), coming.missing(&former, &[]));
    }

    #[test]
    fn the_order_of_the_site_file_does_not_matter() {
        let (a, b) = ("{protocol: tcp, port: 9000}", "{protocol: udp, port: 9000, from: [192.0.2.0/24]}");
        assert_eq!(edge(22, &format!("{a}, {b}")).ways(), edge(22, &format!("{b}, {a}")).ways());
    }

    #[test]
    fn a_few_are_named_and_the_rest_is_counted() {
        let named = "198.51.100.7, which is connected to port 22; 2001:db8:7::7, which is connected to port 22";
        assert_eq!(names(&[outside(22), outside(22)].concat()), named);
        let many: Vec<_> = (1..=5).flat_map(outside).collect();
        assert!(names(&many).ends_with("; 7 more"), "{}", names(&many));
    }
}
