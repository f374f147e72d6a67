//! `dualgate check`, on the examples and on mistakes.

use crate::support::{Folder, dualgate};

const SITE: &str = "\
apiVersion: dualgate.dev/v1alpha1
kind: Site
name: test
nodes:
  - name: one
    roles: [internal-gate, external-gate, controller]
    addresses: [127.0.0.1, '::1']
gates:
  internal: {addresses: [127.0.0.1, '::1'], entryPoints: {web: 8080}}
  external: {addresses: [127.0.0.1, '::1'], entryPoints: {web: 9080}}
";

const CLASS: &str = "\
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: dualgate
spec:
  controller: dualgate.dev/ingress-controller
";

const INGRESS: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: apps
  annotations:
    dualgate.dev/gates: external
spec:
  ingressClassName: dualgate
  rules:
  - host: web.example.org
    http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: gone
            port:
              number: 80
";

fn broken() -> Folder {
    Folder::with(&[("site.yaml", SITE), ("manifests/class.yaml", CLASS), ("manifests/web.yaml", INGRESS)])
}

#[test]
fn the_examples_have_no_mistakes() {
    let laptop = dualgate(&["check", "--site", "examples/laptop/site.yaml"]);
    let clean = "no mistakes found in examples/laptop/site.yaml and 3 manifests (1 note: --notes prints it)\n";
    assert_eq!((laptop.code, &*laptop.out, &*laptop.err), (0, clean, ""));
    let named =
        ["check", "--site", "examples/laptop/site.yaml", "--source", "folder:examples/laptop/manifests", "-o", "json"];
    let named = dualgate(&named);
    assert_eq!((named.code, named.json()), (0, serde_json::json!([])));
    let home =
        dualgate(&["check", "--site", "examples/home/site.yaml", "--source", "folder:examples/laptop/manifests"]);
    assert_eq!(home.code, 0, "{}", home.out);
    assert!(home.out.starts_with("no mistakes found in examples/home/site.yaml and 3 manifests ("), "{}", home.out);
}

#[test]
fn notes_are_printed_when_they_are_asked_for() {
    let notes = dualgate(&["check", "--site", "examples/laptop/site.yaml", "--notes"]);
    assert_eq!(notes.code, 0);
    let expected = "\
note[ingress-exposed]: `traefik.ingress.kubernetes.io/router.entrypoints` makes it public (external: web, websecure)
  --> examples/laptop/manifests/grafana.yaml:50:5
   |
50 |     traefik.ingress.kubernetes.io/router.entrypoints: web,websecure
   |     ^
   = object: Ingress apps/grafana metadata.annotations[traefik.ingress.kubernetes.io/router.entrypoints]
";
    assert!(notes.out.starts_with(expected), "{}", notes.out);
    let last = notes.out.lines().last();
    assert_eq!(last, Some("no mistakes found, 1 note in examples/laptop/site.yaml and 3 manifests"));
}

#[test]
fn a_mistake_is_shown_where_it_is() {
    let outcome = broken().dualgate(&["check"]);
    assert_eq!((outcome.code, &*outcome.err), (1, ""));
    let expected = "\
error[ingress-unknown-service]: there is no Service `gone` in namespace `apps`; requests get 503
  --> manifests/web.yaml:18:13
   |
18 |             name: gone
   |             ^
   = object: Ingress apps/web spec.rules[0].http.paths[0].backend.service.name
   = help: Services there: none

1 error in site.yaml and 2 manifests (1 note: --notes prints it)
";
    assert_eq!(outcome.out, expected);
}

#[test]
fn programs_get_the_same_as_json() {
    let folder = broken();
    let outcome = folder.dualgate(&["check", "--output", "json"]);
    assert_eq!(outcome.code, 1);
    let findings = outcome.json();
    assert_eq!(findings.as_array().map(Vec::len), Some(1), "{findings}");
    assert_eq!(findings[0]["code"], "ingress-unknown-service");
    assert_eq!(findings[0]["severity"], "error");
    let at = &findings[0]["at"];
    assert_eq!((&at["file"], &at["line"]), (&"manifests/web.yaml".into(), &18.into()), "{at}");
    assert_eq!(at["object"], "Ingress apps/web");
    let with_notes = folder.dualgate(&["check", "--output", "json", "--notes"]).json();
    assert_eq!(with_notes.as_array().map(Vec::len), Some(2), "{with_notes}");
}

#[test]
fn mistakes_of_several_files_come_in_the_order_of_files_and_lines() {
    let site = SITE.replace("gates:\n", "gatez: {}\ngates:\n") + "polls: []\n";
    let class = CLASS.replace("spec:", "extra: 1\nspec:");
    let folder = Folder::with(&[("site.yaml", &site), ("manifests/a.yaml", "- x: [\n"), ("manifests/b.yaml", &class)]);
    let outcome = folder.dualgate(&["check"]);
    assert_eq!(outcome.code, 1);
    let places = outcome.out.lines().filter_map(|line| line.trim_start().strip_prefix("--> "));
    let places: Vec<&str> = places.map(|place| place.rsplit_once(':').map_or(place, |(line, _)| line)).collect();
    assert_eq!(places, ["manifests/a.yaml:2", "manifests/b.yaml:5", "site.yaml:8", "site.yaml:12"], "{}", outcome.out);
}

#[test]
fn a_site_file_that_cannot_be_used_is_said_to_be_so() {
    let folder = Folder::with(&[("site.yaml", "kind: Site\n"), ("manifests/class.yaml", CLASS)]);
    let outcome = folder.dualgate(&["check"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("error[site-missing]"), "{}", outcome.out);
    let end = "the site file cannot be used as it is: what the manifests mean to it is not checked\n";
    assert!(outcome.out.ends_with(end), "{}", outcome.out);
}

#[test]
fn what_cannot_be_read_cannot_be_told() {
    let outcome = dualgate(&["check", "--site", "examples/nowhere.yaml"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert!(outcome.err.starts_with("error: read the site file `examples/nowhere.yaml`"), "{}", outcome.err);
    let outcome = dualgate(&["check", "--site", "examples/laptop/site.yaml", "--source", "folder:nowhere"]);
    assert_eq!((outcome.code, &*outcome.out), (2, ""));
    assert!(outcome.err.starts_with("error: open the source folder `nowhere`"), "{}", outcome.err);
}

#[test]
fn without_a_terminal_there_is_no_colour() {
    let folder = broken();
    let outcomes =
        [folder.dualgate(&["check"]), folder.dualgate(&["check", "--site", "nowhere"]), dualgate(&["--help"])];
    for outcome in outcomes {
        assert!(!outcome.out.contains('\u{1b}') && !outcome.err.contains('\u{1b}'), "{outcome:?}");
    }
}

#[test]
fn a_manifest_cannot_send_control_sequences_to_the_terminal() {
    let ingress = INGRESS.replace("dualgate.dev/gates: external", r#"dualgate.dev/gates: "\e[2Jexternal\n""#);
    let folder = Folder::with(&[("site.yaml", SITE), ("manifests/c.yaml", CLASS), ("manifests/web.yaml", &ingress)]);
    let outcome = folder.dualgate(&["check"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("error[annotation-invalid]"), "{}", outcome.out);
    assert!(!outcome.out.contains('\u{1b}'), "{:?}", outcome.out);
}
