//! Whether a file has changed since it was read.
//!
//! Its time alone does not tell: a path may be a link that comes to lead to another file, as that of a mounted ConfigMap
//! does, and in some stores all files have the same time.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileVersion {
    /// Of the file that a path leads to, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let modified = (file.mtime(), file.mtime_nsec());
        Some(Self { device: file.dev(), inode: file.ino(), size: file.size(), modified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_to_another_file_is_another_version() {
        let folder = std::env::temp_dir().join(format!("dualgate-river-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        // As a mounted ConfigMap: the file is a link through a folder that is itself a link, which is replaced.
        for generation in ["first", "second"] {
            std::fs::create_dir_all(folder.join(generation)).unwrap();
            std::fs::write(folder.join(generation).join("site.yaml"), "same size").unwrap();
            let file = std::fs::File::options().write(true).open(folder.join(generation).join("site.yaml")).unwrap();
            file.set_modified(epoch).unwrap();
        }
        let (site, data) = (folder.join("site.yaml"), folder.join("..data"));
        std::os::unix::fs::symlink("..data/site.yaml", &site).unwrap();
        std::os::unix::fs::symlink("first", &data).unwrap();
        let first = FileVersion::of(&site);
        assert!(first.is_some() && FileVersion::of(&site) == first);
        std::os::unix::fs::symlink("second", folder.join("..next")).unwrap();
        std::fs::rename(folder.join("..next"), &data).unwrap();
        assert_ne!(FileVersion::of(&site), first);
        std::fs::remove_file(&data).unwrap();
        assert_eq!(FileVersion::of(&site), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
