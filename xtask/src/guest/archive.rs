//! A file tree as the kernel unpacks it into memory when it starts: cpio's form `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Directories and files, by their path without the first slash.
#[derive(Debug, Default)]
pub struct Archive {
    directories: BTreeSet<String>,
    files: Vec<(String, PathBuf)>,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// Adds a directory, and those above it.
    pub fn directory(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        self.directories.extend(ends.map(|end| path[..end].to_owned()));
    }

    /// Adds a file, with the content of another one.
    pub fn file(&mut self, path: &str, content: &Path) {
        let (above, _) = path.rsplit_once('/').unwrap_or_default();
        if !above.is_empty() {
            self.directory(above);
        }
        self.files.push((path.to_owned(), content.to_owned()));
    }

    /// Writes it to a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = || -> Result<()> {
            let mut out = BufWriter::new(std::fs::File::create(path)?);
            self.write_to(&mut out)?;
            Ok(out.flush()?)
        };
        written().with_context(|| format!("write `{}`", path.display()))
    }

    fn write_to(&self, out: &mut impl Write) -> Result<()> {
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        for path in &self.directories {
            entry(out, next(), path, DIRECTORY, &[])?;
        }
        for (path, content) in &self.files {
            let content = std::fs::read(content).with_context(|| format!("read `{}`", content.display()))?;
            entry(out, next(), path, PROGRAM, &content)?;
        }
        entry(out, 0, "TRAILER!!!", 0, &[])
    }
}

fn entry(out: &mut impl Write, number: u32, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u32::try_from(content.len()).with_context(|| format!("`{name}` is too large"))?;
    let named = u32::try_from(name.len() + 1).context("a name is too long")?;
    out.write_all(b"070701")?;
    // Number, mode, owner, group, links, time, size, four of devices, the name's length with its end, no checksum.
    for field in [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, named, 0] {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    // The head has 110 octets; name and content each end at a multiple of four.
    let filled = |length: usize| length.next_multiple_of(4) - length;
    out.write_all(&[0; 4][..1 + filled(110 + name.len() + 1)])?;
    out.write_all(content)?;
    Ok(out.write_all(&[0; 3][..filled(content.len())])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them_and_everything_is_padded() {
        let mut archive = Archive::default();
        archive.file("a/b/program", Path::new("/dev/null"));
        let mut out = Vec::new();
        archive.write_to(&mut out).unwrap();
        assert_eq!(out.len() % 4, 0);
        let text = String::from_utf8(out).unwrap();
        let names: Vec<&str> = text.split("070701").skip(1).map(|entry| entry[104..].trim_end_matches('\0')).collect();
        assert_eq!(names, ["a", "a/b", "a/b/program", "TRAILER!!!"]);
        assert_eq!(&text[..22], "07070100000001000041ed");
    }
}
