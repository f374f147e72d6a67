//! A folder as a source, on a real file system.

mod directory;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use directory::Directory;
use dualgate_core::model::{Code, Object, ObjectSet};
use dualgate_core::seam::Source;
use dualgate_host::folder::{FolderSource, MAX_FILE_SIZE, Watching};
use tokio::time::timeout;

/// The name and the value of a ConfigMap stand for an object and what it says.
fn map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: {value:?}}}\n---\n")
}

fn shown(set: &ObjectSet) -> Vec<String> {
    let value = |object: &Object| {
        dualgate_core::parse::object::dump(object)["data"]["value"].as_str().unwrap_or_default().to_owned()
    };
    set.objects.iter().map(|object| format!("{}={}", object.key.name.name, value(object))).collect()
}

fn codes(set: &ObjectSet) -> Vec<Code> {
    set.findings.iter().map(|finding| finding.code).collect()
}

async fn next(source: &mut FolderSource) -> Arc<ObjectSet> {
    timeout(Duration::from_secs(20), source.next()).await.expect("a set in time").expect("a set")
}

/// The sets until one shows this, in order.
async fn until(source: &mut FolderSource, wanted: &[&str]) -> Vec<Arc<ObjectSet>> {
    let mut sets = Vec::new();
    for _ in 0..100 {
        sets.push(next(source).await);
        if shown(&sets[sets.len() - 1]) == wanted {
            return sets;
        }
    }
    panic!("never {wanted:?}, but {:?}", sets.iter().map(|set| shown(set)).collect::<Vec<_>>());
}

#[tokio::test]
async fn manifests_are_read_at_any_depth_and_other_files_are_not() {
    let folder = Directory::new();
    folder.write("b.yml", &map("b", "1"));
    folder.write("deep/er/a.yaml", &map("a", "1"));
    folder.write("c.json", r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}"#);
    for other in [".hidden.yaml", ".git/x.yaml", "notes.txt", "a.yaml~", "yaml"] {
        folder.write(other, &map("other", "1"));
    }
    let mut source = FolderSource::new(folder.path()).unwrap();
    let set = next(&mut source).await;
    assert_eq!(shown(&set), ["a=1", "b=1", "c="]);
    assert_eq!(set.findings, []);
    let file = set.objects[0].origin.as_ref().unwrap().file.clone();
    assert_eq!(*file, *folder.path().join("deep/er/a.yaml").to_string_lossy());
    assert_eq!(source.watching(), Watching::Notified);
}

#[tokio::test]
async fn an_empty_folder_is_an_empty_set() {
    let folder = Directory::new();
    let set = next(&mut FolderSource::new(folder.path()).unwrap()).await;
    assert!(set.objects.is_empty() && set.findings.is_empty());
}

#[tokio::test]
async fn a_change_is_seen_and_what_did_not_change_stays_the_same_value() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    folder.write("b.yaml", &(map("b", "1") + &map("c", "1")));
    let mut source = FolderSource::new(folder.path()).unwrap();
    let first = next(&mut source).await;
    folder.write("b.yaml", &(map("b", "1") + &map("c", "2")));
    let sets = until(&mut source, &["a=1", "b=1", "c=2"]).await;
    let last = &sets[sets.len() - 1];
    assert!(Arc::ptr_eq(&first.objects[0], &last.objects[0]), "another file");
    assert!(Arc::ptr_eq(&first.objects[1], &last.objects[1]), "another object of the same file");
}

#[tokio::test]
async fn folders_come_and_go() {
    let folder = Directory::new();
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    folder.write("one/two/a.yaml", &map("a", "1"));
    until(&mut source, &["a=1"]).await;
    folder.write("one/two/b.yaml", &map("b", "1"));
    until(&mut source, &["a=1", "b=1"]).await;
    fs::rename(folder.path().join("one"), folder.path().join("three")).unwrap();
    until(&mut source, &["a=1", "b=1"]).await;
    folder.write("three/two/b.yaml", &map("b", "2"));
    until(&mut source, &["a=1", "b=2"]).await;
    fs::remove_dir_all(folder.path().join("three")).unwrap();
    until(&mut source, &[]).await;
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_version_and_only_that_file() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    folder.write("b.yaml", &map("b", "1"));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    folder.write("a.yaml", "kind: [");
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into(), "b=1".into()], vec![Code::Syntax, Code::Stale]));
    assert!(set.findings[0].to_string().contains("a.yaml:2:1: error[syntax]"), "{}", set.findings[0]);
    folder.write("b.yaml", &map("b", "2"));
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into(), "b=2".into()], vec![Code::Syntax, Code::Stale]));
    folder.write("a.yaml", &map("a", "3"));
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=3".into(), "b=2".into()], vec![]));
}

#[tokio::test]
async fn of_a_file_that_was_broken_from_the_start_the_readable_part_counts() {
    let folder = Directory::new();
    folder.write("a.yaml", &(map("a", "1") + "kind: ["));
    let set = next(&mut FolderSource::new(folder.path()).unwrap()).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into()], vec![Code::Syntax]));
}

#[tokio::test]
async fn a_refused_object_keeps_its_last_good_version() {
    let folder = Directory::new();
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{type: {port}, ports: [{{port: 80}}]}}\n---\n"
        )
    };
    folder.write("a.yaml", &(service("ClusterIP") + &map("a", "1")));
    let mut source = FolderSource::new(folder.path()).unwrap();
    let first = next(&mut source).await;
    folder.write("a.yaml", &(service("Nonsense") + &map("a", "2")));
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=2".into(), "s=".into()], vec![Code::ObjectInvalid, Code::Stale]));
    assert!(Arc::ptr_eq(&first.objects[1], &set.objects[1]));
    folder.write("a.yaml", &map("a", "2"));
    until(&mut source, &["a=2"]).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_its_last_good_version() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    let large = "#".repeat(usize::try_from(MAX_FILE_SIZE).unwrap() + 1);
    for (content, why) in
        [(large.as_bytes(), "larger than 4 MiB"), (b"a: b\n\xff\n".as_slice(), "not UTF-8 text: see line 2")]
    {
        folder.write_bytes("a.yaml", content);
        let set = next(&mut source).await;
        assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into()], vec![Code::Unreadable, Code::Stale]));
        assert!(set.findings[0].message.contains(why), "{}", set.findings[0]);
    }
    folder.remove("a.yaml");
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("a.yaml"), 0o600.into()).unwrap();
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into()], vec![Code::Unreadable, Code::Stale]));
    assert!(set.findings[0].message.contains("not a regular file"), "{}", set.findings[0]);
    folder.remove("a.yaml");
    until(&mut source, &[]).await;
}

#[tokio::test]
async fn a_file_that_is_being_written_counts_when_it_is_closed() {
    let folder = Directory::new();
    folder.write("a.yaml", &(map("a", "1") + &map("b", "1")));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    let mut file = File::create(folder.path().join("a.yaml")).unwrap();
    file.write_all(map("a", "2").as_bytes()).unwrap();
    // Another file makes the source look; what it finds in the first one is well-formed, but only half.
    folder.write("c.yaml", &map("c", "1"));
    let set = next(&mut source).await;
    assert_eq!(shown(&set), ["a=1", "b=1", "c=1"]);
    file.write_all(map("b", "2").as_bytes()).unwrap();
    drop(file);
    let set = next(&mut source).await;
    assert_eq!(shown(&set), ["a=2", "b=2", "c=1"]);
}

#[tokio::test]
async fn a_file_that_is_never_closed_counts_after_a_while() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    let mut file = File::create(folder.path().join("a.yaml")).unwrap();
    file.write_all(map("a", "2").as_bytes()).unwrap();
    let set = next(&mut source).await;
    assert_eq!(shown(&set), ["a=2"]);
}

#[tokio::test]
async fn saving_by_removing_and_writing_again_loses_nothing_on_the_way() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "0"));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    for round in 1..20 {
        // As `vim` does with `backupcopy=no`, with the source looking at the worst moments.
        fs::rename(folder.path().join("a.yaml"), folder.path().join("a.yaml~")).unwrap();
        folder.write("b.yaml", &map("b", &format!("{round}.1")));
        let set = next(&mut source).await;
        assert_eq!(shown(&set), [format!("a={}", round - 1), format!("b={round}.1")]);
        let mut file = File::create(folder.path().join("a.yaml")).unwrap();
        folder.write("b.yaml", &map("b", &format!("{round}.2")));
        let set = next(&mut source).await;
        assert_eq!(shown(&set), [format!("a={}", round - 1), format!("b={round}.2")]);
        file.write_all(map("a", &round.to_string()).as_bytes()).unwrap();
        drop(file);
        let set = next(&mut source).await;
        assert_eq!(shown(&set), [format!("a={round}"), format!("b={round}.2")]);
    }
}

#[tokio::test]
async fn a_deleted_or_emptied_file_is_really_gone() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    folder.write("b.yaml", &map("b", "1"));
    folder.write("c.yaml", &map("c", "1"));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    folder.remove("a.yaml");
    until(&mut source, &["b=1", "c=1"]).await;
    folder.write("b.yaml", "# nothing left\n");
    until(&mut source, &["c=1"]).await;
}

#[tokio::test]
async fn a_renamed_file_is_no_duplicate_of_itself() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    fs::rename(folder.path().join("a.yaml"), folder.path().join("z.yaml")).unwrap();
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into()], vec![]));
    assert!(set.objects[0].origin.as_ref().unwrap().file.ends_with("z.yaml"));
    folder.write("b.yaml", &map("b", "1"));
    assert_eq!(shown(&*next(&mut source).await), ["a=1", "b=1"]);
}

#[tokio::test]
async fn a_config_map_volume_is_swapped_as_a_whole() {
    let folder = Directory::new();
    let path = folder.path();
    for (name, value) in [("..2026_1", "1"), ("..2026_2", "2")] {
        folder.write(&format!("{name}/a.yaml"), &map("a", value));
        folder.write(&format!("{name}/b.yaml"), &map("b", value));
    }
    symlink("..2026_1", path.join("..data")).unwrap();
    symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    symlink("..data/b.yaml", path.join("b.yaml")).unwrap();
    let mut source = FolderSource::new(path).unwrap();
    assert_eq!(shown(&*next(&mut source).await), ["a=1", "b=1"]);
    symlink("..2026_2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    assert_eq!(shown(&*next(&mut source).await), ["a=2", "b=2"], "both at once");
}

#[tokio::test]
async fn circles_of_links_end() {
    let folder = Directory::new();
    folder.write("one/a.yaml", &map("a", "1"));
    symlink("..", folder.path().join("one/up")).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    symlink("nowhere", folder.path().join("x.yaml")).unwrap();
    let set = next(&mut FolderSource::new(folder.path()).unwrap()).await;
    assert_eq!(shown(&set), ["a=1"]);
}

#[tokio::test]
async fn a_folder_must_exist_at_the_start() {
    let folder = Directory::new();
    let path = folder.path().join("missing");
    let error = FolderSource::new(&path).err().unwrap();
    assert_eq!(error.to_string(), format!("read folder `{}`", path.display()));
    folder.write("file", "");
    let error = FolderSource::new(folder.path().join("file")).err().unwrap();
    assert_eq!(error.to_string(), format!("`{}` is not a folder", folder.path().join("file").display()));
}

#[tokio::test]
async fn a_folder_that_vanishes_keeps_what_it_said_and_may_come_back() {
    let outer = Directory::new();
    outer.write("in/a.yaml", &map("a", "1"));
    let path = outer.path().join("in");
    let mut source = FolderSource::new(&path).unwrap();
    next(&mut source).await;
    fs::rename(&path, outer.path().join("away")).unwrap();
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=1".into()], vec![Code::Unreadable]));
    outer.write("away/a.yaml", &map("a", "2"));
    fs::rename(outer.path().join("away"), &path).unwrap();
    let set = next(&mut source).await;
    assert_eq!((shown(&set), codes(&set)), (vec!["a=2".into()], vec![]));
}

#[tokio::test]
async fn without_notifications_changes_are_seen_by_looking() {
    let folder = Directory::new();
    folder.write("a.yaml", &map("a", "1"));
    let mut source = FolderSource::watched(folder.path(), Watching::Polled).unwrap();
    assert_eq!(shown(&*next(&mut source).await), ["a=1"]);
    folder.write("a.yaml", &map("a", "2"));
    folder.write("b.yaml", &map("b", "1"));
    assert_eq!(shown(&*next(&mut source).await), ["a=2", "b=1"]);
    folder.remove("a.yaml");
    assert_eq!(shown(&*next(&mut source).await), ["b=1"]);
    assert_eq!(source.watching(), Watching::Polled);
}

#[tokio::test]
async fn many_files_at_once_are_few_sets() {
    let folder = Directory::new();
    let mut source = FolderSource::new(folder.path()).unwrap();
    next(&mut source).await;
    let names: Vec<_> = (0..200).map(|n| format!("m{n:03}")).collect();
    names.iter().for_each(|name| folder.write(&format!("{name}.yaml"), &map(name, "1")));
    let wanted: Vec<_> = names.iter().map(|name| format!("{name}=1")).collect();
    let sets = until(&mut source, &wanted.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(sets.len() <= 3, "{} sets", sets.len());
}
