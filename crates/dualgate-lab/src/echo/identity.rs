//! Who an echo backend says it is.

use std::net::IpAddr;

use serde::{Serialize, Serializer};

/// Who answers. What is not known is left out of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The pod.
    pub pod: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// An Ingress that leads here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// The Services that it is an endpoint of; shown as one text.
    #[serde(rename = "service", serialize_with = "joined", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The node that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

impl Identity {
    /// A pod of which nothing else is known.
    pub fn new(pod: impl Into<String>) -> Self {
        Self { pod: pod.into(), ..Self::default() }
    }

    /// As the environment says (`NAMESPACE`, `INGRESS_NAME`, `SERVICE_NAME`, `POD_NAME`); without it the pod is `name`.
    pub fn from_environment(name: &str) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            pod: variable("POD_NAME").unwrap_or_else(|| name.to_owned()),
            namespace: variable("NAMESPACE"),
            ingress: variable("INGRESS_NAME"),
            services: variable("SERVICE_NAME").into_iter().collect(),
            ..Self::default()
        }
    }
}

fn joined<S: Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&names.join(", "))
}
