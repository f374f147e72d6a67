//! Who is connected, as the kernel of a network says it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use dualgate_core::plan::firewall::{By, Connection};
use dualgate_core::plan::tunnel::INTERFACE;
use dualgate_host::firewall::connections;
use dualgate_host::network::{Network, Switch, Use};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// A host, somebody else and the host's inner address, which are all here.
const ADDRESSES: [[&str; 3]; 2] =
    [["192.0.2.1", "192.0.2.2", "10.0.0.201"], ["2001:db8::1", "2001:db8::2", "fd00::201"]];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn dial(from: &str, to: SocketAddr) -> TcpStream {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // The routes of an interface that was switched on just now come and go for a moment.
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        let socket = socket(family, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::new(ip(from), 0)).expect("an address of its own");
        match connect(&socket, &to) {
            Ok(()) => return socket.into(),
            Err(Errno::NETUNREACH | Errno::HOSTUNREACH) if Instant::now() < patience => {
                thread::park_timeout(Duration::from_millis(1));
            }
            Err(error) => panic!("no connection: {error}"),
        }
    }
}

pub fn who_is_connected_is_listed_with_the_way_that_he_came() {
    assert_eq!(connections().expect("a listing"), []);
    let mut network = Network::open().expect("rtnetlink");
    network.add_bridge(INTERFACE, None).expect("an interface");
    network.switch(INTERFACE, Switch::On).expect("it is there");
    let mut open = Vec::new();
    let mut expected = Vec::new();
    for [host, other, inner] in ADDRESSES {
        for (address, interface) in [(host, "lo"), (other, "lo"), (inner, INTERFACE)] {
            network.add_address(interface, ip(address).into(), Use::Both).expect("an address");
        }
        for (address, by) in [(host, By::Outside), (inner, By::Tunnel)] {
            let listener = TcpListener::bind(SocketAddr::new(ip(address), 0)).expect("a listener");
            let local = listener.local_addr().expect("its address");
            // Twice by somebody else, and once by the host itself, which does not count.
            open.extend([dial(other, local), dial(other, local), dial(address, local)]);
            open.extend((0..3).map(|_| listener.accept().expect("a connection").0));
            expected.push(Connection { remote: ip(other), local, by });
            // Nor does what was opened to a port that nobody listens on any more.
            let gone = TcpListener::bind(SocketAddr::new(ip(address), 0)).expect("a listener");
            open.push(dial(other, gone.local_addr().expect("its address")));
            open.push(gone.accept().expect("a connection").0);
            open.push(TcpStream::from(OwnedFd::from(listener)));
        }
    }
    expected.sort_unstable();
    assert_eq!(connections().expect("a listing"), expected);
}
