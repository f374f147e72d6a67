//! Services at addresses that come and go, in a network of its own: what a home node sees of virtual IPs.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dualgate_core::plan::forward::Transport;
use dualgate_host::network::{Network, Switch, Use};
use dualgate_lab::trial;
use support::service::{Forwarder, ask_tcp, forward, tcp_echo, udp_echo};
use support::{PATIENCE, dual};
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn main() -> ExitCode {
    trial::main(
        "service_virtual",
        &[
            ("ipv4_at_an_address_that_comes_and_goes", |_: &Path| run(&[V4])),
            ("ipv6_at_an_address_that_comes_and_goes", |_: &Path| run(&[V6])),
            ("both_families_at_addresses_that_come_and_go", |_: &Path| run(&[V4, V6])),
        ],
    )
}

/// Who made a route, for the kernel's list: any number that it does not use.
const MADE_HERE: u8 = 186;

struct Family {
    /// The node's own address.
    own: &'static str,
    virtual_ip: &'static str,
    width: u8,
}

const V4: Family = Family { own: "192.168.178.5", virtual_ip: "192.168.178.11", width: 32 };
const V6: Family = Family { own: "fda8::5", virtual_ip: "fda8::11", width: 128 };

fn run(families: &[Family]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(comes_and_goes(families));
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

async fn comes_and_goes(families: &[Family]) {
    let mut network = Network::open().unwrap();
    network.switch("lo", Switch::On).unwrap();
    for family in families {
        network.add_address("lo", format!("{}/{}", family.own, family.width).parse().unwrap(), Use::Both).unwrap();
    }
    // The pods have the first family alone.
    let own = address(families[0].own, 0).to_string();
    let (tcp, udp) = (tcp_echo(&own, "pod ").await, udp_echo(&own, "pod ").await);
    let listen: Vec<SocketAddr> = families.iter().map(|family| address(family.virtual_ip, 53)).collect();
    let plan =
        [forward("dns", Transport::Tcp, &listen, &[dual(tcp)]), forward("dns", Transport::Udp, &listen, &[dual(udp)])];
    // No address is there yet, and all is open.
    let mut forwarder = Forwarder::start(&plan).await;
    let observed = observe(&mut forwarder).await;
    assert_eq!(observed, [listen.clone(), listen.clone()]);
    for round in 0..3 {
        for (family, listen) in families.iter().zip(&listen) {
            network.add_local_route(listen.ip(), MADE_HERE).unwrap();
            let own = address(family.own, 0);
            let name = timeout(PATIENCE, served(*listen)).await.expect("it is not served");
            assert_eq!(name, "pod ", "round {round}");
            let client = UdpSocket::bind(own).await.unwrap();
            client.send_to(b"hello", listen).await.unwrap();
            let mut space = [0; 32];
            let (length, from) = timeout(PATIENCE, client.recv_from(&mut space)).await.unwrap().unwrap();
            assert_eq!((&space[..length], from), (&b"pod hello"[..], *listen));
            network.remove_local_route(listen.ip(), MADE_HERE).unwrap();
            let gone = timeout(Duration::from_millis(300), ask_tcp(*listen, "hello")).await;
            assert!(!matches!(gone, Ok(Ok(_))), "the address is gone: {gone:?}");
        }
        assert_eq!(observe(&mut forwarder).await, observed, "the sockets stay open");
    }
}

/// The kernel may put an address to use a moment after it has acknowledged it.
async fn served(address: SocketAddr) -> String {
    loop {
        match ask_tcp(address, "hello").await {
            Ok(name) => return name,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

async fn observe(forwarder: &mut Forwarder) -> Vec<Vec<SocketAddr>> {
    use dualgate_core::seam::Actuator as _;
    let plan = forwarder.proxy.observe().await.unwrap();
    plan.forwards.iter().map(|forward| forward.listen.clone()).collect()
}
