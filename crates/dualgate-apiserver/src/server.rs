//! The server: a thread of its own that serves the listeners it was given, until it is dropped.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request as HttpRequest;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::faults::{Faults, Reach};
use crate::http::{Answered, handle};
use crate::kubeconfig::{self, Credentials};
use crate::objects::Objects;
use crate::requests::Request;
use crate::shared::Shared;
use crate::tls::{Authority, ClientCertificate};
use crate::users::User;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How the server behaves from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many changes are remembered for watches and pages; older versions are answered with 410.
    pub history: usize,
    /// Each answer takes so much longer.
    pub latency: Duration,
    /// How often a watch that wants bookmarks gets one.
    pub bookmark_interval: Duration,
    /// Who may do what.
    pub authorization: Authorization,
    /// TLS with a certificate for these names and addresses, of an authority of its own; plain HTTP if there are none.
    pub certificate_for: Vec<String>,
    /// What becomes of a client whose certificate is none of ours, or has expired.
    pub client_certificates: ClientCertificates,
}

/// When it is seen whether a client's certificate is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Before anything is asked: the handshake fails. So do gates before an API server that ask for certificates.
    #[default]
    JudgedAtHandshake,
    /// With each request, which is answered with 401. So does kube-apiserver itself.
    JudgedAtRequest,
}

/// Who may do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody may do everything, and nobody needs to say who they are.
    #[default]
    AlwaysAllow,
    /// Who cannot say who they are is refused (401), and so is what no role allows (403).
    Rbac,
}

/// A Kubernetes API in memory. It ends when it is dropped, with every connection.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    authority: Option<Arc<Authority>>,
    address: SocketAddr,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A listener that was opened later. Dropped, it is closed, and what came in through it ends.
#[derive(Debug)]
pub struct Listening {
    _accepting: JoinSet<()>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: 100_000,
            latency: Duration::ZERO,
            bookmark_interval: Duration::from_secs(10),
            authorization: Authorization::AlwaysAllow,
            certificate_for: Vec::new(),
            client_certificates: ClientCertificates::default(),
        }
    }
}

impl ApiServer {
    /// Serves HTTP/1.1 and, where a client begins with it, HTTP/2. The listeners may be of other network
    /// namespaces than this thread's. There are the namespaces that every cluster has.
    ///
    /// # Errors
    ///
    /// If there is no listener, no certificate can be made, or the system has no more threads or descriptors.
    pub fn start(listeners: Vec<TcpListener>, options: Options) -> io::Result<Self> {
        let first = listeners.first().ok_or_else(|| io::Error::other("an API server needs a listener"))?;
        let address = first.local_addr()?;
        let names = &options.certificate_for;
        let authority = || Authority::new(names, options.client_certificates);
        let authority = (!names.is_empty()).then(authority).transpose()?.map(Arc::new);
        let shared = Arc::new(Shared::new(options));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listeners: Vec<_> = {
            let _within = runtime.enter();
            let listen = |listener: TcpListener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            };
            listeners.into_iter().map(listen).collect::<io::Result<_>>()?
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (handle, serving, with_tls) = (runtime.handle().clone(), shared.clone(), authority.clone());
        let serve = move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(accept(listener, serving.clone(), with_tls.clone()));
                }
                // Told, or the other end is gone: both mean the end.
                let _ = stopped.await;
            });
            // Whatever still runs is dropped with the runtime.
        };
        let thread = std::thread::Builder::new().name("apiserver".to_owned()).spawn(serve)?;
        let server = Self { shared, authority, address, runtime: handle, stop: Some(stop), thread: Some(thread) };
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            server.objects().create(object).map_err(io::Error::other)?;
        }
        Ok(server)
    }

    /// Serves another listener, as long as what is returned lives.
    ///
    /// # Errors
    ///
    /// If the system has no more descriptors.
    pub fn listen(&self, listener: TcpListener) -> io::Result<Listening> {
        let _within = self.runtime.enter();
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut accepting = JoinSet::new();
        accepting.spawn_on(accept(listener, self.shared.clone(), self.authority.clone()), &self.runtime);
        Ok(Listening { _accepting: accepting })
    }

    /// Where the first listener is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS:PORT` of the first listener, or `https://`.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// A kubeconfig for [`ApiServer::url`], for an admin.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_for(&self.url())
    }

    /// A kubeconfig for a server that is known under another name: `http://api.lab:6443`. It is an admin's.
    pub fn kubeconfig_for(&self, url: &str) -> String {
        match self.shared.options.authorization {
            Authorization::AlwaysAllow => self.kubeconfig_as(url, &Credentials::Nothing),
            Authorization::Rbac => self.kubeconfig_as(url, &Credentials::Token(self.token(User::admin()))),
        }
    }

    /// A kubeconfig for somebody.
    pub fn kubeconfig_as(&self, url: &str, credentials: &Credentials) -> String {
        kubeconfig::text(url, self.authority_data(), credentials)
    }

    /// Whose certificates the server shows: its own authority's; nobody's without TLS.
    pub fn authority(&self) -> Option<CertificateDer<'static>> {
        self.authority.as_ref().map(|authority| authority.certificate())
    }

    /// The same as `certificate-authority-data` of a kubeconfig.
    pub fn authority_data(&self) -> Option<String> {
        self.authority.as_ref().map(|authority| kubeconfig::data(&authority.pem()))
    }

    /// A bearer token of a user, until it is revoked.
    pub fn token(&self, user: User) -> String {
        self.shared.users.hand_out(user)
    }

    /// Nobody is known by this token any more.
    pub fn revoke(&self, token: &str) {
        self.shared.users.revoke(token);
    }

    /// A certificate of a user that ends after so long, or `Err`: ended so long ago.
    ///
    /// # Errors
    ///
    /// If the server is one without TLS, or the certificate cannot be made.
    pub fn client_certificate(&self, user: User, ends: Result<Duration, Duration>) -> io::Result<ClientCertificate> {
        let authority = self.authority.as_ref().ok_or_else(|| io::Error::other("it serves no TLS"))?;
        let (certificate, octets) = authority.issue(&user, ends)?;
        self.shared.users.certified(octets, user);
        Ok(certificate)
    }

    /// The objects, without HTTP.
    pub fn objects(&self) -> Objects {
        Objects::new(self.shared.clone())
    }

    /// What can go wrong.
    pub fn faults(&self) -> Faults {
        Faults::new(self.shared.clone())
    }

    /// What was asked over HTTP, in the order of the answers.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.all()
    }

    /// Counting begins again.
    pub fn forget_requests(&self) {
        self.shared.requests.forget();
    }

    /// How many requests fit.
    pub fn count(&self, fits: impl Fn(&Request) -> bool) -> usize {
        self.shared.requests.all().iter().filter(|request| fits(request)).count()
    }

    /// Looks at the requests after each answer, until it finds what it looks for or the time is over.
    pub fn wait_for<T>(&self, limit: Duration, look: impl FnMut(&[Request]) -> Option<T>) -> Option<T> {
        self.shared.requests.wait_for(limit, look)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The thread may be gone already if it panicked; then there is nobody to tell, and nothing left to wait for.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Dropped, it drops its connections, too.
async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>, authority: Option<Arc<Authority>>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connect(stream, shared.clone(), authority.clone()));
                // Those that have ended are forgotten.
                while connections.try_join_next().is_some() {}
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                // Out of descriptors, most likely: others must end first.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connect(stream: TcpStream, shared: Arc<Shared>, authority: Option<Arc<Authority>>) {
    let mut faults = shared.faults.watch();
    let (reach, cuts) = {
        let state = faults.borrow_and_update();
        (state.reach, state.cuts)
    };
    if reach == Reach::Down {
        // Closed with data unread it is reset; either way the client is told at once.
        return;
    }
    // An answer goes out when it is complete; there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let served = async {
        let Some(authority) = authority else { return serve(stream, shared, None).await };
        let handshake = TlsAcceptor::from(authority.config.clone()).accept(stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let shown = shown.map(|certificate| (authority, certificate.clone().into_owned()));
                serve(stream, shared, shown).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "no handshake"),
            Err(_) => tracing::debug!("no handshake in time"),
        }
    };
    tokio::select! {
        () = served => {}
        _ = faults.wait_for(|state| state.cuts != cuts) => {}
    }
}

/// Requests of one connection, whose client has shown a certificate or has not.
async fn serve<S>(stream: S, shared: Arc<Shared>, shown: Option<(Arc<Authority>, CertificateDer<'static>)>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let good = shown.as_ref().filter(|(authority, certificate)| authority.accepts(certificate));
        let user = good.and_then(|(_, certificate)| shared.users.of_certificate(certificate));
        let shared = shared.clone();
        async move { Answered::Ok(handle(shared, user, request).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
}
