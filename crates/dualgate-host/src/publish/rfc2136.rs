//! A name server that takes changes (RFC 2136): the zone is read by a transfer, changes are messages that are all or nothing,
//! both over TCP and signed (RFC 8945). The server's answers are believed only with its signature.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dualgate_core::plan::publish::{Change, Publication, Set, SetKey, Sets};
use dualgate_wire::dns::tsig::{Algorithm, Key, TsigError, Verifier, sign};
use dualgate_wire::dns::update::{Update, Verdict, transfer};
use dualgate_wire::dns::{BadMessage, Class, Name, Rdata, RecordType, records};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Applied, Failure, Provider, There};

/// How long a server may take to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Changes of one message; each has a few records.
const CHANGES: usize = 50;
/// Octets of one message, below the 65,535 that fit.
const OCTETS: usize = 32 << 10;
/// Octets of a whole zone.
const ZONE: usize = 64 << 20;

/// Makes digests with a secret that nobody else sees.
type Digest = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A name server, and the key that it knows.
pub struct Rfc2136 {
    server: SocketAddr,
    key: Key<Digest>,
}

impl fmt::Debug for Rfc2136 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rfc2136({}, {:?})", self.server, self.key)
    }
}

impl Rfc2136 {
    /// Reads the key's secret.
    pub fn open(server: SocketAddr, name: Name, algorithm: Algorithm, secret_file: &str) -> Result<Self, Failure> {
        let help = "write the TSIG key's secret there, in base64";
        let text = fs::read_to_string(secret_file)
            .map_err(|error| Failure::new(format!("read `{secret_file}`: {error}"), help))?;
        let secret = STANDARD.decode(text.trim()).ok().filter(|secret| !secret.is_empty());
        let secret = secret.ok_or_else(|| Failure::new(format!("`{secret_file}` holds no base64"), help))?;
        let kind = match algorithm {
            Algorithm::HmacSha256 => hmac::HMAC_SHA256,
            Algorithm::HmacSha384 => hmac::HMAC_SHA384,
            Algorithm::HmacSha512 => hmac::HMAC_SHA512,
        };
        let secret = hmac::Key::new(kind, &secret);
        let digest: Digest = Box::new(move |octets| hmac::sign(&secret, octets).as_ref().to_vec());
        Ok(Self { server, key: Key { name, algorithm, digest } })
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let help = "see whether the name server runs, listens on TCP and is reached from here";
        let failed = |why: &dyn fmt::Display| Failure::new(format!("connect to {}: {why}", self.server), help);
        match timeout(CONNECT, TcpStream::connect(self.server)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&format!("no answer within {} s", CONNECT.as_secs()))),
        }
    }

    async fn send(&self, stream: &mut TcpStream, message: &[u8]) -> Result<(), Failure> {
        let length = u16::try_from(message.len()).map_err(|_| self.broken(&"a change does not fit into a message"))?;
        let framed = [&length.to_be_bytes(), message].concat();
        stream.write_all(&framed).await.map_err(|error| self.broken(&error))
    }

    async fn receive(&self, stream: &mut TcpStream) -> Result<Vec<u8>, Failure> {
        let length = stream.read_u16().await.map_err(|error| self.ended(&error))?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.map_err(|error| self.ended(&error))?;
        Ok(message)
    }

    fn broken(&self, why: &dyn fmt::Display) -> Failure {
        Failure::new(format!("{}: {why}", self.server), "it is tried again")
    }

    fn ended(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.broken(&"the connection ended before the answer"),
            _ => self.broken(error),
        }
    }

    /// What a server says that it will not do.
    fn refused(&self, verdict: Verdict, what: &str) -> Failure {
        let key = &self.key.name;
        let help = match verdict {
            Verdict::NOT_AUTH => {
                format!("see whether {} serves the zone and lets the key `{key}` {what} it", self.server)
            }
            Verdict(5) => format!("let the key `{key}` {what} the zone at {}", self.server),
            _ => "see the log of the name server".to_owned(),
        };
        // The others are about the server or the key, and not about what was asked.
        let is_refusal = ![Verdict::NOT_AUTH, Verdict::SERV_FAIL].contains(&verdict);
        Failure { is_refusal, ..Failure::new(format!("{} answers {verdict}", self.server), help) }
    }

    fn not_believed(&self, error: TsigError) -> Failure {
        let help = match error {
            TsigError::BadKey => {
                format!("add the key `{}` ({}) there, or correct its name", self.key.name, self.key.algorithm)
            }
            TsigError::BadSignature | TsigError::Forged => "give both sides the same secret".to_owned(),
            TsigError::BadTime | TsigError::Time => "set both clocks".to_owned(),
            TsigError::Message(_) | TsigError::Unsigned | TsigError::Long => {
                "see whether it is the right server".to_owned()
            }
        };
        Failure::new(format!("{}: {error}", self.server), help)
    }

    /// Checks the signature of the next message of an answer. What is refused is often not signed.
    fn check(
        &self,
        verifier: &mut Verifier<'_, Digest>,
        message: &[u8],
        verdict: Verdict,
        what: &str,
    ) -> Result<(), Failure> {
        match verifier.message(message, now()) {
            Ok(()) if verdict == Verdict::NO_ERROR || verdict.is_outdated() => Ok(()),
            Ok(()) => Err(self.refused(verdict, what)),
            Err(TsigError::Unsigned) if verdict != Verdict::NO_ERROR => Err(self.refused(verdict, what)),
            Err(error) => Err(self.not_believed(error)),
        }
    }

    async fn transfer(&self, zone: &Name) -> Result<Sets, Failure> {
        let mut stream = self.connect().await?;
        let mut request = transfer(number()?, zone);
        let digest = sign(&mut request, &self.key, now());
        self.send(&mut stream, &request).await?;
        let mut verifier = Verifier::new(&self.key, &digest);
        let (mut sets, mut starts, mut octets) = (Sets::new(), 0, 0);
        while starts < 2 {
            let message = self.receive(&mut stream).await?;
            octets += message.len();
            if octets > ZONE {
                return Err(self.broken(&"the zone is too large"));
            }
            let verdict = Verdict::of(&request, &message).ok_or_else(|| self.broken(&"it answers something else"))?;
            self.check(&mut verifier, &message, verdict, "transfer")?;
            if verdict != Verdict::NO_ERROR {
                return Err(self.refused(verdict, "transfer"));
            }
            collect(&message, &mut sets, &mut starts).map_err(|error| self.broken(&error))?;
        }
        verifier.end().map_err(|error| self.not_believed(error))?;
        Ok(sets)
    }

    async fn update(&self, update: Update) -> Result<Verdict, Failure> {
        let mut stream = self.connect().await?;
        let mut request = update.finish(number()?);
        let digest = sign(&mut request, &self.key, now());
        self.send(&mut stream, &request).await?;
        let answer = self.receive(&mut stream).await?;
        let verdict = Verdict::of(&request, &answer).ok_or_else(|| self.broken(&"it answers something else"))?;
        self.check(&mut Verifier::new(&self.key, &digest), &answer, verdict, "update")?;
        Ok(verdict)
    }
}

impl Provider for Rfc2136 {
    async fn read(&self, publication: &Publication) -> Result<There, Failure> {
        let read = timeout(EXCHANGE, self.transfer(&publication.at)).await;
        let late = || Err(self.broken(&format!("no whole zone within {} s", EXCHANGE.as_secs())));
        Ok(There { sets: read.unwrap_or_else(|_| late())?, fit: Box::new(|_, set| Some(set.clone())) })
    }

    async fn apply(&self, publication: &Publication, changes: &[Change]) -> Result<Applied, Failure> {
        let mut done = 0;
        while done < changes.len() {
            let (update, count) = message(&publication.at, &changes[done..]);
            let answered = timeout(EXCHANGE, self.update(update)).await;
            let late = || Err(self.broken(&format!("no answer within {} s", EXCHANGE.as_secs())));
            match answered.unwrap_or_else(|_| late()) {
                Ok(verdict) if verdict.is_outdated() => return Ok(Applied::Part(done)),
                Ok(_) => done += count,
                Err(failure) if failure.is_refusal && done > 0 => return Ok(Applied::Part(done)),
                Err(failure) => return Err(failure.during(&changes[done].record.key)),
            }
        }
        Ok(Applied::All)
    }
}

/// As many changes as one message takes, each with what is believed of the zone: whatever another one has changed meanwhile,
/// the server refuses the message.
fn message(zone: &Name, changes: &[Change]) -> (Update, usize) {
    let mut update = Update::new(zone.clone());
    let mut touched: BTreeSet<&SetKey> = BTreeSet::new();
    let mut count = 0;
    for change in changes.iter().take(CHANGES) {
        if count > 0 && update.len() > OCTETS {
            break;
        }
        for edit in std::iter::once(&change.record).chain(&change.marks) {
            let SetKey { name, rtype } = &edit.key;
            match &edit.before {
                Some(set) => update.only_if_set(name, &set.data),
                None => update.only_if_absent(name, *rtype),
            }
            let cname = SetKey::new(name.clone(), RecordType::CNAME);
            if edit.before.is_none() && *rtype != RecordType::CNAME && !touched.contains(&cname) {
                update.only_if_absent(name, RecordType::CNAME);
            }
            touched.insert(&edit.key);
        }
        for edit in change.edits() {
            let SetKey { name, rtype } = &edit.key;
            if edit.before.is_some() {
                update.delete_set(name, *rtype);
            }
            for (set, data) in edit.after.iter().flat_map(|set| set.data.iter().map(move |data| (set, data))) {
                update.add(name, set.ttl, data);
            }
        }
        count += 1;
    }
    (update, count)
}

/// Adds the records of one message; the zone's start stands at the beginning and at the end.
fn collect(message: &[u8], sets: &mut Sets, starts: &mut usize) -> Result<(), BadMessage> {
    for record in records(message)? {
        let record = record?;
        if record.section != 1 || record.class != Class::IN {
            continue;
        }
        if record.rtype == RecordType::SOA {
            *starts += 1;
        }
        if *starts != 1 {
            // Before the start there is nothing, after the end neither.
            if *starts == 0 { return Err(BadMessage) } else { break }
        }
        let key = SetKey::new(record.name()?, record.rtype);
        let set = sets.entry(key).or_insert_with(|| Set { ttl: record.ttl, data: BTreeSet::new() });
        set.ttl = set.ttl.min(record.ttl);
        set.data.insert(Rdata::decode(&record)?);
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A number for a message that nobody can guess.
fn number() -> Result<u16, Failure> {
    let mut octets = [0; 2];
    rand::fill(&mut octets).map_err(|_| Failure::new("the system has no random numbers", "it is tried again"))?;
    Ok(u16::from_be_bytes(octets))
}
