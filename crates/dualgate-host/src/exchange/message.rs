//! What is said, as JSON.

use std::net::SocketAddr;

use dualgate_core::model::{Digest, NodeName, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cut::ToldGeneration;

/// One thing that is said.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Message {
    /// Still here.
    Ping,
    /// A public cut.
    Told(Told<Vec<Value>>),
    /// What an edge says of itself.
    Facts(LocalFacts),
}

/// A public cut and which it is.
#[derive(Serialize, Deserialize)]
pub(super) struct Told<O> {
    /// The version of the form.
    pub version: u16,
    pub site: String,
    pub generation: ToldGeneration,
    /// Of the objects.
    pub digest: Digest,
    /// Last, because they are written as text.
    pub objects: O,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalFacts {
    /// Who it is.
    pub node: NodeName,
    /// The version of dualgate.
    pub version: String,
    /// What it does.
    pub phase: Phase,
    /// What it serves was told as this; absent while it serves what lay on its disk.
    pub applied: Option<ToldGeneration>,
    /// How many findings it has, notes apart.
    pub findings: u32,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// Its clock when it said so, in seconds since 1970.
    pub now: i64,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It has no plan yet.
    Starting,
    /// It serves.
    Serving,
    /// It lets connections end.
    Draining,
}

/// `Ping`.
pub(super) const PING: &[u8] = br#""ping""#;

/// `Told`, around a list of objects that is text already.
pub(super) fn told(head: &Told<[Value; 0]>, objects: &Secret) -> Secret {
    let head = serde_json::to_string(head).expect("a head of plain fields is JSON");
    let open = head.strip_suffix("[]}").expect("the objects come last");
    let mut text = Vec::with_capacity(open.len() + objects.expose().len() + 16);
    text.extend_from_slice(br#"{"told":"#);
    text.extend_from_slice(open.as_bytes());
    // Exposed into another secret.
    text.extend_from_slice(objects.expose());
    text.extend_from_slice(b"}}");
    Secret::new(text)
}

/// `Facts`.
pub(super) fn facts(facts: LocalFacts) -> Vec<u8> {
    serde_json::to_vec(&Message::Facts(facts)).expect("facts of plain fields are JSON")
}

/// Reads one; nothing of it is shown when it cannot be read, as keys may be in it.
pub(super) fn read(text: &[u8]) -> Option<Message> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_is_read_as_if_it_were_not() {
        assert!(matches!(read(PING), Some(Message::Ping)));
        let generation = ToldGeneration { authority: NodeName::new("home1"), since: 7, counter: 3 };
        let site = "a \"site\"".to_owned();
        let head = Told { version: 1, site, generation: generation.clone(), digest: Digest::of(b"x"), objects: [] };
        let text = told(&head, &Secret::new(*b"[{\"kind\":\"Service\"}]"));
        let Some(Message::Told(read)) = read(text.expose()) else { panic!("{text:?}") };
        assert_eq!((read.version, &*read.site, read.digest), (1, "a \"site\"", Digest::of(b"x")));
        assert_eq!((read.generation, read.objects), (generation, vec![serde_json::json!({"kind": "Service"})]));
    }

    #[test]
    fn what_is_no_message_is_none() {
        for text in ["", "null", "\"pong\"", "{}", "{\"told\":{}}", "{\"facts\":7}", "\"ping\" \"ping\"", "\u{7f}"] {
            assert!(read(text.as_bytes()).is_none(), "{text}");
        }
    }
}
