//! Files for other programs: what is printed, what is written, and what is not.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use dualgate_apiserver::{ApiServer, Authorization, Credentials, Options, User};

use crate::support::{Folder, dualgate, root};

const SITE: &str = "examples/home/site.yaml";

#[test]
fn a_node_of_the_example_gets_its_file_on_standard_output_and_the_rest_beside_it() {
    let outcome = dualgate(&["render", "k3s", "--site", SITE, "--node", "k3s-node2"]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(outcome.out.contains("\nserver: https://192.168.178.5:6443\n"), "{}", outcome.out);
    assert!(outcome.out.contains("\nnode-ip: \"192.168.178.6,fda8:a1db:5685::6\"\n"), "{}", outcome.out);
    assert!(outcome.err.contains("note[k3s-token]") && outcome.err.contains("\n1. put the file"), "{}", outcome.err);
    assert!(!outcome.out.contains("note["), "findings are no part of the file");
}

#[test]
fn json_holds_the_values_the_text_the_findings_and_the_steps() {
    let outcome = dualgate(&["render", "k3s", "--site", SITE, "--node", "ionos", "-o", "json"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let json = outcome.json();
    assert_eq!(json["part"], "agent");
    assert_eq!(json["path"], "/etc/rancher/k3s/config.yaml");
    assert_eq!(json["config"]["flannel-iface"], "dualgate");
    assert_eq!(json["config"]["node-ip"], "192.168.178.201,fda8:a1db:5685::201");
    assert_eq!(json["config"]["token-file"], "/etc/rancher/k3s/agent-token");
    let codes: Vec<&str> = json["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(["k3s-edge", "k3s-label", "k3s-mtu", "k3s-token"].iter().all(|code| codes.contains(code)), "{codes:?}");
    assert!(json["text"].as_str().unwrap().contains("node-taint:\n  - dualgate.dev/edge=true:NoSchedule\n"));
    assert!(!json["steps"].as_array().unwrap().is_empty());
}

#[test]
fn a_mistake_that_would_stay_in_the_cluster_is_named_with_its_line_and_nothing_is_written() {
    let site = std::fs::read_to_string(root().join(SITE)).unwrap().replace("  serviceCIDRs:", "  #");
    let folder = Folder::with(&[("site.yaml", &site)]);
    let outcome = folder.dualgate(&["render", "k3s", "--node", "k3s-node1", "--to", "config.yaml"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert!(outcome.err.contains("error[site-missing]: `cluster.serviceCIDRs` is missing"), "{}", outcome.err);
    assert!(
        outcome.err.contains("--> site.yaml:11:1") && outcome.err.contains("add `serviceCIDRs: ["),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("error: nothing is written for `k3s-node1`: 1 error to mend first"),
        "{}",
        outcome.err
    );
    assert!(!folder.path().join("config.yaml").exists());
}

#[test]
fn a_file_that_says_something_else_is_written_over_only_by_force() {
    let site = std::fs::read_to_string(root().join(SITE)).unwrap();
    let folder = Folder::with(&[("site.yaml", &site), ("config.yaml", "mine: true\n")]);
    let file = folder.path().join("config.yaml");
    let args = ["render", "k3s", "--node", "k3s-node1", "--to", "config.yaml"];
    let outcome = folder.dualgate(&args);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("`config.yaml` is there and says something else: --force"), "{}", outcome.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine: true\n");
    let outcome = folder.dualgate(&[&args[..], &["--force"]].concat());
    assert_eq!((outcome.code, &*outcome.out), (0, "wrote config.yaml\n"), "{}", outcome.err);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // What is so already is no reason to stop.
    assert_eq!(folder.dualgate(&args).code, 0);
}

#[test]
fn the_unit_of_an_edge_asks_home_and_one_at_home_reads_manifests() {
    let unit = |node: &str| dualgate(&["render", "unit", "--site", SITE, "--node", node]).out;
    let (edge, home) = (unit("ionos"), unit("k3s-node1"));
    let run = "ExecStart=/usr/local/bin/dualgate run --site /etc/dualgate/site.yaml --node";
    assert!(edge.contains(&format!("\n{run} ionos --source home\n")), "{edge}");
    // Its kubelet needs the tunnel's addresses.
    assert!(edge.contains("\nBefore=k3s-agent.service\n") && !home.contains("Before="), "{edge}");
    assert!(home.contains(&format!("\n{run} k3s-node1 --source folder:/etc/dualgate/manifests\n")), "{home}");
    let of_cluster = dualgate(&["render", "unit", "--site", SITE, "--node", "k3s-node1", "--source", "cluster"]);
    let run = format!("\n{run} k3s-node1 --source cluster --kubeconfig /etc/dualgate/kubeconfig\n");
    assert!(of_cluster.out.contains(&run), "{}", of_cluster.out);
    assert!(
        of_cluster.err.contains("3. end its pod: dualgate install --host-service k3s-node1\n"),
        "{}",
        of_cluster.err
    );
    let of_edge = dualgate(&["render", "unit", "--site", SITE, "--node", "ionos", "--source", "cluster"]);
    assert_eq!((of_edge.code, &*of_edge.out), (2, ""));
    assert!(of_edge.err.contains("`ionos` is an edge, which hears from home what is public"), "{}", of_edge.err);
    // 2 s to arrive, 30 s to end, and some for the rest.
    assert!(home.contains("\nTimeoutStopSec=42\n"), "{home}");
}

/// A cluster that wants to know who asks.
fn guarded() -> ApiServer {
    let options = Options {
        authorization: Authorization::Rbac,
        certificate_for: vec!["127.0.0.1".to_owned()],
        ..Options::default()
    };
    ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], options).unwrap()
}

#[test]
fn a_service_of_a_host_asks_with_the_rights_of_the_pods_that_it_stands_for() {
    let server = guarded();
    let site = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\ngates: {internal: {}}\n\
        nodes: [{name: home, roles: [server, internal-gate], addresses: [192.168.178.5]}]\n";
    let admin = server.kubeconfig();
    let folder = Folder::with(&[("site.yaml", site), ("admin", &admin)]);
    let render = |with: &str, more: &[&str]| {
        folder.dualgate(&[&["render", "kubeconfig", "--kubeconfig", with][..], more].concat())
    };
    let early = render("admin", &[]);
    assert_eq!((early.code, &*early.out), (2, ""));
    assert!(early.err.contains("not found; run `dualgate install` first"), "{}", early.err);

    let installed = folder.dualgate(&["install", "--kubeconfig", "admin", "--host-service", "home", "--yes"]);
    assert_eq!(installed.code, 0, "{}", installed.err);
    assert!(server.objects().get("DaemonSet", "dualgate-system", "dualgate-home").is_none());

    let made = render("admin", &["--to", "kubeconfig", "--duration", "30d"]);
    assert_eq!((made.code, &*made.out), (0, "wrote kubeconfig\n"), "{}", made.err);
    assert!(made.err.starts_with("1. write a new one before the token ends, 2"), "{}", made.err);
    let file = folder.path().join("kubeconfig");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let before = server.requests().len();
    let asked = folder.dualgate(&["exposure", "--source", "cluster", "--kubeconfig", "kubeconfig"]);
    assert_eq!(asked.code, 0, "{}", asked.err);
    let requests = server.requests().split_off(before);
    let account = "system:serviceaccount:dualgate-system:dualgate-home";
    assert!(!requests.is_empty() && requests.iter().all(|request| request.user == account && request.code == 200));

    // Each time it is another token.
    let again = render("admin", &["--to", "kubeconfig"]);
    assert_eq!(again.code, 2);
    assert!(again.err.contains("`kubeconfig` is there and says something else: --force"), "{}", again.err);
    let json =
        render("admin", &["--to", "kubeconfig", "--force", "--server", "https://127.0.0.1:6444", "--output", "json"]);
    let said: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&said["server"], &said["text"]), (&"https://127.0.0.1:6444".into(), &serde_json::Value::Null));
    assert!(std::fs::read_to_string(&file).unwrap().contains("server: https://127.0.0.1:6444\n"));
}

#[test]
fn nobody_but_an_administrator_is_handed_a_token_and_none_goes_to_a_server_that_is_not_known() {
    let server = guarded();
    let nobody = server.kubeconfig_as(&server.url(), &Credentials::Token(server.token(User::new("nobody", &[]))));
    let blind =
        server.kubeconfig().replace("\"certificate-authority-data\"", "\"insecure-skip-tls-verify\": true, \"x\"");
    let folder = Folder::with(&[("nobody", &nobody), ("blind", &blind)]);
    let refused = folder.dualgate(&["render", "kubeconfig", "--kubeconfig", "nobody", "--to", "kubeconfig"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("\"serviceaccounts/token\""), "{}", refused.err);
    assert!(refused.err.contains("; ask as an administrator of the cluster (--kubeconfig)"), "{}", refused.err);
    let asked = server.requests().len();
    let blind = folder.dualgate(&["render", "kubeconfig", "--kubeconfig", "blind", "--to", "kubeconfig"]);
    assert_eq!(blind.code, 2);
    assert!(blind.err.contains("does not check the server's certificate"), "{}", blind.err);
    assert!(server.requests().len() == asked && !folder.path().join("kubeconfig").exists());
}
