//! From the folder's state to objects: what changed is read again, and what was good is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::{Code, Digest, Finding, ObjectSet, Place};
use dualgate_core::parse::file::{self, Completeness, FileObjects};
use rustix::fs::OFlags;
use tokio::time::Instant;

use super::list::{self, Limits, Listing, MAX_FILE_SIZE, Stamp};
use super::watch::Watch;
use super::{Change, Touched, Watching};

/// A file that is gone or empty is believed to be so after this time: many programs save by removing the
/// file, or by making it empty, and writing it again.
const GRACE: Duration = Duration::from_millis(120);

/// Remembers each file's last good version.
pub(super) struct Scanner {
    root: PathBuf,
    limits: Limits,
    files: BTreeMap<PathBuf, File>,
    /// What is wrong with the folder itself.
    findings: Vec<Finding>,
    last: ObjectSet,
    progress: Progress,
    is_root_lost: bool,
    wake_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Unscanned,
    Scanned,
}

/// What is known of one file.
#[derive(Default)]
struct File {
    /// Of the content that was last read; `None` when it has to be read again.
    stamp: Option<Stamp>,
    /// Of the text that was last parsed.
    digest: Option<Digest>,
    /// What polling saw last: a file is read when it is seen twice as it is.
    seen: Option<Stamp>,
    /// Since when it is gone or empty.
    lost_since: Option<Instant>,
    good: Option<Arc<FileObjects>>,
    /// What counts: the last good version, with what is wrong with the present one.
    shown: Option<Arc<FileObjects>>,
}

impl Scanner {
    pub(super) fn new(root: PathBuf) -> Self {
        Self::with_limits(root, Limits::default())
    }

    fn with_limits(root: PathBuf, limits: Limits) -> Self {
        Self {
            root,
            limits,
            files: BTreeMap::new(),
            findings: Vec::new(),
            last: ObjectSet::default(),
            progress: Progress::Unscanned,
            is_root_lost: false,
            wake_at: None,
        }
    }

    pub(super) fn has_scanned(&self) -> bool {
        self.progress == Progress::Scanned
    }

    /// Whether the folder as a whole cannot be read.
    pub(super) fn is_root_lost(&self) -> bool {
        self.is_root_lost
    }

    /// When to look again without being told.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Looks at everything and reads what changed. The complete set, if it is another than the last.
    pub(super) fn scan(&mut self, now: Instant, watch: &mut Watch) -> Option<ObjectSet> {
        self.wake_at = None;
        watch.drain(now);
        watch.take_change();
        let touched = watch.take_touched();
        let listing = list::list(&self.root, self.limits, &mut |directory| watch.directory(directory));
        watch.keep_directories(&listing.directories);
        let mut changes = vec![self.folder(&listing)];
        for (path, stamp) in &listing.files {
            changes.push(match stamp {
                Ok(stamp) => self.file(path, *stamp, now, &touched, watch),
                Err(why) => self.files.entry(path.clone()).or_default().fail(path, why),
            });
        }
        changes.push(self.forget(&listing, now));
        let is_first = std::mem::replace(&mut self.progress, Progress::Scanned) == Progress::Unscanned;
        if !is_first && !changes.contains(&Change::Something) {
            return None;
        }
        let set = self.assemble();
        let is_other = is_first || !is_same(&set, &self.last);
        self.last = set.clone();
        is_other.then_some(set)
    }

    /// A file that is gone, but not long enough to be believed, stands back behind where its objects are now.
    fn assemble(&self) -> ObjectSet {
        let (lost, there): (Vec<_>, Vec<_>) = self.files.values().partition(|file| file.lost_since.is_some());
        let there = there.into_iter().filter_map(|file| file.shown.clone());
        let lost = lost.into_iter().filter_map(|file| file.shown.clone());
        let mut shown: Vec<Arc<FileObjects>> = there.collect();
        let keys: BTreeSet<_> = shown.iter().flat_map(|file| &file.objects).map(|object| object.key.clone()).collect();
        shown.extend(lost.map(|mut file| {
            Arc::make_mut(&mut file).objects.retain(|object| !keys.contains(&object.key));
            file
        }));
        let mut set = file::assemble(shown.iter().map(Arc::as_ref));
        set.findings.splice(0..0, self.findings.iter().cloned());
        set
    }

    /// What is wrong with the folder and its subfolders.
    fn folder(&mut self, listing: &Listing) -> Change {
        self.is_root_lost = listing.unread.contains_key(&self.root);
        let unread = listing.unread.iter().map(|(path, error)| {
            let help = "what its files said before is still served";
            Finding::new(Code::Unreadable, at(path), format!("the folder cannot be read: {error}")).help(help)
        });
        let cut_short = listing.cut_short.iter().map(|why| {
            let help = "the rest of it is ignored; move what is no manifest elsewhere";
            Finding::new(Code::Unreadable, at(&self.root), format!("the folder is too large: {why}")).help(help)
        });
        let findings: Vec<_> = unread.chain(cut_short).collect();
        if findings == self.findings {
            return Change::Nothing;
        }
        self.findings = findings;
        Change::Something
    }

    /// Reads a file if it has changed, and believes it if nobody was writing it meanwhile.
    fn file(&mut self, path: &Path, stamp: Stamp, now: Instant, touched: &Touched, watch: &mut Watch) -> Change {
        let file = self.files.entry(path.to_owned()).or_default();
        if file.stamp == Some(stamp) && !touched.contains(path) {
            file.lost_since = None;
            return Change::Nothing;
        }
        let seen = file.seen.replace(stamp);
        if watch.watching() == Watching::Polled && self.progress == Progress::Scanned && seen != Some(stamp) {
            self.wake_at = earlier(self.wake_at, now + GRACE);
            return Change::Nothing;
        }
        let text = read(path);
        // The kernel tells of a write before the write can be read, so this order misses none.
        watch.drain(now);
        if watch.is_being_written(path) {
            file.stamp = None;
            return Change::Nothing;
        }
        let text = match text {
            Ok(text) => text,
            Err(why) => return file.fail(path, &why),
        };
        let digest = Digest::of(text.as_bytes());
        if file.digest == Some(digest) {
            (file.stamp, file.lost_since) = (Some(stamp), None);
            return Change::Nothing;
        }
        let read = file::file(&path.to_string_lossy(), &text);
        if file.would_lose_all(&read) {
            let until = *file.lost_since.get_or_insert(now) + GRACE;
            if now < until {
                file.stamp = None;
                self.wake_at = earlier(self.wake_at, until);
                return Change::Nothing;
            }
        }
        (file.stamp, file.digest, file.lost_since) = (Some(stamp), Some(digest), None);
        file.accept(path, read)
    }

    /// Forgets files that are really gone. Of a folder that cannot be read nobody knows what is gone.
    fn forget(&mut self, listing: &Listing, now: Instant) -> Change {
        let mut change = Change::Nothing;
        let mut wake_at = self.wake_at;
        self.files.retain(|path, file| {
            let is_there = listing.files.contains_key(path);
            if is_there || listing.unread.keys().any(|directory| path.starts_with(directory)) {
                return true;
            }
            let until = *file.lost_since.get_or_insert(now) + GRACE;
            if file.shows_something() && now < until {
                wake_at = earlier(wake_at, until);
                return true;
            }
            if file.shows_something() {
                change = Change::Something;
            }
            false
        });
        self.wake_at = wake_at;
        change
    }
}

impl File {
    fn shows_something(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| !(shown.objects.is_empty() && shown.findings.is_empty()))
    }

    fn would_lose_all(&self, read: &FileObjects) -> bool {
        let holds_nothing = read.objects.is_empty() && read.refused.is_empty();
        let held_something = self.shown.as_ref().is_some_and(|shown| !shown.objects.is_empty());
        holds_nothing && read.completeness == Completeness::Whole && held_something
    }

    fn show(&mut self, shown: Arc<FileObjects>) -> Change {
        let showed_something = self.shows_something();
        let before = self.shown.replace(shown);
        let is_same = before.is_some_and(|before| Some(before) == self.shown);
        if is_same || !(showed_something || self.shows_something()) { Change::Nothing } else { Change::Something }
    }

    /// Takes a new version over; a broken one only for what is wrong with it.
    fn accept(&mut self, path: &Path, mut read: FileObjects) -> Change {
        match (read.completeness, &self.good) {
            (Completeness::Whole, good) => {
                if let Some(good) = good {
                    carry_over(good, &mut read);
                }
                let read = Arc::new(read);
                self.good = Some(read.clone());
                self.show(read)
            }
            (Completeness::Broken, Some(good)) => {
                read.findings.push(stale(path, "this file"));
                read.objects = good.objects.clone();
                self.show(Arc::new(read))
            }
            (Completeness::Broken, None) => self.show(Arc::new(read)),
        }
    }

    /// The file is there but cannot be read.
    fn fail(&mut self, path: &Path, why: &str) -> Change {
        let mut findings = vec![Finding::new(Code::Unreadable, at(path), format!("the file is left out: {why}"))];
        if self.good.is_some() {
            findings.push(stale(path, "this file"));
        }
        (self.stamp, self.digest, self.lost_since) = (None, None, None);
        let objects = self.good.as_ref().map(|good| good.objects.clone()).unwrap_or_default();
        let (path, refused) = (path.to_string_lossy().into(), Vec::new());
        self.show(Arc::new(FileObjects { path, objects, refused, findings, completeness: Completeness::Broken }))
    }
}

/// What did not change stays the same value, and an object that was refused stays as it was: so it is with
/// an API server, too.
fn carry_over(good: &FileObjects, read: &mut FileObjects) {
    let before: BTreeMap<_, _> = good.objects.iter().map(|object| (&object.key, object)).collect();
    for object in &mut read.objects {
        if let Some(same) = before.get(&object.key).filter(|before| ***before == *object) {
            *object = Arc::clone(same);
        }
    }
    for key in &read.refused {
        let is_read = read.objects.iter().any(|object| object.key == *key);
        if let Some(before) = before.get(key).filter(|_| !is_read) {
            let mut finding = stale(Path::new(&*read.path), &key.to_string());
            finding.at.object = Some(key.clone());
            read.findings.push(finding);
            read.objects.push(Arc::clone(before));
        }
    }
}

fn is_same(a: &ObjectSet, b: &ObjectSet) -> bool {
    let same_objects =
        a.objects.len() == b.objects.len() && a.objects.iter().zip(&b.objects).all(|(a, b)| Arc::ptr_eq(a, b));
    same_objects && a.findings == b.findings
}

fn stale(path: &Path, what: &str) -> Finding {
    Finding::new(Code::Stale, at(path), format!("the last good version of {what} is served"))
}

fn at(path: &Path) -> Place {
    Place { file: Some(path.to_string_lossy().into()), ..Place::default() }
}

fn earlier(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// The text of a regular file.
fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("it cannot be read: {error}");
    // Opening a pipe would else wait for its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err(list::too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        format!("it is not UTF-8 text: see line {line}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[&str]) -> Self {
            let path = std::env::temp_dir().join(format!("dualgate-scan-{name}-{}", std::process::id()));
            for file in files {
                let path = path.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let name = path.file_stem().unwrap().to_string_lossy();
                let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
                std::fs::write(&path, text).unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn names(set: &ObjectSet) -> Vec<String> {
        set.objects.iter().map(|object| object.key.name.to_string()).collect()
    }

    #[test]
    fn a_folder_that_is_too_large_is_cut_at_the_same_place_each_time() {
        let folder = Folder::new("limits", &["a.yaml", "b/c.yaml", "d.yaml", "e.txt"]);
        let all = Limits::default();
        for (limits, kept, why) in [
            (Limits { files: 2, ..all }, vec!["a", "c"], "it holds more than 2 manifests"),
            (Limits { entries: 3, ..all }, vec![], "it holds more than 3 entries"),
            (Limits { total_size: 100, ..all }, vec!["a"], "its manifests have more than 100 octets"),
        ] {
            let mut scanner = Scanner::with_limits(folder.0.clone(), limits);
            let set = scanner.scan(Instant::now(), &mut Watch::new(Watching::Polled)).unwrap();
            assert_eq!(names(&set), kept);
            let message = format!("the folder is too large: {why}");
            assert_eq!(set.findings.iter().map(|finding| &finding.message).collect::<Vec<_>>(), [&message]);
        }
    }

    #[test]
    fn what_did_not_change_yields_nothing() {
        let folder = Folder::new("same", &["a.yaml"]);
        let (mut scanner, mut watch) = (Scanner::new(folder.0.clone()), Watch::new(Watching::Polled));
        let start = Instant::now();
        let text = std::fs::read_to_string(folder.0.join("a.yaml")).unwrap();
        assert!(scanner.scan(start, &mut watch).is_some());
        for (second, content) in [text.clone(), format!("{text}# a remark\n"), text].into_iter().enumerate() {
            std::fs::write(folder.0.join("a.yaml"), content).unwrap();
            let now = start + Duration::from_secs(second as u64 + 1);
            assert!(scanner.scan(now, &mut watch).is_none());
            assert!(scanner.scan(now + GRACE, &mut watch).is_none());
        }
        std::fs::write(folder.0.join("empty.yaml"), "").unwrap();
        let now = start + Duration::from_secs(10);
        assert!(scanner.scan(now, &mut watch).is_none());
        assert!(scanner.scan(now + GRACE, &mut watch).is_none());
    }

    #[test]
    fn gone_is_believed_after_the_grace_and_not_before() {
        let folder = Folder::new("gone", &["a.yaml", "b.yaml"]);
        let (mut scanner, mut watch) = (Scanner::new(folder.0.clone()), Watch::new(Watching::Polled));
        let start = Instant::now();
        assert_eq!(names(&scanner.scan(start, &mut watch).unwrap()), ["a", "b"]);
        std::fs::remove_file(folder.0.join("a.yaml")).unwrap();
        assert!(scanner.scan(start, &mut watch).is_none());
        assert_eq!(scanner.wake_at(), Some(start + GRACE));
        assert!(scanner.scan(start + GRACE - Duration::from_millis(1), &mut watch).is_none());
        assert_eq!(names(&scanner.scan(start + GRACE, &mut watch).unwrap()), ["b"]);
        assert_eq!(scanner.wake_at(), None);
    }
}
