//! How to reach the API server: from inside a pod, or as `kubectl` does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection that was silent so long is asked for a sign of life, again after [`KEEPALIVE_INTERVAL`], [`KEEPALIVES`]
/// times in all: so a watch ends soon when the machine at its other end loses power, and its next one finds another server.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// See [`KEEPALIVE`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE`].
const KEEPALIVES: u32 = 3;

/// How much of an answer a connection keeps at most before it is read, and so for as long as it lives, as there is one for
/// each kind that is watched. A list comes no faster with more.
const BUFFER: usize = 16 << 10;

/// Which API server, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file; `None` is `KUBECONFIG`, else the pod's service account, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; `None` is its current one.
    pub context: Option<String>,
}

/// An API server that can be asked.
#[derive(Clone)]
pub struct Api {
    /// Asks it.
    pub client: Client,
    /// Its URL.
    pub server: String,
    /// How it is known.
    pub(crate) trust: Trust,
}

/// How a server is known.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// The certificates of its authorities, PEM; `None` is the system's.
    pub(crate) authorities: Option<String>,
    /// By which name, where that is not the one in its URL.
    pub(crate) server_name: Option<String>,
    /// Whether nobody looks.
    pub(crate) is_blind: bool,
}

impl Trust {
    fn of(config: &Config) -> Self {
        let authorities = config.root_cert.as_ref().map(|list| list.iter().map(|der| pem(der)).collect());
        Self { authorities, server_name: config.tls_server_name.clone(), is_blind: config.accept_invalid_certs }
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Why there is no client. Nothing was sent yet.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("read the kubeconfig `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing says where the cluster is.
    #[error(
        "nothing says where the cluster is: this is no pod, `KUBECONFIG` is not set, and there is no home directory"
    )]
    Nowhere,
    /// The file does not say what is needed.
    #[error("use {file}: {message}")]
    Wrong {
        /// Which file.
        file: String,
        /// Why.
        message: String,
    },
    /// The file has no such context.
    #[error("{file} has no context `{context}`; {known}")]
    NoSuchContext {
        /// Which file.
        file: String,
        /// What was named.
        context: String,
        /// What it has.
        known: String,
    },
    /// What it says cannot be used: a certificate that is none, for example.
    #[error("use what {file} says: {source}")]
    Unusable {
        /// Which file.
        file: String,
        /// Why.
        source: kube::Error,
    },
}

/// The innermost cause says what a person needs, such as `Connection refused`; in one line.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    one_line(&innermost.to_string())
}

pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

/// A client that sends what it is asked to, and retries nothing.
///
/// # Errors
///
/// If nothing says where the API server is, or what says it cannot be used.
pub async fn client(access: &Access) -> Result<Client, AccessError> {
    Ok(connect(access).await?.client)
}

/// The same, with the server's URL.
///
/// # Errors
///
/// If nothing says where the API server is, or what says it cannot be used.
pub async fn connect(access: &Access) -> Result<Api, AccessError> {
    let (config, file) = config(access).await?;
    let (server, trust) = (config.cluster_url.to_string(), Trust::of(&config));
    let client = build(config).map_err(|source| AccessError::Unusable { file, source })?;
    Ok(Api { client, server, trust })
}

/// kube's own stack repeats requests by itself, logs each failure as an error, and leaves connections without keepalive.
fn build(config: Config) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVES));
    // TLS begins with reading the system's certificates, which a lab and tests do without.
    if config.cluster_url.scheme_str() == Some("http") {
        return stack(config, connector);
    }
    let secure = config.rustls_https_connector_with_connector(connector)?;
    stack(config, secure)
}

fn stack<C>(config: Config, connector: C) -> Result<Client, kube::Error>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    let sender = builder.http1_max_buf_size(BUFFER).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(sender);
    Ok(Client::new(service, config.default_namespace))
}

/// Also what to call its source in messages.
async fn config(access: &Access) -> Result<(Config, String), AccessError> {
    // As kubectl has it: who names a file means it, also in a pod.
    let is_named = std::env::var_os("KUBECONFIG").is_some_and(|named| !named.is_empty());
    if access.kubeconfig.is_none()
        && access.context.is_none()
        && !is_named
        && let Ok(config) = Config::incluster()
    {
        return Ok((config, "the pod's service account".to_owned()));
    }
    let (file, name) = kubeconfig(access.kubeconfig.as_deref())?;
    let context = access.context.as_deref().or(file.current_context.as_deref()).filter(|context| !context.is_empty());
    let known: Vec<&str> = file.contexts.iter().map(|context| context.name.as_str()).collect();
    let wrong = |message: String| AccessError::Wrong { file: name.clone(), message };
    match context {
        None => return Err(wrong(format!("it has no current context; {}", contexts(&known)))),
        Some(context) if !known.contains(&context) => {
            let (context, known) = (context.to_owned(), contexts(&known));
            return Err(AccessError::NoSuchContext { file: name, context, known });
        }
        Some(_) => {}
    }
    if let Some(proxy) = proxy(&file, context.unwrap_or_default()) {
        let message = format!(
            "it leads to the server through `{proxy}` (`proxy-url`), which is not supported; take another way there, such as a \
             port that is forwarded (`ssh -L`)"
        );
        return Err(wrong(message));
    }
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(error.to_string()))?;
    Ok((config, name))
}

fn kubeconfig(path: Option<&Path>) -> Result<(Kubeconfig, String), AccessError> {
    let (read, name) = match path {
        Some(path) => (Kubeconfig::read_from(path), format!("the kubeconfig `{}`", path.display())),
        None => {
            let named = std::env::var("KUBECONFIG").ok().filter(|named| !named.is_empty());
            let name = match named {
                Some(named) => format!("the kubeconfig `{named}` (KUBECONFIG)"),
                None => "the kubeconfig `~/.kube/config`".to_owned(),
            };
            (Kubeconfig::read(), name)
        }
    };
    match read {
        Ok(file) => Ok((file, name)),
        Err(KubeconfigError::ReadConfig(source, path)) => Err(AccessError::Read { path, source }),
        Err(KubeconfigError::FindPath) => Err(AccessError::Nowhere),
        Err(error) => Err(AccessError::Wrong { file: name, message: error.to_string() }),
    }
}

/// `clusters[].cluster.proxy-url` of a context.
fn proxy<'f>(file: &'f Kubeconfig, context: &str) -> Option<&'f str> {
    let context = file.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|named| named.name == context.cluster)?;
    cluster.cluster.as_ref()?.proxy_url.as_deref()
}

fn contexts(known: &[&str]) -> String {
    match known {
        [] => "it has none".to_owned(),
        known => format!("it has `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1
kind: Config
clusters: [{name: home, cluster: {server: 'https://192.0.2.1:6443'}}]
users: [{name: admin, user: {token: secret}}]
contexts: [{name: home, context: {cluster: home, user: admin}}, {name: lost, context: {cluster: away, user: admin}}]
";

    async fn said(name: &str, text: Option<&str>, context: Option<&str>) -> Result<String, String> {
        let path = std::env::temp_dir().join(format!("dualgate-access-{name}-{}", std::process::id()));
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let access = Access { kubeconfig: Some(path.clone()), context: context.map(str::to_owned) };
        let found = connect(&access).await;
        let _ = std::fs::remove_file(&path);
        match found {
            Ok(api) => Ok(api.server),
            Err(error) => Err(error.to_string().replace(&*path.to_string_lossy(), "FILE")),
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_used_is_named_with_what_it_lacks() {
        let current = format!("{FILE}current-context: home\n");
        assert_eq!(said("good", Some(&current), None).await.unwrap(), "https://192.0.2.1:6443/");
        assert_eq!(said("named", Some(FILE), Some("home")).await.unwrap(), "https://192.0.2.1:6443/");
        assert_eq!(said("absent", None, None).await.unwrap_err(), "read the kubeconfig `FILE`");
        let none = "use the kubeconfig `FILE`: it has no current context; it has `home`, `lost`";
        assert_eq!(said("current", Some(FILE), None).await.unwrap_err(), none);
        let other = "the kubeconfig `FILE` has no context `work`; it has `home`, `lost`";
        assert_eq!(said("context", Some(FILE), Some("work")).await.unwrap_err(), other);
        let cluster = said("cluster", Some(FILE), Some("lost")).await.unwrap_err();
        assert!(cluster.contains("`FILE`") && cluster.contains("away"), "{cluster}");
        let proxied = FILE.replace("cluster: {server:", "cluster: {proxy-url: 'socks5://127.0.0.1:1080', server:");
        let refused = said("proxy", Some(&proxied), Some("home")).await.unwrap_err();
        assert!(refused.contains("`socks5://127.0.0.1:1080`") && refused.contains("not supported"), "{refused}");
        assert!(said("yaml", Some("contexts: ["), None).await.unwrap_err().contains("the kubeconfig `FILE`"));
    }
}
