//! Who on a LAN answers for an address, by ARP or Neighbor Discovery, as any other machine there would ask.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use dualgate_host::namespace::{Namespace, in_network};
use dualgate_host::network::Network;
use dualgate_host::virtual_ips;
use dualgate_wire::ethernet::Mac;

use super::Trouble;

/// Every station that answers within `patience` a question that is asked once at this interface.
pub fn who_has(
    from: &Namespace,
    interface: &str,
    address: IpAddr,
    patience: Duration,
) -> Result<BTreeSet<Mac>, Trouble> {
    let ask = || -> io::Result<BTreeSet<Mac>> {
        let found = Network::open().and_then(|mut network| network.interface(interface));
        let interface = found.map_err(|error| io::Error::new(error.source.kind(), error.to_string()))?;
        virtual_ips::who_has(&interface, address, patience)
    };
    match in_network(from.network(), ask) {
        Ok(answers) if answers.is_empty() => Err(Trouble::Silent(patience.as_millis())),
        Ok(answers) => Ok(answers),
        Err(error) => Err(Trouble::Failed(error.to_string())),
    }
}
