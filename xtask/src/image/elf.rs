//! Whether a program runs where there is nothing else: an ELF file that asks for no loader.

use anyhow::{Result, bail, ensure};

/// What a program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Machine {
    /// In the words of images.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A segment that names the program's loader (`PT_INTERP`).
const INTERPRETER: u64 = 3;

/// What a static program runs on; an error if it is none.
pub fn machine(program: &[u8]) -> Result<Machine> {
    ensure!(program.starts_with(b"\x7fELF\x02\x01"), "it is no 64-bit ELF file of a little-endian machine");
    let number = |at: usize, length: usize| -> Result<u64> {
        let octets = program.get(at..at + length).ok_or_else(|| anyhow::anyhow!("it ends too early"))?;
        Ok(octets.iter().rev().fold(0, |number, octet| number << 8 | u64::from(*octet)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = usize::try_from(table + index * size)?;
        ensure!(number(at, 4)? != INTERPRETER, "it is not static: it asks for a loader, which the image does not have");
    }
    match number(18, 2)? {
        62 => Ok(Machine::Amd64),
        183 => Ok(Machine::Arm64),
        other => bail!("it is for a machine of kind {other}, which is neither x86-64 nor AArch64"),
    }
}

/// A file of a head and segments of these kinds, for tests.
#[cfg(test)]
pub fn program(machine: u16, segments: &[u32]) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_le_bytes());
    for kind in segments {
        file.extend(kind.to_le_bytes());
        file.extend([0; 52]);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_program_is_known_with_its_machine() {
        assert_eq!(machine(&program(62, &[1, 2, 1])).unwrap(), Machine::Amd64);
        assert_eq!(machine(&program(183, &[])).unwrap().architecture(), "arm64");
    }

    #[test]
    fn what_could_not_run_alone_is_refused() {
        let why = |program: &[u8]| machine(program).unwrap_err().to_string();
        assert!(why(&program(62, &[1, 3])).starts_with("it is not static"));
        assert!(why(&program(40, &[])).contains("kind 40"));
        assert!(why(b"#!/bin/sh").contains("no 64-bit ELF file"));
        assert!(why(&program(62, &[1])[..66]).contains("ends too early"));
        // The program that runs this test has a loader.
        let itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(why(&itself).starts_with("it is not static"));
    }
}
