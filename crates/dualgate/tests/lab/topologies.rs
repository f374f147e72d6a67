//! Other homes than the seed's: one family only, one node, two edges, a router that holds home's end of the tunnel.
//!
//! In each of them everything that a person would check is as it should be, or is said not to be built.

use std::path::Path;
use std::time::Duration;

use dualgate_core::model::Family;
use dualgate_lab::cluster::Patience;
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::report::{Check, Verdict};
use dualgate_lab::trial::Trial;

use crate::dns::{asked, leads};
use crate::site::{example, get, logs, seed, start, until};

pub const TRIALS: &[Trial] = &[
    ("the_seed_passes_every_check", the_seed),
    ("a_home_with_ipv4_only", ipv4_only),
    ("a_home_with_ipv6_only", ipv6_only),
    ("a_home_of_one_node", single_node),
    ("a_home_with_two_edges", two_edges),
    ("a_home_whose_router_holds_the_tunnel", router_holds_the_tunnel),
];

const HOST: &str = "whoami.yourdomain.com";

/// Writes a site beside the example's manifests, and builds it.
fn home(directory: &Path, site: &str) -> Lab {
    let folder = directory.join("home");
    std::fs::create_dir_all(folder.join("manifests")).unwrap();
    for file in std::fs::read_dir(example().join("manifests")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join("manifests").join(file.file_name())).unwrap();
    }
    std::fs::write(folder.join("site.yaml"), format!("apiVersion: dualgate.dev/v1alpha1\nkind: Site\n{site}")).unwrap();
    start(directory, &folder, Patience::default())
}

/// Looks at everything; each row and family passes, is absent, or is not built.
#[track_caller]
fn all_well(lab: &Lab) -> Vec<Check> {
    lab.look();
    let status = lab.status();
    for check in &status.checks {
        println!("{}: {:?} {:?}", check.title, check.v4, check.v6);
    }
    let bad = |verdict: &Verdict| matches!(verdict, Verdict::Fail(_) | Verdict::Waiting);
    let failed: Vec<&Check> = status.checks.iter().filter(|check| bad(&check.v4) || bad(&check.v6)).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", logs(lab));
    assert!(status.checks.len() > 8, "{:#?}", status.checks);
    status.checks
}

/// How many rows pass over IPv4 and over IPv6.
fn passed(checks: &[Check]) -> (usize, usize) {
    let count = |verdict: fn(&Check) -> &Verdict| {
        checks.iter().filter(|check| matches!(verdict(check), Verdict::Pass(_))).count()
    };
    (count(|check| &check.v4), count(|check| &check.v6))
}

#[track_caller]
fn answers(lab: &Lab, from: &str, address: &str) {
    let answer = get(lab, from, address, HOST);
    assert_eq!(answer.status, 200, "{from} -> {address}: {}", answer.text());
    let told = answer.echo().and_then(|echo| echo.client_address());
    assert_eq!(told, Some(answer.local.ip()), "{from} -> {address}");
}

fn the_seed(directory: &Path) {
    let lab = seed(directory);
    let (v4, v6) = passed(&all_well(&lab));
    assert!(v4 > 10 && v6 > 10, "{v4} {v6}");
}

const NETWORKS: &str = "
cluster: {podCIDRs: [10.42.0.0/16, 'fd01::/48'], serviceCIDRs: [10.43.0.0/16, 'fd02::/112']}
exposure: {default: [internal], traefikAnnotation: honour}
";

fn ipv4_only(directory: &Path) {
    let lab = home(
        directory,
        "name: old
cluster: {podCIDRs: [10.42.0.0/16], serviceCIDRs: [10.43.0.0/16]}
lan: {subnets: [10.0.0.0/24], router: {kind: other, addresses: [10.0.0.1], uplink: cgnat}}
nodes:
- {name: one, roles: [server, internal-gate, virtual-ips], addresses: [10.0.0.5]}
- {name: cloud, roles: [external-gate], addresses: [10.0.0.201], publicAddresses: [203.0.113.10]}
gates: {internal: {addresses: [10.0.0.10]}, external: {}}
tunnel: {port: 51820}
",
    );
    let (v4, v6) = passed(&all_well(&lab));
    assert!(v4 > 5 && v6 == 0, "{v4} {v6}");
    answers(&lab, "lan-client", "10.0.0.10");
    answers(&lab, "internet-client", "203.0.113.10");
}

fn ipv6_only(directory: &Path) {
    let lab = home(
        directory,
        "name: new
cluster: {podCIDRs: ['fd01::/48'], serviceCIDRs: ['fd02::/112']}
lan: {subnets: ['fd00:1::/64'], router: {kind: other, addresses: ['fd00:1::1'], uplink: ipv6-only}}
nodes:
- {name: one, roles: [server, internal-gate, virtual-ips], addresses: ['fd00:1::5']}
- {name: cloud, roles: [external-gate], addresses: ['fd00:1::201'], publicAddresses: ['2001:db8:1::10']}
gates: {internal: {addresses: ['fd00:1::10']}, external: {}}
tunnel: {port: 51820}
admin: {listen: ['[::1]:9180']}
",
    );
    let (v4, v6) = passed(&all_well(&lab));
    // Loopback is asked over whatever the admin listener has.
    assert!(v4 == 0 && v6 > 5, "{v4} {v6}");
    answers(&lab, "lan-client", "fd00:1::10");
    answers(&lab, "internet-client", "2001:db8:1::10");
}

fn single_node(directory: &Path) {
    let lab = home(
        directory,
        &format!(
            "name: small{NETWORKS}
lan: {{subnets: [192.168.1.0/24, 'fd00:2::/64'], router: {{kind: other, addresses: [192.168.1.1, 'fd00:2::1'], uplink: dual-stack}}}}
nodes:
- {{name: only, roles: [server, internal-gate], addresses: [192.168.1.5, 'fd00:2::5']}}
gates: {{internal: {{}}}}
"
        ),
    );
    all_well(&lab);
    answers(&lab, "lan-client", "192.168.1.5");
    answers(&lab, "lan-client", "fd00:2::5");
}

fn two_edges(directory: &Path) {
    let lab = home(
        directory,
        &format!(
            "name: twice{NETWORKS}
lan: {{subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64'], router: {{kind: fritzbox, addresses: [192.168.178.1, 'fda8:a1db:5685::1'], uplink: ds-lite}}}}
nodes:
- {{name: home1, roles: [server, internal-gate, virtual-ips], addresses: [192.168.178.5, 'fda8:a1db:5685::5']}}
- {{name: home2, roles: [server, internal-gate, virtual-ips], addresses: [192.168.178.6, 'fda8:a1db:5685::6']}}
- {{name: east, roles: [external-gate, dns], addresses: [192.168.178.201, 'fda8:a1db:5685::201'], publicAddresses: [203.0.113.10, '2001:db8:1::10']}}
- {{name: west, roles: [external-gate, dns], addresses: [192.168.178.202, 'fda8:a1db:5685::202'], publicAddresses: [203.0.113.20, '2001:db8:2::20']}}
gates: {{internal: {{addresses: [192.168.178.10, 'fda8:a1db:5685::10']}}, external: {{}}}}
tunnel: {{mtu: 1380}}
dns: {{public: true, zones: [{{name: yourdomain.com, publish: edge}}]}}
"
        ),
    );
    all_well(&lab);
    for address in ["203.0.113.10", "2001:db8:1::10", "203.0.113.20", "2001:db8:2::20"] {
        answers(&lab, "internet-client", address);
    }
    let east = ["203.0.113.10", "2001:db8:1::10"];
    let both = [["203.0.113.10", "203.0.113.20"], ["2001:db8:1::10", "2001:db8:2::20"]];
    let west_leads = |lab: &Lab, of: Family, addresses: &[&str]| {
        let told = asked(lab, "internet-client", "203.0.113.20", HOST, of);
        told.is_ok_and(|told| told == leads(addresses))
    };
    let lead = |lab: &Lab, to: [&[&str]; 2]| {
        until(&format!("west leads to {to:?}"), lab, Duration::from_secs(60), || {
            [Family::V4, Family::V6].into_iter().zip(to).all(|(of, to)| west_leads(lab, of, to))
        });
    };
    lead(&lab, [&both[0], &both[1]]);
    lab.fail("east").unwrap();
    lab.wait_until_ready(Duration::from_secs(5)).unwrap();
    answers(&lab, "internet-client", "203.0.113.20");
    answers(&lab, "internet-client", "2001:db8:2::20");
    // Home tells the other one that it is not there, and when it is there again.
    lead(&lab, [&both[0][1..], &both[1][1..]]);
    lab.heal("east").unwrap();
    lead(&lab, [&both[0], &both[1]]);
    east.iter().for_each(|address| answers(&lab, "internet-client", address));
}

fn router_holds_the_tunnel(directory: &Path) {
    let lab = home(
        directory,
        &format!(
            "name: box{NETWORKS}
lan: {{subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64'], router: {{kind: fritzbox, addresses: [192.168.178.1, 'fda8:a1db:5685::1'], uplink: ds-lite}}}}
nodes:
- {{name: home1, roles: [server, internal-gate, virtual-ips], addresses: [192.168.178.5, 'fda8:a1db:5685::5']}}
- {{name: home2, roles: [server, internal-gate, virtual-ips], addresses: [192.168.178.6, 'fda8:a1db:5685::6']}}
- {{name: edge, roles: [external-gate], addresses: [192.168.178.201, 'fda8:a1db:5685::201'], publicAddresses: [203.0.113.10, '2001:db8:1::10']}}
gates: {{internal: {{addresses: [192.168.178.10, 'fda8:a1db:5685::10']}}, external: {{}}}}
tunnel: {{homeEnd: router}}
"
        ),
    );
    all_well(&lab);
    for _ in 0..6 {
        answers(&lab, "internet-client", "203.0.113.10");
        answers(&lab, "internet-client", "2001:db8:1::10");
    }
}
