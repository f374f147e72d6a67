//! A tar archive (POSIX.1-1988, `ustar`) that depends on nothing but its content: sorted, of no time, owned by root.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

const BLOCK: usize = 512;

/// Files and folders by their path without the first slash.
#[derive(Debug, Default)]
pub struct Archive<'a>(BTreeMap<String, Entry<'a>>);

#[derive(Debug)]
enum Entry<'a> {
    Folder,
    File { mode: u32, content: &'a [u8] },
}

impl<'a> Archive<'a> {
    /// Adds a file, with the folders that it is in.
    pub fn file(&mut self, path: &str, mode: u32, content: &'a [u8]) {
        for (end, _) in path.match_indices('/') {
            // With the slash that ends a folder's name, it stands before all that is in it.
            self.0.insert(path[..=end].to_owned(), Entry::Folder);
        }
        self.0.insert(path.to_owned(), Entry::File { mode, content });
    }

    /// The archive.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (path, entry) in &self.0 {
            let (mode, kind, content) = match entry {
                Entry::Folder => (0o755, b'5', &[][..]),
                Entry::File { mode, content } => (*mode, b'0', *content),
            };
            out.extend(head(path, mode, kind, content.len())?);
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        out.resize(out.len() + 2 * BLOCK, 0);
        Ok(out)
    }
}

fn head(path: &str, mode: u32, kind: u8, size: usize) -> Result<[u8; BLOCK]> {
    ensure!(path.len() <= 100, "`{path}` is too long for an archive");
    let mut head = [0; BLOCK];
    let mut field = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
    field(0, path.as_bytes());
    field(100, format!("{mode:07o}").as_bytes());
    field(108, b"0000000");
    field(116, b"0000000");
    let size = u64::try_from(size).ok().filter(|size| *size < 1 << 33).context("a file is too large for an archive")?;
    field(124, format!("{size:011o}").as_bytes());
    field(136, b"00000000000");
    // The sum counts its own field as blanks.
    field(148, b"        ");
    field(156, &[kind]);
    field(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|octet| u32::from(*octet)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(head)
}

/// What stands in an archive: path, mode and content, for tests.
#[cfg(test)]
pub fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let text = |octets: &[u8]| String::from_utf8(octets.split(|octet| *octet == 0).next().unwrap().to_vec()).unwrap();
    let octal = |octets: &[u8]| u32::from_str_radix(text(octets).trim(), 8).unwrap();
    let (mut at, mut entries) = (0, Vec::new());
    while archive[at..at + BLOCK].iter().any(|octet| *octet != 0) {
        let head = &archive[at..at + BLOCK];
        let sum: u32 = head
            .iter()
            .enumerate()
            .map(|(at, octet)| match at {
                148..156 => 32,
                _ => u32::from(*octet),
            })
            .sum();
        assert_eq!(octal(&head[148..156]), sum);
        for (owner_or_time, length) in [(108, 8), (116, 8), (136, 12)] {
            assert_eq!(octal(&head[owner_or_time..owner_or_time + length]), 0);
        }
        let size = octal(&head[124..136]) as usize;
        let content = archive[at + BLOCK..at + BLOCK + size].to_vec();
        entries.push((text(&head[..100]), octal(&head[100..108]), content));
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    assert_eq!(archive.len(), at + 2 * BLOCK);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_sorted_and_folders_stand_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("b", 0o644, &[7; 513]);
        archive.file("a/b/c", 0o755, b"x");
        archive.file("a.b", 0o644, b"");
        let found = entries(&archive.to_bytes().unwrap());
        let folder = |path: &str| (path.to_owned(), 0o755, vec![]);
        let file = |path: &str, mode, content: &[u8]| (path.to_owned(), mode, content.to_vec());
        assert_eq!(
            found,
            [
                file("a.b", 0o644, b""),
                folder("a/"),
                folder("a/b/"),
                file("a/b/c", 0o755, b"x"),
                file("b", 0o644, &[7; 513]),
            ]
        );
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        let (long, mut archive) = ("a".repeat(101), Archive::default());
        archive.file(&long, 0o644, b"");
        assert!(archive.to_bytes().is_err());
    }
}
