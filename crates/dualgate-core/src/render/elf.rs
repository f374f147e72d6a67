//! What a program needs to run, read from its ELF head: for which processor it is, and which libraries it loads.
//!
//! Any octets may come in: what is not there is told, nothing panics.

/// What a program says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The processor: `x86_64`, `aarch64`, or its number.
    pub machine: String,
    /// The loader; `None` for a program that needs none, so that it runs on any Linux.
    pub loader: Option<String>,
    /// The libraries, as the loader looks for them.
    pub libraries: Vec<String>,
}

/// Why it is no program for Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It has no ELF head.
    #[error("it is no ELF file")]
    NoElf,
    /// It is for 32 bits, or for another order of octets.
    #[error("it is not for 64 bits in little-endian order")]
    Foreign,
    /// It is a library or an object file.
    #[error("it cannot be executed")]
    NoProgram,
    /// It points to what is not there.
    #[error("it is cut off")]
    CutOff,
}

const HEAD: usize = 64;
const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;
/// More program headers, libraries and octets of a name than any program has.
const MOST: usize = 1024;

/// Reads an ELF file.
pub fn program(octets: &[u8]) -> Result<Program, ElfError> {
    let head = octets.get(..HEAD).filter(|head| head.starts_with(b"\x7fELF")).ok_or(ElfError::NoElf)?;
    if head[4..6] != [2, 1] {
        return Err(ElfError::Foreign);
    }
    // An executable, or one that may lie anywhere.
    if !matches!(u16_at(octets, 16)?, 2 | 3) {
        return Err(ElfError::NoProgram);
    }
    let machine = match u16_at(octets, 18)? {
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        number => format!("machine {number}"),
    };
    let segments = segments(octets)?;
    let of_kind = |kind: u32| segments.iter().find(|segment| segment.kind == kind);
    let loader = of_kind(INTERPRETER).map(|segment| text_at(octets, segment.offset)).transpose()?;
    let libraries = match of_kind(DYNAMIC) {
        Some(dynamic) => libraries(octets, dynamic, &segments)?,
        None => Vec::new(),
    };
    Ok(Program { machine, loader, libraries })
}

#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

fn segments(octets: &[u8]) -> Result<Vec<Segment>, ElfError> {
    let (start, size, count) = (u64_at(octets, 32)?, u64::from(u16_at(octets, 54)?), u64::from(u16_at(octets, 56)?));
    if count as usize > MOST || (count > 0 && size < 56) {
        return Err(ElfError::CutOff);
    }
    (0..count)
        .map(|index| {
            let at = start.checked_add(index * size).ok_or(ElfError::CutOff)?;
            let field = |offset: u64| at.checked_add(offset).ok_or(ElfError::CutOff);
            Ok(Segment {
                kind: u32_at(octets, at)?,
                offset: u64_at(octets, field(8)?)?,
                address: u64_at(octets, field(16)?)?,
                size: u64_at(octets, field(32)?)?,
            })
        })
        .collect()
}

fn libraries(octets: &[u8], dynamic: &Segment, segments: &[Segment]) -> Result<Vec<String>, ElfError> {
    let (mut names, mut strings) = (Vec::new(), None);
    for index in 0..(dynamic.size / 16).min(MOST as u64) {
        let at = dynamic.offset.checked_add(index * 16).ok_or(ElfError::CutOff)?;
        match (u64_at(octets, at)?, u64_at(octets, at.checked_add(8).ok_or(ElfError::CutOff)?)?) {
            (0, _) => break,
            (NEEDED, name) => names.push(name),
            (STRINGS, address) => strings = Some(address),
            _ => {}
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // Where the table of names lies in memory; it is looked for in the file.
    let address = strings.ok_or(ElfError::CutOff)?;
    let holds = |segment: &&Segment| {
        segment.kind == LOAD && address.checked_sub(segment.address).is_some_and(|inside| inside < segment.size)
    };
    let segment = segments.iter().find(holds).ok_or(ElfError::CutOff)?;
    let table = segment.offset.checked_add(address - segment.address).ok_or(ElfError::CutOff)?;
    names.into_iter().map(|name| text_at(octets, table.checked_add(name).ok_or(ElfError::CutOff)?)).collect()
}

fn array_at<const N: usize>(octets: &[u8], at: u64) -> Result<[u8; N], ElfError> {
    let start = usize::try_from(at).map_err(|_| ElfError::CutOff)?;
    let end = start.checked_add(N).ok_or(ElfError::CutOff)?;
    octets.get(start..end).and_then(|part| part.try_into().ok()).ok_or(ElfError::CutOff)
}

fn u16_at(octets: &[u8], at: u64) -> Result<u16, ElfError> {
    array_at(octets, at).map(u16::from_le_bytes)
}

fn u32_at(octets: &[u8], at: u64) -> Result<u32, ElfError> {
    array_at(octets, at).map(u32::from_le_bytes)
}

fn u64_at(octets: &[u8], at: u64) -> Result<u64, ElfError> {
    array_at(octets, at).map(u64::from_le_bytes)
}

/// Up to the zero octet.
fn text_at(octets: &[u8], at: u64) -> Result<String, ElfError> {
    let rest = usize::try_from(at).ok().and_then(|at| octets.get(at..)).ok_or(ElfError::CutOff)?;
    let end = rest.iter().take(MOST).position(|octet| *octet == 0).ok_or(ElfError::CutOff)?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A program with one segment that holds everything, and these libraries.
    fn made(libraries: &[&str], loader: Option<&str>) -> Vec<u8> {
        let mut octets = vec![0; HEAD + 3 * 56];
        octets[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, value: &[u8]| octets[at..at + value.len()].copy_from_slice(value);
        put(16, &3_u16.to_le_bytes());
        put(18, &62_u16.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &3_u16.to_le_bytes());
        let (mut strings, mut table) = (b"\0".to_vec(), Vec::new());
        for library in libraries {
            table.extend([1, strings.len() as u64].into_iter().flat_map(u64::to_le_bytes));
            strings.extend_from_slice(library.as_bytes());
            strings.push(0);
        }
        let names = octets.len();
        octets.extend_from_slice(&strings);
        table.extend([5, 0x1000 + names as u64, 0, 0].into_iter().flat_map(u64::to_le_bytes));
        let dynamic = octets.len();
        octets.extend_from_slice(&table);
        let interpreter = octets.len();
        octets.extend_from_slice(loader.unwrap_or_default().as_bytes());
        octets.push(0);
        let whole = octets.len();
        let kinds = [(1, 0, whole), (2, dynamic, table.len()), (if loader.is_some() { 3 } else { 0 }, interpreter, 1)];
        for (index, (kind, offset, size)) in kinds.into_iter().enumerate() {
            let at = HEAD + index * 56;
            octets[at..at + 4].copy_from_slice(&u32::to_le_bytes(kind));
            octets[at + 8..at + 16].copy_from_slice(&(offset as u64).to_le_bytes());
            octets[at + 16..at + 24].copy_from_slice(&(0x1000 + offset as u64).to_le_bytes());
            octets[at + 32..at + 40].copy_from_slice(&(size as u64).to_le_bytes());
        }
        octets
    }

    #[test]
    fn a_program_names_its_loader_and_its_libraries() {
        let made = made(&["libc.so.6", "libgcc_s.so.1"], Some("/lib64/ld-linux-x86-64.so.2"));
        let expected = Program {
            machine: "x86_64".to_owned(),
            loader: Some("/lib64/ld-linux-x86-64.so.2".to_owned()),
            libraries: vec!["libc.so.6".to_owned(), "libgcc_s.so.1".to_owned()],
        };
        assert_eq!(program(&made), Ok(expected));
    }

    #[test]
    fn a_static_program_that_may_lie_anywhere_needs_nothing() {
        let program = program(&made(&[], None)).unwrap();
        assert_eq!((program.loader, program.libraries), (None, Vec::new()));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert_eq!(program(b"#!/bin/sh\n"), Err(ElfError::NoElf));
        let mut library = made(&[], None);
        library[4] = 1;
        assert_eq!(program(&library), Err(ElfError::Foreign));
        (library[4], library[16]) = (2, 1);
        assert_eq!(program(&library), Err(ElfError::NoProgram));
    }

    proptest! {
        #[test]
        fn whatever_is_broken_or_cut_off_never_panics(at in 0_usize..700, value: u64, end in 0_usize..700) {
            let mut octets = made(&["libc.so.6"], Some("/lib/ld.so"));
            let at = at.min(octets.len() - 8);
            octets[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let _ = program(&octets);
            let _ = program(&octets[..end.min(octets.len())]);
        }
    }
}
