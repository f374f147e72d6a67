//! What holds for any text given as the value of an annotation.
//!
//! The first line says which annotation by its number, the rest is the value.

#[allow(dead_code, reason = "its `check` is for the other target")]
#[path = "objects.rs"]
mod objects;

/// Every annotation that is read, and one that is not.
const KEYS: [&str; 10] = [
    "dualgate.dev/gates",
    "dualgate.dev/endpoints",
    "traefik.ingress.kubernetes.io/router.entrypoints",
    "traefik.ingress.kubernetes.io/router.priority",
    "traefik.ingress.kubernetes.io/router.pathmatcher",
    "traefik.ingress.kubernetes.io/router.tls",
    "traefik.ingress.kubernetes.io/router.middlewares",
    "traefik.ingress.kubernetes.io/service.serversscheme",
    "traefik.ingress.kubernetes.io/service.passhostheader",
    "example.org/other",
];

/// Panics if a property does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (number, value) = text.split_once('\n').unwrap_or(("0", text));
    let key = KEYS[number.trim().parse::<usize>().unwrap_or(0) % KEYS.len()];
    let annotations = serde_json::json!({ key: value });
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "apps", "annotations": annotations},
        "spec": {"ports": [{"port": 80}]},
    });
    let ingress = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "apps", "annotations": annotations},
        "spec": {"rules": [{"host": "web.example.org", "http": {"paths": [{
            "path": "/a(b", "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "web", "port": {"number": 80}}},
        }]}}]},
    });
    objects::check_text(&format!("{service}\n---\n{ingress}\n"));
}
