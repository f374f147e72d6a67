//! An end of the tunnel in the words of others: for a router, or for a machine where something else makes the tunnel.
//!
//! Text only. Keys are never in it: where a format takes files, it names the files of `dualgate keys`; where it takes
//! the key itself, a mark stands in its place, which [`File::with_keys`] fills for whoever has the keys.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Interface, Pair, Peer, PeerName, claims, end};
use crate::model::public_key::PublicKeys;
use crate::model::site::HomeEnd;
use crate::model::{NodeName, Secret, Snapshot};

/// Whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The file that a FRITZ!Box imports: one peer, no comments.
    Fritzbox,
    /// wg-quick(8).
    WgQuick,
    /// systemd.netdev(5) and systemd.network(5).
    Networkd,
    /// A NixOS module with `networking.wireguard`.
    Nixos,
}

/// What to put where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The files.
    pub files: Vec<File>,
    /// What to put in the place of each mark, where [`File::with_keys`] has not.
    pub marks: Vec<String>,
    /// What a person has to do besides, in order.
    pub steps: Vec<String>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Key(Key),
}

/// A key whose place is marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The private key of the end itself.
    Private,
    /// A preshared key.
    Preshared(Pair),
}

impl File {
    /// With marks where keys belong.
    pub fn text(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Key(key) => mark(key),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// The keys that it needs.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Key(key) => Some(key),
            Piece::Text(_) => None,
        })
    }

    /// With the keys, each in base64: as secret as they are.
    pub fn with_keys<E>(&self, mut key: impl FnMut(&Key) -> Result<Secret, E>) -> Result<Secret, E> {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => bytes.extend(text.as_bytes()),
                // Into another secret.
                Piece::Key(wanted) => bytes.extend(key(wanted)?.expose()),
            }
        }
        Ok(Secret::new(bytes))
    }
}

fn mark(key: &Key) -> String {
    match key {
        Key::Private => "REPLACE-BY-THE-PRIVATE-KEY".to_owned(),
        Key::Preshared(pair) => format!("REPLACE-BY-THE-PRESHARED-KEY-OF-{pair}"),
    }
}

/// Why there is nothing to export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The site has no tunnel, or this is none of its ends.
    #[error("`{0}` is no end of a tunnel")]
    NoEnd(PeerName),
    /// The same, where the router stands for the node.
    #[error("the router holds home's end of the tunnel (`tunnel.homeEnd`), so `{0}` needs none")]
    RouterIsTheEnd(PeerName),
    /// The nodes are the ends.
    #[error("the home nodes are ends of the tunnel themselves: for the router, write `homeEnd: router` into `tunnel`")]
    NodesAreTheEnds,
    /// There is no such edge.
    #[error("`{0}` is no edge of the tunnel")]
    NoEdge(NodeName),
    /// One file takes one peer.
    #[error("a FRITZ!Box takes one edge in each file: say which with --edge ({0})")]
    WhichEdge(String),
}

/// The end `own` in the words of `format`. `keys` is the folder of its key files, for formats that name files; `edge`
/// leaves out the other edges.
pub fn export(
    snapshot: &Snapshot,
    own: &PeerName,
    format: Format,
    keys: &str,
    edge: Option<&NodeName>,
) -> Result<Export, ExportError> {
    let mut interface = end(snapshot, own).interface.ok_or_else(|| no_end(snapshot, own))?;
    if let Some(edge) = edge {
        let wanted = PeerName::Node(edge.clone());
        interface.peers.retain(|peer| peer.name == wanted);
        let [peer] = interface.peers.as_slice() else { return Err(ExportError::NoEdge(edge.clone())) };
        interface.routes.retain(|route| peer.allowed_ips.contains(&route.to));
    }
    let export = Exported { snapshot, own, interface: &interface, keys };
    match format {
        Format::Fritzbox => export.fritzbox(),
        Format::WgQuick => Ok(export.wg_quick()),
        Format::Networkd => Ok(export.networkd()),
        Format::Nixos => Ok(export.nixos()),
    }
}

fn no_end(snapshot: &Snapshot, own: &PeerName) -> ExportError {
    let home_end = snapshot.site.tunnel.as_ref().map(|tunnel| tunnel.home_end);
    match (own, home_end) {
        (PeerName::Node(_), Some(HomeEnd::Router)) => ExportError::RouterIsTheEnd(own.clone()),
        (PeerName::Router, Some(HomeEnd::Nodes)) => ExportError::NodesAreTheEnds,
        (PeerName::Node(_), Some(HomeEnd::Nodes) | None) | (PeerName::Router, Some(HomeEnd::Router) | None) => {
            ExportError::NoEnd(own.clone())
        }
    }
}

struct Exported<'a> {
    snapshot: &'a Snapshot,
    own: &'a PeerName,
    interface: &'a Interface,
    keys: &'a str,
}

impl Exported<'_> {
    /// Like wg-quick's file, but without comments, and what else has to be clicked as steps.
    fn fritzbox(&self) -> Result<Export, ExportError> {
        let PeerName::Router = self.own else { return Err(ExportError::NodesAreTheEnds) };
        let [peer] = self.interface.peers.as_slice() else {
            let names: Vec<String> = self.interface.peers.iter().map(|peer| peer.name.to_string()).collect();
            return Err(ExportError::WhichEdge(names.join(", ")));
        };
        let mut page = Page::default();
        let addresses = self.addresses();
        let addresses: Vec<IpNet> = addresses.iter().map(|address| self.in_lan(*address)).collect();
        self.quick_interface(&mut page, &addresses);
        quick_peer(&mut page, peer);
        let file = page.into_file("fritzbox.conf");
        let mut steps = unknown_keys(&self.interface.peers);
        steps.push(
            "import the file: Internet > Permit Access > VPN (WireGuard) > Add Connection, as a network that was set \
             up on the other side already"
                .to_owned(),
        );
        if addresses.iter().chain(&peer.allowed_ips).any(|net| net.addr().is_ipv6()) {
            steps.push("FRITZ!OS before 8 refuses a file with inner IPv6 addresses: update it first".to_owned());
        }
        for endpoint in peer.endpoints.iter().skip(1) {
            steps.push(format!("if the line does not reach that endpoint, write {endpoint} into the file instead"));
        }
        steps.extend(self.static_routes());
        Ok(Export { marks: self.marks(&file), files: vec![file], steps })
    }

    fn wg_quick(&self) -> Export {
        let mut page = Page::default();
        page.line(format_args!("# One end of the tunnel: {}. Keep it with the mode 0600.", self.own));
        self.quick_interface(&mut page, &self.addresses().into_iter().map(IpNet::from).collect::<Vec<_>>());
        for peer in &self.interface.peers {
            quick_peer(&mut page, peer);
            others(&mut page, "# It also answers at", peer);
        }
        let file = page.into_file(&format!("{}.conf", self.interface.name));
        let mut steps = unknown_keys(&self.interface.peers);
        steps.push(format!(
            "put the file into /etc/wireguard with the mode 0600, then: wg-quick up {}",
            self.interface.name
        ));
        steps.extend(self.static_routes());
        Export { marks: self.marks(&file), files: vec![file], steps }
    }

    fn quick_interface(&self, page: &mut Page, addresses: &[IpNet]) {
        page.line(format_args!("[Interface]"));
        page.key("PrivateKey = ", Key::Private, "\n");
        if let Some(port) = self.interface.listen_port {
            page.line(format_args!("ListenPort = {port}"));
        }
        page.line(format_args!("Address = {}", list(addresses)));
        page.line(format_args!("MTU = {}", self.interface.mtu));
    }

    fn networkd(&self) -> Export {
        let name = self.interface.name;
        let folder = "/etc/systemd/network";
        let mut device = Page::default();
        device.line(format_args!("[NetDev]\nName={name}\nKind=wireguard\nMTUBytes={}\n", self.interface.mtu));
        device.line(format_args!("[WireGuard]\nPrivateKeyFile={folder}/{name}.key"));
        if let Some(port) = self.interface.listen_port {
            device.line(format_args!("ListenPort={port}"));
        }
        let mut steps =
            vec![format!("install -o root -g systemd-network -m 0640 {}/private {folder}/{name}.key", self.keys)];
        for peer in &self.interface.peers {
            device.line(format_args!("\n[WireGuardPeer]\n# {}\nPublicKey={}", peer.name, public_key(peer)));
            if let Some(pair) = &peer.preshared_key {
                device.line(format_args!("PresharedKeyFile={folder}/{name}-{pair}.key"));
                steps.push(format!(
                    "install -o root -g systemd-network -m 0640 {}/preshared/{pair} {folder}/{name}-{pair}.key",
                    self.keys
                ));
            }
            device.line(format_args!("AllowedIPs={}", list(&peer.allowed_ips).replace(", ", ",")));
            if let Some(endpoint) = peer.endpoints.first() {
                device.line(format_args!("Endpoint={endpoint}"));
            }
            others(&mut device, "# It also answers at", peer);
            if let Some(seconds) = peer.keepalive {
                device.line(format_args!("PersistentKeepalive={seconds}"));
            }
        }
        let mut network = Page::default();
        network.line(format_args!("[Match]\nName={name}\n\n[Network]"));
        for address in &self.interface.addresses {
            network.line(format_args!("Address={}", IpNet::from(*address)));
        }
        for route in &self.interface.routes {
            network.line(format_args!("\n[Route]\nDestination={}", route.to));
            if let Some(source) = route.source {
                network.line(format_args!("PreferredSource={source}"));
            }
        }
        steps.push(format!("put both files into {folder}, then: networkctl reload"));
        steps.extend(self.static_routes());
        steps.extend(unknown_keys(&self.interface.peers));
        let files =
            vec![device.into_file(&format!("50-{name}.netdev")), network.into_file(&format!("50-{name}.network"))];
        Export { files, marks: Vec::new(), steps }
    }

    fn nixos(&self) -> Export {
        let name = self.interface.name;
        let quoted = |nets: &[IpNet]| nets.iter().map(|net| format!("\"{net}\" ")).collect::<String>();
        let addresses: Vec<IpNet> = self.addresses().into_iter().map(IpNet::from).collect();
        let mut page = Page::default();
        page.line(format_args!("# One end of the tunnel: {}. A module of NixOS.", self.own));
        page.line(format_args!("{{\n  networking.wireguard.interfaces.{name} = {{"));
        page.line(format_args!("    ips = [ {}];", quoted(&addresses)));
        if let Some(port) = self.interface.listen_port {
            page.line(format_args!("    listenPort = {port};"));
        }
        page.line(format_args!("    mtu = {};", self.interface.mtu));
        page.line(format_args!("    privateKeyFile = \"{}/private\";", self.keys));
        page.line(format_args!("    peers = ["));
        for peer in &self.interface.peers {
            page.line(format_args!("      {{ # {}", peer.name));
            page.line(format_args!("        publicKey = \"{}\";", public_key(peer)));
            if let Some(pair) = &peer.preshared_key {
                page.line(format_args!("        presharedKeyFile = \"{}/preshared/{pair}\";", self.keys));
            }
            page.line(format_args!("        allowedIPs = [ {}];", quoted(&peer.allowed_ips)));
            if let Some(endpoint) = peer.endpoints.first() {
                page.line(format_args!("        endpoint = \"{endpoint}\";"));
            }
            others(&mut page, "        # It also answers at", peer);
            if let Some(seconds) = peer.keepalive {
                page.line(format_args!("        persistentKeepalive = {seconds};"));
            }
            page.line(format_args!("      }}"));
        }
        page.line(format_args!("    ];\n  }};"));
        if let Some(port) = self.interface.listen_port {
            page.line(format_args!("  networking.firewall.allowedUDPPorts = [ {port} ];"));
        }
        page.line(format_args!("}}"));
        let mut steps = vec![format!("import the module; the keys stay in {}, outside of the store", self.keys)];
        steps.extend(self.static_routes());
        steps.extend(unknown_keys(&self.interface.peers));
        Export { files: vec![page.into_file(&format!("{name}.nix"))], marks: Vec::new(), steps }
    }

    /// What the interface gets where routes cannot name a source: its own addresses, else those to speak from.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = self.interface.addresses.clone();
        if addresses.is_empty() {
            addresses.extend(self.interface.routes.iter().filter_map(|route| route.source));
            addresses.sort();
            addresses.dedup();
        }
        addresses
    }

    /// With the prefix of its subnet: a FRITZ!Box tells by it that its own network is meant.
    fn in_lan(&self, address: IpAddr) -> IpNet {
        let subnet = self.snapshot.site.lan.subnets.iter().find(|subnet| subnet.contains(&address));
        let with_prefix = subnet.and_then(|subnet| IpNet::new(address, subnet.prefix_len()).ok());
        with_prefix.unwrap_or(IpNet::from(address))
    }

    fn marks(&self, file: &File) -> Vec<String> {
        file.keys()
            .map(|key| match key {
                Key::Private => format!("replace `{}` by the key of {}: {}/private", mark(key), self.own, self.keys),
                Key::Preshared(pair) => format!("replace `{}` by the key in {}/preshared/{pair}", mark(key), self.keys),
            })
            .collect()
    }

    /// A router does not know which node has which pods.
    fn static_routes(&self) -> Vec<String> {
        match self.own {
            PeerName::Router => {
                let step = |(net, via): &(IpNet, IpAddr)| format!("add a static route to the router: {net} via {via}");
                claims::pod_routes(self.snapshot).iter().map(step).collect()
            }
            PeerName::Node(_) => Vec::new(),
        }
    }
}

fn quick_peer(page: &mut Page, peer: &Peer) {
    page.line(format_args!("\n[Peer]\nPublicKey = {}", public_key(peer)));
    if let Some(pair) = &peer.preshared_key {
        page.key("PresharedKey = ", Key::Preshared(pair.clone()), "\n");
    }
    page.line(format_args!("AllowedIPs = {}", list(&peer.allowed_ips)));
    if let Some(endpoint) = peer.endpoints.first() {
        page.line(format_args!("Endpoint = {endpoint}"));
    }
    if let Some(seconds) = peer.keepalive {
        page.line(format_args!("PersistentKeepalive = {seconds}"));
    }
}

/// None of these formats changes over by itself.
fn others(page: &mut Page, words: &str, peer: &Peer) {
    for endpoint in peer.endpoints.iter().skip(1) {
        page.line(format_args!("{words} {endpoint}."));
    }
}

fn public_key(peer: &Peer) -> String {
    match peer.public_keys.current() {
        Some(key) => key.to_string(),
        None => format!("REPLACE-BY-THE-PUBLIC-KEY-OF-{}", peer.name),
    }
}

fn unknown_keys(peers: &[Peer]) -> Vec<String> {
    let unknown = peers.iter().filter(|peer| peer.public_keys == PublicKeys::Unknown);
    unknown.map(|peer| format!("replace `{}`: it is not in the site file", public_key(peer))).collect()
}

fn list(nets: &[IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A file while it is written.
#[derive(Default)]
struct Page {
    pieces: Vec<Piece>,
    text: String,
}

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
    }

    fn key(&mut self, before: &str, key: Key, after: &str) {
        let text = std::mem::take(&mut self.text) + before;
        self.pieces.extend([Piece::Text(text), Piece::Key(key)]);
        self.text.push_str(after);
    }

    fn into_file(mut self, name: &str) -> File {
        self.pieces.push(Piece::Text(self.text));
        File { name: name.to_owned(), pieces: self.pieces }
    }
}
