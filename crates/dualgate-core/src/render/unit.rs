//! The unit of systemd that runs dualgate on a node.
//!
//! It runs as root, so that what an administrator types (`dualgate keys`, `firewall confirm`, `vip move`) owns the same
//! files; but without root's powers. Of the capabilities three are left: to make the tunnel, routes and the firewall
//! (`CAP_NET_ADMIN`), to speak ARP, NDP and echo requests (`CAP_NET_RAW`), and to listen on ports below 1024. Files are
//! read-only but for the state directory; there are no devices but the one of tunnels.

use std::fmt::Write as _;
use std::time::Duration;

use crate::model::Site;
use crate::model::site::{Node, Role};

/// Where the unit lies.
pub const PATH: &str = "/etc/systemd/system/dualgate.service";
/// Where the program lies.
pub const PROGRAM: &str = "/usr/local/bin/dualgate";
/// Where the site file lies.
pub const SITE: &str = "/etc/dualgate/site.yaml";
/// Where the manifests lie on a node that has no cluster to ask.
pub const MANIFESTS: &str = "/etc/dualgate/manifests";
/// The kubeconfig of a node whose source is the cluster.
pub const KUBECONFIG: &str = "/etc/dualgate/kubeconfig";
/// The state directory.
pub const STATE: &str = "/var/lib/dualgate";

/// What it takes to write its state and to end, beyond waiting for connections.
const MARGIN: Duration = Duration::from_secs(10);

/// What the kernel is asked for, exactly.
pub const CAPABILITIES: &str = "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE";

/// What it may not do and see, whatever the node.
const SANDBOX: &str = "\
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_UNIX
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
ProtectSystem=strict
ProtectHome=yes
PrivateMounts=yes
PrivateTmp=yes
PrivateIPC=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @keyring @aio
";

/// Where the node's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From home: an edge.
    Home,
    /// From a folder, [`MANIFESTS`].
    Folder,
    /// From the cluster, by [`KUBECONFIG`].
    Cluster,
}

impl Origin {
    /// Of a node that has no cluster to ask.
    pub fn of(node: &Node) -> Self {
        if node.is_edge() { Self::Home } else { Self::Folder }
    }
}

/// The unit for a node of the site.
pub fn unit(site: &Site, node: &Node, origin: Origin) -> String {
    let source = match origin {
        Origin::Home => "home".to_owned(),
        Origin::Folder => format!("folder:{MANIFESTS}"),
        // What it said last is on disk, so the unit waits for no K3s.
        Origin::Cluster => format!("cluster --kubeconfig {KUBECONFIG}"),
    };
    let before = match node.has(Role::Agent) && node.is_edge() {
        // The agent's addresses are those of the tunnel.
        true => "Before=k3s-agent.service\n",
        false => "",
    };
    // The thread that answers ARP and NDP comes before others, which needs no capability within this limit.
    let (nice, set_nice) = match node.has(Role::VirtualIps) {
        true => ("LimitNICE=-10\n", "SystemCallFilter=setpriority\n"),
        false => ("", ""),
    };
    let proxy = &site.proxy;
    let stop = (proxy.accept_grace + proxy.drain_timeout + MARGIN).as_secs();
    // Each connection has one to a pod; the rest are files and listeners.
    let files = proxy.max_connections.saturating_mul(2).saturating_add(4096);
    let name = &node.name;
    let mut unit = String::new();
    let _ = write!(
        unit,
        "\
# dualgate on {name}: {PATH}
# Written from the site file by `dualgate render unit`.

[Unit]
Description=dualgate, the gates of {name}
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target
{before}StartLimitIntervalSec=0

[Service]
Type=notify
# Makes the node's private key where there is none yet; its public part stands in the log.
ExecStartPre={PROGRAM} keys init --site {SITE} --node {name}
ExecStart={PROGRAM} run --site {SITE} --node {name} --source {source}
# The site file is read again; it is also looked at every second.
ExecReload=kill -HUP $MAINPID
Restart=always
RestartSec=1
TimeoutStartSec=60
# Connections get {grace} s to arrive and {drain} s to end (`proxy.acceptGrace` and `proxy.drainTimeout`).
KillSignal=SIGTERM
# A change of the firewall on trial is undone at once when its guard is asked to end as well.
KillMode=control-group
TimeoutStopSec={stop}
StateDirectory=dualgate
StateDirectoryMode=0700
ConfigurationDirectory=dualgate
UMask=0077
LimitNOFILE={files}
{nice}# Keys would lie in it.
LimitCORE=0

CapabilityBoundingSet={CAPABILITIES}
AmbientCapabilities={CAPABILITIES}
{SANDBOX}{set_nice}SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
",
        grace = proxy.accept_grace.as_secs(),
        drain = proxy.drain_timeout.as_secs(),
    );
    unit
}
