//! Which Service of type LoadBalancer has which addresses.
//!
//! Made by `plan::ipam`, kept by the holder, and an input of the next plan: that is why addresses stay.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::names::ObjectName;

/// The addresses of every Service that has some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Assignments(pub BTreeMap<Named, Vec<IpAddr>>);

impl Assignments {
    /// The addresses of a Service, in the order of its `ipFamilies`; empty if it has none.
    pub fn of(&self, service: &ObjectName) -> &[IpAddr] {
        self.0.get(&Named(service.clone())).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every Service with its addresses, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &[IpAddr])> {
        self.0.iter().map(|(name, addresses)| (&name.0, addresses.as_slice()))
    }
}

impl FromIterator<(ObjectName, Vec<IpAddr>)> for Assignments {
    fn from_iter<I: IntoIterator<Item = (ObjectName, Vec<IpAddr>)>>(services: I) -> Self {
        Self(services.into_iter().map(|(name, addresses)| (Named(name), addresses)).collect())
    }
}

/// A namespaced name that is written `namespace/name`, so that it can be a key in JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Named(pub ObjectName);

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) => Ok(Self(ObjectName::new(namespace, name))),
            None => Err(format!("`{text}` is not `namespace/name`")),
        }
    }
}

impl From<Named> for String {
    fn from(named: Named) -> Self {
        named.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_json_by_name_and_come_back() {
        let addresses = ["192.168.178.11", "fda8::11"].map(|text| text.parse().unwrap()).to_vec();
        let assigned = Assignments::from_iter([(ObjectName::new("apps", "grafana"), addresses.clone())]);
        let text = serde_json::to_string(&assigned).unwrap();
        assert_eq!(text, r#"{"apps/grafana":["192.168.178.11","fda8::11"]}"#);
        assert_eq!(serde_json::from_str::<Assignments>(&text).unwrap(), assigned);
        assert_eq!(assigned.of(&ObjectName::new("apps", "grafana")), addresses);
        assert!(serde_json::from_str::<Assignments>(r#"{"grafana":[]}"#).is_err());
    }
}
