//! The world is what the topology says: hosts reach each other as a site's would, and what fails comes back whole.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dualgate_core::model::site::Site;
use dualgate_core::parse;
use dualgate_lab::rehearsal::Tunnel;
use dualgate_lab::topology;
use dualgate_lab::trial::{self, chain};
use dualgate_lab::world::World;

fn main() -> ExitCode {
    trial::main(
        "world",
        &[
            ("the_seed_is_built_and_its_hosts_reach_each_other", the_seed_is_built_and_its_hosts_reach_each_other),
            ("a_host_that_was_off_comes_back_whole", a_host_that_was_off_comes_back_whole),
        ],
    )
}

const SEED: &str = include_str!("../../../examples/home/site.yaml");

fn site(text: &str) -> Site {
    let (site, findings) = parse::site::site("site.yaml", text);
    site.unwrap_or_else(|| panic!("{findings:#?}"))
}

fn build(text: &str, directory: &Path) -> World {
    let topology = topology::build(&site(text), Tunnel::StandIn).unwrap();
    World::build(topology, directory).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// The address that a server on `to` sees when `from` opens a connection to it.
fn connect(world: &World, from: &str, to: &str, address: &str) -> io::Result<IpAddr> {
    let address = SocketAddr::new(address.parse().unwrap(), 7000);
    let listener = world.host(to).unwrap().run(move || TcpListener::bind(address))?;
    let dial = move || TcpStream::connect_timeout(&address, Duration::from_secs(2));
    let stream = world.host(from).unwrap().run(dial)?;
    let (_, peer) = listener.accept()?;
    drop(stream);
    Ok(peer.ip())
}

#[track_caller]
fn reaches(world: &World, from: &str, to: &str, address: &str, as_: &str) {
    let seen = connect(world, from, to, address).unwrap_or_else(|error| panic!("{from} -> {to} {address}: {error}"));
    assert_eq!(seen, as_.parse::<IpAddr>().unwrap(), "{from} -> {to} {address}");
}

fn the_seed_is_built_and_its_hosts_reach_each_other(directory: &Path) {
    let started = Instant::now();
    let world = build(SEED, directory);
    println!("built in {:?}", started.elapsed());
    reaches(&world, "internet-client", "ionos", "203.0.113.10", "198.51.100.7");
    reaches(&world, "internet-client", "ionos", "2001:db8:1::10", "2001:db8:7::7");
    reaches(&world, "lan-client", "k3s-node1", "192.168.178.5", "192.168.178.50");
    reaches(&world, "k3s-node2", "k3s-node3", "fda8:a1db:5685::7", "fda8:a1db:5685::6");
    reaches(&world, "ionos", "k3s-node2", "192.168.178.6", "192.168.178.201");
    reaches(&world, "ionos", "k3s-node2", "fda8:a1db:5685::6", "fda8:a1db:5685::201");
    reaches(&world, "k3s-node3", "ionos", "192.168.178.201", "192.168.178.7");
    reaches(&world, "k3s-node3", "ionos", "fda8:a1db:5685::201", "fda8:a1db:5685::7");
    reaches(&world, "ionos", "k3s-node3", "10.42.2.1", "192.168.178.201");
    reaches(&world, "ionos", "k3s-node3", "fd01:0:0:2::1", "fda8:a1db:5685::201");
    reaches(&world, "k3s-node1", "k3s-node3", "10.42.2.1", "192.168.178.5");
    reaches(&world, "k3s-node1", "k3s-node3", "fd01:0:0:2::1", "fda8:a1db:5685::5");
}

fn a_host_that_was_off_comes_back_whole(directory: &Path) {
    let world = build(SEED, directory);
    for host in ["k3s-node2", "router", "internet", "ionos", "lan"] {
        assert!(world.switch_off(host).unwrap());
        assert!(world.host(host).is_none());
        assert!(world.switch_on(host).unwrap_or_else(|error| panic!("{}", chain(&error))));
    }
    for link in ["lan/k3s-node1", "internet/ionos", "tunnel/k3s-node2", "carrier/router"] {
        assert!(world.cut(link).unwrap());
        assert!(world.mend(link).unwrap());
    }
    reaches(&world, "internet-client", "ionos", "203.0.113.10", "198.51.100.7");
    reaches(&world, "internet-client", "ionos", "2001:db8:1::10", "2001:db8:7::7");
    reaches(&world, "lan-client", "k3s-node1", "192.168.178.5", "192.168.178.50");
    reaches(&world, "ionos", "k3s-node2", "fda8:a1db:5685::6", "fda8:a1db:5685::201");
    reaches(&world, "ionos", "k3s-node2", "10.42.1.1", "192.168.178.201");
    reaches(&world, "k3s-node1", "ionos", "2001:db8:1::10", "2001:db8:100:1:d6:ff:fe00:b");
}
