//! One connection: who is there, and frames that nobody else can read or make.
//!
//! ```text
//! home -> edge   "dualgate" version:u16 length:u8 site length:u8 node   in the clear, and part of the proof
//!                first message of Noise KK: 48 octets
//! edge -> home   0, second message of Noise KK: 48 octets; or why not:u8 version:u16
//! both           length:u16, sealed: 1 when it ends what is said else 0, up to 65518 octets of it
//! ```
//!
//! In KK both know the other's static key before. The edge looks it up by the node's name, which is in the clear; a
//! name that is not the speaker's fits no key. The first message could be one that was recorded before, as the edge has
//! put nothing into it; so the edge believes nothing and nobody until the first frame, which only the owner of the keys
//! can seal for this connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, StatelessTransportState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::message::PING;
use super::refusal::Refusal;
use super::teller::Sign;
use super::{DEAD, Identity, Peer, PeerKey, VERSION};

const MAGIC: &[u8; 8] = b"dualgate";
const WELCOME: u8 = 0;

/// An ephemeral key and a tag: both messages of KK without content.
const PROOF: usize = 48;

const MAX_FRAME: usize = 65_535;
const TAG: usize = 16;
/// What a frame says: an octet whether it is the last one, and the rest.
const MAX_CHUNK: usize = MAX_FRAME - TAG - 1;
/// How long one who is refused may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);
const MORE: u8 = 0;
const LAST: u8 = 1;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// We refuse it.
    #[error("{0}")]
    Refused(Refusal),
    /// The other end refuses us.
    #[error("it refuses this node: {0}")]
    RefusedThere(Refusal),
    /// The other end speaks another version.
    #[error(
        "it speaks version {0} of the exchange, this node version {VERSION}: run the same version of dualgate on both"
    )]
    Version(u16),
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end has nothing more to say.
    #[error("it closed the connection")]
    Closed,
}

impl End {
    /// What came back from the other end.
    pub(super) fn sign(&self) -> Sign {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
        match self {
            Self::Refused(Refusal::Silent | Refusal::Late) => Sign::None,
            Self::Io(error) => match error.kind() {
                HostUnreachable | NetworkUnreachable | TimedOut => Sign::None,
                ConnectionRefused => Sign::NobodyListens,
                _ => Sign::Life,
            },
            Self::Refused(_) | Self::RefusedThere(_) | Self::Version(_) | Self::Closed => Sign::Life,
        }
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A connection whose other end is known.
pub(super) struct Session<S> {
    pub to: Sender<S>,
    pub from: Receiver<S>,
}

impl<S: AsyncRead + AsyncWrite> Session<S> {
    fn new(stream: S, noise: HandshakeState) -> Result<Self, End> {
        let noise = Arc::new(noise.into_stateless_transport_mode().map_err(|_| Refusal::WrongKey)?);
        let (from, to) = split(stream);
        Ok(Self {
            to: Sender { stream: to, noise: noise.clone(), nonce: 0, open: Vec::new(), sealed: vec![0; 2 + MAX_FRAME] },
            from: Receiver { stream: from, noise, nonce: 0, open: vec![0; MAX_FRAME], sealed: vec![0; MAX_FRAME] },
        })
    }
}

/// Proves who we are, to a node that `key` must fit.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    identity: &Identity,
    key: &PeerKey,
) -> Result<Session<S>, End> {
    let hello = hello(identity)?;
    let mut noise = handshake(identity, key, &hello, Side::Initiator)?;
    let mut first = [0; PROOF];
    noise.write_message(&[], &mut first).map_err(|_| Refusal::WrongKey)?;
    stream.write_all(&hello).await?;
    stream.write_all(&first).await?;
    stream.flush().await?;
    match read_u8(&mut stream).await? {
        WELCOME => {}
        octet => {
            let version = u16::from_be_bytes([read_u8(&mut stream).await?, read_u8(&mut stream).await?]);
            return Err(match Refusal::from_octet(octet) {
                Some(Refusal::Version) => End::Version(version),
                Some(refusal) => End::RefusedThere(refusal),
                None => End::Refused(Refusal::Foreign),
            });
        }
    }
    let mut second = [0; PROOF];
    read_exact(&mut stream, &mut second).await?;
    noise.read_message(&second, &mut []).map_err(|_| Refusal::WrongKey)?;
    let mut session = Session::new(stream, noise)?;
    session.to.send(PING).await?;
    Ok(session)
}

/// Finds out which of `known` is there; the number is its place among them.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    identity: &Identity,
    known: &[Peer],
) -> Result<(usize, Session<S>), End> {
    let (number, mut noise) = match greet(&mut stream, identity, known).await {
        Ok(greeted) => greeted,
        Err(End::Refused(refusal)) => {
            // Whether it hears it or not, that is why.
            let _ = timeout(FAREWELL, refuse(&mut stream, refusal)).await;
            return Err(refusal.into());
        }
        Err(end) => return Err(end),
    };
    let mut second = [WELCOME; 1 + PROOF];
    noise.write_message(&[], &mut second[1..]).map_err(|_| Refusal::WrongKey)?;
    stream.write_all(&second).await?;
    stream.flush().await?;
    let mut session = Session::new(stream, noise)?;
    let proof = session.from.message(PING.len()).await;
    match proof
        .map_err(|end| if matches!(end, End::Refused(Refusal::Forged)) { Refusal::Replayed.into() } else { end })?
    {
        ping if ping == PING => Ok((number, session)),
        _ => Err(Refusal::Malformed.into()),
    }
}

/// Reads the hello and the first message, which must fit one of the keys of the node that the hello names.
async fn greet<S: AsyncRead + Unpin>(
    stream: &mut S,
    identity: &Identity,
    known: &[Peer],
) -> Result<(usize, HandshakeState), End> {
    let mut hello = vec![0; MAGIC.len() + 2];
    read_exact(stream, &mut hello).await?;
    if !hello.starts_with(MAGIC) {
        return Err(Refusal::Foreign.into());
    }
    if hello[MAGIC.len()..] != VERSION.to_be_bytes() {
        return Err(Refusal::Version.into());
    }
    let site = read_name(stream, &mut hello).await?;
    let node = read_name(stream, &mut hello).await?;
    let mut first = [0; PROOF];
    read_exact(stream, &mut first).await?;
    if site != identity.site.as_bytes() {
        return Err(Refusal::Site.into());
    }
    let Some(number) = known.iter().position(|peer| peer.node.as_str().as_bytes() == node) else {
        return Err(Refusal::UnknownNode.into());
    };
    for key in &known[number].keys {
        let mut noise = handshake(identity, key, &hello, Side::Responder)?;
        if noise.read_message(&first, &mut []).is_ok() {
            return Ok((number, noise));
        }
    }
    Err(Refusal::WrongKey.into())
}

/// Says why not. What was not read yet would cut off what is said, so it is read.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, refusal: Refusal) -> io::Result<()> {
    let [high, low] = VERSION.to_be_bytes();
    stream.write_all(&[refusal.octet(), high, low]).await?;
    stream.shutdown().await?;
    let mut rest = [0; 512];
    for _ in 0..16 {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// A name behind its length; `hello` gets both.
async fn read_name<S: AsyncRead + Unpin>(stream: &mut S, hello: &mut Vec<u8>) -> Result<Vec<u8>, End> {
    let length = read_u8(stream).await?;
    let mut name = vec![0; usize::from(length)];
    read_exact(stream, &mut name).await?;
    hello.push(length);
    hello.extend_from_slice(&name);
    Ok(name)
}

fn hello(identity: &Identity) -> Result<Vec<u8>, End> {
    let mut hello = MAGIC.to_vec();
    hello.extend(VERSION.to_be_bytes());
    for name in [identity.site.as_bytes(), identity.node.as_str().as_bytes()] {
        // The site file allows no longer ones.
        hello.push(u8::try_from(name.len()).map_err(|_| Refusal::Malformed)?);
        hello.extend_from_slice(name);
    }
    Ok(hello)
}

#[derive(Clone, Copy)]
enum Side {
    Initiator,
    Responder,
}

/// The beginning of a handshake. A key that is none fits nobody.
fn handshake(identity: &Identity, key: &PeerKey, hello: &[u8], side: Side) -> Result<HandshakeState, End> {
    let pattern = match key.preshared {
        Some(_) => "Noise_KKpsk0_25519_ChaChaPoly_BLAKE2s",
        None => "Noise_KK_25519_ChaChaPoly_BLAKE2s",
    };
    let params: NoiseParams = pattern.parse().expect("a pattern of Noise");
    // Exposed to the handshake, which proves that we have them.
    let preshared: Option<&[u8; 32]> = key.preshared.as_ref().and_then(|key| key.secret().expose().try_into().ok());
    let built = || {
        let mut builder = Builder::new(params)
            .prologue(hello)?
            .local_private_key(identity.private.secret().expose())?
            .remote_public_key(key.public.octets())?;
        if let Some(preshared) = preshared {
            builder = builder.psk(0, preshared)?;
        }
        match side {
            Side::Initiator => builder.build_initiator(),
            Side::Responder => builder.build_responder(),
        }
    };
    built().map_err(|_| Refusal::WrongKey.into())
}

/// Speaks.
pub(super) struct Sender<S> {
    stream: WriteHalf<S>,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    open: Vec<u8>,
    sealed: Vec<u8>,
}

impl<S: AsyncWrite> Sender<S> {
    /// Says one thing. Who does not listen for [`DEAD`] is gone.
    pub async fn send(&mut self, text: &[u8]) -> Result<(), End> {
        let mut chunks = text.chunks(MAX_CHUNK).peekable();
        while let Some(chunk) = chunks.next() {
            self.open.clear();
            self.open.push(if chunks.peek().is_some() { MORE } else { LAST });
            self.open.extend_from_slice(chunk);
            let sealed = self.noise.write_message(self.nonce, &self.open, &mut self.sealed[2..]);
            let length = sealed.map_err(|_| Refusal::Forged)?;
            self.nonce += 1;
            self.sealed[..2].copy_from_slice(&u16::try_from(length).map_err(|_| Refusal::Forged)?.to_be_bytes());
            let written = async {
                self.stream.write_all(&self.sealed[..2 + length]).await?;
                self.stream.flush().await
            };
            timeout(DEAD, written).await.map_err(|_| Refusal::Silent)??;
        }
        Ok(())
    }
}

/// Listens.
pub(super) struct Receiver<S> {
    stream: ReadHalf<S>,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    open: Vec<u8>,
    sealed: Vec<u8>,
}

impl<S: AsyncRead> Receiver<S> {
    /// Hears one thing of at most `limit` octets. Who says nothing for [`DEAD`] is gone.
    pub async fn message(&mut self, limit: usize) -> Result<Vec<u8>, End> {
        let mut text = Vec::new();
        loop {
            let length = timeout(DEAD, self.frame()).await.map_err(|_| Refusal::Silent)??;
            let Some((kind, chunk)) = self.open[..length].split_first() else { return Err(Refusal::Malformed.into()) };
            if text.len() + chunk.len() > limit {
                return Err(Refusal::TooLarge.into());
            }
            text.extend_from_slice(chunk);
            match *kind {
                LAST => return Ok(text),
                // Without octets one could go on for ever.
                MORE if !chunk.is_empty() => {}
                _ => return Err(Refusal::Malformed.into()),
            }
        }
    }

    async fn frame(&mut self) -> Result<usize, End> {
        let mut first = [0];
        if self.stream.read(&mut first).await? == 0 {
            return Err(End::Closed);
        }
        let length = usize::from(u16::from_be_bytes([first[0], read_u8(&mut self.stream).await?]));
        let sealed = &mut self.sealed[..length];
        read_exact(&mut self.stream, sealed).await?;
        let opened = self.noise.read_message(self.nonce, sealed, &mut self.open);
        self.nonce += 1;
        opened.map_err(|_| Refusal::Forged.into())
    }
}

async fn read_u8<S: AsyncRead + Unpin>(stream: &mut S) -> Result<u8, End> {
    let mut octet = [0];
    read_exact(stream, &mut octet).await?;
    Ok(octet[0])
}

async fn read_exact<S: AsyncRead + Unpin>(stream: &mut S, octets: &mut [u8]) -> Result<(), End> {
    match stream.read_exact(octets).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Refusal::Truncated.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use dualgate_core::model::NodeName;
    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex};
    use tokio::runtime::Builder;

    use super::*;
    use crate::keys::Key;

    /// Home and edge, who know each other.
    fn pair() -> (Identity, PeerKey, Identity, Vec<Peer>) {
        let identity = |node: &str| {
            let private = Key::private().unwrap();
            Identity { site: "home".into(), node: NodeName::new(node), private }
        };
        let (home, edge) = (identity("home1"), identity("edge"));
        let preshared = Key::preshared().unwrap();
        let key = |of: &Identity| PeerKey { public: of.private.public().unwrap(), preshared: Some(preshared.clone()) };
        let known = vec![Peer { node: home.node.clone(), keys: vec![key(&home)] }];
        let key = key(&edge);
        (home, key, edge, known)
    }

    /// Runs on a clock that jumps to the next deadline when there is nothing else to do.
    fn run<T>(test: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    async fn connected() -> (Session<DuplexStream>, Session<DuplexStream>) {
        let (home, key, edge, known) = pair();
        let (near, far) = duplex(4096);
        let (home, edge) = tokio::join!(dial(near, &home, &key), answer(far, &edge, &known));
        let (number, edge) = edge.unwrap_or_else(|end| panic!("{end}"));
        assert_eq!(number, 0);
        (home.unwrap_or_else(|end| panic!("{end}")), edge)
    }

    fn reason<T>(result: Result<T, End>) -> Option<Refusal> {
        match result {
            Err(End::Refused(refusal)) => Some(refusal),
            Ok(_) | Err(End::RefusedThere(_) | End::Version(_) | End::Io(_) | End::Closed) => None,
        }
    }

    #[test]
    fn what_is_said_is_heard_whatever_its_length() {
        run(async {
            let (mut home, mut edge) = connected().await;
            for length in [1, 2, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 3 * MAX_CHUNK + 7] {
                let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
                let (said, heard) = tokio::join!(home.to.send(&text), edge.from.message(length));
                said.unwrap();
                assert!(heard.unwrap() == text, "{length} octets");
                let (said, heard) = tokio::join!(edge.to.send(&text), home.from.message(length));
                said.unwrap();
                assert!(heard.unwrap() == text, "{length} octets back");
            }
        });
    }

    #[test]
    fn more_than_the_limit_is_refused_before_it_is_all_there() {
        run(async {
            let (mut home, mut edge) = connected().await;
            let text = vec![7; 5 * MAX_CHUNK];
            let (_, heard) = tokio::join!(timeout(DEAD, home.to.send(&text)), async {
                let heard = edge.from.message(2 * MAX_CHUNK).await;
                drop(edge);
                heard
            });
            assert_eq!(reason(heard), Some(Refusal::TooLarge));
        });
    }

    #[test]
    fn frames_that_say_nothing_and_never_end_are_refused() {
        run(async {
            for open in [&[MORE][..], &[], &[2, 7]] {
                let (mut home, mut edge) = connected().await;
                let length = home.to.noise.write_message(home.to.nonce, open, &mut home.to.sealed[2..]).unwrap();
                home.to.sealed[..2].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
                home.to.stream.write_all(&home.to.sealed[..2 + length]).await.unwrap();
                assert_eq!(reason(edge.from.message(10).await), Some(Refusal::Malformed), "{open:?}");
            }
        });
    }

    #[test]
    fn frames_out_of_order_repeated_or_cut_off_are_refused() {
        run(async {
            let (mut home, mut edge) = connected().await;
            home.to.nonce += 1;
            home.to.send(b"after one that never came").await.unwrap();
            assert_eq!(reason(edge.from.message(100).await), Some(Refusal::Forged));

            let (mut home, mut edge) = connected().await;
            home.to.send(b"once").await.unwrap();
            assert_eq!(edge.from.message(100).await.unwrap(), b"once");
            home.to.nonce -= 1;
            home.to.send(b"once").await.unwrap();
            assert_eq!(reason(edge.from.message(100).await), Some(Refusal::Forged));

            let (mut home, mut edge) = connected().await;
            home.to.stream.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
            home.to.stream.shutdown().await.unwrap();
            assert_eq!(reason(edge.from.message(100).await), Some(Refusal::Truncated));

            let (home, mut edge) = connected().await;
            drop(home);
            assert!(matches!(edge.from.message(100).await, Err(End::Closed)));
        });
    }

    #[test]
    fn whoever_says_or_takes_nothing_is_given_up() {
        run(async {
            let (mut home, mut edge) = connected().await;
            assert_eq!(reason(edge.from.message(100).await), Some(Refusal::Silent));
            assert_eq!(reason(home.to.send(&vec![7; 100_000]).await), Some(Refusal::Silent));
        });
    }

    #[test]
    fn a_home_that_speaks_to_another_edge_says_so() {
        run(async {
            let (home, key, edge, known) = pair();
            let other = Identity { private: Key::private().unwrap(), ..edge };
            let (near, far) = duplex(4096);
            let (dialled, answered) = tokio::join!(dial(near, &home, &key), answer(far, &other, &known));
            assert_eq!(reason(answered), Some(Refusal::WrongKey));
            assert!(matches!(dialled, Err(End::RefusedThere(Refusal::WrongKey))));
        });
    }

    /// What home says until it is known.
    async fn greeting(home: &Identity, key: &PeerKey) -> Vec<u8> {
        let (near, mut far) = duplex(4096);
        let dialled = dial(near, home, key);
        let said = async {
            let mut said = vec![0; MAGIC.len() + 2 + 1 + 4 + 1 + 5 + PROOF];
            far.read_exact(&mut said).await.unwrap();
            drop(far);
            said
        };
        tokio::join!(dialled, said).1
    }

    async fn answered_to(said: &[u8], edge: &Identity, known: &[Peer]) -> Result<(usize, Session<DuplexStream>), End> {
        let (mut near, far) = duplex(1 << 20);
        near.write_all(said).await.unwrap();
        near.shutdown().await.unwrap();
        answer(far, edge, known).await
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_said_first_proves_nothing_and_ends(said in prop::collection::vec(any::<u8>(), 0..300)) {
            let (_, _, edge, known) = pair();
            let behind_magic = [MAGIC.as_slice(), &VERSION.to_be_bytes(), &said].concat();
            for said in [said, behind_magic] {
                prop_assert!(run(answered_to(&said, &edge, &known)).is_err());
            }
        }

        #[test]
        fn a_greeting_with_one_octet_changed_proves_nothing(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let (home, key, edge, known) = pair();
            let refused = run(async {
                let mut said = greeting(&home, &key).await;
                let at = at.index(said.len());
                said[at] ^= by;
                reason(answered_to(&said, &edge, &known).await).map(|refusal| (at, refusal))
            });
            let proof = MAGIC.len() + 2 + 1 + 4 + 1 + 5;
            match refused {
                Some((0..8, Refusal::Foreign) | (8..10, Refusal::Version)) => {}
                // A length, and with it what is behind.
                Some((10 | 15, Refusal::Truncated | Refusal::Site | Refusal::UnknownNode)) => {}
                Some((11..15, Refusal::Site) | (16..21, Refusal::UnknownNode)) => {}
                Some((at, Refusal::WrongKey)) if at >= proof => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn whatever_frames_are_made_of_nothing_is_heard(said in prop::collection::vec(any::<u8>(), 1..300)) {
            let heard = run(async {
                let (mut home, mut edge) = connected().await;
                home.to.stream.write_all(&said).await.unwrap();
                home.to.stream.shutdown().await.unwrap();
                edge.from.message(1000).await
            });
            prop_assert!(heard.is_err());
        }
    }
}
