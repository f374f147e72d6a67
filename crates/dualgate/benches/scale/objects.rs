//! A cluster to measure with: applications, each an Ingress, a Service and an EndpointSlice as an API server shows them.

use std::net::SocketAddr;

use serde_json::{Value, json};

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
    /// How often each kind of change is made.
    pub changes: usize,
}

/// One application: what an API server shows of it.
#[derive(Clone, PartialEq)]
pub struct Application {
    /// How it is reached, if it is.
    pub ingress: Option<Value>,
    /// Its Service.
    pub service: Value,
    /// Where its pods are.
    pub slice: Value,
}

/// A kind of change, which is made and taken back.
pub struct Change {
    /// What happens.
    pub name: &'static str,
    /// Makes it.
    pub make: fn(&mut Application),
    /// Which request tells whether it was made, and how it is answered then. Otherwise with 200.
    pub seen: (&'static str, u16),
}

/// The kinds of changes of applications.
pub const CHANGES: [Change; 4] = [
    Change { name: "endpoints go and come", make: |app| app.slice["endpoints"] = json!([]), seen: ("/", 503) },
    Change {
        name: "a path changes",
        make: |app| {
            if let Some(ingress) = &mut app.ingress {
                let nowhere = json!({"service": {"name": "nowhere", "port": {"number": 80}}});
                ingress["spec"]["rules"][0]["http"]["paths"][1]["backend"] = nowhere;
            }
        },
        seen: ("/api", 503),
    },
    Change { name: "an Ingress goes and comes", make: |app| app.ingress = None, seen: ("/", 404) },
    Change {
        name: "a Service changes",
        make: |app| app.service["spec"]["ports"][0]["name"] = "other".into(),
        seen: ("/", 503),
    },
];

/// What a certificate Secret holds.
pub struct KeyPair {
    /// The chain, base64.
    pub chain: String,
    /// The key, base64.
    pub key: String,
    /// The certificate.
    pub der: Vec<u8>,
}

impl Application {
    /// Its objects.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.ingress.iter().chain([&self.service, &self.slice])
    }
}

impl Size {
    /// An application; each of its pods is at `pod`, if one is named.
    pub fn application(&self, number: usize, pod: Option<SocketAddr>) -> Application {
        Application {
            ingress: Some(self.ingress(number)),
            service: self.service(number),
            slice: self.slice(number, pod),
        }
    }

    /// How many endpoints an application has.
    fn pods(&self, number: usize) -> usize {
        (number + 1) * self.endpoints / self.ingresses - number * self.endpoints / self.ingresses
    }

    fn namespace(&self, number: usize) -> String {
        format!("team-{:03}", number % self.certificates)
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
        format!("app{number}.example.org")
    }

    fn ingress(&self, number: usize) -> Value {
        let name = format!("app{number}");
        let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
        let paths: Vec<Value> = ["/".to_owned(), "/api".to_owned()]
            .into_iter()
            .chain((2..).map(|more| format!("/static/{more}")))
            .take(self.paths)
            .map(|path| json!({"path": path, "pathType": "Prefix", "backend": backend}))
            .collect();
        let host = self.host(number);
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": self.metadata(number, &name, json!({"app.kubernetes.io/name": name})),
            "spec": {
                "ingressClassName": "dualgate", "rules": [{"host": host, "http": {"paths": paths}}],
                "tls": [{"hosts": [host], "secretName": "wildcard"}],
            },
        })
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

    fn slice(&self, number: usize, pod: Option<SocketAddr>) -> Value {
        let name = format!("app{number}");
        let endpoints: Vec<Value> = (0..self.pods(number))
            .map(|index| {
                let address = format!("10.42.{}.{}", (number * 2 + index) / 250, (number * 2 + index) % 250 + 1);
                json!({
                    "addresses": [pod.map_or(address, |pod| pod.ip().to_string())],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": format!("home{}", index % 3 + 1),
                    "targetRef": {"kind": "Pod", "namespace": self.namespace(number),
                        "name": format!("{name}-7d4b9c6f5d-{index:05}")},
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
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": pod.map_or(3000, |pod| pod.port()), "protocol": "TCP"}],
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

    /// The namespaces, with the one in which it is settled who writes statuses.
    pub fn namespaces(&self) -> impl Iterator<Item = Value> {
        let names = (0..self.certificates).map(|number| self.namespace(number)).chain(["dualgate-system".to_owned()]);
        names.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    }

    /// The certificates of all namespaces.
    pub fn secrets(&self, pair: &KeyPair) -> impl Iterator<Item = Value> {
        (0..self.certificates).map(|number| self.secret(number, pair))
    }
}

/// The class of all of them.
pub fn class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "dualgate"},
        "spec": {"controller": "dualgate.dev/ingress-controller"},
    })
}
