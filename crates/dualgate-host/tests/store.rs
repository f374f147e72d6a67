//! The state directory on a real file system.

mod directory;

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use directory::Directory;
use dualgate_core::model::object::{Body, Object};
use dualgate_core::model::snapshot::Generation;
use dualgate_core::model::{Digest, ObjectSet};
use dualgate_core::parse::file::{assemble, file};
use dualgate_host::store::{KeyFault, KeyProblem, Store, StoreError};

const PASSWORD: &str = "correct horse battery staple";
const KEY: &str = "-----BEGIN PRIVATE KEY----- not a real one";

fn objects() -> ObjectSet {
    let text = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: login}}
stringData: {{password: {PASSWORD:?}, empty: ''}}
---
apiVersion: v1
kind: Secret
metadata: {{name: tls, namespace: apps}}
type: kubernetes.io/tls
stringData: {{tls.crt: a certificate, tls.key: {KEY:?}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: apps, creationTimestamp: '2026-11-22T09:30:00Z', labels: {{a: b}}}}
spec:
  tls: [{{secretName: tls}}]
  rules: [{{host: 10.0.0.1}}, {{host: a.example.org}}]
---
apiVersion: example.org/v1
kind: Chart
metadata: {{name: c}}
spec: {{password: {PASSWORD:?}}}
"
    );
    assemble([&file("a.yaml", &text)].into_iter())
}

fn without_places(set: &ObjectSet) -> Vec<Object> {
    set.objects.iter().map(|object| Object { origin: None, ..(**object).clone() }).collect()
}

fn state(directory: &Directory) -> PathBuf {
    directory.path().join("state")
}

fn keys(directory: &Directory) -> Vec<String> {
    let entries = fs::read_dir(state(directory).join("keys")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn digests(values: &[&str]) -> Vec<String> {
    let mut digests: Vec<_> = values.iter().map(|value| Digest::of(value.as_bytes()).to_string()).collect();
    digests.sort();
    digests
}

#[test]
fn what_was_saved_is_loaded() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    assert!(store.load().unwrap().is_none());
    let set = objects();
    store.save(&set, Generation(7)).unwrap();
    let saved = Store::open(state(&directory)).unwrap().load().unwrap().unwrap();
    assert_eq!((saved.generation, saved.keys), (Generation(7), vec![]));
    assert_eq!(without_places(&saved.objects), without_places(&set));
    let messages: Vec<_> = saved.objects.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "Ingress apps/web spec.rules[0].host: error[object-invalid]: `10.0.0.1` is an IP address; a host name is needed"
        ]
    );
}

#[test]
fn secrets_are_nowhere_but_in_files_that_only_the_owner_reads() {
    let directory = Directory::new();
    Store::open(state(&directory)).unwrap().save(&objects(), Generation(1)).unwrap();
    let text = fs::read_to_string(state(&directory).join("objects.json")).unwrap();
    for secret in [PASSWORD, KEY, "a certificate", "Y29ycmVjdCBob3JzZ"] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(text.contains(&Digest::of(PASSWORD.as_bytes()).to_string()));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&state(&directory)), mode(&state(&directory).join("keys"))), (0o700, 0o700));
    assert_eq!(mode(&state(&directory).join("objects.json")), 0o600);
    assert_eq!(keys(&directory), digests(&["", PASSWORD, "a certificate", KEY]));
    for key in keys(&directory) {
        assert_eq!(mode(&state(&directory).join("keys").join(key)), 0o600);
    }
}

#[test]
fn keys_that_nobody_needs_any_more_are_removed_and_the_others_are_not_written_again() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    let mut set = objects();
    store.save(&set, Generation(1)).unwrap();
    let inode = |value: &str| {
        fs::metadata(state(&directory).join("keys").join(Digest::of(value.as_bytes()).to_string())).unwrap().ino()
    };
    let before = inode(PASSWORD);
    set.objects.retain(|object| &*object.key.name.name != "tls");
    store.save(&set, Generation(2)).unwrap();
    assert_eq!((keys(&directory), inode(PASSWORD)), (digests(&["", PASSWORD]), before));
}

#[test]
fn a_key_that_is_known_only_by_its_digest_is_kept() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    // A set whose values are elsewhere: here.
    let mut set = objects();
    for object in &mut set.objects {
        let mut copy = (**object).clone();
        if let Body::Secret(secret) = &mut copy.body {
            secret.data.clear();
        }
        *object = copy.into();
    }
    store.save(&set, Generation(2)).unwrap();
    let saved = store.load().unwrap().unwrap();
    assert_eq!(without_places(&saved.objects), without_places(&objects()));
}

#[test]
fn keys_are_verified_when_they_are_read_and_healed_when_they_are_saved() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    let path = |value: &str| state(&directory).join("keys").join(Digest::of(value.as_bytes()).to_string());
    fs::write(path(PASSWORD), "another password").unwrap();
    fs::remove_file(path(KEY)).unwrap();
    fs::remove_file(path("a certificate")).unwrap();
    fs::create_dir(path("a certificate")).unwrap();
    let saved = store.load().unwrap().unwrap();
    let problem = |value: &str, fault| KeyProblem { digest: Digest::of(value.as_bytes()), fault };
    assert_eq!(
        saved.keys,
        [
            problem("a certificate", KeyFault::Unreadable),
            problem(KEY, KeyFault::Missing),
            problem(PASSWORD, KeyFault::Altered),
        ]
    );
    assert_eq!(saved.objects.objects.len(), 4, "the Secrets are there, only their values are not");
    for object in &saved.objects.objects {
        if let Body::Secret(secret) = &object.body {
            assert_eq!(secret.data.len(), usize::from(&*object.key.name.name == "login"), "{}", object.key);
            assert_eq!(secret.digests.len(), 2);
        }
    }
    fs::remove_dir(path("a certificate")).unwrap();
    store.save(&objects(), Generation(2)).unwrap();
    let saved = store.load().unwrap().unwrap();
    assert_eq!((saved.generation, saved.keys), (Generation(2), vec![]));
}

#[test]
fn damage_is_told_apart_and_never_fatal() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    let path = state(&directory).join("objects.json");
    let whole = fs::read(&path).unwrap();
    for end in [0, 1, 10, whole.len() / 2, whole.len() - 3] {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Damaged { .. })), "cut at {end}");
    }
    let shown = path.display();
    for (content, message) in [
        ("{}", format!("`{shown}` is damaged: it has no `version`")),
        (
            "[]",
            format!(
                "`{shown}` is damaged: invalid type: sequence, expected the objects that were kept at line 1 column 2"
            ),
        ),
        (r#"{"version": 1}"#, format!("`{shown}` is damaged: it has no `generation`")),
        (r#"{"version": 1, "generation": 1}"#, format!("`{shown}` is damaged: it has no `objects`")),
        (r#"{"version": 2}"#, format!("`{shown}` has the form 2; this version reads 1")),
        (r#"{"version": "x"}"#, format!("`{shown}` has the form \"x\"; this version reads 1")),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(store.load().unwrap_err().to_string(), message);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(store.load().unwrap_err().to_string(), format!("read `{shown}`"));
    fs::remove_dir(&path).unwrap();
    store.save(&objects(), Generation(3)).unwrap();
    assert_eq!(store.load().unwrap().unwrap().generation, Generation(3));
}

#[test]
fn an_object_that_is_damaged_costs_only_itself() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    let path = state(&directory).join("objects.json");
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    document["objects"][1]["metadata"] = 5.into();
    document["objects"][2] = serde_json::Value::Null;
    fs::write(&path, document.to_string()).unwrap();
    let saved = store.load().unwrap().unwrap();
    assert_eq!((saved.objects.objects.len(), saved.objects.findings.len()), (2, 2));
}

#[test]
fn a_process_that_was_killed_in_the_middle_leaves_the_state_of_before() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    let mut before = objects();
    before.objects.retain(|object| &*object.key.name.name != "tls");
    store.save(&before, Generation(1)).unwrap();
    let whole = {
        let other = Directory::new();
        Store::open(state(&other)).unwrap().save(&objects(), Generation(2)).unwrap();
        fs::read(state(&other).join("objects.json")).unwrap()
    };
    let temporary = |name: &str| state(&directory).join(name);
    // Killed while it wrote a key, between the keys and the objects, or while it wrote the objects.
    fs::write(temporary(&format!("keys/.tmp-{}", Digest::of(KEY.as_bytes()))), &KEY[..10]).unwrap();
    fs::write(temporary(&format!("keys/{}", Digest::of(KEY.as_bytes()))), KEY).unwrap();
    fs::write(temporary(".tmp-objects.json"), &whole[..whole.len() / 2]).unwrap();
    let store = Store::open(state(&directory)).unwrap();
    let saved = store.load().unwrap().unwrap();
    assert_eq!((saved.generation, saved.keys), (Generation(1), vec![]));
    assert_eq!(without_places(&saved.objects), without_places(&before));
    let mut left: Vec<_> = fs::read_dir(state(&directory)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["keys", "objects.json"]);
    store.save(&before, Generation(2)).unwrap();
    assert_eq!(keys(&directory), digests(&[PASSWORD, ""]), "the key without an object is gone, too");
}

#[test]
fn what_cannot_be_written_is_an_error_and_the_state_of_before_stays() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    // Root may write to a read-only directory, but nobody can write a file where a directory stands.
    let temporary = state(&directory).join(".tmp-objects.json");
    fs::create_dir(&temporary).unwrap();
    let error = store.save(&objects(), Generation(2)).unwrap_err();
    assert_eq!(error.to_string(), format!("write `{}`", state(&directory).join("objects.json").display()));
    assert_eq!(store.load().unwrap().unwrap().generation, Generation(1));
    fs::remove_dir(&temporary).unwrap();
    fs::set_permissions(state(&directory), Permissions::from_mode(0o500)).unwrap();
    let saved = store.save(&objects(), Generation(3));
    let expected = if rustix::process::geteuid().is_root() { 3 } else { 1 };
    assert_eq!(saved.is_ok(), expected == 3);
    assert_eq!(store.load().unwrap().unwrap().generation, Generation(expected));
    fs::set_permissions(state(&directory), Permissions::from_mode(0o700)).unwrap();
}

/// Runs itself again on a disk of 64 KiB.
#[test]
fn a_full_disk_is_an_error_and_the_state_of_before_stays() {
    if let Some(disk) = std::env::var_os("DUALGATE_TEST_SMALL_DISK") {
        return fill_the_disk(Path::new(&disk));
    }
    let directory = Directory::new();
    let script = r#"mount -t tmpfs -o size=64k,mode=700 none "$DUALGATE_TEST_SMALL_DISK" || exit 77
        exec "$0" --exact a_full_disk_is_an_error_and_the_state_of_before_stays"#;
    let outcome = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("DUALGATE_TEST_SMALL_DISK", directory.path())
        .status();
    match outcome.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(101)) => panic!("failed on the small disk"),
        other => println!("SKIPPED: a small disk cannot be mounted here: {other:?}"),
    }
}

fn fill_the_disk(disk: &Path) {
    let store = Store::open(disk.join("state")).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    let large = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: {:?}}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData: {{a: small}}\n",
        "x".repeat(100 << 10)
    );
    let error = store.save(&assemble([&file("a.yaml", &large)].into_iter()), Generation(2)).unwrap_err();
    assert!(matches!(&error, StoreError::Write { source, .. } if source.kind() == ErrorKind::StorageFull), "{error:?}");
    let saved = store.load().unwrap().unwrap();
    assert_eq!((saved.generation, saved.keys), (Generation(1), vec![]));
    assert!(!disk.join("state/.tmp-objects.json").exists());
    store.save(&objects(), Generation(3)).unwrap();
    assert_eq!(store.load().unwrap().unwrap().generation, Generation(3));
}

#[test]
fn two_processes_do_not_write_at_the_same_moment() {
    let directory = Directory::new();
    let store = Store::open(state(&directory)).unwrap();
    store.save(&objects(), Generation(1)).unwrap();
    let other = fs::File::open(state(&directory)).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    directory.write("state/.tmp-objects.json", "the other's");
    let error = Store::open(state(&directory)).unwrap().save(&objects(), Generation(2)).unwrap_err();
    assert_eq!(error.to_string(), format!("write `{}`", state(&directory).display()));
    assert!(state(&directory).join(".tmp-objects.json").exists(), "what the other writes is left alone");
    assert_eq!(store.load().unwrap().unwrap().generation, Generation(1));
    drop(other);
    store.save(&objects(), Generation(2)).unwrap();
    assert_eq!(store.load().unwrap().unwrap().generation, Generation(2));
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let directory = Directory::new();
    for mode in [0o755, 0o750, 0o707, 0o701] {
        fs::create_dir_all(state(&directory)).unwrap();
        fs::set_permissions(state(&directory), Permissions::from_mode(mode)).unwrap();
        let error = Store::open(state(&directory)).unwrap_err();
        let path = state(&directory).display().to_string();
        assert!(matches!(error, StoreError::Exposed { .. }), "{mode:o}");
        assert!(error.to_string().starts_with(&format!("state directory `{path}` has the mode {mode:04o}")), "{error}");
    }
    fs::set_permissions(state(&directory), Permissions::from_mode(0o700)).unwrap();
    Store::open(state(&directory)).unwrap();
    fs::set_permissions(state(&directory).join("keys"), Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Store::open(state(&directory)), Err(StoreError::Exposed { .. })));
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = Directory::new();
    directory.write("file", "");
    let path = directory.path().join("file/state");
    assert_eq!(Store::open(&path).unwrap_err().to_string(), format!("open state directory `{}`", path.display()));
}
