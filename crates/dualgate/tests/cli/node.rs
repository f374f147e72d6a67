//! `dualgate status` and `dualgate plan`, against a node that runs, and against none.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Instant;

use crate::support::{Folder, Outcome, PATIENCE, Running, free_port};

const APPLICATION: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: apps
  annotations: {dualgate.dev/endpoints: '127.0.0.1:1'}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: apps, annotations: {dualgate.dev/gates: GATES}}
spec:
  rules:
  - host: web.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

struct Node {
    folder: Folder,
    admin: String,
    internal: u16,
    external: u16,
}

impl Node {
    /// A site of one node on free ports; `home` holds an application for home, `public` the same for both gates.
    fn new() -> Self {
        let (internal, external, admin) = (free_port(), free_port(), free_port());
        let site = format!(
            "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: test\n\
             nodes: [{{name: one, roles: [internal-gate, external-gate, controller], addresses: [127.0.0.1]}}]\n\
             gates:\n  internal: {{addresses: [127.0.0.1], entryPoints: {{web: {internal}}}}}\n  \
             external: {{addresses: [127.0.0.1], entryPoints: {{web: {external}}}}}\n\
             admin: {{listen: ['127.0.0.1:{admin}']}}\n"
        );
        let folder = Folder::with(&[
            ("site.yaml", &site),
            ("home/web.yaml", &APPLICATION.replace("GATES", "internal")),
            ("public/web.yaml", &APPLICATION.replace("GATES", "'internal,external'")),
        ]);
        Self { folder, admin: format!("127.0.0.1:{admin}"), internal, external }
    }

    fn run(&self) -> Running {
        let args = ["run", "--source", "folder:home", "--state", "state", "--workers", "1"];
        let running = Running::start(self.folder.path(), &args);
        let deadline = Instant::now() + PATIENCE;
        running.line_with("listen on");
        while self.status().code != 0 {
            assert!(Instant::now() < deadline, "{:?}", self.status());
        }
        running
    }

    fn status(&self) -> Outcome {
        self.folder.dualgate(&["status", "--admin", &self.admin])
    }

    fn plan(&self, source: &str, further: &[&str]) -> Outcome {
        self.folder.dualgate(&[&["plan", "--source", source], further].concat())
    }

    fn routes(&self) -> [String; 2] {
        ["internal/web", "external/web,internal/web"]
            .map(|places| format!("route web.example.org Prefix / at {places} -> apps/web:80 (Ingress apps/web)"))
    }
}

#[test]
fn a_running_node_is_shown_and_compared() {
    let node = Node::new();
    let _running = node.run();
    let status = node.status();
    assert!(status.out.starts_with("one of site test: serving, ready\n  snapshot "), "{}", status.out);
    let Node { internal, external, .. } = &node;
    let page = format!(
        "
listens on
  127.0.0.1:{external} for external/web (http)
  127.0.0.1:{internal} for internal/web (http)

routes
  web.example.org Prefix / at internal/web -> apps/web:80 (Ingress apps/web)

backends
  apps/web:80 http: 127.0.0.1:1
"
    );
    // Port numbers are sorted as text.
    let listens = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut lines = status.out.lines().skip(2);
    assert_eq!(lines.next(), Some("  source: folder home"), "{}", status.out);
    let rest: Vec<&str> = lines.collect();
    assert_eq!(listens(&rest.join("\n")), listens(&page));

    let same = node.plan("folder:home", &[]);
    assert_eq!((same.code, &*same.out, &*same.err), (0, "one serves this already\n", ""));

    let differs = node.plan("folder:public", &[]);
    let [home, public] = node.routes();
    let expected = format!(
        "- {home}\n+ {public}\n\nFrom then on reachable from the Internet:\n! {public}\n\none: 1 to add, 1 to remove\n"
    );
    assert_eq!((differs.code, &*differs.out, &*differs.err), (1, &*expected, ""));

    let json = node.plan("folder:public", &["--output", "json"]);
    let changes = json.json();
    assert_eq!(json.code, 1);
    assert_eq!((&changes["add"], &changes["public"]), (&serde_json::json!([public]), &serde_json::json!([public])));
    assert_eq!((&changes["remove"], &changes["node"]), (&serde_json::json!([home]), &"one".into()));
    assert!(changes["generation"].is_u64(), "{changes}");

    let report = node.folder.dualgate(&["status", "--admin", &node.admin, "-o", "json"]).json();
    assert_eq!((&report["ready"], &report["node"]), (&true.into(), &"one".into()), "{report}");
}

#[test]
fn a_node_that_does_not_answer_cannot_be_told() {
    let node = Node::new();
    let status = node.status();
    assert_eq!((status.code, &*status.out), (2, ""));
    let expected = format!("error: the node at {} does not answer: Connection refused", node.admin);
    assert!(status.err.starts_with(&expected), "{}", status.err);
    assert!(status.err.contains("`admin.listen`") && status.err.contains("--admin"), "{}", status.err);

    let plan = node.plan("folder:public", &[]);
    assert_eq!(plan.code, 2);
    let [_, public] = node.routes();
    assert!(plan.out.contains(&format!("+ {public}\n")), "{}", plan.out);
    assert!(plan.out.ends_with("\none could not be asked: this is its whole plan\n"), "{}", plan.out);
    assert!(plan.err.starts_with(&expected), "{}", plan.err);
}

#[test]
fn another_node_is_not_taken_for_the_one_that_is_meant() {
    let node = Node::new();
    let _running = node.run();
    let site = std::fs::read_to_string(node.folder.path().join("site.yaml")).unwrap().replace("name: one", "name: two");
    std::fs::write(node.folder.path().join("other.yaml"), site).unwrap();
    let plan = node.plan("folder:home", &["--site", "other.yaml"]);
    assert_eq!(plan.code, 2);
    assert!(plan.err.contains("is `one`, not `two`"), "{}", plan.err);
}

#[test]
fn what_is_no_node_is_not_taken_for_one() {
    for (answer, expected) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "says `HTTP/1.1 404 Not Found` to GET /status"),
        ("220 mail.example.org ESMTP\r\n", "is no node"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", "read the status from"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let outcome = crate::support::dualgate(&["status", "--admin", &admin]);
        assert!(server.join().unwrap().starts_with("GET /status HTTP/1.0\r\n"));
        assert_eq!((outcome.code, &*outcome.out), (2, ""));
        assert!(outcome.err.contains(expected), "{}", outcome.err);
    }
}
