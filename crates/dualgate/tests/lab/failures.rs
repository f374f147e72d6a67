//! What fails in a home, and what must go on answering while it does: counted as lost requests.

use std::path::Path;
use std::time::Duration;

use dualgate_lab::cluster::Patience;
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{Connections, Load, Loss, Request, Running, Trouble, tcp};
use dualgate_lab::trial::Trial;

use crate::site::{example, get, logs, pass, seed, start, until};

pub const TRIALS: &[Trial] = &[
    ("a_pod_that_dies_costs_no_request", pod),
    ("a_node_that_dies_costs_no_request_of_an_application_that_has_pods_elsewhere", node),
    ("a_node_that_dies_takes_its_pods_along_only_until_the_cluster_moves_them", eviction),
    ("the_lan_does_not_notice_that_the_router_starts_again", router),
    ("a_cable_that_was_pulled_costs_only_what_hangs_on_it", flap),
    ("an_edge_that_is_killed_is_back_within_seconds", edge),
];

const HOST: &str = "whoami.yourdomain.com";
const WORKLOAD: &str = "apps/whoami";

/// The ways that clients take: over both families, from both sides.
const WAYS: [(&str, &str); 4] = [
    ("lan-client", "192.168.178.10"),
    ("lan-client", "fda8:a1db:5685::10"),
    ("internet-client", "203.0.113.10"),
    ("internet-client", "2001:db8:1::10"),
];

/// Requests on every way, each on a connection of its own, until they are stopped.
fn traffic(lab: &Lab) -> Vec<(String, Running)> {
    let start = |(from, address): &(&str, &str)| {
        let to = std::net::SocketAddr::new(address.parse().unwrap(), 80);
        let load = Load {
            request: Request::new(to, HOST),
            pace: Duration::from_millis(20),
            connections: Connections::Fresh,
            patience: Duration::from_secs(8),
            at_most: Duration::from_secs(60),
        };
        (format!("{from} -> {address}"), load.start(lab.host(from).unwrap()))
    };
    WAYS.iter().map(start).collect()
}

/// What was lost on each way.
fn stop(traffic: Vec<(String, Running)>) -> Vec<(String, Loss)> {
    let stop = |(way, running): (String, Running)| (way, running.stop());
    let losses: Vec<(String, Loss)> = traffic.into_iter().map(stop).collect();
    losses.iter().for_each(|(way, loss)| println!("{way}: {loss}"));
    losses
}

#[track_caller]
fn nothing_lost(lab: &Lab, losses: &[(String, Loss)]) {
    for (way, loss) in losses {
        assert!(loss.sent > 20, "{way}: only {} requests were sent", loss.sent);
        assert_eq!(loss.failed, 0, "{way}: {loss}\n{}", logs(lab));
    }
}

fn pods(lab: &Lab) -> Vec<dualgate_lab::report::PodStatus> {
    lab.cluster().pods().into_iter().filter(|pod| pod.workload == WORKLOAD).collect()
}

fn pod(directory: &Path) {
    let lab = seed(directory);
    let traffic = traffic(&lab);
    pass(Duration::from_millis(500));
    let killed = pods(&lab).swap_remove(0).name;
    lab.kill(&killed).unwrap();
    until("another pod is ready", &lab, Duration::from_secs(10), || {
        let pods = pods(&lab);
        pods.len() == 3 && pods.iter().all(|pod| pod.ready && pod.alive && pod.name != killed)
    });
    pass(Duration::from_millis(500));
    let losses = stop(traffic);
    nothing_lost(&lab, &losses);
    let answered = losses.iter().flat_map(|(_, loss)| loss.pods.keys());
    assert!(answered.clone().any(|pod| killed.ends_with(pod.as_str())), "the pod that was killed had answered before");
    let pods = pods(&lab);
    let fresh = pods.iter().filter(|pod| answered.clone().any(|seen| pod.name.ends_with(seen.as_str())));
    assert_eq!(fresh.count(), 3, "every pod that there is answers");
}

/// The node that holds the gate's addresses.
fn holder(lab: &Lab) -> String {
    let nodes = lab.topology().hosts.iter().filter(|host| host.node.is_some());
    let holds = |name: &str| lab.nodes().held(name).contains(&WAYS[0].1.parse().unwrap());
    nodes.map(|host| host.name.clone()).find(|name| holds(name)).expect("somebody holds the gate's addresses")
}

/// What becomes of the gate's addresses is another trial's business, so a node fails that does not hold them.
fn node(directory: &Path) {
    let lab = seed(directory);
    let holder = holder(&lab);
    let victim = pods(&lab).into_iter().map(|pod| pod.node).find(|node| *node != holder).unwrap();
    let traffic = traffic(&lab);
    pass(Duration::from_millis(500));
    println!("{}", lab.fail(&victim).unwrap());
    pass(Duration::from_secs(6));
    let believed = pods(&lab).into_iter().filter(|pod| pod.node == victim).all(|pod| pod.ready && !pod.alive);
    assert!(believed, "the cluster has not heard of it yet: its pods still count as ready");
    lab.heal(&victim).unwrap();
    lab.wait_until_ready(Duration::from_secs(10)).unwrap();
    pass(Duration::from_millis(500));
    let losses = stop(traffic);
    nothing_lost(&lab, &losses);
    until("its pod answers again", &lab, Duration::from_secs(40), || {
        let answer = get(&lab, "lan-client", WAYS[0].1, HOST);
        answer.echo().is_some_and(|echo| echo.node.as_deref() == Some(victim.as_str()))
    });
}

fn eviction(directory: &Path) {
    let patience = Patience { node: Duration::from_secs(1), eviction: Duration::from_secs(1), ..Patience::default() };
    let lab = start(directory, &example(), patience);
    // Two pods are on two nodes, one of which is not the gate's.
    lab.scale("apps/grafana", 2).unwrap();
    let grafana = || lab.cluster().pods().into_iter().filter(|pod| pod.workload == "apps/grafana" && pod.ready);
    until("there are two pods", &lab, Duration::from_secs(10), || grafana().count() == 2);
    let victim = grafana().map(|pod| pod.node).find(|node| node != "k3s-node1").unwrap();
    lab.fail(&victim).unwrap();
    until("its pods run elsewhere", &lab, Duration::from_secs(15), || {
        let pods = lab.cluster().pods();
        pods.iter().all(|pod| pod.node != victim && pod.ready && pod.alive)
    });
    assert_eq!(grafana().count(), 2);
    until("the gates know", &lab, Duration::from_secs(5), || {
        get(&lab, "lan-client", WAYS[0].1, "grafana.yourdomain.com").status == 200
            && get(&lab, "internet-client", WAYS[3].1, "grafana.yourdomain.com").status == 200
    });
}

fn router(directory: &Path) {
    let lab = seed(directory);
    let traffic = traffic(&lab);
    pass(Duration::from_millis(300));
    lab.fail("router").unwrap();
    pass(Duration::from_secs(1));
    lab.heal("router").unwrap();
    pass(Duration::from_millis(500));
    let losses = stop(traffic);
    let (at_home, outside): (Vec<_>, Vec<_>) = losses.into_iter().partition(|(way, _)| way.starts_with("lan-client"));
    nothing_lost(&lab, &at_home);
    // The tunnel goes through the router; it is back as soon as home speaks again.
    for (way, loss) in &outside {
        assert!(loss.longest_gap < Duration::from_secs(12), "{way}: {loss}");
        assert!(loss.answered > 20, "{way}: {loss}");
    }
    // Home reaches the Internet again, and is as closed as before.
    for address in ["198.51.100.7", "2001:db8:7::7"] {
        until("home reaches the Internet", &lab, Duration::from_secs(5), || {
            let to = std::net::SocketAddr::new(address.parse().unwrap(), 4711);
            // Nobody listens there: a refusal has come all the way back.
            matches!(tcp(&lab.host("k3s-node2").unwrap(), to, Duration::from_secs(1)), Err(Trouble::Refused))
        });
    }
    let node = &lab.topology().hosts.iter().find(|host| host.name == "k3s-node1").unwrap().interfaces[0];
    let global = node.addresses.iter().map(ipnet::IpNet::addr).find(|a| a.to_string().starts_with("2001:")).unwrap();
    let from_outside = tcp(&lab.host("internet-client").unwrap(), (global, 80).into(), Duration::from_secs(1));
    assert!(from_outside.is_err(), "the Internet reaches a node at home: {from_outside:?}");
}

fn flap(directory: &Path) {
    let lab = seed(directory);
    let traffic = traffic(&lab);
    pass(Duration::from_millis(300));
    // How often an address that a way leads to was held by a node whose cable was pulled.
    let mut moved = [0; WAYS.len()];
    for link in ["lan/k3s-node3", "lan/k3s-node2", "carrier/router"] {
        let held = link.strip_prefix("lan/").map_or_else(Vec::new, |node| lab.nodes().held(node));
        for (moved, (_, address)) in moved.iter_mut().zip(WAYS) {
            *moved += u64::from(held.contains(&address.parse().unwrap()));
        }
        lab.cut(link).unwrap();
        pass(Duration::from_millis(700));
        lab.heal(link).unwrap();
    }
    pass(Duration::from_secs(1));
    let losses = stop(traffic);
    // Each is shorter than what TCP and the gates wait for, also the line that the tunnel goes through. Only a request that is
    // under way when its address goes to another node is refused there, as that node has never heard of its connection.
    for ((way, loss), moved) in losses.iter().zip(moved) {
        assert!(loss.sent > 20, "{way}: only {} requests were sent", loss.sent);
        assert!(loss.failed <= moved, "{way}: {loss}, and {moved} moves\n{}", logs(&lab));
    }
}

fn edge(directory: &Path) {
    let lab = seed(directory);
    let traffic = traffic(&lab);
    pass(Duration::from_millis(300));
    lab.nodes().signal("ionos", rustix::process::Signal::KILL);
    until("the edge is started again and ready", &lab, Duration::from_secs(10), || {
        lab.tend();
        lab.nodes().state("ionos").as_deref() == Some("ready")
    });
    pass(Duration::from_millis(500));
    let losses = stop(traffic);
    for (way, loss) in &losses {
        if way.starts_with("lan-client") {
            assert_eq!(loss.failed, 0, "{way}: home has nothing to do with the edge: {loss}");
        } else {
            assert!(loss.failed > 0, "{way}: nobody noticed that the edge was gone");
            assert!(loss.longest_gap < Duration::from_secs(5), "{way}: {loss}");
        }
    }
    for (from, address) in WAYS {
        assert_eq!(get(&lab, from, address, HOST).status, 200);
    }
}
