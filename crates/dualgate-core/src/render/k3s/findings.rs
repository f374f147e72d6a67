//! What stops a node from joining, and what a person has to know before K3s starts for the first time.

use std::net::IpAddr;

use super::masks::{self, Cut};
use super::{AGENT_TOKEN, EDGE_LABEL, Part, SERVER_TOKEN, Subject};
use crate::check;
use crate::model::site::{Node, Role};
use crate::model::{Code, Family, Finding, GateName, Severity};
use crate::plan::tunnel::INTERFACE;

/// Everything, the errors first.
pub(super) fn of(subject: &Subject<'_>, part: &Part) -> Vec<Finding> {
    let mut findings = subject.of_site(part);
    findings.extend(subject.network_families());
    findings.extend(subject.node_addresses());
    findings.extend(subject.refused_labels());
    findings.extend(subject.ports(part));
    match part {
        Part::FirstServer | Part::Server(_) => {
            findings.extend(subject.masks());
            findings.extend(subject.quorum());
            findings.push(subject.tokens());
            findings.push(subject.equal());
        }
        Part::Agent(_) => {}
        Part::EdgeAgent(_) => findings.extend(subject.edge()),
    }
    match part {
        Part::FirstServer | Part::Server(_) | Part::Agent(_) => {
            findings.extend(subject.no_interface());
            findings.extend(subject.router_advertisements());
        }
        Part::EdgeAgent(_) => {}
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

impl Subject<'_> {
    fn finding(&self, code: Code, field: impl AsRef<str>, message: impl Into<String>) -> Finding {
        Finding::new(code, self.marks.place(field.as_ref()), message)
    }

    fn field(&self, key: &str) -> String {
        format!("nodes[{}].{key}", self.index)
    }

    /// What `dualgate check` finds in the fields that K3s is configured from.
    fn of_site(&self, part: &Part) -> Vec<Finding> {
        let own = format!("nodes[{}]", self.index);
        let is_edge = matches!(part, Part::EdgeAgent(_));
        let concerns = |finding: &Finding| {
            let field = finding.at.field.as_str();
            let of_node = field.starts_with(&own) && !field.contains("publicKeys") && finding.code != Code::FirewallOff;
            field.starts_with("cluster") || of_node || (is_edge && field == "tunnel.mtu")
        };
        // Cut differently here, which they know nothing of.
        let is_mask =
            |finding: &Finding| finding.code == Code::SiteTrap && finding.at.field.starts_with("cluster.podCIDRs");
        check::site::site(self.site, self.marks).into_iter().filter(|f| concerns(f) && !is_mask(f)).collect()
    }

    fn network_families(&self) -> Vec<Finding> {
        let (pods, services) = (&self.site.cluster.pod_cidrs, &self.site.cluster.service_cidrs);
        let mut findings = Vec::new();
        for (key, nets, example) in [
            ("podCIDRs", pods, "[10.42.0.0/16, \"fd42:42::/56\"]"),
            ("serviceCIDRs", services, "[10.43.0.0/16, \"fd43:43::/112\"]"),
        ] {
            if nets.is_empty() {
                let message = format!("`cluster.{key}` is missing: K3s takes IPv4 alone, and keeps it");
                let help =
                    format!("add `{key}: {example}` to `cluster`, or only the family that the cluster shall have");
                findings.push(self.finding(Code::SiteMissing, format!("cluster.{key}"), message).help(help));
            }
        }
        if !findings.is_empty() {
            return findings;
        }
        let families = |nets: &[ipnet::IpNet]| {
            let mut families: Vec<Family> = nets.iter().map(|net| Family::of(net.addr())).collect();
            families.sort_unstable();
            families
        };
        let (of_pods, of_services) = (families(pods), families(services));
        if of_pods != of_services {
            let message = format!("pods have {}, Services have {}", named(&of_pods), named(&of_services));
            let help = "give `cluster.podCIDRs` and `cluster.serviceCIDRs` a network of the same families";
            findings.push(self.finding(Code::K3sFamily, "cluster.serviceCIDRs", message).help(help));
        } else if let [only] = of_pods.as_slice() {
            let message = format!("the cluster has {only} only, and cannot get the other family once it exists");
            let help =
                "add networks of the other family to `cluster.podCIDRs` and `cluster.serviceCIDRs` before you begin";
            findings.push(self.finding(Code::K3sSingleFamily, "cluster.podCIDRs", message).help(help));
        }
        findings
    }

    /// The node's own, and those of the server that it joins.
    fn node_addresses(&self) -> Vec<Finding> {
        let missing = |family: &Family| !self.node.addresses.iter().any(|address| Family::of(*address) == *family);
        let of_family = |family: Family| {
            let message = format!("`{}` has no {family} address, and the cluster's pods have {family}", self.node.name);
            let help = format!(
                "add its {family} address in the LAN to `addresses` here; K3s has to find it on the interface when it starts"
            );
            self.finding(Code::SiteMissing, self.field("addresses"), message).help(help)
        };
        let mut findings: Vec<Finding> = self.families().into_iter().filter(missing).map(of_family).collect();
        let passing = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        for address in self.addresses_of(self.node).iter().filter(|address| passing(address)) {
            let message = format!("no other node reaches `{}` at `{address}`", self.node.name);
            let help = "write its address in the LAN first: link-local and loopback addresses cannot be a node's";
            findings.push(self.finding(Code::SiteMissing, self.field("addresses"), message).help(help));
        }
        findings
    }

    fn refused_labels(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for label in &self.wishes.node_label {
            if let Some(why) = refused_label(label) {
                let finding = self.finding(Code::K3sLabel, self.field("name"), format!("the label `{label}`: {why}"));
                findings.push(finding.help(
                    "leave it out, and set it at home once the node has joined: `kubectl label node`; a node may set labels \
                     with a prefix of its own, such as `dualgate.dev/`",
                ));
            }
        }
        for taint in &self.wishes.node_taint {
            let effect = taint.rsplit_once(':').map(|(_, effect)| effect);
            if !effect.is_some_and(|effect| ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)) {
                let message = format!("the taint `{taint}` has no effect");
                let help = "write `key=value:NoSchedule`, or the effect `PreferNoSchedule` or `NoExecute`";
                findings.push(self.finding(Code::K3sLabel, self.field("name"), message).help(help));
            }
        }
        findings
    }

    /// Where a gate, or the tunnel, wants what K3s has.
    fn ports(&self, part: &Part) -> Vec<Finding> {
        let mut findings = Vec::new();
        let server = matches!(part, Part::FirstServer | Part::Server(_));
        for name in GateName::ALL {
            let gate = self.site.gates.get(&name).filter(|_| self.node.has(Role::of_gate(name)));
            for (entry, point) in gate.into_iter().flat_map(|gate| &gate.entry_points) {
                let Some(user) = user_of(point.port, server) else { continue };
                let field = format!("gates.{name}.entryPoints.{entry}");
                let message = format!("the {name} gate's `{entry}` and {user} both want TCP port {}", point.port);
                findings.push(self.finding(Code::K3sPort, field, message).help("give the entry point another port"));
            }
        }
        let Some(tunnel) = &self.site.tunnel else { return findings };
        let (severity, message) = match tunnel.port {
            8472 => (Severity::Error, "the tunnel and Flannel's VXLAN both want UDP port 8472".to_owned()),
            port @ (51_820 | 51_821) => {
                let message = format!(
                    "UDP port {port} is Flannel's as soon as `flannel-backend` is `wireguard-native`; with `vxlan`, as written \
                     here, it is free"
                );
                (Severity::Warning, message)
            }
            _ => return findings,
        };
        let finding = self.finding(Code::K3sPort, "tunnel.port", message);
        findings.push(Finding { severity, ..finding }.help("give the tunnel another port, such as 56527"));
        findings
    }

    fn masks(&self) -> Vec<Finding> {
        let of_net = |(index, net): (usize, &ipnet::IpNet)| {
            let field = format!("cluster.podCIDRs[{index}]");
            match masks::cut(self.site, net) {
                Cut::Usual => None,
                Cut::Into(size) => {
                    let message = format!("each node gets a /{size} of `{net}`: the usual size does not fit");
                    let help =
                        "the file says so to kube-controller-manager; it cannot be changed once the cluster exists";
                    Some(self.finding(Code::K3sNodeMask, field, message).help(help))
                }
                Cut::TooSmall => {
                    let message = format!("`{net}` cannot be cut into a network for each node");
                    let finding = self.finding(Code::K3sNodeMask, field, message).help("take a larger network");
                    Some(Finding { severity: Severity::Error, ..finding })
                }
            }
        };
        self.site.cluster.pod_cidrs.iter().enumerate().filter_map(of_net).collect()
    }

    fn quorum(&self) -> Option<Finding> {
        let servers = self.servers().count();
        let message = match servers {
            2 => "two servers: etcd stops as soon as either of them is away".to_owned(),
            even if even % 2 == 0 => format!("{even} servers stand no more failures than {}", even - 1),
            _ => return None,
        };
        Some(self.finding(Code::K3sQuorum, "nodes", message).help("use one server, three or five"))
    }

    fn tokens(&self) -> Finding {
        let message = format!("{SERVER_TOKEN} is the cluster: who has it is administrator, and reads every Secret");
        let help = format!(
            "keep it on servers alone (mode 0600), and in a safe place, as a backup of the cluster is of no use without it; \
             agents and edges get {AGENT_TOKEN}"
        );
        self.finding(Code::K3sToken, self.field("roles"), message).help(help)
    }

    fn equal(&self) -> Finding {
        let message = "networks, `flannel-backend`, `disable`, tokens and encryption are the same on all servers: one that \
                       differs is refused, or fights the others (a ServiceLB on one of them takes every LoadBalancer Service)";
        let help =
            "write the file of each server from the same site file, and install them again together when it changes";
        self.finding(Code::K3sEqual, self.field("roles"), message).help(help)
    }

    fn no_interface(&self) -> Option<Finding> {
        if self.node.interface.is_some() {
            return None;
        }
        let message = format!("the site file does not say which interface of `{}` is in the LAN", self.node.name);
        let help = "add `interface: NAME` here (`ip -brief address` shows it); without it K3s takes that of the default route, \
                    and stops with \"IPv6 was enabled but no IPv6 address was found\" where that has none";
        Some(self.finding(Code::K3sInterface, self.field("name"), message).help(help))
    }

    fn router_advertisements(&self) -> Option<Finding> {
        self.families().contains(&Family::V6).then(|| {
            let interface = self.node.interface.as_deref().unwrap_or("INTERFACE");
            let message = format!(
                "K3s makes `{}` a router, and a router forgets the IPv6 default route that the home router announces",
                self.node.name
            );
            let help = format!(
                "write `net.ipv6.conf.{interface}.accept_ra = 2` to /etc/sysctl.d/90-k3s.conf there; where systemd-networkd has \
                 the interface, `IPv6AcceptRA=yes` in its file instead"
            );
            self.finding(Code::K3sRouterAdvertisement, self.field("name"), message).help(help)
        })
    }

    fn edge(&self) -> Vec<Finding> {
        let node: &Node = self.node;
        let roles = self.field("roles");
        let mut findings = Vec::new();
        if self.site.tunnel.is_none() {
            let message = format!("`{}` joins through the tunnel, and the site has none", node.name);
            findings.push(self.finding(Code::SiteMissing, "tunnel", message).help("add `tunnel: {}`"));
        }
        let message = format!(
            "`{}` becomes part of the cluster: whoever breaks into it has its kubelet, the Secrets of its pods, and can join more \
             nodes",
            node.name
        );
        let help = format!(
            "an edge needs no kubelet: without the role `agent` it holds only what is public (`dualgate edge bundle`). Do not \
             set `embedded-registry` on the servers with such an edge: its images would be trusted at home. Its label \
             {EDGE_LABEL} can be changed by itself: let nothing of security follow from it"
        );
        findings.push(self.finding(Code::K3sEdge, &roles, message).help(help));
        let message = format!("{AGENT_TOKEN} is all that `{}` gets; the servers' token never goes there", node.name);
        let help = "or make one that ends by itself: `k3s token create --ttl 24h` at a server, into the same file";
        findings.push(self.finding(Code::K3sToken, &roles, message).help(help));
        let message = format!(
            "K3s needs the interface `{INTERFACE}` with both addresses before it starts, or stops with \"no IPv6 address was \
             found\""
        );
        let help = "the unit that `dualgate edge bundle` writes is ordered before k3s-agent.service";
        let finding = self.finding(Code::K3sInterface, &roles, message).help(help);
        findings.push(Finding { severity: Severity::Note, ..finding });
        findings
    }
}

fn named(families: &[Family]) -> String {
    families.iter().map(Family::to_string).collect::<Vec<_>>().join(" and ")
}

/// What of K3s has this TCP port on all addresses of a node.
fn user_of(port: u16, server: bool) -> Option<&'static str> {
    match port {
        6443 if server => Some("the API server of Kubernetes"),
        2379 | 2380 if server => Some("etcd"),
        10_250 => Some("the kubelet"),
        5001 => Some("the embedded registry of K3s"),
        _ => None,
    }
}

/// Why the kubelet would not set this label on its own node: the prefixes that NodeRestriction admits
/// (k8s.io/kubelet/pkg/apis/well_known_labels.go).
fn refused_label(label: &str) -> Option<&'static str> {
    const KNOWN: &[&str] = &[
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let Some((key, _)) = label.split_once('=') else { return Some("a label is written `key=value`") };
    let prefix = key.split_once('/').map(|(prefix, _)| prefix);
    let is_of = |domain: &str| {
        prefix.is_some_and(|prefix| {
            prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        })
    };
    let reserved = is_of("kubernetes.io") || is_of("k8s.io");
    let admitted = is_of("kubelet.kubernetes.io") || is_of("node.kubernetes.io") || KNOWN.contains(&key);
    match reserved && !admitted {
        true if key.starts_with("node-role.kubernetes.io/") => {
            Some("a node may not set its own role: K3s ends at once with `unknown 'kubernetes.io' or 'k8s.io' labels`")
        }
        true => Some("a node may not set labels of Kubernetes: K3s ends at once"),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_what_node_restriction_admits_and_nothing_else() {
        for admitted in [
            EDGE_LABEL,
            "zone=garage",
            "node.kubernetes.io/x=1",
            "a.kubelet.kubernetes.io/x=1",
            "kubernetes.io/arch=arm64",
            "notkubernetes.io/x=1",
        ] {
            assert_eq!(refused_label(admitted), None, "{admitted}");
        }
        for refused in ["node-role.kubernetes.io/edge=true", "node-restriction.kubernetes.io/x=1", "k8s.io/x=1", "edge"]
        {
            assert!(refused_label(refused).is_some(), "{refused}");
        }
    }
}
