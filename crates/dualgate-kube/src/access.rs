//! How to reach the API server: from inside a pod, or as `kubectl` does.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which API server, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file; `None` is the pod's service account, else `KUBECONFIG`, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; `None` is its current one.
    pub context: Option<String>,
}

/// Why there is no client. Nothing was sent yet.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read, or does not say what is needed.
    #[error("read the kubeconfig {}", .path.as_ref().map_or("of `KUBECONFIG` or `~/.kube/config`".to_owned(), |path| format!("`{}`", path.display())))]
    Kubeconfig {
        /// The file that was named.
        path: Option<PathBuf>,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// What it says cannot be used: a certificate that is none, for example.
    #[error("use what the kubeconfig says")]
    Unusable(#[source] kube::Error),
}

/// A client that sends what it is asked to, and retries nothing.
///
/// # Errors
///
/// If nothing says where the API server is, or what says it cannot be used.
pub async fn client(access: &Access) -> Result<Client, AccessError> {
    Client::try_from(config(access).await?).map_err(AccessError::Unusable)
}

async fn config(access: &Access) -> Result<Config, AccessError> {
    let unreadable = |source| AccessError::Kubeconfig { path: access.kubeconfig.clone(), source };
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &access.kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(unreadable)?;
        return Config::from_custom_kubeconfig(file, &options).await.map_err(unreadable);
    }
    if access.context.is_none()
        && let Ok(config) = Config::incluster()
    {
        return Ok(config);
    }
    Config::from_kubeconfig(&options).await.map_err(unreadable)
}
