//! A home on loopback: a site file, a folder of manifests, a state directory.

use std::net::SocketAddr;

use super::{Directory, Pod, Reservation, reserve_pair};

/// A home with one node that is both gates.
pub struct Home {
    /// `site.yaml`, `manifests/`, `state/`.
    pub directory: Directory,
    /// The internal gate without TLS, over both families.
    pub web: [SocketAddr; 2],
    /// The internal gate with TLS.
    pub websecure: [SocketAddr; 2],
    /// The external gate without TLS.
    pub public: [SocketAddr; 2],
    /// The external gate with TLS.
    pub publicsecure: [SocketAddr; 2],
    /// The admin listener.
    pub admin: [SocketAddr; 2],
    _reserved: Vec<[Reservation; 2]>,
}

impl Home {
    /// Without manifests.
    pub fn new() -> Self {
        let reserved: Vec<_> = (0..5).map(|_| reserve_pair()).collect();
        let at = |index: usize| -> [SocketAddr; 2] { [reserved[index][0].address, reserved[index][1].address] };
        let home = Self {
            directory: Directory::new(),
            web: at(0),
            websecure: at(1),
            public: at(2),
            publicsecure: at(3),
            admin: at(4),
            _reserved: reserved,
        };
        std::fs::create_dir(home.directory.join("manifests")).unwrap();
        home.write_site("");
        home
    }

    /// The site file; `more` is added at its end.
    pub fn site(&self, more: &str) -> String {
        let port = |of: &[SocketAddr; 2]| of[0].port();
        format!(
            "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: test
nodes:
- {{name: node, roles: [internal-gate, external-gate, controller], addresses: [127.0.0.1, '::1']}}
gates:
  internal: {{addresses: [127.0.0.1, '::1'], entryPoints: {{web: {}, websecure: {}}}}}
  external: {{addresses: [127.0.0.1, '::1'], entryPoints: {{web: {}, websecure: {}}}}}
admin: {{listen: ['127.0.0.1:{admin}', '[::1]:{admin}']}}
{more}",
            port(&self.web),
            port(&self.websecure),
            port(&self.public),
            port(&self.publicsecure),
            admin = port(&self.admin),
        )
    }

    /// Writes the site file.
    pub fn write_site(&self, more: &str) {
        self.directory.write("site.yaml", &self.site(more));
    }

    /// Writes a manifest.
    pub fn manifest(&self, name: &str, text: &str) {
        self.directory.write(&format!("manifests/{name}.yaml"), text);
    }

    /// Removes a manifest.
    pub fn remove(&self, name: &str) {
        self.directory.remove(&format!("manifests/{name}.yaml"));
    }
}

/// A Service with these pods and an Ingress for `NAME.example.org`, at the internal gate.
pub fn application(name: &str, pods: &[&Pod]) -> String {
    gated(name, pods, "internal", "")
}

/// The same at other gates, with more in the Ingress's `spec`.
pub fn gated(name: &str, pods: &[&Pod], gates: &str, spec: &str) -> String {
    let endpoints = pods.iter().map(|pod| pod.endpoint()).collect::<Vec<_>>().join(",");
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default, annotations: {{dualgate.dev/endpoints: '{endpoints}'}}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: default, annotations: {{dualgate.dev/gates: '{gates}'}}}}
spec:
  rules:
  - host: {name}.example.org
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}]}}
{spec}"
    )
}
