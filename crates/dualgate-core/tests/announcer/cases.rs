//! A case file holds cases: a line `=== what it shows`, then commands, each followed by everything that comes of it.
//!
//! - `link MAC [LINK-LOCAL] [ADDRESS...]`, `link down`; the first one makes the announcer.
//! - `hold ADDRESS until SECONDS`, `release ADDRESS`, `watch ADDRESS...`, `probe ADDRESS`
//! - `< FRAME` comes in, `run SECONDS` lets time pass.
//! - `quietly COMMAND` does it, and what comes of it is not looked at.
//!
//! What comes of a command: `! REASON` why a frame was ignored, `> FRAME` what is sent, `* conflict ADDRESS MAC
//! passive|active`, `* over ADDRESS`, `* answered ADDRESS MAC|nobody`. Within `run` each has the time since its beginning,
//! `+0.100 > FRAME`. Frames are in hexadecimal with spaces and comments, and go on in lines that are indented.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use dualgate_core::machine::announcer::{Announcer, Event, Heard, Link, Timing};
use dualgate_wire::ethernet::Mac;

struct Run {
    announcer: Option<Announcer>,
    now: Duration,
}

/// The lines of a case, comments gone and each frame on one.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let content = line.split('#').next().unwrap_or_default();
        let goes_on = content.starts_with(' ') && !content.trim().is_empty();
        match lines.last_mut() {
            Some(last) if goes_on => last.push_str(content),
            _ => lines.push(content.to_owned()),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines.into_iter().map(|line| tidy(&line)).collect()
}

/// One space between words, none within a frame.
fn tidy(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.iter().position(|word| ["<", ">"].contains(word)) {
        Some(at) => format!("{} {}", words[..=at].join(" "), words[at + 1..].concat()),
        None => words.join(" "),
    }
}

fn is_outcome(line: &str) -> bool {
    line.starts_with(['!', '>', '*', '+'])
}

impl Run {
    fn command(&mut self, command: &str) -> Vec<String> {
        let words: Vec<&str> = command.split(' ').collect();
        let now = self.now;
        if let Some(quiet) = command.strip_prefix("quietly ") {
            self.command(quiet);
            return Vec::new();
        }
        if let ["link", link @ ..] = words.as_slice() {
            let link = if link == ["down"] { None } else { Some(read_link(link)) };
            match (&mut self.announcer, link) {
                (None, link) => {
                    self.announcer = Some(Announcer::new(link.expect("it begins up"), 7, Timing::default()));
                }
                (Some(announcer), link) => announcer.set_link(link, now),
            }
            return self.outcome("");
        }
        let announcer = self.announcer.as_mut().expect("a case begins with a link");
        match words.as_slice() {
            ["hold", address, "until", until] => announcer.hold(read(address), seconds(until), now),
            ["release", address] => announcer.release(read(address)),
            ["watch", addresses @ ..] => announcer.watch(addresses.iter().map(|address| read(address))),
            ["probe", address] => announcer.probe(read(address), now),
            ["<", frame] => {
                let ignored = announcer.receive(&octets(frame), now).err();
                let mut outcome: Vec<String> = ignored.iter().map(|ignored| format!("! {ignored:?}")).collect();
                outcome.extend(self.outcome(""));
                return outcome;
            }
            ["run", time] => return self.run(seconds(time)),
            _ => panic!("`{command}` is no command"),
        }
        self.outcome("")
    }

    fn run(&mut self, time: Duration) -> Vec<String> {
        let (began, end) = (self.now, self.now + time);
        let mut outcome = self.outcome("+0.000 ");
        for _ in 0..100_000 {
            let announcer = self.announcer.as_mut().expect("a case begins with a link");
            let Some(next) = announcer.poll_timeout().filter(|next| *next <= end) else {
                self.now = end;
                return outcome;
            };
            self.now = next.max(self.now);
            announcer.handle_timeout(self.now);
            outcome.extend(self.outcome(&format!("+{:.3} ", (self.now - began).as_secs_f64())));
        }
        panic!("it never comes to rest");
    }

    fn outcome(&mut self, prefix: &str) -> Vec<String> {
        let announcer = self.announcer.as_mut().expect("a case begins with a link");
        let mut outcome = Vec::new();
        while let Some(frame) = announcer.poll_transmit(self.now) {
            let hex: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
            outcome.push(format!("{prefix}> {hex}"));
        }
        while let Some(event) = announcer.poll_event() {
            outcome.push(format!("{prefix}* {}", told(event)));
        }
        outcome
    }
}

fn told(event: Event) -> String {
    match event {
        Event::Conflict { address, mac, heard: Heard::Passive } => format!("conflict {address} {mac} passive"),
        Event::Conflict { address, mac, heard: Heard::Active } => format!("conflict {address} {mac} active"),
        Event::ConflictOver { address } => format!("over {address}"),
        Event::Answered { address, mac: Some(mac) } => format!("answered {address} {mac}"),
        Event::Answered { address, mac: None } => format!("answered {address} nobody"),
    }
}

fn read_link(words: &[&str]) -> Link {
    let mac: [u8; 6] = octets(&words[0].replace(':', "")).try_into().expect("six octets");
    let addresses: Vec<IpAddr> = words[1..].iter().map(|word| read(word)).collect();
    let link_local = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(*address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    Link { mac: Mac(mac), link_local, addresses }
}

fn read(address: &str) -> IpAddr {
    address.parse().unwrap_or_else(|_| panic!("`{address}` is no address"))
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().unwrap_or_else(|_| panic!("`{text}` is no time")))
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).expect("hexadecimal") as u8).collect();
    let (pairs, odd) = digits.as_chunks::<2>();
    assert!(odd.is_empty(), "`{hex}` has half an octet");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

#[test]
fn every_case_gives_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/announcer");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut commands, mut wrong) = (0, 0, String::new());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for case in text.split("\n=== ").skip(1) {
            let (title, rest) = case.split_once('\n').expect("a case has commands");
            let mut run = Run { announcer: None, now: Duration::ZERO };
            let lines = lines(rest);
            let mut at = 0;
            while at < lines.len() {
                let after = lines[at + 1..].iter().take_while(|line| is_outcome(line)).count();
                let (command, expected) = (&lines[at], &lines[at + 1..=at + after]);
                let found = run.command(command);
                if found != expected {
                    let place = format!("{}: {title}: {command}", path.display());
                    wrong +=
                        &format!("{place}\n-- expected\n{}\n-- found\n{}\n", expected.join("\n"), found.join("\n"));
                }
                at += 1 + after;
                commands += 1;
            }
            cases += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases >= 60 && commands >= 250, "only {cases} cases with {commands} commands were read");
}
