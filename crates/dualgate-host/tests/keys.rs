//! WireGuard's keys on a real file system.

mod directory;

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use directory::Directory;
use dualgate_core::model::{NodeName, PublicKeys, Secret};
use dualgate_core::plan::tunnel::{Pair, PeerName};
use dualgate_host::keys::{Key, Keys, KeysError, Outcome, Slot, read_file, write_file};

/// RFC 7748 6.1, Alice and Bob: private and public.
const VECTORS: [(&str, &str); 2] = [
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ),
];
/// Alice's private key as `wg` writes it.
const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

fn state(directory: &Directory) -> PathBuf {
    directory.path().join("state")
}

fn keys(directory: &Directory) -> Keys {
    Keys::create(&state(directory)).unwrap()
}

fn pair(one: &str, other: &str) -> Slot {
    let name = |name: &str| PeerName::Node(NodeName::new(name));
    Slot::Preshared(Pair::new(name(one), name(other)))
}

fn alice() -> Key {
    Key::from_base64(&Secret::new(*ALICE.as_bytes().first_chunk::<44>().unwrap())).unwrap()
}

fn octets(hexadecimal: &str) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(octet).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn public_keys_are_those_of_the_rfc() {
    for (private, public) in VECTORS {
        let text = base64(&octets(private));
        let key = Key::from_base64(&Secret::new(text.into_bytes())).unwrap();
        assert_eq!(key.public().unwrap().octets()[..], octets(public));
    }
    assert_eq!(alice().public().unwrap().to_string(), ALICE_PUBLIC);
}

/// Written here once more, so that the library is not its own judge.
fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

#[test]
fn private_keys_are_clamped_and_no_two_are_alike() {
    let one = Key::private().unwrap();
    let octets = one.secret().expose();
    assert_eq!((octets[0] & 7, octets[31] >> 6), (0, 1));
    assert_ne!(one, Key::private().unwrap());
    assert_ne!(Key::preshared().unwrap(), Key::preshared().unwrap());
}

#[test]
fn only_the_owner_can_get_at_keys_whatever_the_umask() {
    let directory = Directory::new();
    let own = keys(&directory);
    assert_eq!(own.init(&Slot::Private).unwrap(), Outcome::Written);
    assert_eq!(own.init(&pair("b", "a")).unwrap(), Outcome::Written);
    let folder = state(&directory).join("wireguard");
    assert_eq!((mode(&folder), mode(&folder.join("preshared"))), (0o700, 0o700));
    assert_eq!((mode(&folder.join("private")), mode(&folder.join("preshared/a+b"))), (0o600, 0o600));
    assert_eq!(own.pairs().unwrap(), ["a+b"]);
    let text = fs::read_to_string(folder.join("private")).unwrap();
    assert_eq!((text.len(), text.ends_with("=\n")), (45, true), "as `wg genkey` writes it");
}

#[test]
fn a_key_that_is_there_stays() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    let first = own.current(&Slot::Private).unwrap();
    assert_eq!(own.init(&Slot::Private).unwrap(), Outcome::Already);
    assert_eq!(own.current(&Slot::Private).unwrap(), first);
    assert!(matches!(own.adopt(&Slot::Private, &alice()), Err(KeysError::Exists(_))));
    assert_eq!(own.adopt(&Slot::Private, &first).unwrap(), Outcome::Already);
    assert_eq!(Keys::open(&state(&directory)).unwrap().current(&Slot::Private).unwrap(), first);
}

#[test]
fn a_key_of_wg_is_adopted_as_it_is() {
    let directory = Directory::new();
    let file = directory.path().join("wg.key");
    for text in [format!("{ALICE}\n"), ALICE.to_owned(), format!("  {ALICE}\r\n\n")] {
        directory.write("wg.key", &text);
        chmod(&file, 0o600);
        assert_eq!(read_file(&file).unwrap(), alice());
    }
    let own = keys(&directory);
    assert_eq!(own.adopt(&Slot::Private, &read_file(&file).unwrap()).unwrap(), Outcome::Written);
    assert_eq!(own.public().unwrap(), PublicKeys::Current(ALICE_PUBLIC.parse().unwrap()));
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    let directory = Directory::new();
    let file = directory.path().join("wg.key");
    let zeros = "A".repeat(43) + "=";
    let long = format!("{ALICE}{}", " ".repeat(300)) + ALICE;
    for text in ["", "hunter2", &ALICE[..43], &zeros, &format!("PrivateKey = {ALICE}"), &long] {
        directory.write("wg.key", text);
        chmod(&file, 0o600);
        let error = read_file(&file).unwrap_err();
        assert!(matches!(error, KeysError::NoKey(_)), "{text:?}: {error}");
        assert!(text.is_empty() || !format!("{error} {error:?}").contains(text), "{error}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    chmod(&file, 0o700);
    assert!(matches!(read_file(&file), Err(KeysError::NoKey(_))));
    assert!(matches!(read_file(&directory.path().join("none")), Err(KeysError::Read { .. })));
}

#[test]
fn a_fifo_in_the_place_of_a_key_does_not_make_us_wait() {
    let directory = Directory::new();
    let file = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(read_file(&file), Err(KeysError::NoKey(_))));
}

#[test]
fn a_file_that_others_can_get_at_is_refused_with_what_to_do() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    let file = own.file(&Slot::Private).unwrap();
    for wrong in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610] {
        chmod(&file, wrong);
        for error in [own.current(&Slot::Private).unwrap_err(), own.init(&Slot::Private).unwrap_err()] {
            assert!(matches!(error, KeysError::Exposed { mode, right: 0o600, .. } if mode == wrong), "{error}");
            let (message, path) = (error.to_string(), file.display());
            assert!(message.contains(&format!("`{path}` has the mode {wrong:04o}")), "{message}");
            assert!(message.contains(&format!("run `chmod 0600 {path}`")), "{message}");
        }
    }
    chmod(&file, 0o400);
    assert!(own.current(&Slot::Private).is_ok(), "who writes nothing may not need to");
}

#[test]
fn a_folder_that_others_can_get_at_is_refused() {
    let directory = Directory::new();
    keys(&directory).init(&Slot::Private).unwrap();
    let state = state(&directory);
    let folder = state.join("wireguard");
    for (path, wrong) in [(&folder, 0o750), (&folder, 0o701), (&folder.join("preshared"), 0o755), (&state, 0o770)] {
        chmod(path, wrong);
        for result in [Keys::open(&state), Keys::create(&state)] {
            let error = result.unwrap_err();
            assert!(matches!(error, KeysError::Exposed { mode, right: 0o700, .. } if mode == wrong), "{error}");
        }
        chmod(path, 0o700);
    }
    // Others may see that there is state; they cannot see or change what is in the folder.
    chmod(&state, 0o755);
    assert!(Keys::open(&state).is_ok());
}

#[test]
fn keys_of_another_user_are_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: host::keys_of_another_user: only root can give a file away");
        return;
    }
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    let file = own.file(&Slot::Private).unwrap();
    std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
    let error = own.current(&Slot::Private).unwrap_err();
    assert!(matches!(error, KeysError::Foreign { owner: 65_534, user: 0, .. }), "{error}");
    assert!(error.to_string().contains("chown 0"), "{error}");
    std::os::unix::fs::chown(own.path(), Some(65_534), None).unwrap();
    assert!(matches!(Keys::open(&state(&directory)), Err(KeysError::Foreign { .. })));
}

#[test]
fn without_a_key_the_error_says_how_to_make_one() {
    let directory = Directory::new();
    let error = Keys::open(&state(&directory)).unwrap_err();
    assert!(matches!(error, KeysError::Missing(_)) && error.to_string().contains("dualgate keys init"), "{error}");
    let own = keys(&directory);
    for error in [own.current(&Slot::Private).unwrap_err(), own.prepare(&Slot::Private, None).unwrap_err()] {
        assert!(matches!(error, KeysError::Missing(_)), "{error}");
    }
}

#[test]
fn names_never_lead_out_of_the_folder() {
    let directory = Directory::new();
    let own = keys(&directory);
    for name in ["../../x", "..", ".a", "a/b", "", "a+b", "a b", "a\n", &"x".repeat(300)] {
        for slot in [pair("z", name), pair("A", name)] {
            let result = own.init(&slot);
            assert!(matches!(result, Err(KeysError::Name(_))), "{name:?}: {result:?}");
        }
    }
    assert_eq!(fs::read_dir(own.path().join("preshared")).unwrap().count(), 0);
}

#[test]
fn a_rotation_goes_from_one_key_over_both_to_the_next() {
    let directory = Directory::new();
    let own = keys(&directory);
    for slot in [Slot::Private, pair("a", "b")] {
        own.init(&slot).unwrap();
        let first = own.current(&slot).unwrap();
        assert!(matches!(own.finish(&slot), Err(KeysError::NotRotating(_))));
        assert!(matches!(own.cancel(&slot), Err(KeysError::NotRotating(_))));
        assert_eq!(own.prepare(&slot, None).unwrap(), Outcome::Written);
        let next = own.next(&slot).unwrap().unwrap();
        assert_eq!(own.prepare(&slot, None).unwrap(), Outcome::Already, "a second wish does not change the next key");
        assert_eq!((own.current(&slot).unwrap(), own.next(&slot).unwrap()), (first.clone(), Some(next.clone())));
        own.finish(&slot).unwrap();
        assert_eq!((own.current(&slot).unwrap(), own.next(&slot).unwrap()), (next.clone(), None));
        assert_ne!(first, next);
        own.prepare(&slot, None).unwrap();
        own.cancel(&slot).unwrap();
        assert_eq!((own.current(&slot).unwrap(), own.next(&slot).unwrap()), (next, None));
    }
    assert_eq!(own.pairs().unwrap(), ["a+b"]);
}

#[test]
fn the_public_keys_name_both_while_a_rotation_is_prepared() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.adopt(&Slot::Private, &alice()).unwrap();
    own.prepare(&Slot::Private, None).unwrap();
    let next = own.next(&Slot::Private).unwrap().unwrap().public().unwrap();
    let current = ALICE_PUBLIC.parse().unwrap();
    assert_eq!(own.public().unwrap(), PublicKeys::Rotating { current, next });
}

#[test]
fn both_nodes_of_a_pair_rotate_to_the_same_key() {
    let (here, there) = (Directory::new(), Directory::new());
    let (here, there, slot) = (keys(&here), keys(&there), pair("a", "b"));
    here.init(&slot).unwrap();
    there.adopt(&slot, &here.current(&slot).unwrap()).unwrap();
    here.prepare(&slot, None).unwrap();
    let next = here.next(&slot).unwrap().unwrap();
    assert_eq!(there.prepare(&slot, Some(&next)).unwrap(), Outcome::Written);
    assert_eq!(there.prepare(&slot, Some(&next)).unwrap(), Outcome::Already);
    assert!(matches!(there.prepare(&slot, Some(&alice())), Err(KeysError::Exists(_))));
    here.finish(&slot).unwrap();
    there.finish(&slot).unwrap();
    assert_eq!(here.current(&slot).unwrap(), there.current(&slot).unwrap());
}

#[test]
fn a_damaged_next_key_does_not_take_the_place_of_a_good_one() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    own.prepare(&Slot::Private, None).unwrap();
    let first = own.current(&Slot::Private).unwrap();
    fs::write(own.path().join("private+next"), "").unwrap();
    assert!(matches!(own.finish(&Slot::Private), Err(KeysError::NoKey(_))));
    assert_eq!(own.current(&Slot::Private).unwrap(), first);
}

#[test]
fn a_crash_between_writing_and_renaming_leaves_the_former_key() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    let first = own.current(&Slot::Private).unwrap();
    fs::write(own.path().join(".tmp-private+next"), "half a k").unwrap();
    assert_eq!((own.current(&Slot::Private).unwrap(), own.next(&Slot::Private).unwrap()), (first, None));
    own.prepare(&Slot::Private, None).unwrap();
    assert!(own.next(&Slot::Private).unwrap().is_some());
    assert!(!own.path().join(".tmp-private+next").exists());
}

const STATE: &str = "DUALGATE_KEYS_TEST_STATE";

/// The other process of the next test: rotates until it is killed.
#[test]
fn rotates_without_end_when_it_is_told_where() {
    let Some(state) = std::env::var_os(STATE) else { return };
    let keys = Keys::create(Path::new(&state)).unwrap();
    loop {
        let _ = keys.init(&Slot::Private).unwrap();
        let _ = keys.prepare(&Slot::Private, None).unwrap();
        keys.finish(&Slot::Private).unwrap();
        writeln!(std::io::stderr(), "rotated").unwrap();
    }
}

#[test]
fn a_process_that_is_killed_while_it_rotates_always_leaves_a_key() {
    let directory = Directory::new();
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rotates_without_end_when_it_is_told_where", "--nocapture"])
            .env(STATE, state(&directory))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let rotated = lines.map_while(Result::ok).filter(|line| line == "rotated").take(1 + round % 7).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(rotated, 1 + round % 7);
        let own = Keys::open(&state(&directory)).unwrap();
        own.current(&Slot::Private).unwrap().public().unwrap();
        assert_eq!(mode(&own.file(&Slot::Private).unwrap()), 0o600);
    }
}

#[test]
fn nobody_changes_keys_while_another_does() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    let folder = fs::File::open(own.path()).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(matches!(own.prepare(&Slot::Private, None), Err(KeysError::Busy(_))));
    assert!(own.current(&Slot::Private).is_ok(), "who only reads needs no lock");
}

#[test]
fn keys_do_not_show_when_they_are_printed() {
    let directory = Directory::new();
    let own = keys(&directory);
    own.adopt(&Slot::Private, &alice()).unwrap();
    let shown = format!("{:?} {own:?}", own.current(&Slot::Private).unwrap());
    assert!(shown.contains("Secret(sha256:") && !shown.contains(&ALICE[..8]) && !shown.contains("119, 7"), "{shown}");
}

#[test]
fn a_file_with_secrets_is_its_owners_alone_also_where_another_was() {
    let directory = Directory::new();
    let path = directory.path().join("dualgate.conf");
    fs::write(&path, "an old one").unwrap();
    chmod(&path, 0o644);
    write_file(&path, &Secret::new(*b"PrivateKey = x\n")).unwrap();
    assert_eq!((mode(&path), &*fs::read_to_string(&path).unwrap()), (0o600, "PrivateKey = x\n"));
}

#[test]
fn wg_reads_our_keys_as_we_do() {
    let wg = |command: &str, input: &str| {
        let mut child = Command::new("wg").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    };
    let directory = Directory::new();
    let own = keys(&directory);
    own.init(&Slot::Private).unwrap();
    let text = fs::read_to_string(own.file(&Slot::Private).unwrap()).unwrap();
    let Some(public) = wg("pubkey", &text) else {
        assert!(std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_none(), "wg is not installed");
        eprintln!("SKIPPED: host::keys_wg: wg is not installed");
        return;
    };
    assert_eq!(own.current(&Slot::Private).unwrap().public().unwrap().to_string(), public);
    for _ in 0..20 {
        let theirs = wg("genkey", "").unwrap();
        let key = Key::from_base64(&Secret::new(theirs.clone().into_bytes())).unwrap();
        assert_eq!(key.public().unwrap().to_string(), wg("pubkey", &theirs).unwrap());
        assert_eq!(key.to_base64().expose(), theirs.as_bytes());
    }
    // A key that is not clamped is used all the same, and by `wg` as by us.
    let loose = base64(&[255; 32]);
    let key = Key::from_base64(&Secret::new(loose.clone().into_bytes())).unwrap();
    assert_eq!(key.public().unwrap().to_string(), wg("pubkey", &loose).unwrap());
    assert!(Key::from_base64(&Secret::new(wg("genpsk", "").unwrap().into_bytes())).is_some());
}
