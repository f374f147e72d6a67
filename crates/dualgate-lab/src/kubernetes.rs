//! The Kubernetes API of a lab, and the cluster's own parts as its clients.
//!
//! The API lives in the lab's process and listens at a node's port 6443, as K3s' server does there. The lab's cluster asks
//! it through that node, too. When the node fails, the API is away for everyone: nothing is scheduled, nothing written, and
//! what runs goes on. When it heals, the API is back with its objects.

mod client;
mod kind;
mod load;
mod mirror;
mod tell;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dualgate_apiserver::{ApiServer, Authorization, Faults, Options, Request, User};
use dualgate_core::model::site::{Node, Role, Site};
use dualgate_core::plan::install;
use dualgate_host::namespace::{self, Namespace};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::client::{Ask, ClientError};
pub(crate) use self::kind::{DAEMON_SET, DEPLOYMENT, ENDPOINT_SLICE, Kind, NODE, POD, STATEFUL_SET};
pub use self::load::manifests;
pub(crate) use self::mirror::{DeletedPod, Mirror, Seen};
pub(crate) use self::tell::{Part, Piece, Teller};

use self::client::{Connection, Identity};
use self::kind::{Scope, WATCHED};
use crate::report::KubernetesStatus;
use crate::world::World;

/// Where API servers listen.
pub const PORT: u16 = 6443;
/// Where every host of a lab finds its kubeconfig.
pub const KUBECONFIG: &str = "/run/dualgate/kubeconfig";
/// Where every node finds the one of its dualgate.
pub(crate) const ACCOUNT: &str = "/run/dualgate/account";
/// The field manager of the cluster's own parts.
const MANAGER: &str = "k3s";
/// How long a connection to the API may take; it is on this machine.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// The Kubernetes API of a lab.
#[derive(Debug)]
pub struct Kubernetes {
    world: Arc<World>,
    node: String,
    addresses: Vec<IpAddr>,
    server: ApiServer,
    /// People, and the cluster's own parts.
    admin: Identity,
    /// The token of every node's dualgate: it may do what `dualgate install` lets it, and nothing else.
    account: String,
    runtime: Handle,
    listening: Mutex<Option<Listening>>,
    /// Ends what runs on the runtime.
    _stop: oneshot::Sender<()>,
}

/// The API as its node has it at present.
#[derive(Debug)]
struct Listening {
    host: Weak<Namespace>,
    /// Dropped, they close, and with them what came in through them.
    _doors: Vec<dualgate_apiserver::Listening>,
}

/// Somebody who looks at the API and writes into it; dropped, that ends.
#[derive(Debug)]
pub(crate) struct Attendance(Vec<JoinHandle<()>>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Kubernetes {
    /// Starts it, empty, at the site's first server, else its first home node. `None` without a home node.
    pub fn start(world: Arc<World>, site: &Site) -> io::Result<Option<Arc<Self>>> {
        let at_home = || site.nodes.iter().filter(|node| !node.is_edge() && world.host(node.name.as_str()).is_some());
        let first = at_home().find(|node| node.has(Role::Server)).or_else(|| at_home().next());
        let Some(Node { name, addresses, .. }) = first else { return Ok(None) };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        // A server wants a listener that stays. This one is in the lab's own network, where nobody is.
        let nowhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let own = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let certificate_for = own.iter().chain(addresses).map(ToString::to_string).collect();
        let options = Options { authorization: Authorization::Rbac, certificate_for, ..Options::default() };
        let server = ApiServer::start(vec![nowhere], options)?;
        let authority = server.authority().ok_or_else(|| io::Error::other("it serves no TLS"))?;
        let kubernetes = Arc::new(Self {
            node: name.to_string(),
            addresses: addresses.clone(),
            world,
            admin: Identity::new(server.token(User::admin()), authority)?,
            account: account(&server, site)?,
            server,
            runtime: runtime.handle().clone(),
            listening: Mutex::default(),
            _stop: stop,
        });
        let serve = move || runtime.block_on(stopped);
        std::thread::Builder::new().name("kubernetes".to_owned()).spawn(serve)?;
        kubernetes.follow()?;
        Ok(Some(kubernetes))
    }

    /// Listens where its node is, and nowhere while the node is off.
    pub fn follow(&self) -> io::Result<()> {
        let host = self.world.host(&self.node);
        let listening = &mut *self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |host: &Arc<Namespace>| {
            listening.as_ref().is_some_and(|listening| listening.host.as_ptr() == Arc::as_ptr(host))
        };
        match host {
            None => *listening = None,
            Some(host) if is_there(&host) => {}
            Some(host) => {
                *listening = None;
                let has_v6 = self.addresses.iter().any(IpAddr::is_ipv6);
                let doors = namespace::in_network(host.network(), || open(has_v6))?;
                let doors = doors.into_iter().map(|door| self.server.listen(door)).collect::<io::Result<_>>()?;
                *listening = Some(Listening { host: Arc::downgrade(&host), _doors: doors });
            }
        }
        Ok(())
    }

    /// What can go wrong with it beside its node.
    pub fn faults(&self) -> Faults {
        self.server.faults()
    }

    /// What it was asked since it was started.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// Whether nobody can reach it, because its node is off.
    pub fn is_away(&self) -> bool {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Puts objects there as `kubectl apply` does, and what every cluster has; says which ones it refuses.
    pub fn load(&self, objects: Vec<Value>) -> Result<Vec<String>, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ClientError::Connect)?;
        runtime.block_on(async { load::load(&mut self.connection().await?, objects).await })
    }

    /// Asks it something, as a program on its node does.
    pub fn ask(&self, ask: &Ask) -> Result<Value, ClientError> {
        client::ask(self.connect().map_err(ClientError::Connect)?, &self.admin, ask)
    }

    /// Begins to look at it and to write into it; each look is handed to `see`.
    pub(crate) fn attend(
        self: &Arc<Self>,
        mirror: &Arc<Mirror>,
        teller: &Arc<Teller>,
        see: impl Fn(Seen) + Send + 'static,
    ) -> Attendance {
        let follow = |kind| self.runtime.spawn(mirror.clone().follow(self.clone(), kind));
        let mut tasks: Vec<_> = WATCHED.iter().map(follow).collect();
        tasks.push(self.runtime.spawn(teller.clone().tell(self.clone(), mirror.clone())));
        let mirror = mirror.clone();
        tasks.push(self.runtime.spawn(async move {
            loop {
                let seen = mirror.next().await;
                see(seen);
            }
        }));
        Attendance(tasks)
    }

    /// A kubeconfig for the lab's hosts. Its second context takes the other family.
    fn kubeconfig(&self, token: &str) -> String {
        let names = ["lab", "lab-other-family"].into_iter().zip(self.servers());
        let named: Vec<(&str, String)> = names.collect();
        let authority = self.server.authority_data();
        let cluster = |(name, server): &(&str, String)| json!({"name": name, "cluster": {"server": server, "certificate-authority-data": authority}});
        let context = |(name, _): &(&str, String)| json!({"name": name, "context": {"cluster": name, "user": "lab"}});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "users": [{"name": "lab", "user": {"token": token}}],
            "clusters": named.iter().map(cluster).collect::<Vec<_>>(),
            "contexts": named.iter().map(context).collect::<Vec<_>>(),
        });
        format!("{config:#}\n")
    }

    /// Gives every host the kubeconfig of people, and the one of its dualgate.
    pub fn write_kubeconfigs(&self, run_directory: &Path) -> io::Result<()> {
        for (path, token) in [(KUBECONFIG, &self.admin.token), (ACCOUNT, &self.account)] {
            let file = run_directory.join(path.trim_start_matches("/run/"));
            file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(file, self.kubeconfig(token))?;
        }
        Ok(())
    }

    /// What people are told of it.
    pub fn status(&self) -> KubernetesStatus {
        KubernetesStatus {
            node: self.node.clone(),
            servers: self.servers().collect(),
            kubeconfig: KUBECONFIG.to_owned(),
            away: self.is_away(),
        }
    }

    /// Its URL over each family, the first family of its node first.
    fn servers(&self) -> impl Iterator<Item = String> {
        let first = self.addresses.first();
        let other =
            self.addresses.iter().find(|address| first.is_some_and(|first| first.is_ipv4() != address.is_ipv4()));
        first.into_iter().chain(other).map(|address| format!("https://{}", SocketAddr::new(*address, PORT)))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let off = || io::Error::new(io::ErrorKind::NotConnected, format!("`{}` is off", self.node));
        let host = self.world.host(&self.node).ok_or_else(off)?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        namespace::in_network(host.network(), || TcpStream::connect_timeout(&to, PATIENCE))
    }

    async fn connection(&self) -> Result<Connection, ClientError> {
        Connection::new(self.connect().map_err(ClientError::Connect)?, &self.admin).await
    }
}

/// A token of the account that `dualgate install` makes for home nodes, with its rights; where nothing can be installed, an
/// admin's.
fn account(server: &ApiServer, site: &Site) -> io::Result<String> {
    let what = install::Options {
        image: "dualgate".to_owned(),
        site_file: String::new(),
        edges: Vec::new(),
        services: Vec::new(),
    };
    let Ok(installation) = install::install(site, &what) else { return Ok(server.token(User::admin())) };
    let is_about_rights = |object: &Value| {
        object["apiVersion"].as_str().is_some_and(|version| version.starts_with("rbac."))
            || matches!(object["kind"].as_str(), Some("Namespace" | "ServiceAccount"))
    };
    let objects = server.objects().as_manager(install::FIELD_MANAGER);
    objects.apply_all(installation.objects.into_iter().filter(is_about_rights)).map_err(io::Error::other)?;
    Ok(server.token(User::service_account(install::NAMESPACE, install::HOME)))
}

/// The path of an object.
pub(crate) fn path(kind: &Kind, namespace: &str, name: &str) -> String {
    match kind.scope {
        Scope::Namespaced => format!("{}/{name}", kind.list(namespace)),
        Scope::Cluster => format!("{}/{name}", kind.everywhere()),
    }
}

/// Listens on every address of a network, as K3s does.
fn open(has_v6: bool) -> io::Result<Vec<TcpListener>> {
    let mut doors = vec![listen(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))?];
    if has_v6 {
        doors.push(listen(Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)))?);
    }
    Ok(doors)
}

fn listen(domain: Domain, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
