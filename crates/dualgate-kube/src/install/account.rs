//! A kubeconfig for dualgate as a service of a host: with a token of the account that its pods have, so that it may do what
//! they may.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dualgate_core::model::Secret;
use dualgate_core::parse::time;
use dualgate_core::plan::install::{HOME, NAMESPACE};
use dualgate_core::yaml;
use serde_json::json;

use super::InstallError;
use super::api::Api;
use crate::access;

/// A kubeconfig that was made.
#[derive(Debug)]
pub struct Account {
    /// The file.
    pub kubeconfig: Secret,
    /// The server that it names.
    pub server: String,
    /// When its token ends, as the API server said it (RFC 3339).
    pub expires: String,
    /// Whether that is earlier than was asked for.
    pub is_shortened: bool,
}

/// Asks for a token that is good for so long, and says where the server is: at `server`, else where it was asked.
///
/// # Errors
///
/// If dualgate is not installed, or who asks may not have a token of its account.
pub async fn account(api: &access::Api, server: Option<&str>, lasts: Duration) -> Result<Account, InstallError> {
    let failed = |why: String| InstallError::Api { what: format!("make a kubeconfig of {NAMESPACE}/{HOME}"), why };
    let server = server.unwrap_or(&api.server).trim_end_matches('/').to_owned();
    if api.trust.is_blind {
        let why = "the kubeconfig that was asked with does not check the server's certificate (`insecure-skip-tls-verify`), and \
                   a gate has to: write `certificate-authority` into it";
        return Err(failed(why.to_owned()));
    }
    let (token, expires) = Api::new(api.client.clone()).token(NAMESPACE, HOME, lasts).await.map_err(failed)?;
    let mut cluster = json!({"server": server});
    if let Some(authorities) = &api.trust.authorities {
        cluster["certificate-authority-data"] = STANDARD.encode(authorities).into();
    }
    if let Some(name) = &api.trust.server_name {
        cluster["tls-server-name"] = name.as_str().into();
    }
    let file = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "dualgate",
        "clusters": [{"name": "dualgate", "cluster": cluster}],
        "contexts": [{"name": "dualgate", "context": {"cluster": "dualgate", "user": HOME}}],
        "users": [{"name": HOME, "user": {"token": token}}],
    });
    let wanted = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + lasts;
    // Clocks differ.
    let wanted = i64::try_from(wanted.as_secs()).unwrap_or(i64::MAX) - 3600;
    let is_shortened = time::seconds(&expires).is_some_and(|until| until < wanted);
    Ok(Account { kubeconfig: Secret::new(yaml::document(&file).as_bytes()), server, expires, is_shortened })
}
