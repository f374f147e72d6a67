//! How `kubectl` and other clients are told where the server is, and who they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::tls::ClientCertificate;

/// What a client shows to say who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing.
    Nothing,
    /// A bearer token.
    Token(String),
    /// A file with a bearer token, which may become another.
    TokenFile(String),
    /// A certificate.
    Certificate(ClientCertificate),
}

/// A kubeconfig with one context, `dualgate`. It is JSON, which is YAML as well.
pub(crate) fn text(url: &str, authority: Option<String>, credentials: &Credentials) -> String {
    let mut cluster = json!({"server": url});
    if let Some(authority) = authority {
        cluster["certificate-authority-data"] = authority.into();
    }
    let user = match credentials {
        Credentials::Nothing => json!({}),
        Credentials::Token(token) => json!({"token": token}),
        Credentials::TokenFile(file) => json!({"tokenFile": file}),
        Credentials::Certificate(ClientCertificate { certificate, key }) => json!({
            "client-certificate-data": data(certificate), "client-key-data": data(key),
        }),
    };
    let config: Value = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "dualgate",
        "clusters": [{"name": "dualgate", "cluster": cluster}],
        "contexts": [{"name": "dualgate", "context": {"cluster": "dualgate", "user": "anybody"}}],
        "users": [{"name": "anybody", "user": user}],
    });
    format!("{config:#}\n")
}

/// PEM, as a kubeconfig has it.
pub(crate) fn data(pem: &str) -> String {
    STANDARD.encode(pem)
}
