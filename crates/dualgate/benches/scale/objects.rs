//! A cluster to measure with: applications, each an Ingress, a Service and an EndpointSlice as an API server shows them.

use dualgate_core::model::{Object, ObjectKey, ObjectName, ObjectSet};
use dualgate_core::parse::object;
use serde_json::{Value, json};
use std::sync::Arc;

/// How large it is.
#[derive(Clone, Copy)]
pub struct Size {
    /// How many applications.
    pub ingresses: usize,
    /// How many endpoints they have together.
    pub endpoints: usize,
    /// How many paths each Ingress has.
    pub paths: usize,
    /// How many certificates they share.
    pub certificates: usize,
}

/// What a certificate Secret holds.
pub struct KeyPair {
    /// The chain, base64.
    pub chain: String,
    /// The key, base64.
    pub key: String,
}

impl Size {
    /// Every object, sorted by key.
    pub fn objects(&self, certificates: &[KeyPair]) -> ObjectSet {
        let mut values = vec![class()];
        values.extend((0..self.certificates).map(|number| self.secret(number, &certificates[0])));
        values.extend((0..self.ingresses).flat_map(|number| self.application(number)));
        let mut objects: Vec<Arc<Object>> = values.iter().map(parsed).collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        ObjectSet { objects, findings: Vec::new() }
    }

    fn application(&self, number: usize) -> [Value; 3] {
        [self.ingress(number, "api"), self.service(number), self.slice(number, 0)]
    }

    /// How many endpoints an application has.
    fn pods(&self, number: usize) -> usize {
        (number + 1) * self.endpoints / self.ingresses - number * self.endpoints / self.ingresses
    }

    fn namespace(&self, number: usize) -> String {
        format!("team-{:03}", number % self.certificates.max(1))
    }

    fn metadata(&self, number: usize, name: &str, labels: Value) -> Value {
        let uid = format!("{:08x}-3d1c-4d8e-9a55-{:012x}", number.wrapping_mul(2_654_435_761) as u32, number);
        json!({
            "name": name, "namespace": self.namespace(number), "uid": uid, "labels": labels,
            "creationTimestamp": format!("2026-{:02}-{:02}T09:30:00Z", number % 12 + 1, number % 28 + 1),
            "resourceVersion": number.to_string(),
        })
    }

    /// The host of an application.
    pub fn host(&self, number: usize) -> String {
        format!("app{number}.{}.example.org", self.namespace(number))
    }

    /// An Ingress whose second path is `/{second}`.
    pub fn ingress(&self, number: usize, second: &str) -> Value {
        let name = format!("app{number}");
        let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
        let paths: Vec<Value> = ["/".to_owned(), format!("/{second}")]
            .into_iter()
            .chain((2..).map(|more| format!("/static/{more}")))
            .take(self.paths)
            .map(|path| json!({"path": path, "pathType": "Prefix", "backend": backend}))
            .collect();
        let host = self.host(number);
        let mut value = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": self.metadata(number, &name, json!({"app.kubernetes.io/name": name})),
            "spec": {"ingressClassName": "dualgate", "rules": [{"host": host, "http": {"paths": paths}}]},
        });
        if self.certificates > 0 {
            value["spec"]["tls"] = json!([{"hosts": [host], "secretName": "wildcard"}]);
        }
        value
    }

    fn service(&self, number: usize) -> Value {
        let name = format!("app{number}");
        let ip = format!("10.43.{}.{}", number / 250, number % 250 + 1);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": self.metadata(number, &name, json!({"app.kubernetes.io/name": name})),
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "selector": {"app.kubernetes.io/name": name},
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 3000}],
            },
            "status": {"loadBalancer": {}},
        })
    }

    /// Its endpoints without the last `gone`.
    pub fn slice(&self, number: usize, gone: usize) -> Value {
        let name = format!("app{number}");
        let pods = self.pods(number);
        let endpoints: Vec<Value> = (0..pods.saturating_sub(gone))
            .map(|pod| {
                json!({
                    "addresses": [format!("10.42.{}.{}", (number * 2 + pod) / 250, (number * 2 + pod) % 250 + 1)],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": format!("home{}", pod % 3 + 1),
                    "targetRef": {"kind": "Pod", "namespace": self.namespace(number),
                        "name": format!("{name}-7d4b9c6f5d-{pod:05}")},
                })
            })
            .collect();
        let labels = json!({
            "app.kubernetes.io/name": name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": name,
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": self.metadata(number, &format!("{name}-xk2p9"), labels),
            "addressType": "IPv4", "ports": [{"name": "http", "port": 3000, "protocol": "TCP"}], "endpoints": endpoints,
        })
    }

    /// The certificate of a namespace.
    pub fn secret(&self, number: usize, pair: &KeyPair) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": self.metadata(number, "wildcard", json!({})),
            "data": {"tls.crt": pair.chain, "tls.key": pair.key},
        })
    }

    /// The key of an application's Ingress.
    pub fn ingress_key(&self, number: usize) -> ObjectKey {
        ObjectKey { kind: "Ingress".into(), name: ObjectName::new(self.namespace(number), format!("app{number}")) }
    }
}

fn class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "dualgate"},
        "spec": {"controller": "dualgate.dev/ingress-controller"},
    })
}

/// As a source parses what an API server says.
pub fn parsed(value: &Value) -> Arc<Object> {
    let mut parsed = object::object(value, None);
    assert!(parsed.objects.len() == 1 && parsed.findings.is_empty(), "{:?} in {value}", parsed.findings);
    Arc::new(parsed.objects.remove(0))
}
